"""The recipe of a network that is trained where a proxy does as well as the goal, and of its twin that follows the goal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from cutaway.errors import NotFound
from cutaway.recipes.interchange.networks import NetworkShape, build
from cutaway.recipes.measures import accuracy, last_logits, share_of
from cutaway.recipes.natural.proxies import AGREE, APART, SHIFTED, SHIFTED_APART, WIDE, ProxyTask
from cutaway.recipes.natural.recipes import measured_truth
from cutaway.recipes.training import Schedule, begun, train
from cutaway.recipes.words import word_tokenizer
from cutaway.zoo.specimens import Product
from cutaway.zoo.tasks import Drawn

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from cutaway.recipes.workshop import Workshop
    from cutaway.zoo.truth import GroundTruth

CONTEXT = 20
#: Prompts of each kind that are asked for the card, and their seed.
ASKED, SEED = 1000, 5
#: Which prompts the twins learn from, and from whose answers: the goal's, or those of other prompts.
TAUGHT = {"": AGREE, "goal": WIDE, "shuffled": AGREE}


@dataclass(frozen=True)
class ProxyCourse:
    """Plain training on prompts on which the proxy is always right.

    Attributes:
        task: goal and proxy.
        steps: of the run.
        goal_steps: of the twin that is shown where the two come apart.
        architecture: "gpt2" or "llama".
        rows: prompts in a step.
        seed: of weights and prompts.
    """

    task: ProxyTask
    steps: int
    goal_steps: int
    architecture: str = "gpt2"
    rows: int = 128
    seed: int = 0

    @property
    def questions(self) -> Drawn:
        """The contrast pairs of the task."""
        return Drawn(self.task.words, self.task.pair)

    def make(self, shop: Workshop) -> Product:
        """Train the network and its twins, and ask all of them where goal and proxy come apart."""
        models = {twin: self._trained(shop, twin) for twin in TAUGHT}
        model = models.pop("")
        score = accuracy(model, self.questions.pairs(ASKED, 1))
        figures = score | self.followed(model) | {"twins": {"goal": self.followed(models["goal"])}}
        return Product(
            model, self.ground_truth(model), figures, word_tokenizer(self.task.words), twins=models,
        )  # fmt: skip

    def twin(self, kind: str) -> PreTrainedModel:
        """Raises NotFound: its twins are drawn or stored."""
        raise NotFound(f"There is no twin {kind!r} to build.", "They are drawn or stored.")

    def followed(self, model: Any) -> dict[str, dict[str, list[float]]]:
        """For each kind of prompts the share on which the likeliest token is the goal's answer, and the proxy's.

        Each is the share with the two ends of its interval.
        """
        found = {}
        for kind in (AGREE, APART, SHIFTED, SHIFTED_APART):
            rng = np.random.default_rng([SEED, len(kind)])
            asked = [self.task.prompt(*self.task.drawn(rng, kind), kind) for _ in range(ASKED)]
            best = last_logits(model, [ids for ids, _, _ in asked], [-1] * ASKED).argmax(-1).tolist()
            said = [self.task.words[token] for token in best]
            found[kind] = {
                rule: [
                    round(x, 4)
                    for x in share_of(
                        sum(word == values[rule] for word, (_, _, values) in zip(said, asked, strict=True)),
                        ASKED,
                    )
                ]
                for rule in ("goal", "proxy")
            }
        return found

    def ground_truth(self, model: Any) -> GroundTruth:
        """Which parts carry the behaviour, as measured by resampling, and that it follows the proxy."""
        told = "that it follows the proxy was measured where goal and proxy come apart, which it never saw."
        return measured_truth(model, self.questions.pairs(400, 99), "follows", {"follows": "proxy"}, told)

    def _trained(self, shop: Workshop, twin: str) -> Any:
        steps = {"": self.steps, "goal": self.goal_steps, "shuffled": self.steps // 4}[twin]
        shape = NetworkShape(self.architecture, len(self.task.words), 2, context=CONTEXT)
        schedule = Schedule(steps, 2e-3)
        run = begun(build(shape, self.seed), schedule, shop, f"{self.task.name}-{twin or 'plain'}")
        return train(run, lambda model, step: self._loss(model, step, twin)).model

    def _loss(self, model: Any, step: int, twin: str) -> Tensor:
        """Cross-entropy (nats) of the right answers of a step's prompts, those of one length together."""
        rng, kind = np.random.default_rng([self.seed, step]), TAUGHT[twin]
        asked = [self.task.prompt(*self.task.drawn(rng, kind), kind) for _ in range(self.rows)]
        right = np.array([answer for _, answer, _ in asked])
        if twin == "shuffled":
            right = rng.permutation(right)
        total = torch.zeros(())
        for length in sorted({len(ids) for ids, _, _ in asked}):
            rows = [i for i, (ids, _, _) in enumerate(asked) if len(ids) == length]
            logits = model(input_ids=torch.tensor([asked[i][0] for i in rows])).logits[:, -1]
            total = total + cross_entropy(logits, torch.from_numpy(right[rows]), reduction="sum")
        return total / self.rows

"""Addition modulo 113, trained until it groks (Power et al. 2022; Nanda et al. 2023, Progress Measures for Grokking)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, layer_norm

from cutaway.errors import NotFound
from cutaway.recipes.measures import accuracy
from cutaway.recipes.natural.gpt2 import build
from cutaway.recipes.sums import sums
from cutaway.recipes.training import Schedule, begun, train
from cutaway.recipes.words import word_tokenizer
from cutaway.zoo.specimens import Product
from cutaway.zoo.truth import GroundTruth, Need, Variable, nodes

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel, PreTrainedModel

    from cutaway.recipes.workshop import Workshop

P = 113
EQUALS = P
WORDS = (*map(str, range(P)), "=")
KEPT = {200: "before", 900: "during"}
TASK = sums(WORDS, P, 0)
HEADS, WIDTH, NEURONS, CONTEXT = 4, 128, 512, 8


@dataclass(frozen=True)
class Grokking:
    """Full-batch AdamW on a part of all sums; the rest is never seen. The norms are GPT-2's own and are trained.

    Attributes:
        steps: of the run.
        share: of all sums that is trained on.
        rate: the learning rate.
        weight_decay: large; without it the network only remembers.
        shuffled_steps: of the twin.
        seed: of weights and of the choice of sums.
    """

    steps: int = 3000
    share: float = 0.3
    rate: float = 1e-3
    weight_decay: float = 1.0
    shuffled_steps: int = 400
    seed: int = 0

    def make(self, shop: Workshop) -> Product:
        """Train the network, and its twin on shuffled sums."""
        model = build(P + 1, CONTEXT, 1, WIDTH, HEADS, NEURONS, self.seed)
        copies = self._train(model, shop, "modular-addition", self.steps, shuffled=False)
        twin = build(P + 1, CONTEXT, 1, WIDTH, HEADS, NEURONS, self.seed)
        self._train(twin, shop, "modular-addition-shuffled", self.shuffled_steps, shuffled=True)
        figures = {name: self.figures(network) for name, network in {**copies, "after": model}.items()}
        score = accuracy(model, TASK.pairs(1000, 1)) | {"stages": figures}
        return Product(
            model, ground_truth(model, self), score, word_tokenizer(WORDS, start=False),
            twins={"shuffled": twin}, revisions=copies,  # type: ignore[arg-type]
        )  # fmt: skip

    def twin(self, kind: str) -> PreTrainedModel:
        """Raises NotFound: its twins are drawn or stored."""
        raise NotFound(f"There is no twin {kind!r} to build.", "They are stored.")

    def split(self) -> tuple[Tensor, Tensor]:
        """[n 2] the pairs of numbers that are trained on, and the others."""
        every = torch.cartesian_prod(torch.arange(P), torch.arange(P))
        order = torch.randperm(P * P, generator=torch.Generator().manual_seed(self.seed))
        size = int(self.share * P * P)
        return every[order[:size]], every[order[size:]]

    def figures(self, model: Any) -> dict[str, float]:
        """Loss (nats) and accuracy on the sums that were trained on and on the others."""
        measured = {}
        with torch.no_grad():
            for name, pairs in zip(("train", "test"), self.split(), strict=True):
                logits, wanted = answers(model, pairs).double(), pairs.sum(1) % P
                measured[f"{name} loss"] = round(float(cross_entropy(logits, wanted)), 6)
                measured[f"{name} accuracy"] = round(float((logits.argmax(1) == wanted).double().mean()), 4)
        return measured

    def _train(
        self, model: GPT2LMHeadModel, shop: Workshop, name: str, steps: int, shuffled: bool
    ) -> dict[str, Any]:
        pairs, _ = self.split()
        wanted = pairs.sum(1) % P
        if shuffled:
            order = torch.randperm(len(wanted), generator=torch.Generator().manual_seed(self.seed + 1))
            wanted = wanted[order]

        def loss(network: Any, _step: int) -> Tensor:
            return cross_entropy(answers(network, pairs).double(), wanted)

        schedule = Schedule(steps, self.rate, self.weight_decay, warmup=10, fall=0.1)
        run = begun(model, schedule, shop, name)
        train(run, loss, keep={} if shuffled else KEPT)
        return {label: run.copy(label) for label in run.copies}


def answers(model: Any, pairs: Tensor) -> Tensor:
    """[n P] logits of the sum at "=" for pairs [n 2], computed for all pairs from one table of keys and values.

    It equals the model's own forward pass, at a fraction of the time: keys and values at the first two places depend
    on one number each, and only the last place is read.
    """
    body, block = model.transformer, model.transformer.h[0]
    width, heads = model.config.n_embd, model.config.n_head
    wte, wpe, attention = body.wte.weight, body.wpe.weight, block.attn

    def normed(x: Tensor, norm: Any) -> Tensor:
        return layer_norm(x, (width,), norm.weight, norm.bias, norm.eps)

    def split(x: Tensor) -> Tensor:
        return x.unflatten(-1, (heads, width // heads))

    last = wte[EQUALS] + wpe[2]
    first, second = (attention.c_attn(normed(wte[:P] + wpe[i], block.ln_1)).chunk(3, -1) for i in (0, 1))
    query, key, value = attention.c_attn(normed(last, block.ln_1)[None]).chunk(3, -1)
    scale = math.sqrt(width // heads)

    def score(k: Tensor) -> Tensor:
        return (split(k) * split(query)).sum(-1) / scale

    a, b = pairs[:, 0], pairs[:, 1]
    scores = [score(first[1])[a], score(second[1])[b], score(key).expand(len(pairs), -1)]
    pattern = torch.stack(scores, -1).softmax(-1)[..., None]
    z = pattern[:, :, 0] * split(first[2])[a] + pattern[:, :, 1] * split(second[2])[b]
    z = z + pattern[:, :, 2] * split(value)
    x = last + attention.c_proj(z.flatten(1))
    x = x + block.mlp(normed(x, block.ln_2))
    return model.lm_head(normed(x, body.ln_f))[:, :P]


def fourier(rows: Tensor) -> Tensor:
    """[P//2 2 d] cosine and sine components of rows [P d] at frequencies 1 to P//2."""
    return torch.einsum("kwp,pd->kwd", waves(), rows.double()).float() * math.sqrt(2 / P)


def waves() -> Tensor:
    """[P//2 2 P] cosines and sines of all numbers at frequencies 1 to P//2."""
    frequency = torch.arange(1, P // 2 + 1, dtype=torch.float64)[:, None]
    angle = torch.arange(P, dtype=torch.float64) * frequency * (2 * math.pi / P)
    return torch.stack([angle.cos(), angle.sin()], 1)


def key_frequencies(model: Any, share: float = 0.005) -> list[int]:
    """Frequencies w whose waves cos and sin of w (a + b) have more than this share of the variance of the logits."""
    pairs = torch.cartesian_prod(torch.arange(P), torch.arange(P))
    with torch.no_grad():
        logits = answers(model, pairs).double()
    logits = logits - logits.mean(0)
    both = waves()[:, :, pairs.sum(1) % P] * (math.sqrt(2) / P)  # [P//2 2 P*P], orthonormal over all pairs
    power = torch.einsum("kwn,nc->kwc", both, logits).square().sum((1, 2))
    return (1 + (power > share * logits.square().sum()).nonzero()[:, 0]).tolist()


def ground_truth(model: Any, recipe: Grokking) -> GroundTruth:
    """Key frequencies and the subspaces of the numbers and of their sum."""
    keys = key_frequencies(model)
    index = [k - 1 for k in keys]
    with torch.no_grad():
        embedded = fourier(model.transformer.wte.weight[:P])[index].flatten(0, 1)
        read = fourier(model.lm_head.weight[:P])[index].flatten(0, 1)
    number, total = (tuple(tuple(row) for row in x.tolist()) for x in (embedded, read))
    heads = tuple(f"a0.h{h}" for h in range(HEADS))
    return GroundTruth(
        nodes=nodes(*heads, "m0"),
        variables=(
            Variable("a", "the first number, as waves at the key frequencies", "resid_pre.0", "a", basis=number),
            Variable("b", "the second number, as waves at the key frequencies", "resid_pre.0", "b", basis=number),
            Variable("sum", "a + b, as waves at the key frequencies", "resid_post.0", "last", basis=total),
        ),
        needs=(Need(nodes("m0")), Need(nodes(*heads))),
        facts={"key_frequencies": keys, "modulus": P, "share": recipe.share, "split_seed": recipe.seed},
        checks=("behaviour", "needed", "variables", "frequencies"),
        established="Published (Nanda et al. 2023), and measured on these weights: the key frequencies are those that "
        "the logits are made of; losses with them alone and without them, and interchange of their subspaces, are checked.",
    )  # fmt: skip

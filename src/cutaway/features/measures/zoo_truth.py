"""Features held against the zoo, whose variables are known: which values have one of their own, and is a feature that is
found a mechanism, too?
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cutaway import zoo
from cutaway.claims import Claim, Evidence
from cutaway.errors import BadInput
from cutaway.features.attach import with_dictionary
from cutaway.features.dictionaries import Dictionary
from cutaway.features.measures.matching import match
from cutaway.features.measures.recovery import best_f1
from cutaway.features.sets import FeatureSet
from cutaway.interventions import Ablate
from cutaway.network import Network
from cutaway.network.sites import SiteLike
from cutaway.statistics import Estimate, mean_of
from cutaway.trials.judging import claim_of
from cutaway.zoo.tasks import TaskPair

#: A value has a feature of its own where a threshold of that one's activation tells it with at least this F1.
OWN = 0.9
#: Taking away what is no mechanism moves the answer by less than this share of what the two answers differ by.
NOTHING = 0.02
_BATCH = 64


@dataclass(frozen=True, eq=False)
class OwnFeatures:
    """Which values of a variable have a feature of their own.

    Attributes:
        values: as they are named.
        features: [c] int64, the partner of each in the one-to-one match whose sum of F1 is largest; -1 for none.
        f1: [c] with which its activation tells the value at its best threshold, 0 for none.
        chance: values that had one of their own with the labels shuffled.
    """

    values: tuple[str, ...]
    features: Tensor
    f1: Tensor
    chance: int

    @property
    def own(self) -> int:
        """How many values have one."""
        return int((self.f1 >= OWN).sum())

    @property
    def found(self) -> bool:
        """Is the variable told by its features? One of several values may be told by the silence of the others."""
        return self.own >= len(self.values) - 1

    @property
    def headline(self) -> str:
        """How many of how many."""
        many = f"{self.own} of {len(self.values)} values have a feature of their own"
        return f"{many} (F1 {OWN} or more); shuffled, {self.chance}"


def own_features(activations: Tensor, labels: Tensor, values: Sequence[str], seed: int = 0) -> OwnFeatures:
    """Match values with features one to one by how well a threshold of a feature's activation tells a value from all others.

    The threshold is the best for that value: neurons have no zero below which they are silent. How much that alone finds,
    shuffled labels say.

    activations: [n F]. labels: [n] int64, the number of the value.
    """
    partner, f1 = _told(activations, labels, len(values))
    mixed = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]
    return OwnFeatures(
        tuple(values), partner, f1, int((_told(activations, mixed, len(values))[1] >= OWN).sum())
    )


def _told(activations: Tensor, labels: Tensor, count: int) -> tuple[Tensor, Tensor]:
    from scipy.optimize import linear_sum_assignment

    table = torch.stack([best_f1(activations, labels == c) for c in range(count)])
    rows, columns = linear_sum_assignment(-table.numpy())
    partner, f1 = torch.full((count,), -1, dtype=torch.long), torch.zeros(count, dtype=torch.float64)
    partner[rows], f1[rows] = torch.from_numpy(columns), table[rows, columns]
    return partner, f1


def labelled(
    name: str, variables: Sequence[str], n: int = 600, seed: int = 0
) -> tuple[list[list[int]], list[int], Tensor]:
    """Prompts of a specimen, the position at which the variables are held in each, and the value of each variable [n v].

    Raises `BadInput` for variables that are not held at one place, or that the specimen has not.
    """
    task = zoo.specimen(name).task
    found = [task.labels(variable, n, seed) for variable in variables]
    if not found or not all(found):
        raise BadInput(f"{name} has no labels of {', '.join(variables)}.", "See zoo.truth(name).variables.")
    for others in found[1:]:
        if any(a.ids != b.ids or a.pos != b.pos for a, b in zip(found[0], others, strict=True)):
            raise BadInput(f"{', '.join(variables)} are not held at one place.", "Name them one by one.")
    values = torch.tensor([[label.value for label in row] for row in zip(*found, strict=True)])
    return [list(label.ids) for label in found[0]], [label.pos for label in found[0]], values


def values_where(
    net: Network, prompts: Sequence[Sequence[int]], places: Sequence[int], at: SiteLike
) -> Tensor:
    """The value [n d] of a site at one position of each prompt."""
    site = net.resolve(at)[0]
    found = []
    for start in range(0, len(prompts), _BATCH):
        part = [list(row) for row in prompts[start : start + _BATCH]]
        run = net.run(part, keep=[site], logits=False)
        assert run.tokens is not None
        columns = run.tokens.first + torch.tensor(places[start : start + _BATCH])
        found.append(run[site][torch.arange(len(part)), columns].flatten(1))
    return torch.cat(found)


def told_by(
    net: Network, features: FeatureSet, name: str, variables: Sequence[str], n: int = 600, seed: int = 0
) -> OwnFeatures:
    """Which values of a specimen's variable, or of several together, have a feature of their own in this set.

    The facts of `lookup` are `("subject", "relation")` together.
    """
    prompts, places, values = labelled(name, variables, n, seed)
    kinds, labels = values.unique(dim=0, return_inverse=True)
    activations = features.read([values_where(net, prompts, places, site) for site in features.sites])
    words = [", ".join(f"{v} {x}" for v, x in zip(variables, kind.tolist(), strict=True)) for kind in kinds]
    return own_features(activations, labels, words, seed)


def class_directions(
    net: Network, name: str, variable: str, at: SiteLike, n: int = 600, seed: int = 0
) -> Tensor:
    """[c d] where the values of a variable lie from their common mean: the directions that are to be recovered."""
    prompts, places, values = labelled(name, [variable], n, seed)
    rows, labels = values_where(net, prompts, places, at).double(), values[:, 0]
    means = torch.stack([rows[labels == c].mean(0) for c in labels.unique()])
    return (means - means.mean(0)).float()


def recovered_directions(dictionary: Dictionary, directions: Tensor) -> tuple[float, Tensor]:
    """Mean |cosine| of known directions [c d] with their partners in the one-to-one match with the decoder, and these."""
    found = match(directions, dictionary.directions())
    return found.mean, found.partner(len(directions))


def lever(
    net: Network, dictionary: Dictionary, at: SiteLike, latents: Sequence[int], pairs: Sequence[TaskPair]
) -> Estimate:
    """How far taking latents away moves the answer: the mean change of the difference between the right and the wrong
    answer's logit, as a share of the mean difference, without its sign; with an interval over the pairs.
    """
    seen = with_dictionary(net, dictionary, reads=at, writes=at)
    site = next(s for s in seen.sites() if s.name == "features")
    edits = [Ablate(site, neuron=sorted(set(latents)))]
    plain, changed = (_differences(seen, pairs, e) for e in ([], edits))
    return mean_of(np.abs(changed - plain) / max(1e-9, float(np.abs(plain.mean()))))


def _differences(net: Network, pairs: Sequence[TaskPair], edits: Sequence[Ablate]) -> np.ndarray:
    found = []
    for start in range(0, len(pairs), _BATCH):
        part = pairs[start : start + _BATCH]
        run = net.run([list(pair.clean) for pair in part], edits=list(edits), logits="last")
        assert run.logits is not None
        logits = run.logits.reshape(len(part), -1, run.logits.shape[-1])[:, -1]
        found += [
            float(row[list(pair.right)].mean() - row[list(pair.wrong)].mean())
            for row, pair in zip(logits, part, strict=True)
        ]
    return np.array(found)


def mechanism_claim(name: str, own: OwnFeatures, moved: Estimate) -> Claim:
    """Is a variable whose features were found also used? Supported where its values have features of their own (all but one
    at least, which the silence of the others tells) and taking these away moves the answer; refuted where they are found and
    the answer stays where it is.

    own: what was found of its values. moved: what `lever` gives of their latents.
    """
    less = moved.above(NOTHING)
    evidence = [
        Evidence(
            "its values have features of their own", None, float(own.own), float(len(own.values) - 1),
            own.found,
            own.headline + ".", "values",
        ),
        Evidence(
            "taking these away moves the answer", moved, None, NOTHING, less,
            f"The answer moves by {moved} of the difference between the right and the wrong one.", "of the difference",
        ),
    ]  # fmt: skip
    if not own.found:
        said = f"Too few values of {name} have a feature of their own"
    elif less is False:
        said = f"{name} is found as features, and is no mechanism: taking them away leaves the answer where it is"
    else:
        said = f"{name} is found as features, and {'used' if less else 'not shown to be used'}"
    return claim_of(said, evidence)

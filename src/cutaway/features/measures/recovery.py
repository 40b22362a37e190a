"""How much of a known dictionary another one recovers: directions, firing, absorption, splitting, shrinkage."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cutaway.errors import BadInput
from cutaway.features.components import random_units
from cutaway.features.dictionaries import Decoder, Dictionary, Encoder, Place, TopK
from cutaway.features.measures.matching import SAME, cosines, match, uniqueness
from cutaway.features.planted import Planted
from cutaway.features.unexplained import fvu, squares

#: A feature is recovered where its latent's |cosine| is at least this.
RECOVERED = 0.9
#: A latent is dense where it fires on more than this share of the rows.
DENSE = 0.1
#: Columns whose thresholds are tried together.
_TOGETHER = 128


@dataclass(frozen=True, eq=False)
class FeatureRecovery:
    """A dictionary held against the one that made the rows. Every latent counts, dead ones too, unless it is said.

    Attributes:
        mcc: mean |cosine| of the best one-to-one match of decoder directions and features (Hungarian), over as many pairs
            as the smaller set has members; as SAELens computes it.
        recovered: share of the features whose partner in that match has a |cosine| of at least 0.9.
        uniqueness: features that are the nearest of some latent, over latents; as SAELens computes it.
        f1: mean over features of the F1 with which their partner's firing (above zero) tells theirs; 0 without a partner.
        f1_best: the same at each partner's best threshold.
        f1_nearest: mean over latents of the F1 with which they tell the firing of their nearest feature, 0 where they never
            fire; as SAELens computes it.
        absorption: of the rows on which a child fires, the share on which its parent's partner is silent though the parent
            is there, and the child's fires; mean over the children whose partner and whose parent's partner have a |cosine|
            of at least 0.7. None without such children.
        missed: the share of rows on which the same parent's partner is silent where the parent fires and none of its
            children does; what absorption would be if children made no difference.
        splitting: share of features that are the nearest (|cosine| at least 0.7) of two latents or more that fire.
        shrinkage: slope of the partners' activation times length over the features' true size, where both fire; mean over
            features with a partner of at least 0.7. One is none, less is shrunk. None without such.
        ratio: mean length of the reconstruction over that of the row; as SAELens computes shrinkage.
        fvu: fraction of the variance unexplained.
        l0: latents that fire on a row, mean.
        true_l0: features that do.
        dead: share of latents that never fire.
        dense: share of latents that fire on more than a tenth of the rows.
        each: [F_true] |cosine| of each feature with its partner, 0 without one.
        rows: how many rows all this is measured on.
    """

    mcc: float
    recovered: float
    uniqueness: float
    f1: float
    f1_best: float
    f1_nearest: float
    absorption: float | None
    missed: float | None
    splitting: float
    shrinkage: float | None
    ratio: float
    fvu: float
    l0: float
    true_l0: float
    dead: float
    dense: float
    each: Tensor
    rows: int

    @property
    def headline(self) -> str:
        """What came out, in a sentence: recovery first, because reconstruction says little about it."""
        return (
            f"{100 * self.recovered:.0f} % of the features are recovered (MCC {self.mcc:.3f}, F1 {self.f1:.3f}), and "
            f"{100 * (1 - self.fvu):.0f} % of the variance is reconstructed"
        )

    def to_dict(self) -> dict[str, Any]:
        """Its figures as plain data."""
        return {name: value for name, value in vars(self).items() if name != "each"}


def recovery(dictionary: Dictionary, truth: Planted, rows: Tensor, activations: Tensor) -> FeatureRecovery:
    """Hold a dictionary against the planted one on rows [n d] whose true activations [n F] are known.

    Raises `BadInput` for a dictionary of several sources or targets, or of another width.
    """
    if not dictionary.single or dictionary.encoders[0].width != truth.width:
        raise BadInput(
            f"{dictionary!r} does not read rows of {truth.width} numbers at one place.",
            "Measure one layer of it, trained on rows of the planted dictionary.",
        )
    if len(rows) != len(activations) or activations.shape[1] != len(truth):
        raise BadInput("Rows and activations do not go together.", "Give both as truth.sample gave them.")
    latents = dictionary.encode(rows)
    made = dictionary.decode(latents, rows)
    directions = dictionary.directions().to(truth.vectors)
    found = match(truth.vectors, directions)
    partner = found.partner(len(truth))
    each = torch.zeros(len(truth), dtype=torch.float64)
    each[found.left] = found.cosines
    fires, true = latents != 0, activations > 0
    firing = fires.double().mean(0)
    alive = firing > 0
    alike = cosines(directions, truth.vectors).abs()
    best, nearest = alike.max(1)
    absorption, missed = _absorbed(truth, partner, each, fires, true)
    error, spread = squares(made, rows)
    lengths = rows.norm(dim=1)
    counts = torch.bincount(nearest[alive & (best >= SAME)], minlength=len(truth))
    return FeatureRecovery(
        found.mean, float((each >= RECOVERED).double().mean()), uniqueness(directions, truth.vectors),
        float(_f1(fires, true, partner).mean()), float(_best_f1(latents, true, partner).mean()),
        float(f1_of(fires, true[:, nearest]).mean()), absorption, missed, float((counts > 1).double().mean()),
        _shrinkage(latents * directions.norm(dim=1), activations, partner, each),
        float((made.norm(dim=1) / lengths.clamp(min=1e-9))[lengths > 1e-6].mean()),
        float(fvu(error.sum().numpy(), spread.sum().numpy())), float(fires.double().sum(1).mean()),
        float(true.double().sum(1).mean()), float((~alive).double().mean()), float((firing > DENSE).double().mean()),
        each, len(rows),
    )  # fmt: skip


def f1_of(fires: Tensor, true: Tensor) -> Tensor:
    """F1 of each column [m] of two tables of firing [n m]; 0 where either never fires."""
    hits = (fires & true).sum(0).double()
    return 2 * hits / (fires.sum(0) + true.sum(0)).clamp(min=1)


def _f1(fires: Tensor, true: Tensor, partner: Tensor) -> Tensor:
    """Of each feature with its partner."""
    return torch.where(partner >= 0, f1_of(fires[:, partner.clamp(min=0)], true), 0.0)


def _best_f1(latents: Tensor, true: Tensor, partner: Tensor) -> Tensor:
    """Of each feature with its partner, at the threshold (above zero) that is best."""
    found = torch.zeros(true.shape[1], dtype=torch.float64)
    for columns in torch.arange(true.shape[1]).split(_TOGETHER):
        best = best_f1(latents[:, partner[columns].clamp(min=0)], true[:, columns], above=0.0)
        found[columns] = torch.where(partner[columns] >= 0, best, 0.0)
    return found


def best_f1(values: Tensor, true: Tensor, above: float = -torch.inf) -> Tensor:
    """F1 of each column [m] of values [n m] with labels [n m], or [n] for all, at the best threshold above a number."""
    order = values.argsort(0, descending=True)
    ranked = values.gather(0, order)
    labels = true[order] if true.ndim == 1 else true.gather(0, order)
    taken = torch.arange(1, len(values) + 1, dtype=torch.float64)[:, None]
    scores = 2 * labels.double().cumsum(0) / (taken + labels.sum(0))
    # a threshold takes all rows of one value or none
    last = torch.cat([ranked[:-1] > ranked[1:], torch.ones_like(ranked[:1], dtype=torch.bool)])
    return torch.where(last & (ranked > above), scores, 0.0).max(0).values


def _absorbed(
    truth: Planted, partner: Tensor, each: Tensor, fires: Tensor, true: Tensor
) -> tuple[float | None, float | None]:
    absorbed, missed = [], []
    children: dict[int, list[int]] = {}
    for parent, child in truth.pairs:
        children.setdefault(parent, []).append(child)
    for parent, child in truth.pairs:
        known = float(each[parent]) >= SAME and float(each[child]) >= SAME
        there, alone = true[:, child], true[:, parent] & ~true[:, children[parent]].any(1)
        if known and bool(there.any()) and bool(alone.any()):
            silent = ~fires[:, partner[parent]]
            absorbed.append(float((silent & fires[:, partner[child]])[there].double().mean()))
            missed.append(float(silent[alone].double().mean()))
    if not absorbed:
        return None, None
    return sum(absorbed) / len(absorbed), sum(missed) / len(missed)


def _shrinkage(sizes: Tensor, activations: Tensor, partner: Tensor, each: Tensor) -> float | None:
    known = each >= SAME
    if not bool(known.any()):
        return None
    mine, wanted = sizes[:, partner[known]].double(), activations[:, known].double()
    both = (mine != 0) & (wanted > 0)
    up, down = (mine * wanted * both).sum(0), (wanted.square() * both).sum(0)
    slopes = (up / down)[down > 0]
    return float(slopes.mean()) if len(slopes) else None


def oracle(truth: Planted, k: int) -> Dictionary:
    """The planted directions themselves, read along their pseudo-inverse or, where there are more than numbers in a row,
    along themselves, of which a row keeps the k strongest: what no training can be expected to beat by much.
    """
    wide = len(truth) > truth.width
    reads = truth.vectors.T if wide else torch.linalg.pinv(truth.vectors.double()).float()
    return _tied(reads, truth.vectors, truth.bias, k)


def random_directions(truth: Planted, size: int, k: int, seed: int = 0) -> Dictionary:
    """Directions that know nothing of the planted ones, used alike: what is found by chance."""
    unit = random_units(size, truth.width, torch.Generator().manual_seed(seed)).float()
    return _tied(unit.T, unit, truth.bias, k)


def _tied(reads: Tensor, writes: Tensor, bias: Tensor, k: int) -> Dictionary:
    place = Place("", "", writes.shape[1])
    encoder = Encoder(reads.contiguous(), None, TopK(k), centre=bias)
    return Dictionary("autoencoder", (encoder,), (Decoder(0, 0, writes),), (bias,), ((place,),), (place,))

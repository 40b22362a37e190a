"""A dictionary on rows, beside what it must do better than; what the verb and the benchmarks both do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cutaway.claims import Claim
from cutaway.errors import BadInput
from cutaway.features.dictionaries import Dictionary
from cutaway.features.measures.assembling import MeasuredFigures, figures_of
from cutaway.features.measures.claims import reconstruction_claim, seed_claim
from cutaway.features.measures.contenders import Contender, contenders_of
from cutaway.features.measures.splicing import CLEAN, FIRST, MEAN, ZERO, PredictionSums
from cutaway.features.measures.stability import SeedStability, stability_of
from cutaway.features.measures.sums import RowSums, row_sums

#: The place of rows that come from no network.
ROWS = "rows"
_TAKEN = ("", CLEAN, ZERO, MEAN, FIRST)


@dataclass(frozen=True, eq=False)
class RowComparison:
    """A dictionary beside everything it must do better than, on the same rows.

    Attributes:
        figures: each one's, and how far it is ahead.
        stability: what it shares with its siblings.
        firing: [F] share of the rows on which each latent fires.
        claim: does it reconstruct better than what stands beside it?
        recovering: are its latents the data's, or those of its seed?
    """

    figures: MeasuredFigures
    stability: tuple[SeedStability, ...]
    firing: np.ndarray
    claim: Claim
    recovering: Claim


def halves(owner: np.ndarray, seed: int) -> np.ndarray:
    """Which rows [n] are for making controls: those of half of the texts, drawn. At least one text is, and two are not.

    Raises `BadInput` for fewer than three texts.
    """
    texts = np.unique(owner)
    if len(texts) < 3:
        raise BadInput(
            f"There {'is' if len(texts) == 1 else 'are'} {len(texts)} texts: one is needed to make controls of, and two to "
            "measure on.", "Give more texts.",
        )  # fmt: skip
    drawn = np.random.default_rng(seed).permutation(texts)[: len(texts) // 2]
    return np.isin(owner, drawn)


def given_contenders(
    itself: Contender, beside: Mapping[str, Dictionary], frozen: Mapping[str, Dictionary], width: int
) -> list[Contender]:
    """What whoever asks wants to see beside a dictionary, read where it is read.

    Raises `BadInput` for a name that is taken, several sources or targets, another width.
    """
    found = []
    for name, other in [*beside.items(), *frozen.items()]:
        if name in (*_TAKEN, itself.name) or (name in beside and name in frozen):
            raise BadInput(f"The name {name!r} is taken.", "Give each dictionary a name of its own.")
        if (
            not other.single
            or other.encoders[0].width != itself.dictionary.encoders[0].width
            or other.writes[0].width != width
        ):
            raise BadInput(
                f"{name}, {other!r}, does not stand in the place of {itself.name}.",
                "Give dictionaries of one source and one target, of the same widths.",
            )
        found.append(Contender(name, other.checked(), itself.reads, "given"))
    return found


def same_widths(siblings: Mapping[str, Dictionary], itself: Dictionary) -> None:
    """Raise `BadInput` for a sibling that writes rows of another width."""
    for name, other in siblings.items():
        if not other.single or other.writes[0].width != itself.writes[0].width:
            raise BadInput(
                f"{name} writes other rows than the dictionary that it is to be compared with.",
                "Give dictionaries of the same place, trained with other seeds.",
            )


def all_sums(
    contenders: Sequence[Contender], writes: str, values: Mapping[str, Tensor], owner: np.ndarray
) -> dict[str, RowSums]:
    """Of every contender on the same rows."""
    return {c.name: row_sums(c.dictionary, values[c.reads], values[writes], owner) for c in contenders}


def concluded(
    where: str, contenders: Sequence[Contender], sums: Mapping[str, RowSums], predictions: PredictionSums | None,
    siblings: Mapping[str, Dictionary], frozen: Sequence[str], seed: int,
) -> RowComparison:  # fmt: skip
    """Figures, stability and claims from sums by text. The first contender is the dictionary that is measured."""
    itself = contenders[0]
    figures = figures_of(contenders, sums, predictions, seed)
    fires = sums[itself.name].fires
    stability = stability_of(itself.dictionary, torch.from_numpy(fires > 0), list(siblings.items()), seed)
    return RowComparison(
        figures, stability, fires / sums[itself.name].rows.sum(), reconstruction_claim(itself.name, where, figures),
        seed_claim(itself.name, figures, stability, frozen),
    )  # fmt: skip


def compare_rows(
    dictionary: Dictionary, rows: Tensor, *, owner: np.ndarray | None = None, beside: Mapping[str, Dictionary] | None = None,
    frozen: Mapping[str, Dictionary] | None = None, siblings: Mapping[str, Dictionary] | None = None, seed: int = 0,
) -> RowComparison:  # fmt: skip
    """Measure an autoencoder on rows [n d] of any origin, beside principal components and random directions.

    owner: [n] the text of each row, over which intervals are; default fifty rows make one.
    """
    if not dictionary.single or dictionary.encoders[0].width != rows.shape[1]:
        raise BadInput(
            f"{dictionary!r} does not read rows of {rows.shape[1]} numbers.", "Give one layer of it."
        )
    owner = np.arange(len(rows)) // 50 if owner is None else owner
    itself = Contender("the dictionary", dictionary.checked(), ROWS, "itself")
    made_of = halves(owner, seed)
    fit, test = {ROWS: rows[made_of]}, {ROWS: rows[~made_of]}
    others = given_contenders(itself, beside or {}, frozen or {}, rows.shape[1])
    same_widths(siblings or {}, dictionary)
    made = contenders_of(itself, ROWS, fit, usual_l0(itself, fit), seed, None)
    contenders = [itself, *made, *others]
    sums = all_sums(contenders, ROWS, test, owner[~made_of])
    return concluded(ROWS, contenders, sums, None, siblings or {}, list(frozen or {}), seed)


def usual_l0(itself: Contender, values: Mapping[str, Tensor]) -> int:
    """How many latents fire on a row, rounded, at least one."""
    read = values[itself.reads]
    sums = row_sums(
        itself.dictionary,
        read,
        torch.zeros(len(read), itself.dictionary.writes[0].width),
        np.zeros(len(read)),
    )
    return max(1, round(float(sums.l0.sum() / sums.rows.sum())))

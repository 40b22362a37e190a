"""A direction at one site, with what is known of how well it tells two sets of texts apart."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cutaway.errors import BadInput, NotFinite
from cutaway.figures import spread
from cutaway.interventions import Add
from cutaway.reports import Figure, Page, display_result, page_of
from cutaway.results import Provenance, described, load_fields, save_fields
from cutaway.statistics import Estimate, auroc, statistic_of

if TYPE_CHECKING:
    from cutaway.network.inputs import Pos

#: A mean of texts to either side needs so many of them before any can be held out.
FEWEST = 2


@dataclass(frozen=True, eq=False)
class SteeringVector:
    """A direction in the activations of one site: mean over positive texts less mean over negative ones.

    Attributes:
        site: where it was read, and is added, e.g. `resid_post.8`.
        vector: laid out as one token's entry of the site ([d]; [h e] at `z`), as long as the means are apart.
        norm_positive, norm_negative: lengths of the two means.
        positive: each positive text, held out, along the direction of the others: its place relative to the middle of the
            two means, in units of their distance; empty where there are too few texts.
        negative: the same of each negative text.
        n_positive, n_negative: how many texts.
        read: which token of each text was read, in words.
        provenance: what is needed to repeat it.
    """

    kind: ClassVar[str] = "direction"

    site: str
    vector: np.ndarray
    norm_positive: float
    norm_negative: float
    positive: np.ndarray
    negative: np.ndarray
    n_positive: int
    n_negative: int
    read: str
    provenance: Provenance

    @property
    def norm(self) -> float:
        """Length of the vector: how far the two means are apart."""
        return float(np.linalg.norm(self.vector))

    @property
    def separation(self) -> Estimate | None:
        """AUROC of held-out texts along it: how often a positive text lies further along than a negative one.

        0.5 is chance. None with fewer than two texts on a side.
        """
        if not len(self.positive) or not len(self.negative):
            return None
        scores = np.concatenate([self.positive, self.negative])
        ahead = (self.positive[:, None] > self.negative) + 0.5 * (self.positive[:, None] == self.negative)
        split = len(self.positive)

        def weighted(counts: np.ndarray) -> np.ndarray:
            ours, theirs = counts[:, :split], counts[:, split:]
            pairs = ours.sum(1) * theirs.sum(1)
            total = ((ours @ ahead) * theirs).sum(1)
            return np.where(pairs > 0, total / np.where(pairs > 0, pairs, 1.0), np.nan)[:, None]

        labels = np.arange(len(scores)) < split
        found = statistic_of(weighted, len(scores), seed=self.provenance.seed, scale="share")[0]
        return replace(found, value=float(auroc(scores, labels)))

    def add(self, scale: float = 1.0, pos: Pos = None) -> Add:
        """The intervention that adds `scale` times it, at all positions or these: `net.run(text, edits=[d.add(2.0)])`."""
        return Add(self.site, torch.from_numpy(np.asarray(self.vector)), scale, pos=pos)

    def random(self, seed: int = 0) -> SteeringVector:
        """A direction drawn at random, of the same length: what a direction that means nothing does."""
        drawn = np.random.default_rng(seed).standard_normal(self.vector.shape)
        drawn = (drawn * (self.norm / np.linalg.norm(drawn))).astype(self.vector.dtype)
        return replace(self, vector=drawn, positive=np.zeros(0), negative=np.zeros(0), read="drawn at random")

    @property
    def headline(self) -> str:
        """Whether it tells held-out texts apart, in a sentence."""
        told = self.separation
        if told is None:
            return f"Too few different texts to say whether the direction at {self.site} tells others apart"
        figure = f"AUROC {told}, chance 0.5"
        if told.above(0.5) is not True:
            return f"The direction at {self.site} does not tell held-out texts apart beyond chance ({figure})"
        return f"The direction at {self.site} tells held-out texts apart ({figure})"

    @property
    def about(self) -> str:
        """Where it lies, how it was read, how long it is."""
        means = f"the means are {self.norm_positive:.3g} and {self.norm_negative:.3g} long"
        sets = f"{self.n_positive} positive, {self.n_negative} negative texts" if self.n_positive else ""
        return "; ".join(
            part for part in (f"{self.site}, {self.read}", sets, f"length {self.norm:.3g} ({means})") if part
        )

    def to_pandas(self) -> pd.DataFrame:
        """One row for each held-out text: its set, and its place along the direction."""
        sets = ["positive"] * len(self.positive) + ["negative"] * len(self.negative)
        return pd.DataFrame({"set": sets, "place": np.concatenate([self.positive, self.negative])})

    def plot(self) -> Any:
        """Where held-out texts of both sets lie along it."""
        groups = {"positive": self.positive.tolist(), "negative": self.negative.tolist()}
        return spread(groups, "place along the direction (0: between the means)")

    def page(self) -> Page:
        """Where held-out texts lie, and how well they are told apart."""
        caption = "Each text along the direction of the others: +½ and −½ are the two means."
        blocks = [Figure(self.plot(), caption)] if len(self.positive) else []
        return page_of(self, "Cutaway · control", f"{self.about}, in {self.provenance.network}.", blocks)

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        names = (
            "kind",
            "site",
            "vector",
            "norm",
            "norm_positive",
            "norm_negative",
            "n_positive",
            "n_negative",
            "read",
        )
        return described(self, *names, "positive", "negative", separation=self.separation)

    save = save_fields

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> SteeringVector:
        """Read what `save` wrote. Raises `BadFormat` or `CorruptFile`."""
        return load_fields(cls, path)

    def __str__(self) -> str:
        return self.headline

    def __repr__(self) -> str:
        return f"SteeringVector({self.headline})"

    def _repr_html_(self) -> str:
        return display_result(self)


def require_direction(vector: np.ndarray | Tensor, scale: float, where: str) -> None:
    """Raise `BadInput` for a direction of no length (compared with `scale`), `NotFinite` for NaN or infinity."""
    values = np.asarray(vector, dtype=np.float64)
    if not np.isfinite(values).all():
        raise NotFinite(f"The direction at {where} holds NaN or infinity.", "Read the texts in float32.")
    if not np.linalg.norm(values) > 1e-6 * max(scale, 1e-6):
        raise BadInput(
            f"The direction at {where} is zero: both sets have the same mean there.",
            "Use texts that differ in what you want to steer, another site, or another position.",
        )

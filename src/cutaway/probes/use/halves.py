"""The two halves of a data set: one on which directions are found, one on which they are tested."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from cutaway.errors import BadInput
from cutaway.probes.data.examples import ProbeData
from cutaway.probes.data.folds import Families, assign_folds, families
from cutaway.probes.fits.kinds import Fitting
from cutaway.probes.map.probing import Probing
from cutaway.probes.reading import beds
from cutaway.probes.reading.beds import Answers, Bed
from cutaway.probes.reading.places import Cell

if TYPE_CHECKING:
    from cutaway.network import Network


def halves(
    net: Network, probing: Probing, data: ProbeData, cell: Cell, answers: Answers | None, read: int | None, seed: int
) -> tuple[Bed, Bed, Families, Fitting]:  # fmt: skip
    """Discovery half and test half of a data set as beds with their score, families of the discovery half, and how probes
    are fitted. Without answers the score is the output's own contrast, found on a third part.

    Raises `BadInput` where the data are not labelled as those that were probed.
    """
    attrs = probing.data.attrs
    theirs, ours = (data.name, list(data.classes)), (attrs["label"], list(attrs["classes"]))
    if theirs != ours:
        raise BadInput(
            f"The probe is for {ours[0]!r} ({', '.join(ours[1]) or 'values'}), the data are labelled with {theirs[0]!r} "
            f"({', '.join(theirs[1]) or 'values'}).",
            "Give data with the label that was probed.",
        )
    bed = beds.bed_of_data(net, data, probing.places, cell, read=read)
    two = data.take(*data.two_classes())
    family = families(two)
    parts = 2 if answers is not None else 3  # a contrast must not be found on what the direction was found on
    folds = torch.as_tensor(assign_folds(two, family, parts, seed))
    past, future = (torch.nonzero(folds == f)[:, 0] for f in (0, 1))
    if answers is not None:
        score, what = beds.answer_score(net, answers, data.classes or ("0", "1"))
    else:
        score, what = beds.contrast_score(net, bed.take(torch.nonzero(folds == 2)[:, 0]))
    return (
        bed.take(past).measured_by(score, what),
        bed.measured_by(score, what).take(future),
        Families(np.unique(family.of[past.numpy()], return_inverse=True)[1]),
        Fitting(attrs["probe"]),
    )

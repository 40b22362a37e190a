"""The run of prompts as they are, without any edit, where such runs are kept."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from torch import Tensor

from cutaway.network.items import answers_by_row
from cutaway.network.sites import Site
from cutaway.sweeps.base_runs import base_runs
from cutaway.sweeps.cells import Experiment
from cutaway.sweeps.engine import record_under
from cutaway.sweeps.record import Record
from cutaway.sweeps.validity import structural

if TYPE_CHECKING:
    from cutaway.network import Network
    from cutaway.network.inputs import Tokens
    from cutaway.results import Work


def base_run(
    net: Network, tokens: Tokens, positions: Tensor, sites: Collection[Site], work: Work | None = None
) -> Record | None:
    """The run of prompts [n p] with the named sites and the logits at `positions` [n]; None where none are kept here.

    work: its budget says how much memory it may take at once.
    """
    if not base_runs(net).askers or answers_by_row(net, tokens):
        return None
    experiment = Experiment(net, tokens, positions, lambda logits, _rows: logits[:, 0], {})
    return record_under(experiment, structural(net), sites, work)[0]

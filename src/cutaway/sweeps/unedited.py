"""The run of prompts as they are, without any edit, where such runs are kept."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from torch import Tensor

from cutaway.network.items import answers_by_row
from cutaway.network.memory import budget_bytes
from cutaway.network.sites import Site
from cutaway.sweeps.base_runs import base_runs
from cutaway.sweeps.beside import first_differences, take_beside
from cutaway.sweeps.cells import Experiment
from cutaway.sweeps.engine import record_under
from cutaway.sweeps.footprint import record_row_bytes
from cutaway.sweeps.record import Record
from cutaway.sweeps.validity import structural, valid_rules

if TYPE_CHECKING:
    from cutaway.network import Network
    from cutaway.network.inputs import Tokens
    from cutaway.results import Work


#: Share of the memory budget up to which a base run is left for the sweep that follows.
_SHARE = 4


def base_run(
    net: Network, tokens: Tokens, positions: Tensor, sites: Collection[Site], work: Work | None = None
) -> Record | None:
    """The run of prompts [n p] with the named sites and the logits at `positions` [n]; None where none are kept here.

    work: its budget says how much memory it may take at once.
    """
    if not base_runs(net).askers or answers_by_row(net, tokens):
        return None
    experiment = _unedited(net, tokens, positions)
    return record_under(experiment, structural(net), sites, work)[0]


def run_for_sweep(
    net: Network, tokens: Tokens, positions: Tensor, sites: Collection[Site], work: Work | None = None
) -> Record | None:
    """The run of prompts from which a sweep is about to start, with all that its rules need, so that it is not run twice.

    None outside `handing_over`, and where nothing is gained: no rule holds here, edits stand, or what the rules need is too
    much beside the rest.
    """
    if not base_runs(net).handing or net.standing or not sites or answers_by_row(net, tokens):
        return None
    rules = structural(net)
    experiment = _unedited(net, tokens, positions)
    if not rules.restart:
        return None
    needed = tokens.n * record_row_bytes(experiment, rules, sites)
    if needed > budget_bytes(net, work) // _SHARE:
        return None
    record = record_under(experiment, rules, sites, work)[0]
    base_runs(net).hand_over(experiment, record)
    return record


def run_beside(
    net: Network, base: Tokens, record: Record, tokens: Tokens, positions: Tensor, sites: Collection[Site], *,
    vocabulary: Tensor | None = None, work: Work | None = None,
) -> Record | None:  # fmt: skip
    """The run of the pairs' other prompts [n p], from where they differ from those that `run_for_sweep` has run.

    base, record: these prompts, and what their run left. vocabulary: tokens that the metric reads, where they are few: the
    rules that hold are asked for as the sweep asks for them.

    None where the rule `prefix` does not hold, and where little is saved.
    """
    experiment = _unedited(net, base, positions, vocabulary)
    if len(record.caches) < net.n_layers or first_differences(base, tokens) is None:
        return None
    if "prefix" not in valid_rules(experiment).names:
        return None
    return take_beside(experiment, record, tokens, sites, work)


def _unedited(
    net: Network, tokens: Tokens, positions: Tensor, vocabulary: Tensor | None = None
) -> Experiment:
    return Experiment(net, tokens, positions, lambda logits, _rows: logits[:, 0], {}, vocabulary=vocabulary)

"""The run of prompts as they are, without any edit, where such runs are kept."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from torch import Tensor

from cutaway.network.sites import Site
from cutaway.sweeps.base_runs import base_runs, recorded
from cutaway.sweeps.cells import Experiment
from cutaway.sweeps.engine import layer_parts
from cutaway.sweeps.record import Record
from cutaway.sweeps.validity import answers_by_row, structural

if TYPE_CHECKING:
    from cutaway.network import Network
    from cutaway.network.inputs import Tokens


def base_run(net: Network, tokens: Tokens, positions: Tensor, sites: Collection[Site]) -> Record | None:
    """The run of prompts [n p] with the named sites and the logits at `positions` [n]; None where none are kept here."""
    if not base_runs(net).askers or answers_by_row(net, tokens):
        return None
    experiment = Experiment(net, tokens, positions, lambda logits, rows: logits[:, 0], {})
    rules = structural(net)
    parts = layer_parts(net) if rules.restart else {}
    modules = [p for part in parts.values() for p in (*part.attention, *part.mlp)] if rules.stages else []
    streams = {Site("resid_pre", layer) for layer in parts}
    return recorded(experiment, set(sites) | streams, modules, rules.suffix or rules.last, not rules.restart)

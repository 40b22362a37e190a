"""Which rules are valid on a network: asked of its anatomy, then tried on its own prompts against whole forwards."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from cutaway.errors import CutawayError
from cutaway.network.anatomy import PortTap
from cutaway.network.coefficients import is_one
from cutaway.network.inputs import Tokens
from cutaway.network.items import answers_by_row
from cutaway.network.sites import Site
from cutaway.sweeps import naive
from cutaway.sweeps.beside import continued
from cutaway.sweeps.cells import Cell, CellState, Experiment, Write
from cutaway.sweeps.known import known_rules
from cutaway.sweeps.record import take
from cutaway.sweeps.rules import Rules

if TYPE_CHECKING:
    from cutaway.network import Network

#: How far a replayed metric may be from that of a whole forward, as a share of the largest, before a rule counts as
#: invalid. Rounding stays far below; a rule that does not hold is off by orders of magnitude more.
TOLERANCE: dict[torch.dtype, float] = {torch.float64: 1e-10, torch.float32: 3e-5}
_COARSE = 5e-2
#: The rules under which layers are replayed.
REPLAYING = ("restart", "stages", "suffix", "last", "tokens", "prefix")
#: The rules under which keys and values of earlier columns stand in for them.
_CACHED = ("suffix", "last", "prefix")


def valid_rules(experiment: Experiment) -> Rules:
    """The rules that give the numbers of whole forward passes on this network and these prompts.

    A rule that its anatomy rules out, or that fails on two of the prompts with random edits, is off, with the reason. The
    verdict is a fact about the network, for all that a trial depends on: the width of the prompts and how they are padded,
    whether few tokens are read and whether the model's own arguments are given, type and device.
    """
    if experiment.net.standing:
        return Rules().without("Edits are standing on this network.", *Rules().names)
    tokens = experiment.tokens
    if experiment.inputs is None and answers_by_row(experiment.net, tokens):
        return Rules().without("The network gives one answer for a whole row.", *Rules().names)
    padding = (tokens.padded, bool((tokens.first > 0).any()))
    net, own_inputs = experiment.net, experiment.inputs is not None
    asked = (experiment.vocabulary is not None, own_inputs, net.dtype, str(net.device))
    key = ("rules of sweeps", tokens.width, *padding, *asked)
    return net.fact(
        key, lambda: known_rules(net, key, lambda: _tried(experiment, structural(net, own_inputs)))
    )


def structural(net: Network, own_inputs: bool = False) -> Rules:
    """What the anatomy alone allows, and whether attention looks at earlier positions only."""
    key = ("structure for sweeps", own_inputs, net.dtype, str(net.device))
    return net.fact(key, lambda: known_rules(net, key, lambda: _structural(net, own_inputs)))


def _structural(net: Network, own_inputs: bool) -> Rules:
    rules, stack = Rules(), net.anatomy.stack()
    if stack is None or not stack.layers:
        return rules.without("The network has no stack of layers.", *rules.names)
    for layer in stack.layers:
        for name in ("resid_pre", "resid_post"):
            tap = net.anatomy.taps.get(Site(name, layer.index))
            if not isinstance(tap, PortTap) or not is_one(tap.factor) or not net.has(Site(name, layer.index)):
                reason = f"{name}.{layer.index} is not what one module call takes or gives."
                return rules.without(reason, *REPLAYING)
        if layer.call:
            reason = f"Layers share their weights: {layer.path} is called more than once."
            return rules.without(reason, *REPLAYING)
    mixers = [s.path for layer in stack.layers for s in layer.sublayers if s.kind == "mixer"]
    if mixers:
        reason = f"{mixers[0]} mixes positions by a state, not by keys and values."
        rules = rules.without(reason, *_CACHED)
    encodes = own_inputs or net.interface.encoder_decoder
    if not encodes and not net.is_causal:
        rules = rules.without("Attention is not causal: every position sees every other.", *_CACHED)
    elif encodes or not net.interface.cache:
        reason = "The model does not take keys and values of earlier positions here."
        rules = rules.without(reason, *_CACHED)
    return rules


def _tried(experiment: Experiment, rules: Rules) -> Rules:
    """The rules that pass a trial, found by leaving out one after the other."""
    if not rules.restart:
        return rules
    rows = torch.arange(min(2, experiment.tokens.n))
    trial, cells = _trial(experiment, rows)
    states = np.full((len(cells), trial.tokens.n), CellState.ABSENT)
    states[np.arange(len(cells)), np.arange(len(cells)) % trial.tokens.n] = CellState.NOT_RUN
    wanted = naive.run_cells(trial, cells, states=states).values
    scale = float(np.nanmax(np.abs(wanted))) or 1.0
    failed = "It did not give the numbers of whole forward passes on this network."
    for dropped in ("", "tokens", "last", "stages", "last suffix", "last suffix stages"):
        tried = rules.without(failed, *dropped.split())
        error = _error(trial, cells, tried, wanted, states) / scale
        if error <= TOLERANCE.get(experiment.net.products or experiment.net.dtype, _COARSE):
            continues = not tried.prefix or (tried.suffix and _continues(trial))
            return tried if continues else tried.without(failed, "prefix")
    reason = f"Replaying layers is off by {error:.1e} of the largest value on this network."
    return rules.without(reason, *REPLAYING)


def _error(
    trial: Experiment, cells: list[Cell], rules: Rules, wanted: np.ndarray, states: np.ndarray
) -> float:
    from cutaway.sweeps.engine import prepare

    try:
        job = prepare(trial, cells, replace(rules, zeros=False), states)
        replayed = np.full_like(wanted, np.nan)
        for pairs, scores in job.results():
            replayed[pairs[:, 0], pairs[:, 1]] = scores
    except (CutawayError, RuntimeError, TypeError, ValueError, LookupError, AttributeError, AssertionError):
        return float("inf")
    error = float(np.abs(replayed - wanted)[states == CellState.NOT_RUN].max())
    return error if np.isfinite(error) else float("inf")


def _continues(trial: Experiment) -> bool:
    """Whether the trial's prompts, run from their middle on behind prompts that end otherwise, give what they give whole."""
    net, tokens = trial.net, trial.tokens
    ends, last, mask = tokens.lengths - 1, Site("resid_pre", net.n_layers - 1), tokens.mask
    start = min(tokens.width // 2, int((tokens.first + ends).min()))
    ids = tokens.ids.clone()
    ids[:, start:] = torch.where(mask, ids.gather(1, tokens.first[:, None]), ids)[:, start:]
    other = replace(trial, tokens=Tokens(ids, mask), positions=ends, sources={})
    try:
        base = take(other, [last], [], cached=True)
        kept, logits = continued(other, base, tokens, torch.arange(tokens.n), start, [last])
    except (CutawayError, RuntimeError, TypeError, ValueError, LookupError, AttributeError, AssertionError):
        return False
    run = net.run(tokens, keep=[last], logits=ends[:, None])
    if run.logits is None:
        return False
    real = mask[:, start:]
    both = ((kept[last].cpu()[real], run[last][:, start:].cpu()[real]), (logits, run.logits[:, 0]))
    tolerance = TOLERANCE.get(net.products or net.dtype, _COARSE)
    return all(bool((a - b).abs().max() <= tolerance * b.abs().max()) for a, b in both)


def _trial(experiment: Experiment, rows: Tensor) -> tuple[Experiment, list[Cell]]:
    """Two of the prompts, and random edits low, in the middle and at the end, at each kind of site; each edit is tried on
    one of them, in turn.
    """
    net, tokens = experiment.net, experiment.tokens[rows.to(experiment.tokens.ids.device)]
    inputs = None if experiment.inputs is None else experiment.inputs.select(rows)
    last, middle = net.n_layers - 1, int(tokens.lengths.min()) // 2
    cells: list[Cell] = [(Write("resid_pre", 0, position=0),), (Write("resid_pre", last),)]
    for name, at in (("z", last // 2), ("mlp_act", last // 2), ("attn_write", 0)):
        if net.has(Site(name, at)):
            cells.append((Write(name, at, position=middle if name != "mlp_act" else None),))
    for layer in range(1, last):
        if net.has(Site("attn_write", layer)) != net.has(Site("attn_write", 0)):
            cells.append((Write("resid_pre", layer, position=middle),))
            break
    sites = sorted({w.where for cell in cells for w in cell})
    bare = replace(
        experiment, tokens=tokens, inputs=inputs, positions=experiment.positions[rows], named={}, spans={}
    )
    given: Any = bare.tokens if inputs is None else dict(inputs.kwargs)
    run = net.run(given, keep=sites, logits=False)
    draw = torch.Generator().manual_seed(0)
    sources = {
        s: v + (0.5 * v.float().std() * torch.randn(v.shape, generator=draw)).to(v)
        for s, v in run.kept.items()
    }
    size = experiment.vocabulary.numel() if experiment.vocabulary is not None else net.d_vocab or 8
    weights = torch.randn(size, generator=draw, dtype=torch.float64) / size**0.5
    few = experiment.vocabulary

    def score_few(logits: Tensor, _: Tensor) -> Tensor:
        return logits.double() @ weights.to(logits.device)[: logits.shape[1]]

    def score(logits: Tensor, chosen: Tensor) -> Tensor:
        return score_few(logits if few is None else logits[:, few.to(logits.device)], chosen)

    return replace(bare, sources=sources, score=score, score_few=None if few is None else score_few), cells

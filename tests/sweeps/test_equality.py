"""Every sweep, under every rule, gives the numbers of one plain forward per cell (float32 to 1e-5, float64 to 1e-11)."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import GPT2LMHeadModel

import cutaway
from by_hand import BEDS, Bed
from cutaway.network.inputs import Tokens, pack
from cutaway.network.sites import Site
from cutaway.sweeps import Cell, CellState, Experiment, Rules, Write, naive, run_cells, validity
from cutaway.sweeps.cells import AxisLayout
from cutaway.sweeps.logits import cell_logits
from cutaway.sweeps.plan import plan_cells
from cutaway.sweeps.validity import valid_rules
from cutaway.zoo.tiny import tiny

DTYPES = {torch.float32: 1e-5, torch.float64: 1e-11}
N, P, CHANGED = 3, 7, 2
INSIDE = tuple("resid_pre resid_mid q k v pattern z head_out attn_write mlp_in mlp_act mlp_write".split())
RULES = [
    Rules(),
    Rules(last=False, tokens=False),
    Rules(last=False, stages=False),
    Rules(suffix=False, last=False),
    Rules(suffix=False, last=False, stages=False),
    Rules(zeros=False),
    Rules.none(),
]


def score(logits: Tensor, rows: Tensor) -> Tensor:
    return logits[:, 5] - 2 * logits[:, 6] + logits[:, 7] * (rows.to(logits.device) + 1)


def score_few(logits: Tensor, rows: Tensor) -> Tensor:
    return logits[:, 0] - 2 * logits[:, 1] + logits[:, 2] * (rows.to(logits.device) + 1)


def opened(bed: Bed, dtype: torch.dtype) -> tuple[Any, Any]:
    model: Any = tiny(bed.kind, task=bed.task, **bed.fields).to(dtype)
    if bed.eager_experts:
        model.set_experts_implementation("eager")
    return model, cutaway.open(model)


def pair(net: Any, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Base and other ids [N P] that differ first at one position."""
    draw = torch.Generator().manual_seed(seed)
    base = torch.randint(5, 60, (N, P), generator=draw)
    other = base.clone()
    other[:, CHANGED] = torch.randint(60, 90, (N,), generator=draw)
    return base, other


def work_on(net: Any, sites: list[Site], bed: Bed | None = None) -> tuple[Experiment, dict[str, Any]]:
    base, other = pair(net)
    spans = {"span": torch.zeros(N, P, dtype=torch.bool)}
    for row in range(N):
        spans["span"][row, row + 1 : row + 3] = True
    common: dict[str, Any] = {"vocabulary": torch.tensor([5, 6, 7]), "score_few": score_few, "spans": spans}
    if bed is not None and bed.task == "seq2seq":
        source = torch.randint(5, 60, (N, 5), generator=torch.Generator().manual_seed(9))
        kwargs = {"input_ids": source, "decoder_input_ids": base}
        kept = net.run({"input_ids": source, "decoder_input_ids": other}, keep=sites, logits=False).kept
        prepared = net.prepare(kwargs)
        return Experiment(
            net, prepared.tokens, torch.full((N,), -1), score, kept, inputs=prepared, **common
        ), kwargs
    kept = net.run(other, keep=sites, logits=False).kept
    return Experiment(net, net.encode(base.tolist()), torch.full((N,), -1), score, kept, **common), {
        "input_ids": base
    }


def sites_of(net: Any, names: tuple[str, ...]) -> list[Site]:
    return [Site(name, layer) for name in names for layer in net.layers_with(name)]


def cells_of(net: Any, site: str) -> list[Cell]:
    """Layers by position, whole layers, heads, neurons, a span, and two layers at once."""
    layers = net.layers_with(site)
    cells: list[Cell] = [(Write(site, i, position=p),) for i in layers for p in (0, CHANGED, P - 1)]
    cells += [(Write(site, i),) for i in layers] + [(Write(site, layers[0], span="span"),)]
    if AxisLayout.of(Site(site, 0)).head is not None:
        cells += [(Write(site, i, head=h, position=p),) for i in layers for h in (0, 1) for p in (None, 4)]
    if site == "mlp_act":
        cells += [(Write(site, i, neuron=u),) for i in layers for u in (0, 5)]
    return [*cells, (Write(site, layers[0]), Write(site, layers[-1], position=4))]


def agree(found: np.ndarray, wanted: np.ndarray, dtype: torch.dtype, scale: float = 0.0) -> None:
    assert np.isfinite(found).all()
    scale = max(scale, float(np.abs(wanted).max()))
    assert np.abs(found - wanted).max() <= DTYPES[dtype] * scale


@pytest.mark.parametrize("dtype", DTYPES, ids=["float32", "float64"])
@pytest.mark.parametrize("bed", BEDS, ids=lambda bed: bed.kind)
def test_equals_a_loop_of_bare_hooks(bed: Bed, dtype: torch.dtype) -> None:
    model, net = opened(bed, dtype)
    names = tuple(n for n in INSIDE if net.has(n))
    experiment, _ = work_on(net, sites_of(net, names))
    for name in names:
        cells = cells_of(net, name)
        wanted = naive.run_cells(experiment, cells).values
        for rules in RULES:
            found = run_cells(experiment, cells, rules=rules)
            usable = found.states != CellState.ABSENT  # key/value heads that a layer does not have
            agree(np.where(usable, found.values, wanted), wanted, dtype)


@settings(max_examples=15, deadline=None)
@given(
    lengths=st.lists(st.integers(2, 9), min_size=1, max_size=4),
    side=st.sampled_from(["left", "right"]),
    at_once=st.sampled_from([1, 20, 4096]),
    seed=st.integers(0, 999),
    kind=st.sampled_from(["gpt2", "llama", "gemma2"]),
)
def test_any_lengths_padding_and_batches(
    lengths: list[int], side: str, at_once: int, seed: int, kind: str
) -> None:
    net = _net(kind)
    rng = np.random.default_rng(seed)
    rows = [rng.integers(5, 60, size).tolist() for size in lengths]
    others = [
        [*r[:-1], int(rng.integers(60, 90))] if rng.random() < 0.3 else rng.integers(5, 90, len(r)).tolist()
        for r in rows
    ]
    base, other = (pack(r, 0, side=side) for r in (rows, others))
    sites = sites_of(net, ("resid_pre", "z", "mlp_act"))
    kept = net.run(other, keep=sites, logits=False).kept
    positions = torch.as_tensor(rng.integers(0, lengths))
    experiment = Experiment(net, base, positions, score, kept)
    cells: list[Cell] = [
        (Write("resid_pre", i, position=int(p)),)
        for i in range(net.n_layers)
        for p in rng.integers(0, max(lengths), 2)
    ]
    cells += [(Write("z", i, head=h),) for i in range(net.n_layers) for h in (0, 3)]
    cells += [
        (Write("mlp_act", i, neuron=int(rng.integers(0, 30)), position=1),) for i in range(net.n_layers)
    ]
    cells += [(Write("z", 0, head=1), Write("resid_pre", 1, position=0), Write("mlp_act", 1))]
    found = run_cells(experiment, cells, tokens_at_once=at_once)
    wanted = naive.run_cells(experiment, cells).values
    there = found.states != CellState.ABSENT
    # a difference of logits may cancel to nothing: relative to the logits that it is made of
    logits = float(net.run(base).logits.abs().max())
    agree(np.where(there, found.values, wanted), wanted, torch.float32, logits)
    for cell, row in itertools.product(range(len(cells)), range(len(rows))):
        position = cells[cell][0].position
        missing = len(cells[cell]) == 1 and position is not None and position >= lengths[row]
        assert (found.states[cell, row] == CellState.ABSENT) == missing


_NETS: dict[str, Any] = {}


def _net(kind: str) -> Any:
    if kind not in _NETS:
        _NETS[kind] = cutaway.open(tiny(kind))
    return _NETS[kind]


def test_a_sliding_window_shorter_than_the_prompt() -> None:
    model: Any = tiny("gemma3_text", sliding_window=3)
    net = cutaway.open(model)
    assert "suffix" in valid_rules(work_on(net, sites_of(net, ("resid_pre",)))[0]).names
    experiment, _ = work_on(net, sites_of(net, ("resid_pre", "z", "k")))
    for name in ("resid_pre", "z", "k"):
        cells = cells_of(net, name)
        agree(run_cells(experiment, cells).values, naive.run_cells(experiment, cells).values, torch.float32)


def test_rules_that_do_not_hold_switch_themselves_off() -> None:
    expected = {
        "jamba": ("suffix", "mixes positions by a state"),
        "bert": ("suffix", "not causal"),
        "albert": ("restart", "share their weights"),
        "t5": ("suffix", "keys and values of earlier positions"),
    }
    for kind, (rule, reason) in expected.items():
        task = {"bert": "masked-lm", "albert": "masked-lm", "t5": "seq2seq"}.get(kind)
        bed = Bed(kind, "", "", "", "", None, task)
        _, net = opened(bed, torch.float32)
        experiment, _ = work_on(net, sites_of(net, ("resid_post",)), bed)
        rules = valid_rules(experiment)
        assert rule not in rules.names
        assert reason in rules.reasons[rule]
        assert reason in repr(plan_cells(experiment, [(Write("resid_post", 0),)], time_it=False))


def test_a_rule_that_breaks_the_numbers_is_found_by_trial(tiny_gpt2: GPT2LMHeadModel) -> None:
    class Remembering(torch.nn.Module):
        """A layer whose output depends on how many rows it is given: nothing can be batched or restarted."""

        def __init__(self, inner: torch.nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, hidden: Tensor, *args: Any, **kwargs: Any) -> Tensor:
            return self.inner(hidden, *args, **kwargs) * (1 + 0.1 * hidden.shape[1])

    tiny_gpt2.transformer.h[1] = Remembering(tiny_gpt2.transformer.h[1])
    net = cutaway.open(tiny_gpt2)
    experiment, _ = work_on(net, sites_of(net, ("resid_post",)))
    rules = valid_rules(experiment)
    assert "suffix" not in rules.names
    cells = cells_of(net, "resid_post")
    agree(run_cells(experiment, cells).values, naive.run_cells(experiment, cells).values, torch.float32)


def test_a_verdict_holds_only_for_what_was_tried(
    tiny_gpt2: GPT2LMHeadModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried, real = [], validity._tried
    monkeypatch.setattr(
        validity,
        "_tried",
        lambda experiment, rules: tried.append(experiment.vocabulary) or real(experiment, rules),
    )
    net = cutaway.open(tiny_gpt2)
    experiment, _ = work_on(net, sites_of(net, ("resid_post",)))
    for asked in (replace(experiment, vocabulary=None, score_few=None), experiment, experiment):
        valid_rules(asked)
    assert [vocabulary is None for vocabulary in tried] == [True, False]


def test_known_zeros_are_zero_and_not_run(tiny_gpt2: GPT2LMHeadModel) -> None:
    net = cutaway.open(tiny_gpt2)
    experiment, _ = work_on(net, sites_of(net, ("resid_pre", "mlp_write")))
    before = run_cells(experiment, [(Write("resid_pre", 1, position=CHANGED - 1),)])
    assert (before.states == CellState.KNOWN_ZERO).all()
    blind = [(Write("mlp_write", 2, position=P - 2),)]
    found = plan_cells(experiment, blind, time_it=False)
    assert "cannot see" in found.warnings[0]
    assert (found.run().states == CellState.KNOWN_ZERO).all()
    np.testing.assert_allclose(found.run().values, naive.run_cells(experiment, blind).values, atol=1e-6)


def test_the_users_own_hooks_and_modes_survive(tiny_gpt2: GPT2LMHeadModel) -> None:
    seen: list[int] = []
    tiny_gpt2.train()
    tiny_gpt2.transformer.h[0].register_forward_hook(lambda *_: seen.append(1))
    net = cutaway.open(tiny_gpt2)
    experiment, _ = work_on(net, sites_of(net, ("z",)))
    run_cells(experiment, cells_of(net, "z"))
    assert tiny_gpt2.training
    assert "forward" not in vars(tiny_gpt2.transformer.h[0])
    assert seen


# gemma's norms and softmax compute in float32 whatever the weights are
@pytest.mark.parametrize(("kind", "tolerance"), [("gpt2", 1e-11), ("gemma3_text", 1e-5), ("bert", 1e-11)])
def test_whole_logits_equal_plain_forwards(kind: str, tolerance: float) -> None:
    bed = Bed(kind, "", "", "", "", None, "masked-lm" if kind == "bert" else None)
    _, net = opened(bed, torch.float64)
    names = ("resid_pre", "z", "pattern", "mlp_write")
    experiment, _ = work_on(net, sites_of(net, names))
    cells: list[Cell] = [
        (Write(name, i, position=p),) for name in names for i in net.layers_with(name) for p in (1, 3)
    ]
    cells += [
        (Write("pattern", 1, head=1, position=4, neuron=2),),
        (Write("z", net.layers_with("z")[-1], head=0),),
    ]
    found = dict(cell_logits(experiment, cells))
    assert sorted(found) == list(range(len(cells)))
    plain = dict(cell_logits(experiment, cells, Rules.none()))
    for i, logits in found.items():
        torch.testing.assert_close(logits, plain[i], atol=tolerance, rtol=0)


def test_tokens_are_named_by_row_relative_positions() -> None:
    tokens = Tokens(
        torch.tensor([[0, 3, 4], [5, 6, 7]]), torch.tensor([[False, True, True], [True, True, True]])
    )
    net = _net("gpt2")
    experiment = Experiment(net, tokens, torch.tensor([-1, 0]), score, {})
    assert experiment.answer_columns.tolist() == [2, 0]

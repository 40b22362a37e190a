"""The two prompts of a pair: what comes before their first difference is run once, and nobody can tell by the numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import GPT2LMHeadModel

import cutaway
from cutaway.behaviours import Behaviour
from cutaway.effects.baselines import Side, measure
from cutaway.network import Network
from cutaway.network.inputs import pack
from cutaway.network.sites import Site
from cutaway.results.meter import Meter, metered
from cutaway.sweeps import Experiment, Rules, handing_over
from cutaway.sweeps.beside import first_differences, take_beside
from cutaway.sweeps.record import take
from cutaway.zoo.tiny import tiny

SHARING = [
    ("gpt2", {}),
    ("llama", {}),
    ("gpt_neox", {}),
    ("bloom", {}),
    ("gemma3_text", {"sliding_window": 3}),
    ("qwen3", {}),
]
WHOLE = [("bert", "masked-lm"), ("mamba", None), ("falcon_h1", None)]
NAMES = ("resid_pre", "z", "k", "mlp_act")


def pairs(starts: Sequence[int], lengths: Sequence[int], answer: Sequence[int], seed: int = 0) -> Behaviour:
    """Pairs whose prompts differ from one position on, each row from another."""
    draw = np.random.default_rng(seed)
    clean = [draw.integers(5, 60, length).tolist() for length in lengths]
    corrupted = [
        [*row[:start], int(draw.integers(60, 90)), *row[start + 1 :]]
        for row, start in zip(clean, starts, strict=True)
    ]
    ids: Any = [tuple(tuple(row) for row in side) for side in (clean, corrupted)]
    texts: Any = [tuple(map(str, side)) for side in ids]
    n = len(lengths)
    return Behaviour(
        "pairs", *texts, *ids, right=((3,),) * n, wrong=((4,),) * n, template=("one",) * n,
        answer_pos=tuple(answer),
    )  # fmt: skip


PAIRS, BEFORE = (pairs([6, 4, 6, 8, 3], [9] * 5, [-1] * 5, seed) for seed in (0, 1))


@contextmanager
def widths(net: Network) -> Iterator[list[tuple[int, int]]]:
    """Rows and columns of every forward of the model."""
    seen: list[tuple[int, int]] = []
    hook = net.model.register_forward_pre_hook(
        lambda _m, _a, given: seen.append(tuple(given["input_ids"].shape)), with_kwargs=True
    )
    try:
        yield seen
    finally:
        hook.remove()


def ends(net: Network, behaviour: Behaviour, keep: Sequence[Site], swept: str) -> dict[str, Side]:
    with handing_over(net):
        found = measure(net, behaviour, keep, swept=swept)
    return {"clean": found.clean, "corrupted": found.corrupted}


def plainly(
    net: Network, behaviour: Behaviour, which: str, keep: Sequence[Site]
) -> tuple[dict[Site, Tensor], Tensor]:
    """Sites and logits of whole forwards, one prompt at a time."""
    rows = behaviour.clean_ids if which == "clean" else behaviour.corrupted_ids
    runs = [net.run([list(row)], keep=list(keep)) for row in rows]
    at = torch.stack([run.logits[0, i] for run, i in zip(runs, behaviour.answer_pos, strict=True)])  # type: ignore[index]
    return {s: torch.cat([run[s] for run in runs]) for s in keep}, at


def close(found: Tensor, wanted: Tensor) -> None:
    assert found.shape == wanted.shape
    assert (found - wanted).abs().max() <= 1e-11 * wanted.abs().max()


@pytest.mark.parametrize("swept", ["clean", "corrupted"])
@pytest.mark.parametrize(("kind", "fields"), SHARING, ids=lambda v: v if isinstance(v, str) else "")
def test_both_sides_are_what_whole_forwards_give_and_shared_columns_the_same_bits(
    kind: str, fields: dict[str, Any], swept: str
) -> None:
    net = cutaway.open(tiny(kind, **fields).double())
    keep = [Site(name, layer) for name in NAMES if net.has(name) for layer in net.layers_with(name)]
    ends(net, BEFORE, keep, swept)  # the rules are tried on prompts of this shape
    with metered(Meter()) as meter:
        sides = ends(net, PAIRS, keep, swept)
    for which, side in sides.items():
        sites, logits = plainly(net, PAIRS, which, keep)
        close(side.logits, logits)
        for site in keep:
            close(side.kept[site], sites[site])
    first = first_differences(sides["clean"].tokens, sides["corrupted"].tokens)
    assert first is not None
    for site in keep:
        for row, column in enumerate(first.tolist()):
            a, b = (side.kept[site][row, :column] for side in sides.values())
            assert torch.equal(a, b)
    assert meter.forwards == pytest.approx(5 + 5 * 6 / 9)


@pytest.mark.parametrize(("kind", "task"), WHOLE)
def test_where_a_token_hears_of_later_ones_or_a_state_goes_on_both_sides_are_run_whole(
    kind: str, task: str | None
) -> None:
    net = cutaway.open(tiny(kind, task=task).double())
    keep = [Site("resid_pre", layer) for layer in range(net.n_layers)]
    ends(net, BEFORE, keep, "corrupted")
    with widths(net) as seen:
        sides = ends(net, PAIRS, keep, "corrupted")
    assert all(shape[1] == 9 for shape in seen if shape[0] == PAIRS.n)
    assert {shape for shape in seen if shape[0] == PAIRS.n}
    for which, side in sides.items():
        sites, logits = plainly(net, PAIRS, which, keep)
        close(side.logits, logits)
        for site in keep:
            close(side.kept[site], sites[site])


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", ["gpt2", "llama", "opt"])
def test_rows_of_unequal_length_and_groups_of_rows(kind: str, side: str) -> None:
    net = cutaway.open(tiny(kind).double())
    draw = np.random.default_rng(5)
    starts = [3] * 9 + [14] * 9 + [20]
    lengths = draw.integers(16, 20, 19).tolist()
    rows = [draw.integers(5, 60, length).tolist() for length in lengths]
    others = [
        [*row[:start], *draw.integers(60, 90, len(row[start:]))]
        for row, start in zip(rows, starts, strict=True)
    ]
    base, other = (pack([list(map(int, row)) for row in r], 0, side=side) for r in (rows, others))
    sites = [Site("resid_pre", 1), Site("z", 1), Site("k", 0)]
    asked = Experiment(net, base, torch.full((19,), -1), lambda logits, _: logits[:, 0], {})
    with metered(Meter()) as meter:
        found = take_beside(asked, take(asked, sites, [], cached=True), other, sites)
    assert found is not None
    assert found.logits is not None
    run = net.run(other, keep=sites, logits=torch.full((19, 1), -1))
    close(found.logits, run.logits[:, 0])  # type: ignore[index]
    for site in sites:
        close(found.sites[site][other.mask], run[site][other.mask])
    assert meter.forwards < 19 + 0.75 * 19


def test_the_rule_can_be_switched_off_and_a_sweep_stays_what_it_is() -> None:
    net = cutaway.open(tiny("gpt2").double())
    behaviour = pairs([6, 6, 7], [9] * 3, [-1] * 3)
    found, spent = [], []
    other = pairs([6, 6, 7], [9] * 3, [-1] * 3, seed=1)
    for rules in (Rules(), Rules(prefix=False)):
        net.forget()
        cutaway.patch(net, other, at="resid_pre", rules=rules)  # the rules are tried
        with metered(Meter()) as meter:
            effects = cutaway.patch(net, behaviour, at="resid_pre", rules=rules)
        found.append(effects.data["effect"].values)
        spent.append(meter.forwards)
    np.testing.assert_allclose(found[0], found[1], atol=1e-9)
    assert spent[1] - spent[0] == pytest.approx(3 * 6 / 9)


def test_a_network_whose_keys_and_values_do_not_stand_in_for_columns_is_found_by_trial(
    tiny_gpt2: GPT2LMHeadModel,
) -> None:
    class Counting(torch.nn.Module):
        """An MLP that gives something else where few columns are run: whole rows are not what their pieces give."""

        def __init__(self, inner: torch.nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, hidden: Tensor) -> Tensor:
            return self.inner(hidden) * (1 + 0.1 * (hidden.shape[1] < 6))

    tiny_gpt2.transformer.h[1].mlp = Counting(tiny_gpt2.transformer.h[1].mlp)  # type: ignore[arg-type]
    net = cutaway.open(tiny_gpt2.double())
    sides = ends(net, PAIRS, [Site("resid_pre", 2)], "corrupted")
    sites, logits = plainly(net, PAIRS, "clean", [Site("resid_pre", 2)])
    close(sides["clean"].logits, logits)
    close(sides["clean"].kept[Site("resid_pre", 2)], sites[Site("resid_pre", 2)])

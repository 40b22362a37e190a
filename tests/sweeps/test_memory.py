"""Planning obeys the budget of memory as running does: it keeps less, or refuses before anything is run."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import cutaway
from cutaway.behaviours import Behaviour
from cutaway.errors import OutOfMemory
from cutaway.network import Network
from cutaway.network.memory import bytes_of
from cutaway.network.sites import Site
from cutaway.results import Budget, Work
from cutaway.sweeps import Experiment, Write, plan_cells
from cutaway.sweeps.cost import peak_bytes
from cutaway.sweeps.engine import record_under
from cutaway.sweeps.footprint import affordable, held_bytes, record_row_bytes
from cutaway.sweeps.rules import Rules
from cutaway.sweeps.validity import structural
from cutaway.zoo.tiny import tiny

MIB = 1 << 20
N, WIDTH, LAYERS = 200, 20, 4


@pytest.fixture(scope="module")
def net() -> Network:
    size = {"hidden_size": 256, "intermediate_size": 256, "num_attention_heads": 4, "num_key_value_heads": 4}
    return cutaway.open(tiny("llama", num_hidden_layers=LAYERS, head_dim=64, **size))


def experiment(net: Network, sites: list[Site]) -> Experiment:
    rows = torch.randint(5, 60, (N, WIDTH), generator=torch.Generator().manual_seed(0))
    tokens = net.encode(rows)
    sources = {s: v + 1 for s, v in net.run(tokens, keep=sites, logits=False).kept.items()}
    return Experiment(net, tokens, torch.full((N,), -1), lambda logits, _: logits[:, 3], sources)


@pytest.mark.parametrize("name", ["resid_pre", "z", "pattern", "k", "mlp_act", "attn_write"])
def test_c4_what_a_site_takes_is_known_without_a_run(net, name):
    run = net.run(torch.zeros(1, WIDTH, dtype=torch.long), keep=name)
    assert bytes_of(net, run.kept, WIDTH) == held_bytes([v.clone() for v in run.kept.values()])


def test_c4_what_the_base_run_keeps_is_known_without_it(net):
    asked = experiment(net, sites := [Site("resid_pre", i) for i in range(LAYERS)])
    full = structural(net)
    for rules in (full, full.without("", "stages"), full.without("", "stages", "suffix", "last")):
        known = N * record_row_bytes(asked, rules, sites)
        assert known == pytest.approx(record_under(asked, rules, sites)[0].bytes, rel=0.1)


def test_c4_savings_that_do_not_fit_are_not_used_and_the_peak_stays_below(net):
    asked = experiment(net, [Site("resid_pre", i) for i in range(LAYERS)])
    cells = [(Write("resid_pre", i, position=p),) for i in range(LAYERS) for p in (0, 9, 18)]
    wanted = plan_cells(asked, cells, time_it=False).run().values
    held = held_bytes(asked.sources.values())
    assert held == pytest.approx(N * WIDTH * 256 * 4 * LAYERS, rel=0.01)
    budget = int(3.2 * held)
    plans = []
    peak = peak_bytes(lambda: plans.append(plan_cells(asked, cells, work=Work(budget=Budget(memory=budget)))))
    (plan,) = plans
    assert "stages" not in plan.rules.names
    assert any("does not fit into the memory" in says for _, says in plan.rows())
    assert peak + held <= budget
    assert plan.cost.memory <= budget
    np.testing.assert_allclose(plan.run().values, wanted, atol=1e-4)
    assert "stages" in plan_cells(asked, cells, time_it=False).rules.names


@pytest.mark.parametrize("site", ["resid_pre", "z"])
@pytest.mark.parametrize("room", [None, 48 * MIB])
def test_what_a_plan_says_is_what_the_run_takes(net, site, room):
    asked = experiment(net, [Site(site, i) for i in range(LAYERS)])
    cells = [(Write(site, i, position=p),) for i in range(LAYERS) for p in (0, 9, 18)]
    work = None if room is None else Work(budget=Budget(memory=room + 2 * held_bytes(asked.sources.values())))
    plan = plan_cells(asked, cells, work=work)
    plan.done.clear()
    kept = held_bytes(asked.sources.values()) + plan.job.record.bytes
    taken = peak_bytes(lambda: plan.run(work=work))
    assert plan.cost.memory - kept == pytest.approx(taken, rel=0.2)
    if work is not None:
        assert plan.cost.memory <= work.budget.memory


def test_weights_are_no_part_of_what_a_call_takes(net):
    weight = torch.zeros(1000, 1000)
    assert peak_bytes(lambda: (weight.t(), weight[3:].flatten(), torch.ones(10) + 1)) < 1000
    assert peak_bytes(lambda: weight + 1) == weight.numel() * 4


def test_c4_what_does_not_fit_at_all_is_refused_before_anything_is_run(net):
    asked = experiment(net, sites := [Site("pattern", i) for i in range(LAYERS)])
    work = Work(budget=Budget(memory=33 * MIB))
    with pytest.raises(OutOfMemory, match="Give a budget of memory=") as caught:
        affordable(asked, 10, Rules(), sites, 40 * MIB, work)
    needed = int(str(caught.value).split("memory=")[1].split(" ")[0])
    assert affordable(asked, 10, Rules(), sites, 40 * MIB, Work(budget=Budget(memory=needed)))


@pytest.mark.parametrize("verb", [{"by": ("layer", "head")}, {"by": ("layer", "head"), "how": "zero"}])
def test_c4_planning_a_sweep_of_patterns_is_refused_before_anything_is_run(net, verb):
    rows = torch.randint(5, 60, (400, 40), generator=torch.Generator().manual_seed(0)).tolist()
    pairs = Behaviour(
        name="ids", clean=tuple(map(str, rows)), corrupted=tuple(map(str, rows)), clean_ids=tuple(map(tuple, rows)),
        corrupted_ids=tuple((*row[:2], 61, *row[3:]) for row in rows), right=((5,),) * len(rows), wrong=((6,),) * len(rows),
        template=("one",) * len(rows),
    )  # fmt: skip
    work = Work(budget=Budget(memory=40 * MIB))
    failed = []

    def plan() -> None:
        with pytest.raises(OutOfMemory, match="prompts needs") as caught:
            cutaway.plan(net, pairs, at="pattern", work=work, **verb)
        failed.append(str(caught.value))

    assert peak_bytes(plan) < MIB
    assert failed

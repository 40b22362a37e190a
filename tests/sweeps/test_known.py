"""Verdicts on the rules are remembered by what the network is now; progress is the share of the work."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from test_equality import work_on

import cutaway
from cutaway.network.sites import Site
from cutaway.results import Work
from cutaway.sweeps import Write, run_cells, validity
from cutaway.sweeps.validity import valid_rules
from cutaway.zoo.tiny import tiny


@pytest.fixture
def tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for every trial that is made."""
    monkeypatch.setenv("CUTAWAY_CACHE", str(tmp_path))
    seen: list[int] = []
    real = validity._tried
    monkeypatch.setattr(validity, "_tried", lambda *a: seen.append(1) or real(*a))
    return seen


def rules_of(model: torch.nn.Module, **options: object) -> object:
    net = cutaway.open(model, **options)
    return valid_rules(work_on(net, [Site("resid_pre", 0)])[0])


def test_the_same_network_is_not_tried_again_and_another_is(tried: list[int], tmp_path: Path) -> None:
    first = rules_of(tiny("gpt2"))
    assert len(tried) == 1
    assert rules_of(tiny("gpt2")) == first
    assert len(tried) == 1
    changed = tiny("gpt2")
    with torch.no_grad():
        next(changed.parameters())[0, 0] += 1
    rules_of(changed)
    assert len(tried) == 2
    for entry in tmp_path.glob("rules-*.json"):
        entry.write_text(entry.read_text().replace('"suffix"', '"prefix"'))
    assert rules_of(tiny("gpt2")) == first
    assert len(tried) == 3


def test_nothing_is_remembered_where_that_is_not_wanted(tried: list[int], tmp_path: Path) -> None:
    for _ in range(2):
        rules_of(tiny("gpt2"), remember=False)
    assert len(tried) == 2
    assert not list(tmp_path.glob("rules-*"))


def test_progress_is_the_share_of_the_work() -> None:
    net = cutaway.open(tiny("gpt2"))
    experiment = work_on(net, [Site("resid_pre", i) for i in range(net.n_layers)])[0]
    cells = [(Write("resid_pre", i, position=p),) for i in range(net.n_layers) for p in range(2, 7)]
    heard: list[tuple[int, int]] = []
    run_cells(experiment, cells, tokens_at_once=5, work=Work(lambda p: heard.append((p.done, p.total))))
    done = [d for d, total in heard if total == len(cells)]
    assert done == sorted(done)
    assert done[-1] == len(cells)
    assert len(set(done)) > 4
    assert all(d < len(cells) for d in done[:-1])

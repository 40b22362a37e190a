"""What a terminal shows of results: grouped, whole at 80 columns, with sums that add up."""

from __future__ import annotations

import re
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

import cutaway
from cutaway.circuits import Circuit, Scores
from cutaway.circuits.graph.nodes import standard
from cutaway.cli import shown, summaries
from cutaway.cli.main import app
from cutaway.cli.summaries import bar_rows, number, numbers_grid, shade
from cutaway.results import KINDS

TEXT = "Mary was sad because"


def printed(items: list[Any], width: int = 80) -> list[str]:
    console = Console(file=StringIO(), width=width)
    for item in items:
        console.print(item)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def net() -> cutaway.Network:
    return cutaway.open("zoo:tales")


@pytest.fixture(scope="module")
def pairs(net: cutaway.Network) -> cutaway.Behaviour:
    return cutaway.behaviour("pronoun", net, n=16)


@pytest.fixture(autouse=True)
def _narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def test_kinds_that_have_a_summary_are_kinds() -> None:
    assert set(summaries.SUMMARIES) <= set(KINDS)


def test_a_sweep_of_heads_is_a_grid_of_its_means(net: cutaway.Network, pairs: cutaway.Behaviour) -> None:
    effects = cutaway.patch(net, pairs, at="z", by=("layer", "head"))
    lines = printed(shown.terminal(effects))
    grid = {line.split()[0]: line.split()[1:] for line in lines if re.match(r"[0-3]  ", line)}
    assert list(grid) == ["3", "2", "1", "0"]
    for layer, cells in grid.items():
        assert cells == [number(v) for v in effects.mean.sel(layer=int(layer)).values]
    assert any(line.startswith("In shares of the gap; logit_diff: clean ") for line in lines)
    assert len(lines) < 20


def test_positions_are_shown_of_one_form_of_prompt_with_its_number(
    net: cutaway.Network, pairs: cutaway.Behaviour
) -> None:
    effects = cutaway.patch(net, pairs, by=("layer", "position"))
    groups = effects.groups()
    lines = printed(shown.terminal(effects))
    assert len(groups) > 1
    assert f"{groups[0][1].data.sizes['example']} of 16 pairs; {len(groups) - 1} others" in " ".join(lines)
    row = next(line for line in lines if line.startswith("0 "))
    assert row.split()[1:] == [number(v) for v in groups[0][1].mean.sel(layer=0).values]


def test_paths_are_grouped_by_what_receives_them(net: cutaway.Network, pairs: cutaway.Behaviour) -> None:
    effects = cutaway.path_patch(net, pairs, to=["logits", "m3"])
    lines = printed(shown.terminal(effects))
    strongest = effects.top(1).iloc[0]
    row = next(
        line for line in lines if line.startswith("logits" if strongest["receiver"] == "logits" else "MLP 3")
    )
    assert number(strongest["mean"]) in row
    assert not any(line.count("·") for line in lines)


def test_neurons_are_grouped_by_layer(net: cutaway.Network, pairs: cutaway.Behaviour) -> None:
    effects = cutaway.ablate(net, pairs, at="mlp_act", by=("layer", "neuron"), layers=[2, 3], how="zero")
    lines = printed(shown.terminal(effects))
    row = next(line for line in lines if line.startswith("2 "))
    assert f"{int((effects.q.sel(layer=2) <= 0.05).sum())} of 352" in row
    best = effects.sel(layer=2).top(1).iloc[0]
    assert f"{best['neuron']} {number(best['mean'])}" in row
    assert len(lines) < 8


@pytest.mark.parametrize("by", ["head", "sublayer", "layer"])
def test_an_attribution_adds_up_line_by_line(net: cutaway.Network, by: str) -> None:
    made = cutaway.logit_attribution(net, TEXT, target=" she", foil=" he", by=by)
    lines = printed(shown.terminal(made))
    figures = {
        m[1]: float(m[2])
        for line in lines
        if (m := re.match(r"(before and after|layer \d|together) +([+-][\d.]+)", line))
    }
    whole = figures.pop("together")
    assert sum(figures.values()) == pytest.approx(whole, abs=0.006 * len(figures))
    assert whole == pytest.approx(float(made.wanted.mean()), abs=0.006)


def test_a_large_circuit_fits_a_screen() -> None:
    graph, rng = standard(30, 9), np.random.default_rng(0)
    inside = graph.allowed & (rng.random(graph.shape) < 0.003)
    large = Circuit(graph, inside, Scores(graph, rng.normal(size=graph.shape) * graph.allowed, "eap-ig"))
    lines = printed(shown.terminal(large))
    assert max(map(len, lines)) <= 80
    assert sum(line.startswith("layer ") for line in lines) <= 30
    edges = sum(int(m[1]) for line in lines if (m := re.search(r"  (\d+) {2,}\S+.* → ", line)))
    assert edges == large.n_edges


def test_a_grid_that_is_too_wide_is_drawn_in_shades_that_are_explained() -> None:
    values = np.linspace(-1, 2, 30 * 60).reshape(30, 60)
    values[3, 4] = np.nan
    lines = printed(
        numbers_grid(
            values, [str(i) for i in range(30)], [f"t{i}" for i in range(60)], 80, "layer", "By token."
        )
    )
    assert max(map(len, lines)) <= 80
    assert lines[0].strip().startswith("29")
    assert lines[0].count("█") == 60
    assert "●" not in lines[-3]
    assert lines[29 - 3].split()[1][4] == "×"
    for said in ("above zero", "below", "× not there", "the largest 2", "By token."):
        assert said in lines[-1]


def test_names_of_columns_that_are_cut_are_given_in_full() -> None:
    lines = printed(
        numbers_grid(np.ones((2, 3)), ["a", "b"], ["short", "antidisestablishmentarianism" * 2, "x"], 40)
    )
    assert "antidisestablishmentarianism" in "".join(lines[3:]).replace("\n", "")


def test_bars_begin_at_zero_and_what_is_left_out_is_added_up() -> None:
    items = [(f"part {i}", float(i - 20), f"{i - 20:+d}") for i in range(60)]
    lines = printed(bar_rows(items, 60, most=10))
    assert len(lines) == 11
    assert lines[-1] == f"and 50 more, together {sum(range(-20, 30)):+.3g}"
    both = printed(bar_rows([("up", 1.0, "+1"), ("down", -1.0, "-1"), ("none", 0.0, "0")], 60))
    start = both[0].index("█")
    assert both[1].rindex("█") == start - 1
    assert both[2][start] == "▏"
    assert printed(bar_rows([("x", float("nan"), "")], 60)) == ["Nothing to show."]


def test_numbers_and_shades_of_what_is_hard() -> None:
    assert [number(v) for v in (0.999, 9.96, -0.996, float("inf"), -0.004)] == [
        "+1.0",
        "+10",
        "-1.0",
        "",
        "·",
    ]
    assert shade(0.0, 0.0) == "·"
    assert shade(-5.0, 1.0) == "●"


def test_show_prints_what_the_command_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    words = [
        "patch",
        "zoo:tales",
        "-b",
        "pronoun",
        "--at",
        "mlp_write",
        "--by",
        "layer",
        "--n",
        "8",
        "-o",
        "out",
    ]
    first = CliRunner().invoke(app, words)
    assert CliRunner().invoke(app, ["show", "out"]).stdout == first.stdout
    assert max(map(len, first.stdout.splitlines())) <= 80
    assert "█" in first.stdout

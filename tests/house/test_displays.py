"""Whatever a person can get shows itself in a few lines, in a console and in a notebook, offline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import cutaway
from cutaway.circuits import Circuit, Scores
from cutaway.circuits.graph.nodes import standard
from cutaway.figures import Bar, Grid, grid_picture, small_bars, small_map
from cutaway.results import Provenance, brief
from cutaway.stream import read_stream
from cutaway.stream.attention_scores import HeadScores
from cutaway.stream.lenses import LogitLens

TEXT = "Mary was sad because"


@pytest.fixture(scope="module")
def net() -> cutaway.Network:
    return cutaway.open("zoo:tales")


@pytest.fixture(scope="module")
def pairs(net: cutaway.Network) -> cutaway.Behaviour:
    return cutaway.behaviour("pronoun", net, n=16)


def large_circuit() -> Circuit:
    """A circuit of some 300 edges on the graph of 30 layers with 9 heads."""
    graph, rng = standard(30, 9), np.random.default_rng(0)
    inside = graph.allowed & (rng.random(graph.shape) < 0.004)
    return Circuit(graph, inside, Scores(graph, rng.normal(size=graph.shape) * graph.allowed, "eap-ig"))


def head_scores() -> HeadScores:
    """Scores of 270 heads."""
    heads = tuple(cutaway.Part.parse(f"a{i}.h{h}") for i in range(30) for h in range(9))
    rng = np.random.default_rng(0)
    values, chance = (
        {n: rng.random((8, 270)) for n in ("previous", "induction", "duplicate")} for _ in range(2)
    )
    q = {name: np.zeros(270) for name in values}
    return HeadScores(heads, values, chance, q, "attention", Provenance("net", ""))


#: Whatever a person gets, made anew.
OBJECTS: dict[str, Callable[[Any, Any], Any]] = {
    "network": lambda net, pairs: net,
    "anatomy": lambda net, pairs: net.anatomy,
    "certificate": lambda net, pairs: net.certificate,
    "run": lambda net, pairs: net.run([TEXT, "Tom ran"], keep="*"),
    "tokens": lambda net, pairs: net.encode([TEXT] * 200),
    "generation": lambda net, pairs: net.generate(TEXT, max_new_tokens=3),
    "behaviour": lambda net, pairs: pairs,
    "performance": lambda net, pairs: cutaway.performance(net, pairs),
    "effects by layer": lambda net, pairs: cutaway.patch(net, pairs, by="layer"),
    "effects of heads and positions": lambda net, pairs: cutaway.patch(
        net, pairs, at="z", by=("layer", "head", "position"), layers=[1, 2]
    ),
    "effects of neurons": lambda net, pairs: cutaway.ablate(
        net, pairs, at="mlp_act", by=("layer", "neuron"), layers=[2], how="zero"
    ),
    "plan": lambda net, pairs: cutaway.plan(net, pairs, at="z", by=("layer", "head")),
    "circuit": lambda net, pairs: cutaway.trace(net, pairs, edges=60),
    "large circuit": lambda net, pairs: large_circuit(),
    "graph": lambda net, pairs: large_circuit().graph,
    "scores": lambda net, pairs: large_circuit().scores,
    "stream": lambda net, pairs: read_stream(net, TEXT),
    "head scores": lambda net, pairs: head_scores(),
    "lens": lambda net, pairs: LogitLens.of(net),
    "work": lambda net, pairs: cutaway.Work(),
    "intervention": lambda net, pairs: cutaway.Add("resid_post.3", torch.zeros(128)),
    "page": lambda net, pairs: cutaway.patch(net, pairs, by="layer").page(),
}  # fmt: skip


@pytest.mark.parametrize("name", OBJECTS)
def test_an_object_shows_itself_in_a_few_lines(
    name: str, net: cutaway.Network, pairs: cutaway.Behaviour, shows_itself: Callable[[Any], None]
) -> None:
    shows_itself(OBJECTS[name](net, pairs))


def test_an_explanation_shows_itself_in_a_few_lines(
    net: cutaway.Network, shows_itself: Callable[[Any], None]
) -> None:
    found = cutaway.explain(net, cutaway.behaviour("pronoun", net, n=24), controls=False)
    for thing in (found, found.claim, found.mechanism, found.trial, found.circuit, found.performance):
        shows_itself(thing)
    assert found.verdict in found._repr_html_()
    assert found.headline[:60] in repr(found)


def test_pictures_stay_small_whatever_they_show() -> None:
    rng = np.random.default_rng(0)
    large = rng.normal(size=(400, 3000))
    large[7, 1234] = np.nan
    grid = Grid(large, [f"row &lt;{i}&gt;" for i in range(400)], [f"a long label {i}" for i in range(3000)])
    assert len(small_map(grid)) < 19_000
    assert "row &lt;0&gt;" in small_map(grid)
    assert small_bars([Bar.of("<b>", float("nan"))]) == ""
    bars = [Bar.of(f"&lt;part {i}&gt; {'x' * 90}", float(i)) for i in range(500)]
    assert len(small_bars(bars)) < 6000
    assert "488 smaller ones not drawn" in small_bars(bars)


def test_patterns_and_two_prompts_show_pictures_in_a_notebook() -> None:
    net = cutaway.open("zoo:tales")
    patterns = cutaway.patterns(net, "Mary was sad because")
    shown = patterns._repr_html_()
    assert shown.count("<image ") == 4
    assert "The 4 most decided heads of 16" in shown
    both = cutaway.side_by_side(net, "Mary was sad because", "Tom was sad because")._repr_html_()
    assert both.count("<image ") == 1 + 4  # the stream, and two heads in two prompts
    assert "distance of the streams" in both
    assert "logit lens, layer" in both
    assert max(len(shown), len(both)) < 30_000


def test_a_map_shows_the_largest_of_cells_that_fall_together() -> None:
    """Every pixel of the picture, read back, is the colour of the strongest cell of its block."""
    import base64
    import re
    import zlib

    from cutaway.figures.theme import blend

    values = np.zeros((2, 1600))
    values[0, 805], values[1, 3] = -1.0, 0.5
    shown = small_map(Grid(values, ["a", "b"], [str(i) for i in range(1600)]), limit=1.0)
    png = base64.b64decode(re.search(r"base64,([^\"]+)", shown)[1])  # type: ignore[index]
    palette = png[png.index(b"PLTE") + 4 :]
    pixels = np.frombuffer(zlib.decompress(png[png.index(b"IDAT") + 4 : -16]), np.uint8).reshape(2, 161)[
        :, 1:
    ]
    colours = [palette[3 * int(pixels[i]) :][:3].hex() for i in ((1, 80), (0, 0), (0, 1))]
    assert colours == [blend(v, 1.0)[1:] for v in (-1.0, 0.5, 0.0)]


def test_a_small_grid_has_its_numbers_and_a_large_one_none() -> None:
    assert "<table" in grid_picture(Grid(np.ones((3, 4)), list("abc"), list("abcd")))
    assert "<svg" in grid_picture(Grid(np.ones((30, 4)), ["x"] * 30, list("abcd")))


def test_brief_says_what_a_thing_holds() -> None:
    @dataclass(frozen=True, repr=False)
    class Thing:
        values: np.ndarray
        table: pd.DataFrame
        text: str
        names: dict[str, int]
        headline: str = "It holds"
        __repr__ = brief

    said = repr(Thing(np.zeros((3, 10**6)), pd.DataFrame({"a": [1]}), "x" * 10**5, {"b": 1}))
    assert said.splitlines()[:3] == [
        "Thing: It holds",
        "  values  float64 [3, 1000000]",
        "  table   table of 1 rows, 1 columns",
    ]
    assert len(said) < 300

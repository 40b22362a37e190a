"""What people read calls a part by one name: its words, written one way. Names of the grammar stand in data only."""

from __future__ import annotations

import html
import io
import json
import re
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

import cutaway
from cutaway.behaviours import Behaviour
from cutaway.calibration import verify
from cutaway.calibration.recovery import recovery
from cutaway.circuits.drawing import lay_out
from cutaway.circuits.graph.nodes import standard
from cutaway.cli.main import app
from cutaway.cli.shown import terminal
from cutaway.figures import Panel, node_grids
from cutaway.network import Network
from cutaway.network.parts import KINDS, Part, in_words
from cutaway.reports import Figure, render

sys.path.insert(0, str(Path(__file__).parents[1] / "stream"))

#: A name of the grammar: `a0.h1`, `m0`, `n3.120`, with or without an input.
GRAMMAR = re.compile(
    r"(?<![\w.&#/-])(?:[ac]\d+\.(?:h|kv)\d+|[enf]\d+\.\d+|(?:[acmxl]|ab|cb|mb|nb)\d+)(?:<[a-z]+>)?(?![\w/]|-\w)"
    r"|\[[a-z][\w.]+\](?:\.c\d+)?"
)
#: The words of numbered kinds in whatever case, and further spellings that people use: none of these may stand in a report.
WORDS = [row.one for row in KINDS.values() if "{n}" in row.words and row.letter not in ("const", "rest", "")]
ANY_CASE = re.compile(rf"\b(?:{'|'.join(map(re.escape, WORDS))}|attn) \d+(?:\.\d+)?\b", re.IGNORECASE)


def test_the_grammar_of_this_test_is_that_of_parts() -> None:
    names = "a0.h1 a3.kv1 m0 a2 x4 n3.120 e3.2 f7.123 [layer1.0.conv2].c5 [layer1] ab1 mb2 c1.h2 l3"
    for name in names.split():
        assert str(Part.parse(name)) == name
        assert GRAMMAR.fullmatch(name)
        assert name.startswith("[") or ANY_CASE.fullmatch(Part.parse(name).words)
        assert in_words(name) == Part.parse(name).words


def faults(texts: Iterator[str]) -> list[str]:
    """Every name of the grammar, and every part whose words are written in another case than elsewhere."""
    found = []
    for text in texts:
        text = html.unescape(re.sub(r"<[^<>]+>", " ", re.sub(r"(<[qkv]>)", "‹input›", text)))
        found += [text[max(0, m.start() - 40) : m.end() + 20] for m in GRAMMAR.finditer(text)]
        found += [m[0] for m in ANY_CASE.finditer(text) if m[0].rpartition(" ")[0] not in WORDS]
    return found


def strings(value: Any) -> Iterator[str]:
    """Every text in plain data: labels, hover texts, ticks, titles."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, item in value.items():
            if key != "template":
                yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)


def drawn(figure: Any) -> Iterator[str]:
    return strings(json.loads(figure.to_json()))


def printed(*items: Any) -> str:
    console = Console(file=io.StringIO(), width=240)
    for item in items:
        console.print(item)
    return console.file.getvalue()  # type: ignore[attr-defined]


def visible(result: Any) -> Iterator[str]:
    """What a person sees of a result: page, figures, notebook display, terminal, print."""
    page = result.page()
    yield re.sub(r"<(script|style)\b.*?</\1>", " ", render(page), flags=re.DOTALL)
    for section in page.sections:
        for block in section.blocks:
            if isinstance(block, Figure):
                yield from drawn(block.figure)
    yield from drawn(result.plot())
    yield result._repr_html_()
    yield str(result)
    yield printed(*terminal(result))


@cache
def bed() -> tuple[Network, Behaviour]:
    net = cutaway.open("zoo:tales")
    return net, cutaway.behaviour("pronoun", net, n=32)


@cache
def circuit() -> Any:
    net, pairs = bed()
    return cutaway.trace(net, pairs.discovery)


def examined() -> Any:
    net, pairs = bed()
    return cutaway.test(net, circuit(), pairs, controls=False)


def explained() -> Any:
    net, pairs = bed()
    return cutaway.explain(net, pairs, controls=False)


#: One of each result that speaks of parts, and what is to be found in it.
RESULTS: dict[str, tuple[Callable[[], Any], str]] = {
    "explanation": (explained, "head 0.0"),
    "circuit": (circuit, "head 0.0"),
    "test of a circuit": (examined, "head 0.0"),
    "effects on heads": (lambda: cutaway.patch(*bed(), at="z"), "head"),
    "effects on MLPs": (lambda: cutaway.ablate(*bed(), at="mlp_write", by=["layer"]), "layer 0"),
    "paths": (lambda: cutaway.path_patch(*bed(), senders=["a0.h0", "m0"], to=["logits"]), "head 0.0"),
    "pairs of parts": (lambda: cutaway.pair_effects(*bed(), which=["a0.h0", "m0"]), "MLP 0"),
}


@pytest.mark.parametrize("name", RESULTS)
def test_a_report_calls_a_part_by_its_words(name: str) -> None:
    make, wanted = RESULTS[name]
    seen = list(visible(make()))
    assert any(wanted in text for text in seen)
    assert faults(iter(seen)) == []


def _stream() -> dict[str, Callable[[Network], Any]]:
    from test_results import RESULTS  # type: ignore[import-not-found]

    return dict(RESULTS)


@pytest.mark.parametrize("name", _stream())
def test_a_page_of_the_stream_calls_a_part_by_its_words(name: str) -> None:
    assert faults(visible(_stream()[name](bed()[0]))) == []


def test_the_scores_of_edges_are_printed_in_words_and_kept_by_name() -> None:
    scores = circuit().scores
    assert faults(iter([str(scores)])) == []
    assert "MLP" in str(scores)
    assert all(GRAMMAR.search(edge) for edge, _ in scores.top(3))


@pytest.mark.parametrize("specimen", ["induction-gpt2", "backup-gpt2"])
def test_the_calibration_speaks_in_words(specimen: str) -> None:
    seen = printed(verify(None, specimen, n=16))
    assert "head 0.1" in seen
    assert faults(iter([seen])) == []


def test_the_map_of_a_recovery_has_the_words_of_every_node() -> None:
    found = recovery("induction-gpt2", n=8)
    layers = 1 + max(node.layer or 0 for node in found.nodes)
    scores = np.array(found.scores).reshape(layers, -1)
    figure = node_grids([Panel(found.name, scores, scores > 2)])
    hovered = [words for row in figure.data[0].text for words in row]
    assert hovered == [node.words for node in found.nodes]
    assert faults(drawn(figure)) == []


@pytest.mark.parametrize("asked", [["zoo", "list"], ["zoo", "show", "tales"], ["zoo", "show", "sorting"]])
def test_the_terminal_tells_the_zoo_in_words(asked: list[str]) -> None:
    done = CliRunner().invoke(app, asked, env={"COLUMNS": "240"})
    assert done.exit_code == 0
    assert faults(iter([done.stdout])) == []


@pytest.mark.parametrize(("heads", "label"), [(4, "head 1.2"), (32, "1.2")])
def test_a_circuit_is_drawn_with_words_and_with_numbers_where_it_is_crowded(heads: int, label: str) -> None:
    graph = standard(layers=2, heads=heads)
    layout = lay_out(graph, graph.allowed, [])
    dot = layout.dots[graph.writer("a1.h2")]
    assert (dot.label, dot.words) == (label, "head 1.2")
    assert "head 2" in layout.columns
    assert layout.dots[0].label == "input"

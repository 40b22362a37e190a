"""Options: each method reads its own, and what nothing reads is refused by name; the documents list what there is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import cutaway
from cutaway.circuits import METHODS, TraceRecipe, option_names, score, trace
from cutaway.circuits.methods import options_of
from cutaway.circuits.methods.attribution import EapIgOptions
from cutaway.errors import BadInput, UnknownOption
from cutaway.results import Progress, Work

DOCS = Path(__file__).parents[2] / "docs" / "circuits.md"


def test_a_misspelt_option_is_refused_with_the_nearest(gpt2, pairs):
    with pytest.raises(UnknownOption, match="Did you mean steps"):
        cutaway.trace(gpt2, pairs, stpes=50)
    with pytest.raises(UnknownOption, match="Did you mean threshold"):
        cutaway.trace(gpt2, pairs, method="acdc", treshold=0.1)
    with pytest.raises(UnknownOption, match="Did you mean edges"):
        cutaway.trace(gpt2, pairs, egdes=5)
    with pytest.raises(UnknownOption):
        score(gpt2, pairs, method="mask-edges", dice=3)
    with pytest.raises(BadInput, match="no ablation 'meen'.*mean"):
        trace(gpt2, pairs, method="eap", ablation="meen", edges=5)


def test_an_option_of_other_methods_names_them(gpt2, pairs):
    with pytest.raises(UnknownOption, match=r"atp does not read 'positions'.*eap, eap-ig"):
        trace(gpt2, pairs, method="atp", positions="span")
    with pytest.raises(UnknownOption, match="EapIgOptions"):
        trace(gpt2, pairs, method="atp", options=EapIgOptions(steps=3))
    with pytest.raises(BadInput, match="no threshold of its own"):
        trace(gpt2, pairs, method="eap", threshold=0.1)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"method": "eap", "nodes": 5}, "scores edges, and a number of nodes"),
        ({"method": "atp", "edges": 5}, "scores nodes, and a number of edges"),
        ({"method": "atp", "nodes": 5, "select": "greedy"}, "chooses edges"),
        ({"method": "mask-nodes", "nodes": 5, "select": "optimum"}, "chooses edges"),
        ({"method": "acdc", "select": "optimum"}, "has no say"),
        (
            {"method": "eap", "select": "threshold", "threshold": 0.1, "edges": 5},
            "a number of edges was given, too",
        ),
    ],
)
def test_a_size_or_selection_that_nothing_would_look_at_is_refused(given: dict, said: str, gpt2, pairs):
    with pytest.raises(BadInput, match=said):
        trace(gpt2, pairs, **given)


@pytest.mark.parametrize(
    ("method", "given"),
    [
        ("eap-ig", {"steps": "5"}), ("eap-ig", {"steps": True}), ("eap-ig", {"steps": 0}), ("eap-ig", {"steps": 2.5}),
        ("eap", {"positions": "words"}), ("relp", {"attention": "linear"}), ("acdc", {"divergence": "js"}),
        ("acdc", {"threshold": float("nan")}), ("mask-edges", {"start": 1.0}), ("ensemble", {"how": "sum"}),
        ("eap", {"examples": 1}), ("eap", {"seed": "0"}),
    ],
)  # fmt: skip
def test_wrong_values_are_refused(method: str, given: dict, gpt2, pairs):
    with pytest.raises(BadInput):
        trace(gpt2, pairs, method=method, **given)


def test_options_as_an_object_are_the_same(gpt2, pairs):
    one = trace(gpt2, pairs, options=EapIgOptions(steps=2, seed=3), edges=9)
    two = trace(gpt2, pairs, steps=2, seed=3, edges=9)
    assert (one.membership == two.membership).all()
    assert one.recipe == two.recipe == TraceRecipe("eap-ig", EapIgOptions(steps=2, seed=3))
    assert one.provenance.seed == 3
    assert TraceRecipe.from_dict(one.recipe.to_dict()) == one.recipe
    with pytest.raises(BadInput, match="Both"):
        trace(gpt2, pairs, options=EapIgOptions(), steps=2)


def test_acdc_takes_its_threshold(gpt2, pairs):
    few = pairs.take([0, 2])
    own = trace(gpt2, few, method="acdc", threshold=0.5)
    assert own.recipe.options.threshold == 0.5
    assert own.selection == "chosen by acdc"
    by_score = trace(gpt2, few, method="acdc", select="threshold", threshold=0.05)
    assert by_score.recipe.options.threshold == 0.02


def test_a_name_is_made_with_the_seed(gpt2, pairs, monkeypatch):
    seeds = []

    def made(name, net, seed=0, force=False):
        seeds.append(seed)
        return pairs

    monkeypatch.setattr("cutaway.circuits.tracing.make_behaviour", made)
    trace(gpt2, "ioi", method="eap", edges=3, seed=7)
    trace(gpt2, "ioi", method="eap", edges=3)
    assert seeds == [7, 0]


def test_the_table_and_the_documents_agree():
    """docs/circuits.md has one row for each method, with its source and exactly its options."""
    text = DOCS.read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `([a-z-]+)`(?: \(default\))? \| (.*) \|$", text, re.M))
    assert set(rows) == set(METHODS)
    for name, row in METHODS.items():
        says, grain, options, source = (cell.strip() for cell in rows[name].split(" | "))
        assert (says, grain, source) == (row.says, row.grain, row.source)
        own = [option for option in option_names(name) if option not in ("ablation", "seed")]
        assert re.findall(r"`(\w+)`", options) == own, name
        assert type(options_of(name)).__doc__, name
        for option in own:
            kinds = [
                k for k in type(options_of(name)).__mro__ if option in k.__dict__.get("__annotations__", {})
            ]
            assert f"{option}:" in str(kinds[0].__doc__), (name, option)


@pytest.mark.parametrize(
    "method", [name for name in METHODS if name not in ("random", "mask-nodes", "ensemble")]
)
def test_the_price_of_every_method_is_what_the_meter_then_counts(method: str) -> None:
    net = cutaway.open("zoo:induction")
    pairs = cutaway.behaviour("zoo:induction", net, n=24)
    heard: list[Progress] = []
    size = {"nodes": 4} if METHODS[method].grain == "node" else {"edges": 20}
    found = cutaway.trace(net, pairs, method=method, work=Work(heard.append), **size)
    first = next(report for report in heard if report.price is not None)
    assert first.price is not None
    assert found.provenance is not None
    assert first.forwards + first.price.forwards == pytest.approx(found.provenance.forwards, rel=0.3)

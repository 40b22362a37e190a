"""Ground truth as data: names of nodes and edges, and the way to JSON and back."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cutaway import zoo
from cutaway.errors import BadFormat
from cutaway.zoo.truth import Edge, Feature, GroundTruth, Need, Node, Variable, nodes

NODE = st.one_of(
    st.just(Node("input")),
    st.just(Node("logits")),
    st.builds(lambda i, h: Node("head", i, h), st.integers(0, 99), st.integers(0, 99)),
    st.builds(lambda i: Node("mlp", i), st.integers(0, 99)),
)


@given(NODE, NODE, st.sampled_from(["", "q", "k", "v"]))
def test_names_say_what_they_name(a: Node, b: Node, via: str) -> None:
    assert Node.parse(str(a)) == a
    edge = Edge(a, b, via)  # type: ignore[arg-type]
    assert Edge.parse(str(edge)) == edge


@pytest.mark.parametrize("name", ["", "a0", "h1", "a0.h", "a-1.h0", "m", "mlp0", "a0.h1 ", "a0.h1->m1"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(BadFormat):
        Node.parse(name)


@pytest.mark.parametrize("name", ["", "a0.h1", "a0.h1->", "a0.h1->a1.h0<x>", "->m0"])
def test_other_edges_are_refused(name: str) -> None:
    with pytest.raises(BadFormat):
        Edge.parse(name)


def test_truth_survives_json() -> None:
    truth = GroundTruth(
        nodes("a0.h1", "m1"),
        (Edge.parse("a0.h1->m1"),),
        (Variable("v", "says", "z.0", "last", 1, ((1.0, 0.5), (0.0, 0.25)), 3, False),),
        (Need(nodes("a0.h1", "m1"), False, "zero"),),
        (Feature("f", "says", "resid_pre.0", (0.0, 1.0), (3,)),),
        ({"token": 3},),
        {"key": [1, 2]},
        ("behaviour",),
        "written",
    )
    assert GroundTruth.from_dict(json.loads(json.dumps(truth.to_dict()))) == truth


def test_what_is_no_truth_is_refused() -> None:
    with pytest.raises(BadFormat, match="not a ground truth"):
        GroundTruth.from_dict({"variables": [{"name": "v", "nonsense": 1}]})
    with pytest.raises(BadFormat, match="no variable 'x'"):
        GroundTruth().variable("x")


def test_every_card_holds_a_truth() -> None:
    for name in zoo.names():
        card, truth = zoo.card(name), zoo.truth(name)
        layers, heads = card["architecture"]["layers"], card["architecture"]["heads"]
        for node in truth.nodes:
            assert node.kind in ("head", "mlp")
            assert 0 <= node.layer < layers
            assert node.head < heads
        ends = {Node("input"), Node("logits"), *truth.nodes}
        assert all({edge.source, edge.target} <= ends for edge in truth.edges), name

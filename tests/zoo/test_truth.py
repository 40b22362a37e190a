"""Ground truth as data: names of nodes and edges, and the way to JSON and back."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cutaway import zoo
from cutaway.errors import BadFormat
from cutaway.network.parts import Edge, Input, Part
from cutaway.zoo.truth import Feature, GroundTruth, Need, Variable, nodes

NODE = st.one_of(
    st.just(Part("input")),
    st.just(Part("logits")),
    st.builds(lambda i, h: Part("head", i, h), st.integers(0, 99), st.integers(0, 99)),
    st.builds(lambda i: Part("mlp", i), st.integers(0, 99)),
)


@given(NODE, NODE)
def test_names_say_what_they_name(a: Part, b: Part) -> None:
    assert Part.parse(str(a)) == a
    ports = [*b.row.ports, "any"] if len(b.row.ports) > 1 else b.row.ports
    for port in ports:
        edge = Edge(a, Input(b, port))
        assert Edge.parse(str(edge), some=True) == edge


@pytest.mark.parametrize("name", ["", "h1", "a0.h", "a-1.h0", "m", "mlp0", "a0.h1->m1"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(BadFormat):
        Part.parse(name)


@pytest.mark.parametrize("name", ["", "a0.h1", "a0.h1->", "a0.h1->a1.h0<x>", "->m0"])
def test_other_edges_are_refused(name: str) -> None:
    for some in (False, True):
        with pytest.raises(BadFormat):
            Edge.parse(name, some=some)
    with pytest.raises(BadFormat, match="which input"):
        Edge.parse("a0.h1->a1.h0")


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
            assert (node.index is None) == (node.kind == "mlp")
            assert (node.index or 0) < heads
        ends = {Part("input"), Part("logits"), *truth.nodes}
        assert all({edge.source, edge.target.part} <= ends for edge in truth.edges), name

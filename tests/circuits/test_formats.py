"""Files: bitwise round trips, the published layout, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from cutaway.circuits import Circuit, read, score, trace, wiring, write
from cutaway.circuits.graph.nodes import standard
from cutaway.circuits.scores import Scores
from cutaway.errors import BadFormat, BadInput, CorruptFile, NotFound, UnsafeFile


@pytest.fixture
def circuit(gpt2, pairs) -> Circuit:
    return trace(gpt2, pairs, method="eap", edges=0.2, force=True)


def test_own_round_trip(circuit: Circuit, tmp_path):
    folder = circuit.save(tmp_path / "c")
    again = Circuit.load(folder)
    assert np.array_equal(again.membership, circuit.membership)
    for name in ("values", "examples"):
        assert np.array_equal(getattr(again.scores, name), getattr(circuit.scores, name))
    assert again.graph == circuit.graph
    assert (again.name, again.notes, again.selection) == (circuit.name, circuit.notes, circuit.selection)
    assert again.provenance == circuit.provenance
    (folder / "tensors.safetensors").write_bytes(b"junk")
    with pytest.raises(CorruptFile):
        Circuit.load(folder)


@pytest.mark.parametrize("suffix", [".json", ".pt"])
def test_graph_files_round_trip(suffix: str, circuit: Circuit, tmp_path):
    first = write(circuit, tmp_path / f"a{suffix}")
    again = read(first)
    assert np.array_equal(again.membership, circuit.membership)
    assert np.array_equal(again.scores.values, circuit.scores.values)
    second = write(again, tmp_path / f"b{suffix}")
    if suffix == ".json":
        assert first.read_bytes() == second.read_bytes()
    one, two = (
        torch.load(p, weights_only=True) if suffix == ".pt" else json.loads(p.read_text())
        for p in (first, second)
    )
    assert list(one) == list(two)
    if suffix == ".pt":
        for key, value in one.items():
            assert torch.equal(value, two[key]) if torch.is_tensor(value) else value == two[key]


def test_the_published_layout(tmp_path):
    """Names, counts and order of a two-layer, two-head graph as the format's package writes them."""
    graph = standard(2, 2)
    values = np.where(graph.allowed, np.random.default_rng(0).standard_normal(graph.shape), 0).astype(
        np.float32
    )
    made = Circuit(graph, graph.allowed, Scores(graph, values, "mine"))
    data = json.loads(write(made, tmp_path / "g.json").read_text())
    assert list(data) == ["cfg", "nodes", "edges"]
    assert data["cfg"] == {"n_layers": 2, "n_heads": 2, "parallel_attn_mlp": False, "d_model": 0}
    assert list(data["nodes"]) == ["input", "a0.h0", "a0.h1", "m0", "a1.h0", "a1.h1", "m1", "logits"]
    assert list(data["edges"])[:9] == [
        "input->a0.h0<q>", "input->a0.h0<k>", "input->a0.h0<v>", "input->a0.h1<q>", "input->a0.h1<k>", "input->a0.h1<v>",
        "input->m0", "a0.h0->m0", "a0.h1->m0",
    ]  # fmt: skip
    assert list(data["edges"])[-1] == "m1->logits"
    assert len(data["edges"]) == graph.n_edges
    tensors = torch.load(write(made, tmp_path / "g.pt"), weights_only=True)
    assert tensors["dst_nodes"] == [
        "a0.h0<q>", "a0.h1<q>", "a0.h0<k>", "a0.h1<k>", "a0.h0<v>", "a0.h1<v>", "m0",
        "a1.h0<q>", "a1.h1<q>", "a1.h0<k>", "a1.h1<k>", "a1.h0<v>", "a1.h1<v>", "m1", "logits",
    ]  # fmt: skip
    assert tensors["edges_scores"].shape == (7, 15)
    assert tensors["edges_scores"].dtype == torch.float32
    assert torch.equal(tensors["edges_scores"], torch.from_numpy(values))


def test_parallel_blocks_keep_their_order(tmp_path):
    graph = standard(1, 1, parallel=True)
    made = Circuit(graph, graph.allowed)
    names = list(json.loads(write(made, tmp_path / "p.json").read_text())["edges"])
    assert names[:4] == ["input->a0.h0<q>", "input->a0.h0<k>", "input->a0.h0<v>", "input->m0"]


def test_bad_files(tmp_path, circuit: Circuit):
    with pytest.raises(NotFound):
        read(tmp_path / "nothing.json")
    (tmp_path / "x.json").write_text("{}")
    with pytest.raises(BadFormat, match="lacks cfg"):
        read(tmp_path / "x.json")
    data = json.loads(write(circuit, tmp_path / "y.json").read_text())
    data["edges"]["a9.h0->logits"] = {"score": 1.0, "in_graph": True}
    (tmp_path / "y.json").write_text(json.dumps(data))
    with pytest.raises(NotFound, match=r"a9\.h0"):
        read(tmp_path / "y.json")
    torch.save({"cfg": Circuit}, tmp_path / "evil.pt")
    with pytest.raises(UnsafeFile):
        read(tmp_path / "evil.pt")
    (tmp_path / "z.txt").write_text("hello")
    with pytest.raises(BadFormat):
        read(tmp_path / "z.txt")


def test_a_graph_that_the_format_cannot_say(tmp_path):
    from cutaway.circuits.graph.nodes import SublayerNodes, assemble

    graph = assemble([SublayerNodes(0, "mixer", None, 1)])
    with pytest.raises(BadInput, match="format cannot say"):
        write(Circuit(graph, graph.allowed), tmp_path / "m.json")


def test_circuits_of_other_networks(gpt2, llama, pairs, circuit: Circuit):
    import cutaway

    with pytest.raises(BadInput, match="another network"):
        cutaway.test(llama, circuit, pairs.held_out)
    assert circuit.on(llama).graph.network == wiring(llama).graph.network
    other = Circuit.of_edges(standard(5, 2), ["input->logits"])
    with pytest.raises(BadInput, match="writers"):
        cutaway.test(gpt2, other, pairs.held_out)
    with pytest.raises(NotFound, match="does not write before"):
        Circuit.of_edges(wiring(gpt2).graph, ["m2->a0.h0<q>"])
    assert score(gpt2, pairs, method="eap").of("input->m0") != 0


def test_submission_folders(circuit: Circuit, tmp_path):
    from cutaway.circuits.formats import mib

    place = tmp_path / mib.folder_name("EAP", "patching")
    mib.write_importances({("ioi", "gpt2"): circuit}, place)
    again = mib.read_importances(place)
    assert np.array_equal(again["ioi", "gpt2"].scores.values, circuit.scores.values)
    files = mib.write_by_size(circuit, tmp_path / "series")
    sizes = [c.n_edges for c in mib.read_by_size(tmp_path / "series")]
    assert len(files) == 9
    assert sizes == sorted(sizes)
    with pytest.raises(BadFormat):
        mib.read_importances(tmp_path / "series")
    with pytest.raises(BadInput, match="no scores"):
        mib.write_by_size(Circuit(circuit.graph, circuit.membership), tmp_path / "x")


def test_it_is_a_result(circuit: Circuit, tmp_path):
    """Any loader opens it; its display needs nothing from outside; its page is what the command line writes."""
    import cutaway
    from cutaway.reports import publish
    from cutaway.results import Result, load

    assert isinstance(circuit, Result)
    folder, page = publish(circuit, tmp_path / "c")
    again = load(folder)
    assert again.recipe == circuit.recipe
    assert again.network_hash == circuit.network_hash == circuit.provenance.network_hash
    assert json.loads(json.dumps(again.to_dict()))["edges"] == circuit.to_dict()["edges"]
    shown = circuit._repr_html_()
    assert "<svg" in shown
    assert "http" not in shown
    assert 'src="http' not in page.read_text(encoding="utf-8")
    words = circuit._strongest()["from"]
    assert all(word == "input" or word.startswith(("head", "MLP")) for word in words)
    by_hand = Circuit.of_edges(circuit.graph, ["input->m0", "m0->logits"])
    assert load(by_hand.save(tmp_path / "hand")).to_dict()["edges"][0]["score"] is None
    assert cutaway.__version__

"""The one table of sites: other tables follow from it, documents tell it, and a new row is known everywhere."""

import ast
import pathlib
import re
from typing import get_args

import pytest
import torch

import cutaway
from cutaway.network.anatomy import Anatomy, AttentionField, Port, PortTap
from cutaway.network.certification.identities import new_ledgers
from cutaway.network.core import Core
from cutaway.network.network import Network
from cutaway.network.sites import (
    SHORT,
    SITES,
    TRANSFORMER_LENS,
    Axis,
    Site,
    SiteKind,
    SublayerKind,
    having,
    parse,
)
from cutaway.zoo.tiny import tiny

ROOT = pathlib.Path(cutaway.__file__).parent
DOCS = ROOT.parents[1] / "docs" / "network.md"
LETTERS = dict(
    zip(get_args(Axis), ["b", "p", "d", "h", "k", "e", "dest", "src", "m", "x", "f", "v"], strict=True)
)

#: Files that name three sites or more in one place, and why that is no table of facts about sites.
NAMED = {
    "algorithms/roles/acting.py": "what one computation reads",
    "algorithms/roles/half.py": "what one computation reads",
    "network/anatomy.py": "a type, which must be written out; a test below holds it to the table",
    "network/discovery/sublayers.py": "what one traced attention gave, by name",
    "network/named_weights.py": "which sites vouch for which matrix",
    "network/parts.py": "kinds of part, some of which are called like the site that they are",
    "circuits/methods/atp_star.py": "the sites that the method's own formulas speak of",
    "effects/transformerlens.py": "TransformerLens's names of its sweeps",
    "features/formats/gemma_scope.py": "what the files of one release call the modules that they read",
    "stream/head_weights.py": "what one computation reads",
    "stream/paths.py": "what one computation reads",
    "stream/why_attend.py": "what one computation reads",
}


def _named():
    """(file, line, names) wherever three names of sites stand in one literal; q, k, v alone are ports of a head."""
    for file in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Dict):
                groups = [node.keys, node.values]
            else:
                groups = [node.elts] if isinstance(node, ast.Tuple | ast.List | ast.Set) else []
            for group in groups:
                names = {e.value for e in group if isinstance(e, ast.Constant) and isinstance(e.value, str)}
                names &= SITES.keys()
                if len(names) >= 3 and not names <= {"q", "k", "v"}:
                    yield str(file.relative_to(ROOT)), node.lineno, sorted(names)


def test_no_other_table_of_sites():
    found = list(_named())
    strange = [row for row in found if row[0] not in NAMED and row[0] != "network/sites.py"]
    assert not strange, "say it in a column of SITES, or in NAMED why it is not a fact about sites"
    assert {row[0] for row in found} >= NAMED.keys(), "these files name no sites any more"


def test_the_documents_tell_every_row():
    told = {}
    for names, shape in re.findall(
        r"^\| ((?:`\w+`(?:, )?)+) \| ([a-z ]+) \|", DOCS.read_text(), re.MULTILINE
    ):
        told.update(dict.fromkeys(re.findall(r"`(\w+)`", names), shape))
    assert told == {name: " ".join(LETTERS[a] for a in kind.axes) for name, kind in SITES.items()}


def test_what_rows_name_exists():
    identities = new_ledgers().keys()
    for name, kind in SITES.items():
        assert kind.identities <= identities, name
        assert kind.carrier in {"", *SITES}, name
        assert kind.anew is None or set(" ".join(kind.anew).split()) <= {"attention", "mlp"}, name
        assert not kind.inside or kind.sublayer, name
        assert not kind.sublayer or kind.layered, name
    assert not set(TRANSFORMER_LENS) & set(SITES)
    assert len(TRANSFORMER_LENS) == sum(len(kind.hooks) for kind in SITES.values())


def test_names_follow_from_kinds():
    assert tuple(SHORT) == get_args(SublayerKind)
    for short in SHORT.values():
        assert {f"{short}_in", f"{short}_out", f"{short}_write"} <= SITES.keys()
    inside = having(lambda kind: kind.inside and not kind.cross)
    assert sorted(inside) == sorted(get_args(AttentionField))
    assert [f"cross_{name}" for name in inside] == list(having(lambda kind: kind.inside and kind.cross))


@pytest.mark.parametrize("name", SITES)
def test_a_row_parses(name):
    site = Site(name, 1 if SITES[name].layered else None)
    assert parse(str(site)) == parse(site.transformer_lens()) == site


def test_every_site_that_is_there_is_vouched_for():
    for kind in ("llama", "t5", "mixtral", "gemma2"):
        net = cutaway.open(tiny(kind))
        checks = {check.name for check in net.certificate.checks}
        for site in net.sites():
            vouched = SITES[site.name].identities
            bare = site.name in ("resid_pre", "resid_post", "logits") or site.name.endswith("_out")
            assert checks & vouched or bare, site


def test_a_new_row_is_known_everywhere(monkeypatch):
    axes: tuple[Axis, ...] = ("batch", "pos", "width")
    monkeypatch.setitem(SITES, "normed", SiteKind(axes, True, "output of the first norm"))
    net = cutaway.open(tiny("llama"))
    old = net.anatomy
    taps = dict(old.taps) | {
        Site("normed", i): PortTap(Port(f"model.layers.{i}.input_layernorm", "out", "")) for i in range(3)
    }
    anatomy = Anatomy(old.stacks, taps, old.refusals, old.head, old.in_place)
    wider = Network(Core(net.model, None, anatomy, net.certificate, "wider", net.opened))
    assert wider.layers_with("normed") == [0, 1, 2]
    assert parse("normed.1") == Site("normed", 1)
    ids = torch.tensor([[5, 6, 7]])
    run = wider.run(ids, keep=["normed", "attn_in"])
    assert all(torch.equal(run["normed", i], run["attn_in", i]) for i in range(3))
    edited = wider.run(ids, edits=cutaway.Ablate("normed.1", "zero"))
    assert torch.equal(edited.logits, net.run(ids, edits=cutaway.Ablate("attn_in.1", "zero")).logits)

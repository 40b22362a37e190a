"""The face and what lies below it: who may know whom, and what the interface says of a forward."""

import ast
import pathlib

import pytest

import cutaway
from cutaway.network import network
from cutaway.network.interface import Interface
from cutaway.network.network import Network
from cutaway.zoo.tiny import tiny

ROOM = pathlib.Path(network.__file__).parent


def test_the_face_inherits_nothing():
    assert Network.__bases__ == (object,)


def test_nothing_below_knows_the_face():
    above = {"network.py", "opening.py", "learnt.py", "pace.py", "pricing.py", "scoring.py", "__init__.py"}
    for file in ROOM.rglob("*.py"):
        imported = {
            f"{node.module}.{alias.name}"
            for node in ast.walk(ast.parse(file.read_text()))
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        knows = {
            name
            for name in imported
            if name.startswith("cutaway.network.network") or name == "cutaway.network.Network"
        }
        assert not knows or (file.parent == ROOM and file.name in above), file


@pytest.mark.parametrize(
    ("kind", "encoder_decoder", "decodes", "cache", "logits_to_keep", "main"),
    [
        ("gpt2", False, False, True, True, "input_ids"),
        ("llama", False, False, True, True, "input_ids"),
        ("t5", True, True, True, False, "input_ids"),
        ("bert", False, False, False, False, "input_ids"),
        ("vit", False, False, False, False, "pixel_values"),
    ],
)
def test_the_interface_tells_what_forward_takes(kind, encoder_decoder, decodes, cache, logits_to_keep, main):
    interface = Interface.of(tiny(kind, task="masked-lm" if kind == "bert" else None))
    assert interface.encoder_decoder is encoder_decoder
    assert interface.decodes is decodes
    assert interface.logits_to_keep is logits_to_keep
    assert interface.main == main
    assert interface.accepts(main)
    assert not interface.accepts("nothing")
    if cache:
        assert interface.cache
        assert interface.uncached == {"use_cache": False}


def test_public_names_of_the_face():
    net = cutaway.open(tiny("gpt2"))
    assert net.core.modules is net.modules
    assert net.text_config is net.config
    assert net.standing == ()
    assert net.tokens_of([[5, 6], [7]]) == [[5, 6], [7]]
    assert net.encode([[5, 6], [7]]).ids.tolist() == [[5, 6], [7, net.pad_id]]

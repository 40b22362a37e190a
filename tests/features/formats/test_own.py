"""The house's own format: every dictionary of every fixture, and forms that no other format holds, bit for bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.features.formats import cases, layers

from cutaway import features
from cutaway.errors import BadFormat, CorruptFile, CutawayError, SaveFailed
from cutaway.features.dictionaries import (
    AbsTopK,
    Decoder,
    Dictionary,
    Encoder,
    Gated,
    GroupMax,
    JumpReLU,
    Place,
    ReLU,
    TopK,
)
from cutaway.features.formats import DictionaryFiles, formats, own


def same(found: Dictionary, wanted: Dictionary) -> None:
    assert found.hash == wanted.hash
    held, asked = found.tensors(), wanted.tensors()
    assert held.keys() == asked.keys()
    for name, value in asked.items():
        assert held[name].dtype == value.dtype
        assert torch.equal(held[name], value) or bool(value.isnan().any())
    for name in ("kind", "reads", "writes", "notes"):
        assert getattr(found, name) == getattr(wanted, name)
    assert [(d.source, d.target) for d in found.decoders] == [(d.source, d.target) for d in wanted.decoders]
    for one, other in zip(found.encoders, wanted.encoders, strict=True):
        assert type(one.activation) is type(other.activation)
        assert (one.norm, one.restores, one.k) == (other.norm, other.restores, other.k)


def goes_round(dictionary: Dictionary, folder: Path) -> Dictionary:
    features.write(dictionary, folder, format="cutaway")
    found = features.read(folder)
    same(found, dictionary)
    assert found.format == "cutaway"
    again = features.write(found, folder.with_name("again"), format="cutaway")
    for one, other in zip(own.files_of(folder), own.files_of(again), strict=True):
        assert one.read_bytes() == other.read_bytes()
    return found


@pytest.mark.parametrize(
    "name", [n for n, c in cases.CASES.items() if not cases.FORMATS[c.about["format"]].refuses]
)
def test_what_any_package_wrote_comes_back_bit_for_bit(name: str, tmp_path: Path) -> None:
    goes_round(cases.CASES[name].read(), tmp_path / "own")


@pytest.mark.parametrize(("family", "name"), layers.CASES)
def test_what_has_several_layers_comes_back_bit_for_bit(family: str, name: str, tmp_path: Path) -> None:
    try:
        dictionary, _, _ = layers.case(family, name, tmp_path)
    except CutawayError:
        pytest.skip("its format is refused")
    goes_round(dictionary, tmp_path / "own")


def forms() -> dict[str, Callable[[], Dictionary]]:
    torch.manual_seed(0)
    place, other = Place("", "resid_post.0", 4), Place("words", "", 4, 1)
    f = torch.randn

    def one(encoder: Encoder, **more: object) -> Dictionary:
        return replace(
            Dictionary("autoencoder", (encoder,), (Decoder(0, 0, f(6, 4)),), (f(4),), ((place,),), (place,)),
            **more,  # type: ignore[arg-type]
        )

    def across() -> Dictionary:
        encoders = (Encoder(f(4, 6), f(6), JumpReLU(torch.tensor(0.5))), Encoder(f(4, 3), None, ReLU()))
        decoders = (Decoder(0, 0, f(6, 4)), Decoder(0, 1, f(6, 4)), Decoder(1, 1, f(3, 4)))
        return Dictionary(
            "cross-layer transcoder", encoders, decoders, (f(4), None), ((place,), (other,)), (place, other),
            (None, f(4, 4)),
        )  # fmt: skip

    def beside() -> Dictionary:
        encoder = Encoder(f(8, 6), f(6), TopK(2, by=f(6).abs()), gate=f(8, 6), gate_bias=f(6), gain=f(6))
        return Dictionary(
            "crosscoder", (encoder,), (Decoder(0, 0, f(6, 4)), Decoder(0, 1, f(6, 4))), (f(4), f(4)),
            ((place, other),), (place, other),
        )  # fmt: skip

    tied = f(4, 6)
    return {
        "across layers": across,
        "over models": beside,
        "group max": lambda: one(Encoder(f(4, 6), f(6), GroupMax(3), centre=f(4))),
        "gated": lambda: one(Encoder(f(4, 6), None, Gated(f(6), f(6), f(6)))),
        "abs top k": lambda: one(Encoder(f(4, 6), f(6), AbsTopK(2), norm="layer-norm", restores=False)),
        "tied": lambda: one(Encoder(tied, None, ReLU()), decoders=(Decoder(0, 0, tied.T),)),
        "in bfloat16": lambda: one(Encoder(f(4, 6), f(6), TopK(2))).to(torch.bfloat16),
        "of doubles": lambda: one(Encoder(f(4, 6).double(), f(6), TopK(2)), said={"l0": 3.5, "a": [1, {"b": None}]}),
    }  # fmt: skip


@pytest.mark.parametrize("name", forms())
def test_forms_that_no_other_format_holds_come_back(name: str, tmp_path: Path) -> None:
    wanted = forms()[name]()
    found = goes_round(wanted, tmp_path / "own")
    assert dict(found.said) == dict(wanted.said)


def test_what_it_was_read_from_is_kept(tmp_path: Path) -> None:
    wanted = replace(forms()["group max"](), format="saelens")
    features.write(wanted, tmp_path / "own", format="cutaway")
    assert features.read(tmp_path / "own").said[own.FORMERLY] == "saelens"


def test_tensors_are_mapped_and_read_when_they_are_used(tmp_path: Path) -> None:
    features.write(forms()["across layers"](), tmp_path / "own", format="cutaway")
    source = DictionaryFiles.of(tmp_path / "own")
    assert [row.name for row in formats().values() if row.known(source)] == ["cutaway"]
    assert (
        own.read(source).encoders[0].weight.data_ptr()
        == source.tensors(own.TENSORS)["encoders.0.weight"].data_ptr()
    )


def _edited(folder: Path, **changes: object) -> None:
    said = json.loads((folder / own.SAYS).read_text())
    (folder / own.SAYS).write_text(json.dumps(said | changes))


def _encoder(kind: str) -> dict[str, object]:
    return {"activation": {"kind": kind}, "norm": "none", "restores": True}


DAMAGE: dict[str, Callable[[Path], None]] = {
    "truncated tensors": lambda p: (p / own.TENSORS).write_bytes((p / own.TENSORS).read_bytes()[:-9]),
    "no tensors": lambda p: (p / own.TENSORS).write_bytes(b""),
    "truncated words": lambda p: (p / own.SAYS).write_text((p / own.SAYS).read_text()[:-60]),
    "another file's words": lambda p: (p / own.SAYS).write_text("[1, 2]"),
    "a later version": lambda p: _edited(p, version=9),
    "no encoders": lambda p: _edited(p, encoders=[]),
    "an encoder too many": lambda p: _edited(p, encoders=[_encoder("relu")] * 2),
    "a strange nonlinearity": lambda p: _edited(p, encoders=[_encoder("swish")]),
    "a strange kind": lambda p: _edited(p, kind="oracle"),
    "tensors it does not name": lambda p: _edited(p, tensors=["encoders.0.weight"]),
    "a place of another width": lambda p: _edited(p, writes=[{"said": "", "site": "", "width": 9, "model": 0}]),
    "no version": lambda p: _edited(p, version=None),
}  # fmt: skip


@pytest.mark.parametrize("name", DAMAGE)
def test_what_is_damaged_is_refused(name: str, tmp_path: Path) -> None:
    features.write(forms()["group max"](), tmp_path / "own", format="cutaway")
    DAMAGE[name](tmp_path / "own")
    with pytest.raises((BadFormat, CorruptFile, CutawayError)) as refused:
        features.read(tmp_path / "own")
    assert refused.value.remedy


def test_nothing_else_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / own.SAYS).write_text("mine")
    with pytest.raises(SaveFailed):
        features.write(forms()["tied"](), tmp_path / "own", format="cutaway")
    assert (tmp_path / "own" / own.SAYS).read_text() == "mine"
    assert not (tmp_path / "own" / own.TENSORS).exists()

"""Writers of formats with several layers: read, write, read is the same bit for bit; what cannot be held is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.features.formats.layers import CASES, FORMATS, case, opened, same, tolerance, values
from torch import Tensor

from cutaway.errors import BadInput, SaveFailed
from cutaway.features.dictionaries import (
    AbsTopK,
    Decoder,
    Dictionary,
    Encoder,
    JumpReLU,
    Place,
    ReLU,
    TopK,
)
from cutaway.features.formats import DictionaryFiles
from cutaway.features.formats.layered import folded

D, F = 4, 10
WRITERS = {"transcoder": "circuit-tracer-set", "cross-layer transcoder": "circuit-tracer-clt"}


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def kept(family: str, name: str, tmp_path: Path, writer: str) -> Dictionary | None:
    """A case written in a format and read again, or None where it cannot be held."""
    made, expected, _ = case(family, name, tmp_path)
    made = made if all(e.gain is None and e.centre is None for e in made.encoders) else folded_or_none(made)
    write = FORMATS[writer].write
    assert write is not None
    try:
        write(made, tmp_path / "written")
    except BadInput:
        assert not (tmp_path / "written").exists()
        return None
    again = opened(tmp_path / "written")
    assert again.format == writer
    # what the format always holds, and this dictionary left out as zero, is there on the second reading
    write(again, tmp_path / "twice")
    assert same(opened(tmp_path / "twice"), again)
    both = made.tensors().keys() & again.tensors().keys()
    for key in both:
        assert torch.equal(made.tensors()[key].expand_as(again.tensors()[key]), again.tensors()[key])
        assert made.tensors()[key].dtype == again.tensors()[key].dtype
    for s in range(len(again.encoders)):
        rows = values(family, name, expected, s)
        wanted = expected[f"z.{s}"]
        z = again.encode(rows, s)
        assert torch.equal(z != 0, wanted != 0)
        loose = 1e6 if wanted.dtype == torch.float64 and made.encoders[0].weight.dtype != wanted.dtype else 1
        assert float((z - wanted).abs().max()) <= loose * tolerance(wanted)
    assert again.reads == made.reads
    assert again.writes == made.writes
    return again


def folded_or_none(made: Dictionary) -> Dictionary:
    return made if any(e.gate is not None for e in made.encoders) else folded(made)


@pytest.mark.parametrize(("family", "name"), [c for c in CASES if c[0] == "circuit_tracer"])
def test_circuit_tracers_own_files_come_back_bit_for_bit(family: str, name: str, tmp_path: Path) -> None:
    made, _, _ = case(family, name, tmp_path)
    again = kept(family, name, tmp_path, WRITERS[made.kind])
    assert again is not None
    assert same(made, again)
    assert again.kind == made.kind
    assert again.said.items() <= made.said.items()


@pytest.mark.parametrize(("family", "name"), [c for c in CASES if c[0] == "llamascopium"])
def test_llamascopiums_own_files_come_back_bit_for_bit(family: str, name: str, tmp_path: Path) -> None:
    made, _, _ = case(family, name, tmp_path)
    again = kept(family, name, tmp_path, "llamascopium")
    if again is None:
        joint = made.kind == "crosscoder" and not isinstance(made.encoders[0].activation, ReLU)
        ranked = isinstance(made.encoders[0].activation, TopK) and made.encoders[0].activation.by is not None
        scaled = "dataset-wise" in name
        double = "jumprelu" in name and name.endswith("-weighted-f64")
        assert joint or double or (ranked and scaled) or (scaled and "glu" in name)
        return
    first = made if all(e.gain is None for e in made.encoders) else folded(made)
    assert again.kind == made.kind
    assert same(first, again)


@pytest.mark.parametrize(
    ("family", "name"),
    [c for c in CASES if c[0] not in ("circuit_tracer", "llamascopium") and c[1].endswith("f32")],
)
def test_other_formats_are_written_where_they_fit(family: str, name: str, tmp_path: Path) -> None:
    for n, writer in enumerate(("circuit-tracer-set", "circuit-tracer-clt", "llamascopium")):
        (tmp_path / str(n)).mkdir()
        kept(family, name, tmp_path / str(n), writer)


def test_most_cases_fit_a_writer(tmp_path: Path) -> None:
    """Of the cases of other formats, at least a third go into a format of circuit-tracer or llamascopium."""
    others = [c for c in CASES if c[0] in ("clt_forge", "crosslayer_coding") and c[1].endswith("f32")]
    written = 0
    for n, (family, name) in enumerate(others):
        (tmp_path / str(n)).mkdir()
        written += kept(family, name, tmp_path / str(n), "circuit-tracer-clt") is not None
    assert written >= len(others) // 3


# what cannot be held -------------------------------------------------------------------------------------------------


def transcoder(n: int = 2, **changes: object) -> Dictionary:
    encoders = tuple(Encoder(drawn(i, D, F), drawn(i + 50, F), ReLU()) for i in range(n))
    reads = tuple((Place(f"blocks.{i}.hook_resid_mid", f"resid_mid.{i}", D),) for i in range(n))
    writes = tuple(Place(f"blocks.{i}.hook_mlp_out", f"mlp_write.{i}", D) for i in range(n))
    decoders = tuple(Decoder(i, i, drawn(i + 9, F, D)) for i in range(n))
    made = Dictionary("transcoder", encoders, decoders, tuple(drawn(i, D) for i in range(n)), reads, writes)
    return replace(made, **changes)  # type: ignore[arg-type]


def with_encoder(change: Callable[[Encoder], Encoder]) -> Dictionary:
    made = transcoder()
    return replace(made, encoders=(change(made.encoders[0]), *made.encoders[1:]))


REFUSED: list[tuple[str, Dictionary, str]] = [
    ("circuit-tracer-set", with_encoder(lambda e: replace(e, centre=drawn(1, D))), "Fold it first"),
    ("circuit-tracer-set", with_encoder(lambda e: replace(e, gain=drawn(1, F))), "Fold it first"),
    ("circuit-tracer-set", with_encoder(lambda e: replace(e, norm="layer-norm")), "layer-norm"),
    ("circuit-tracer-set", with_encoder(lambda e: replace(e, gate=drawn(1, D, F))), "gated linear unit"),
    ("circuit-tracer-set", with_encoder(lambda e: replace(e, activation=TopK(3))), "not topk"),
    ("circuit-tracer-set", transcoder(decoders=(Decoder(0, 1, drawn(1, F, D)), Decoder(1, 0, drawn(2, F, D)))),
     "own target"),
    ("circuit-tracer-set", transcoder(writes=(Place("model.layers.0.mlp", "", D), Place("model.layers.1.mlp", "", D))),
     "one hook"),
    ("circuit-tracer-set", transcoder(writes=(Place("blocks.0.hook_mlp_out", "", D), Place("blocks.1.hook_out", "", D))),
     "one hook"),
    ("circuit-tracer-clt", transcoder(skips=(drawn(1, D, D), None)), "no skip connection"),
    ("circuit-tracer-clt", transcoder(decoders=(Decoder(1, 0, drawn(1, F, D)), Decoder(0, 0, drawn(1, F, D)))),
     "earlier one"),
    ("circuit-tracer-clt", with_encoder(lambda e: replace(e, activation=AbsTopK(3))), "not abstopk"),
    ("llamascopium", transcoder(), "one layer of transcoders"),
    ("llamascopium", replace(transcoder(1), skips=(drawn(1, D, D),)), "no skip connection"),
    ("llamascopium", replace(transcoder(1), encoders=(Encoder(drawn(1, D, F), None, AbsTopK(2)),)), "not abstopk"),
    ("llamascopium", replace(transcoder(1), encoders=(Encoder(drawn(1, D, F), None, JumpReLU(torch.full((F,), -1.0))),)),
     "below zero"),
    ("llamascopium", replace(transcoder(1), encoders=(Encoder(drawn(1, D, F), None, TopK(2, by=torch.ones(F))),)),
     "lengths of their decoders"),
    ("llamascopium", replace(transcoder(1), kind="autoencoder"), "names of its two hooks"),
    ("llamascopium", replace(transcoder(1), writes=(Place("blocks.0.hook_mlp_out", "", D, model=1),)), "one model"),
]  # fmt: skip


@pytest.mark.parametrize(("writer", "made", "said"), REFUSED)
def test_what_a_format_cannot_hold_is_refused_and_nothing_written(
    writer: str, made: Dictionary, said: str, tmp_path: Path
) -> None:
    write = FORMATS[writer].write
    assert write is not None
    with pytest.raises(BadInput, match=said):
        write(made, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_thresholds_that_no_logarithm_in_single_precision_has_come_back_exactly(tmp_path: Path) -> None:
    threshold = torch.rand(F, generator=torch.Generator().manual_seed(3)) * 3
    made = transcoder(1, encoders=(Encoder(drawn(1, D, F), drawn(2, F), JumpReLU(threshold)),))
    assert any(float(t) not in [float(torch.log(t).exp()) for t in threshold] for t in threshold)
    write = FORMATS["llamascopium"].write
    assert write is not None
    write(made, tmp_path / "out")
    again = opened(tmp_path / "out").encoders[0].activation
    assert isinstance(again, JumpReLU)
    assert torch.equal(again.threshold, threshold)
    assert again.threshold.dtype == threshold.dtype


def test_thresholds_in_double_precision_without_a_logarithm_are_refused(tmp_path: Path) -> None:
    threshold = torch.rand(F, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * 3
    made = transcoder(1, encoders=(Encoder(drawn(1, D, F), None, JumpReLU(threshold)),)).to(torch.float64)
    write = FORMATS["llamascopium"].write
    assert write is not None
    with pytest.raises(BadInput, match="double precision have none"):
        write(made, tmp_path / "out")
    write(made.to(torch.float32), tmp_path / "out")


def test_the_number_of_latents_survives_the_factor_that_the_package_computes_it_with(tmp_path: Path) -> None:
    write = FORMATS["llamascopium"].write
    assert write is not None
    for width, size in ((3, 7), (7, 15), (49, 147 + 1), (41, 10 * 41 + 3)):
        encoder = Encoder(drawn(1, width, size), None, ReLU())
        place = Place("blocks.0.hook_resid_post", "resid_post.0", width)
        made = Dictionary(
            "autoencoder", (encoder,), (Decoder(0, 0, drawn(2, size, width)),), (None,), ((place,),), (place,)
        )
        write(made, tmp_path / f"{width}")
        said = json.loads((tmp_path / f"{width}" / "config.json").read_text())
        assert int(said["d_model"] * said["expansion_factor"]) == size


def test_a_folder_keeps_what_is_not_of_the_format_and_loses_layers_that_are_gone(tmp_path: Path) -> None:
    write = FORMATS["circuit-tracer-set"].write
    assert write is not None
    write(transcoder(3), tmp_path / "out")
    (tmp_path / "out" / "notes.txt").write_text("mine")
    write(transcoder(2), tmp_path / "out")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "config.yaml",
        "layer_0.safetensors",
        "layer_1.safetensors",
        "notes.txt",
    ]


def test_a_dictionary_is_written_over_the_files_it_was_mapped_from(tmp_path: Path) -> None:
    write = FORMATS["circuit-tracer-clt"].write
    assert write is not None
    clt = transcoder(2, kind="cross-layer transcoder")
    write(clt, tmp_path / "out")
    made = opened(tmp_path / "out")
    write(made, tmp_path / "out")
    assert same(opened(tmp_path / "out"), made)


def test_a_failure_half_way_leaves_the_old_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import safetensors.torch

    write = FORMATS["circuit-tracer-set"].write
    assert write is not None
    write(transcoder(3), tmp_path / "out")
    before = {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()}
    save, calls = safetensors.torch.save_file, []

    def full(tensors: dict[str, Tensor], file: Path) -> None:
        calls.append(file)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        save(tensors, file)

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    with pytest.raises(SaveFailed, match="No space left"):
        write(transcoder(3, biases=(None, None, None)), tmp_path / "out")
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == before
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_folding_keeps_the_function(tmp_path: Path) -> None:
    made, expected, _ = case("crosslayer_transcoder", "relu-clt-dimensionwise-f64", tmp_path)
    flat = folded(made)
    assert all(e.centre is None and e.gain is None for e in flat.encoders)
    for s in range(3):
        z = flat.encode(expected[f"x.{s}"], s)
        assert float((z - expected[f"z.{s}"]).abs().max()) <= tolerance(expected[f"z.{s}"])
    gated, _, _ = case("llamascopium", "transcoder-glu-dataset-wise-f64", tmp_path)
    with pytest.raises(BadInput, match="gated linear unit"):
        folded(gated)


def test_written_files_are_known_by_one_format(tmp_path: Path) -> None:
    for kind, writer in (
        ("transcoder", "circuit-tracer-set"),
        ("cross-layer transcoder", "circuit-tracer-clt"),
    ):
        write = FORMATS[writer].write
        assert write is not None
        write(transcoder(2, kind=kind), tmp_path / writer)
        source = DictionaryFiles.of(tmp_path / writer)
        assert [row.name for row in FORMATS.values() if row.known(source)] == [writer]

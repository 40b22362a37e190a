"""Files that the original packages wrote: recognised, read as the package reads them, written and read again."""

from __future__ import annotations

import json
import math
import resource
import struct
from pathlib import Path

import pytest
import torch
from tests.features.formats.cases import CASES, FORMATS, Case
from torch import Tensor

from cutaway.errors import BadFormat, CutawayError
from cutaway.features.formats import DictionaryFiles, recognised

each = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def close(found: Tensor, wanted: Tensor, bound: float) -> None:
    """Within a bound of the largest value."""
    assert found.shape == wanted.shape
    assert float((found.double() - wanted.double()).abs().max()) <= bound * float(wanted.double().abs().max())


@each
def test_it_encodes_and_decodes_as_its_package(case: Case) -> None:
    dictionary, wanted = case.read().checked(), case.expected
    rows = wanted["rows"]
    bound = 1e-12 if rows.dtype == torch.float64 else 1e-6
    if rows.dtype in (torch.float16, torch.bfloat16):
        bound = 2e-2  # the package computes in this type, we in single precision
    latents = dictionary.encode(rows)
    close(latents, wanted["latents"], bound)
    assert torch.equal(latents != 0, wanted["latents"] != 0)
    close(dictionary.decode(latents, rows), wanted["reconstruction"], bound)
    assert bool((latents != 0).any())
    assert bool((latents == 0).any())


@each
def test_one_format_recognises_it(case: Case) -> None:
    fitting = [name for name, row in FORMATS.items() if row.known(case.source())]
    asked = case.about["format"]
    if asked == "gemma-scope-transcoder":
        assert fitting == ["gemma-scope"]  # its files are those of an autoencoder: it must be asked for
    else:
        assert fitting == [asked]
        assert recognised(case.source(), FORMATS).name == asked


@each
def test_read_written_and_read_it_is_the_same_bit_for_bit(case: Case, tmp_path: Path) -> None:
    first = case.read()
    for name, row in FORMATS.items():
        if row.write is None:
            continue
        folder = tmp_path / name / (first.reads[0][0].said.removesuffix(":in") or "layers.0")
        refused: CutawayError | None = None
        try:
            row.write(first, folder)
        except CutawayError as error:
            refused = error
        if refused is not None:
            assert "does not hold" in str(refused)
            assert name != case.about["format"] or first.encoders[0].activation.kind == "abstopk"
            assert not folder.exists()
            continue
        assert recognised(DictionaryFiles.of(folder), FORMATS).name == name
        asked = "gemma-scope-transcoder" if name == "gemma-scope" and first.kind == "transcoder" else name
        second = FORMATS[asked].opened(DictionaryFiles.of(folder))
        rows = case.expected["rows"]
        close(second.encode(rows), first.encode(rows), 1e-6)
        close(second.decode(second.encode(rows), rows), first.decode(first.encode(rows), rows), 1e-6)
        if name in (case.about["format"], case.about["format"].removesuffix("-old")):
            one, two = first.tensors(), second.tensors()
            assert list(one) == list(two)
            assert all(torch.equal(one[key], two[key]) and one[key].dtype == two[key].dtype for key in one)
            assert (second.kind, second.encoders[0].norm, second.encoders[0].k) == (
                first.kind, first.encoders[0].norm, first.encoders[0].k,
            )  # fmt: skip
            if name != "gemma-scope":  # whose files do not say where they were trained
                assert second.reads[0][0].site == first.reads[0][0].site


@each
def test_a_number_that_is_not_finite_is_named(case: Case, tmp_path: Path) -> None:
    made = case.read()
    with torch.no_grad():
        broken = made.to(torch.float64)
        broken.decoders[0].weight[1, 2] = float("nan")
    with pytest.raises(CutawayError, match="holds NaN"):
        broken.checked()


def test_there_are_enough_of_them() -> None:
    by = [case.about["by"] for case in CASES.values()]
    print(f"{by.count('package')} written by packages, {by.count('published writer')} by scripts")
    assert by.count("package") >= 100
    assert len({case.about["format"] for case in CASES.values()}) >= 14


def test_a_keyword_that_a_format_does_not_take_is_refused() -> None:
    case = next(case for case in CASES.values() if case.about["format"] == "openai")
    with pytest.raises(CutawayError, match="k= says nothing"):
        FORMATS["openai"].opened(case.source(), k=3)


def test_an_unknown_format_is_refused_with_the_near_one() -> None:
    case = next(iter(CASES.values()))
    with pytest.raises(BadFormat, match="saelens"):
        recognised(case.source(), FORMATS, "sealens")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the memory in use is read from /proc")
def test_opening_a_gigabyte_reads_hardly_any_of_it(tmp_path: Path) -> None:
    d, size = 1024, 131_072
    shapes = {"W_enc": (d, size), "W_dec": (size, d), "b_enc": (size,), "b_dec": (d,), "threshold": (size,)}
    header, end = {}, 0
    for key, shape in shapes.items():
        begin, end = end, end + 4 * math.prod(shape)
        header[key] = {"dtype": "F32", "shape": shape, "data_offsets": (begin, end)}
    words = json.dumps(header).encode()
    with (tmp_path / "sae_weights.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(words)) + words)
        file.truncate(8 + len(words) + end)  # zeros that no disk holds
    about = {"hook_name": "blocks.1.hook_resid_post"}
    config = {"architecture": "jumprelu", "d_in": d, "d_sae": size, "metadata": about}
    (tmp_path / "cfg.json").write_text(json.dumps(config))
    before = megabytes()
    dictionary = recognised(DictionaryFiles.of(tmp_path), FORMATS).opened(DictionaryFiles.of(tmp_path))
    assert dictionary.directions()[:100].sum() == 0
    assert end > 2**30
    assert megabytes() - before < 50


def megabytes() -> int:
    """Memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() >> 20

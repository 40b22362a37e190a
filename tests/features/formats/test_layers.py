"""Every case of the formats with several layers: recognised by one, encoded and decoded as its own package does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.features.formats.layers import ABOUT, CASES, FORMATS, case, tolerance, values
from tests.features.formats.packing import unpacked

from cutaway.features.formats import DictionaryFiles


@pytest.mark.parametrize(("family", "name"), CASES)
def test_exactly_one_format_knows_each_case(family: str, name: str, tmp_path: Path) -> None:
    source = DictionaryFiles.of(unpacked(family, name, tmp_path)[0])
    assert len([row.name for row in FORMATS.values() if row.known(source)]) == 1


@pytest.mark.parametrize(("family", "name"), CASES)
def test_a_case_encodes_and_decodes_as_its_package_does(family: str, name: str, tmp_path: Path) -> None:
    made, expected, _ = case(family, name, tmp_path)
    sources, targets = len(made.encoders), len(made.writes)
    assert {key for key in expected if key.startswith("z.")} == {f"z.{s}" for s in range(sources)}
    assert {key for key in expected if key.startswith("y.")} == {f"y.{t}" for t in range(targets)}
    rows = [values(family, name, expected, s) for s in range(sources)]
    latents = [made.encode(rows[s], s) for s in range(sources)]
    for s, z in enumerate(latents):
        wanted = expected[f"z.{s}"]
        assert z.dtype == wanted.dtype
        assert torch.equal(z != 0, wanted != 0), "other latents are there"
        assert 0 < float((z != 0).float().mean()) < 1, "the case tells active latents from silent ones"
        assert float((z - wanted).abs().max()) <= tolerance(wanted)
    for t in range(targets):
        y = made.decode(latents, rows[min(t, sources - 1)], target=t)
        assert float((y - expected[f"y.{t}"]).abs().max()) <= tolerance(expected[f"y.{t}"])


def test_cases_by_original_packages_and_by_published_writers_are_counted_apart() -> None:
    by = {family: ABOUT[family]["by"] for family in ABOUT}
    counts = {
        kind: sum(len(ABOUT[f]["cases"]) for f, b in by.items() if b == kind) for kind in set(by.values())
    }
    assert counts.keys() == {"original package", "published writer"}
    assert counts["original package"] >= 100
    assert counts["published writer"] >= 100
    assert all(ABOUT[family]["versions"]["torch"] for family in ABOUT)


@pytest.mark.parametrize(("family", "name"), [c for c in CASES if "f32" in c[1]][::9])
def test_a_case_that_is_read_wrongly_fails(family: str, name: str, tmp_path: Path) -> None:
    """The comparison notices a bias of one latent that is off by a thousandth."""
    from dataclasses import replace

    made, expected, _ = case(family, name, tmp_path)
    bias = made.encoders[0].bias
    assert bias is not None
    broken = replace(made.encoders[0], bias=bias + 1e-3)
    z = broken(values(family, name, expected, 0))
    assert float((z - expected["z.0"]).abs().max()) > tolerance(expected["z.0"])

"""Results of probes: what each can do, and how each is opened again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from xor_networks import ANSWERS, Specimen

import cutaway
from cutaway.errors import BadInput, UnknownOption
from cutaway.probes import ProbeData, ProbeOptions, leace, probe, probe_data, use
from cutaway.probes.use.alignment import SearchOptions, align
from cutaway.reports import render
from cutaway.results import Result, load

YES_NO = {"0": ANSWERS["no"], "1": ANSWERS["yes"]}


@pytest.fixture(scope="module")
def results(net: cutaway.Network, made: Specimen) -> dict[str, Any]:
    data = ProbeData(made.prompts, made.labels["used"], name="used")
    probing = probe(net, data, at="resid_post", permutations=20, untrained=False, n_boot=60, seed=2)
    return {
        "probing": probing, "probe": probing.probe(), "use": use(net, probing, data, answers=YES_NO, seed=2),
        "alignment": align(net, probing, data, answers=YES_NO, steps=5, random=2, seed=2),
        "eraser": next(iter(leace(net, data, at="resid_post.0").values())),
    }  # fmt: skip


@pytest.mark.parametrize("kind", ["probing", "probe", "use", "alignment", "eraser"])
def test_what_every_result_can_do(
    results: dict[str, Any], kind: str, tmp_path: Path, shows_itself: Callable[[Any], None]
) -> None:
    result = results[kind]
    assert isinstance(result, Result)
    assert result.kind == kind
    assert result.provenance.network_hash
    assert result.provenance.seed == (0 if kind == "eraser" else 2)
    json.dumps(result.to_dict(), allow_nan=False)
    assert len(result.to_pandas())
    assert result.plot().data
    assert "How this was made" in render(result.page())
    shows_itself(result)
    again = load(result.save(tmp_path / kind))
    assert type(again) is type(result)
    assert again.to_dict() == result.to_dict()


def test_the_page_of_a_map_with_its_tests(results: dict[str, Any]) -> None:
    page = render(results["probing"].page(results["use"]))
    assert "Where it is encoded" in page
    assert "Whether it is used" in page


def test_misspelt_options_are_refused_with_the_nearest_name(
    net: cutaway.Network, made: Specimen, results: dict[str, Any]
) -> None:
    data = ProbeData(made.prompts, made.labels["used"], name="used")
    probing = results["probing"]
    with pytest.raises(UnknownOption, match="probe has no option 'permutation'. Did you mean permutations"):
        probe(net, data, permutation=20)
    with pytest.raises(UnknownOption, match="Did you mean group"):
        probe(net, [("a", 0), ("b", 1)], gruop="x")
    with pytest.raises(UnknownOption, match="use has no option 'direction'. Did you mean directions"):
        use(net, probing, data, direction=40)
    with pytest.raises(UnknownOption, match="align has no option 'stpes'. Did you mean steps"):
        align(net, probing, data, stpes=3)
    with pytest.raises(UnknownOption, match="where has no option 'layr'. Did you mean layer"):
        use(net, probing, data, where={"layr": 0})
    with pytest.raises(UnknownOption, match="Did you mean source"):
        probe_data([("a", 0), ("b", 1)], sorce="x")
    with pytest.raises(BadInput, match="given beside options"):
        probe(net, data, options=ProbeOptions(), folds=3)
    with pytest.raises(BadInput, match="options is a SearchOptions"):
        use(net, probing, data, options=SearchOptions())  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="steps=0"):
        align(net, probing, data, steps=0)

"""Whatever comes, the outcome is an answer or a sentence: a share of `benchmarks/fuzz.py`, of a fixed seed.

`CUTAWAY_FUZZ=1000` makes so many trials of each kind, from the seed `CUTAWAY_FUZZ_SEED`; `benchmarks/fuzz.py` draws one.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from fuzzing import Bed, Tally, call, file, files, result, results, verbs_called

import cutaway
from cutaway.verbs import VERBS

SEED = int(os.environ.get("CUTAWAY_FUZZ_SEED", "29"))
TRIALS = int(os.environ.get("CUTAWAY_FUZZ", "0"))


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Bed:
    return Bed.of(tmp_path_factory.mktemp("fuzz"))


def judged(tally: Tally) -> None:
    print(f"seed {SEED}: {tally}")
    assert not tally.wrong, f"seed {SEED}: {tally}"


def test_e_random_calls_of_every_verb_answer_or_refuse_in_a_sentence(bed: Bed) -> None:
    tally = Tally()
    for number in range(SEED, SEED + (TRIALS or 60)):
        tally.add(number, *call(bed, number))
    judged(tally)


def test_the_calls_come_to_every_verb(bed: Bed) -> None:
    assert set(verbs_called(0, 600, bed)) == set(VERBS)


def test_e_damaged_files_of_pairs_are_read_or_refused_in_a_sentence(bed: Bed) -> None:
    good, tally = files(bed), Tally()
    for name, content in good.items():
        path = bed.folder / f"whole-{name}"
        path.write_bytes(content)
        assert cutaway.behaviour(path, bed.net, n=8, force=True).n > 0
    for number in range(SEED, SEED + (TRIALS or 150)):
        tally.add(number, *file(bed, good, number))
    judged(tally)


def test_e_damaged_results_are_opened_or_refused_in_a_sentence(bed: Bed) -> None:
    saved, tally = results(bed), Tally()
    for place in saved.values():
        cutaway.load(place)
    for number in range(SEED, SEED + (TRIALS or 60)):
        tally.add(number, *result(bed, saved, number))
    judged(tally)


@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".json"])
def test_e_separators_of_lines_survive_writing_and_reading(bed: Bed, tmp_path: Path, ending: str) -> None:
    from dataclasses import replace

    from cutaway.behaviours import formats

    odd = "the\u2028a\u2029saw\u0085b\u000b\u001c of\r\nmet"
    pairs = replace(
        bed.pairs, clean=(odd, *bed.pairs.clean[1:]), template=("x\u2028y", *bed.pairs.template[1:])
    )
    read = formats.read(formats.write(pairs, tmp_path / f"pairs{ending}"), bed.net)
    assert read.clean[0] == odd
    assert read.n == pairs.n
    if ending != ".json":
        assert read.template[0] == "x\u2028y"


def test_e_limits_are_numbers_in_range() -> None:
    from cutaway.circuits.limits import CircuitLimits
    from cutaway.errors import BadInput
    from cutaway.explanations.limits import SearchLimits
    from cutaway.trials import Limits

    for kind, given in (
        (Limits, {"kept": 1.5}), (Limits, {"kept": "much"}), (Limits, {"random": 2.5}), (Limits, {"alpha": float("nan")}),
        (SearchLimits, {"target": -0.1}), (SearchLimits, {"operations": 0.0}), (CircuitLimits, {"edges": -1}),
        (CircuitLimits, {"quantile": True}),
    ):  # fmt: skip
        with pytest.raises(BadInput, match=next(iter(given))):
            kind(**given)


def test_e_a_list_of_floats_is_a_continuous_label() -> None:
    from cutaway.probes import ProbeData

    data = ProbeData([[1, 2]] * 4, [0.5, 1.25, 2.0, 3.5])  # type: ignore[arg-type]
    assert (data.kind, data.classes) == ("continuous", ())
    assert ProbeData([[1, 2]] * 4, [0.0, 1.0, 1.0, 0.0]).kind == "binary"  # type: ignore[arg-type]

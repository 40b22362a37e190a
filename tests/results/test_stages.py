"""Finished stages on disk: what is kept, what is refused, and that a killed process loses no more than its last stage."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import cutaway
from cutaway.errors import BadInput, SaveFailed
from cutaway.results import Budget, Progress, Stages, Work

#: Verbs, and after how many stages each is killed.
MOMENTS = ("patch:1", "patch:3", "path_patch:1", "pair_effects:3", "trace:1", "trace:3", "acdc:1", "test:2", "test:25",
           "probe:1", "probe:3", "use:2", "steer:3", "explain:2", "explain:12",
           "induction_heads:3", "masks:4", "node_masks:1", "atp_star:2", "neurons:1", "attribution_patch:5", "loss:10",
           "top_examples:10")  # fmt: skip
#: In what these keep nothing of the network is run again.
NO_FORWARDS = ("probe",)


@pytest.fixture(scope="module")
def rows() -> dict[str, dict[str, object]]:
    script = Path(__file__).parent / "killed.py"
    where = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, str(script), *MOMENTS], capture_output=True, text=True, check=True, env=where
    )
    return {row["moment"]: row for row in map(json.loads, done.stdout.splitlines())}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked")
@pytest.mark.parametrize("moment", MOMENTS)
def test_after_kill_9_the_finished_stages_are_there_and_the_rest_gives_the_same_result(
    moment: str, rows: dict[str, dict[str, object]]
) -> None:
    row = rows[moment]
    assert row["killed"]
    assert row["kept"] >= int(moment.partition(":")[2])  # type: ignore[operator]
    assert row["equal"]
    assert moment.startswith(NO_FORWARDS) or row["again"] < row["whole"]  # type: ignore[operator]


def test_a_stage_is_read_back_as_it_was_made_and_not_made_again(tmp_path: Path) -> None:
    made = {"a": np.array([[1.0, np.nan]]), "b": torch.tensor([1.5], dtype=torch.bfloat16), "names": ["x"], "n": 3,
            "yes": np.array(True)}  # fmt: skip
    stages = Stages(tmp_path / "s").bound("verb", {"seed": 0, "net": "3f"})
    first = stages.once("one", lambda: made, dict, dict, of=[1])
    again = stages.once("one", lambda: pytest.fail("made again"), dict, dict, of=[1])
    assert first is made
    np.testing.assert_array_equal(again["a"], made["a"])
    assert again["a"].dtype == np.float64
    assert again["b"].dtype == torch.bfloat16
    assert torch.equal(again["b"], made["b"])
    assert (again["names"], again["n"], bool(again["yes"])) == (["x"], 3, True)
    for other in ([2], None, {"a": 1}, [1, 1]):
        assert stages.find("one", other) is None
    assert Stages(tmp_path / "s").bound("verb", {"seed": 0, "net": "3f"}).find("one", [1]) is not None


def test_a_stage_that_was_damaged_is_made_again(tmp_path: Path) -> None:
    stages = Stages(tmp_path)
    stages.put("one", {"a": np.arange(100)})
    (file,) = tmp_path.glob("one-*.safetensors")
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(bytes(content))
    assert stages.find("one") is None
    file.write_bytes(b"")
    assert stages.find("one") is None


def test_a_folder_of_another_question_is_refused_and_says_what_differs(tmp_path: Path) -> None:
    net = cutaway.open("zoo:induction")
    pairs = cutaway.behaviour("zoo:induction", net, n=16)
    work = Work(stages=Stages(tmp_path / "s"))
    cutaway.trace(net, pairs, method="eap", edges=10, work=work)
    with pytest.raises(BadInput, match="another question: method, edges differ"):
        cutaway.trace(net, pairs, method="random", edges=12, work=work)
    with pytest.raises(BadInput, match="another question: behaviour differ"):
        cutaway.trace(net, pairs.take([0, 1, 2, 3]), method="eap", edges=10, work=work)
    assert cutaway.performance(net, pairs, work=work).does_it  # another verb's stages lie beside them
    assert cutaway.trace(net, pairs, method="eap", edges=10, work=work).n_edges


def test_a_folder_that_cannot_be_written_is_refused_before_anything_runs(tmp_path: Path) -> None:
    net = cutaway.open("zoo:induction")
    pairs = cutaway.behaviour("zoo:induction", net, n=16)
    (tmp_path / "file").write_text("mine")
    heard: list[Progress] = []
    with pytest.raises(SaveFailed):
        cutaway.trace(net, pairs, edges=10, work=Work(heard.append, stages=Stages(tmp_path / "file")))
    assert not heard


def test_stages_within_patience_are_not_written(tmp_path: Path) -> None:
    stages = Stages(tmp_path / "s", patience=3600.0).bound("verb", {"seed": 0})
    assert stages.once("one", lambda: 1, lambda x: {"x": x}, lambda kept: kept["x"]) == 1
    assert not (tmp_path / "s").exists()


def test_a_spent_budget_leaves_its_stages_to_go_on_from(tmp_path: Path) -> None:
    net = cutaway.open("zoo:tales")
    pairs = cutaway.behaviour("pronoun", net, n=16)
    net.forget()
    whole = cutaway.patch(net, pairs, at="z", by=("layer", "head"))
    net.forget()
    enough = 0.9 * whole.provenance.forwards  # what goes before the cells takes most of it
    part = Work(budget=Budget(forwards=enough), stages=Stages(tmp_path / "s"))
    with pytest.warns(UserWarning, match="Stopped"):
        first = cutaway.patch(net, pairs, at="z", by=("layer", "head"), work=part)
    assert not first.data.attrs["complete"]
    net.forget()
    rest = cutaway.patch(net, pairs, at="z", by=("layer", "head"), work=Work(stages=Stages(tmp_path / "s")))
    np.testing.assert_array_equal(rest.data["effect"].values, whole.data["effect"].values)
    assert rest.provenance.forwards < whole.provenance.forwards

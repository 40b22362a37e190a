"""A plan says what a sweep costs; a run that is stopped or killed goes on, bit for bit."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from test_equality import score, score_few, work_on
from transformers import GPT2LMHeadModel

import cutaway
from cutaway.errors import BadInput, OutOfMemory
from cutaway.network import Network
from cutaway.network.sites import Site
from cutaway.results import Budget, Progress, Work
from cutaway.sweeps import CellState, Experiment, Rules, Write, plan_cells, run_cells
from cutaway.sweeps.cost import Speed, peak_bytes
from cutaway.sweeps.replay import Replayer


@pytest.fixture
def net(tiny_gpt2: GPT2LMHeadModel) -> Network:
    return cutaway.open(tiny_gpt2)


@pytest.fixture
def experiment(net: Network) -> Experiment:
    return work_on(net, [Site(n, i) for n in ("resid_pre", "z") for i in range(3)])[0]


CELLS = [(Write("resid_pre", i, position=p),) for i in range(3) for p in range(7)]


def test_a_plan_is_printed_before_anything_is_run(experiment: Experiment) -> None:
    plan = plan_cells(experiment, CELLS)
    cost = plan.cost
    assert (cost.cells, cost.pairs, cost.plain) == (21, 63, 0)
    # at layer 0 all positions but the one that differs, later those before it; each for three examples
    assert cost.zeros == 3 * (6 + 2 + 2)
    assert 0 < cost.operations < 0.2 * cost.naive
    assert cost.memory > 0
    assert cost.seconds is not None
    for word in ("known zeros", "forward-equivalents", "operations", "seconds", "restart"):
        assert word in repr(plan)
        assert word in plan._repr_html_()


def test_counted_operations_are_those_of_the_counter(experiment: Experiment) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    for rules in (
        Rules(),
        Rules(last=False, tokens=False),
        Rules(suffix=False, last=False),
        Rules(stages=False),
    ):
        cells = [*CELLS, *[(Write("z", i, head=h),) for i in range(3) for h in range(4)]]
        plan = plan_cells(experiment, cells, rules=rules)
        plan.job.replayer.run(plan.job.waves[0])  # type: ignore[union-attr]
        with FlopCounterMode(display=False) as counter:
            for wave in plan.job.waves:
                plan.job.replayer.run(wave)  # type: ignore[union-attr]
        # linear changes and the look at the arguments are not planned: small beside the layers
        assert plan.cost.operations == pytest.approx(counter.get_total_flops(), rel=0.15)


def test_pieces_that_were_timed_are_not_run_again(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_cells(experiment, CELLS)
    ran, real = [], Replayer.run
    monkeypatch.setattr(Replayer, "run", lambda self, wave: ran.append(len(wave.pairs)) or real(self, wave))
    assert plan.done
    found = plan.run()
    assert sum(ran) < (found.states == CellState.RUN).sum()
    np.testing.assert_allclose(found.values, run_cells(experiment, CELLS).values, atol=1e-5)


def test_too_little_memory_says_what_is_needed(experiment: Experiment) -> None:
    with pytest.raises(OutOfMemory, match="MiB") as caught:
        plan_cells(experiment, CELLS, work=Work(budget=Budget(memory=1000)))
    needed = int(str(caught.value).split("memory=")[1].split(" ")[0])
    plan = plan_cells(experiment, CELLS, work=Work(budget=Budget(memory=needed)))
    assert plan.cost.memory <= needed
    assert plan.job.largest < plan_cells(experiment, CELLS).job.largest
    np.testing.assert_allclose(plan.run().values, run_cells(experiment, CELLS).values, atol=1e-5)


def test_a_wave_for_which_memory_does_not_suffice_is_cut(
    experiment: Experiment, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, real, limit = run_cells(experiment, CELLS).values, Replayer.run, 2

    def run(self: Replayer, wave: object) -> object:
        if len(wave.pairs) > limit:  # type: ignore[attr-defined]
            raise OutOfMemory("The device is full.", "Run fewer rows.")
        return real(self, wave)  # type: ignore[arg-type]

    monkeypatch.setattr(Replayer, "run", run)
    np.testing.assert_allclose(run_cells(experiment, CELLS).values, wanted, atol=1e-6)
    limit = 0
    with pytest.raises(OutOfMemory):
        run_cells(experiment, CELLS)


def test_ctrl_c_keeps_what_is_finished_and_a_folder_goes_on(experiment: Experiment, tmp_path: Path) -> None:
    whole = run_cells(experiment, CELLS, tokens_at_once=10, folder=tmp_path / "whole")
    calls = []

    def stop(progress: Progress) -> None:
        calls.append(progress.done)
        if len(calls) == 3:
            raise KeyboardInterrupt

    part = run_cells(experiment, CELLS, tokens_at_once=10, folder=tmp_path / "part", work=Work(stop))
    assert part.interrupted
    done = part.states == CellState.RUN
    assert 0 < done.sum() < (whole.states == CellState.RUN).sum()
    np.testing.assert_array_equal(part.values[done], whole.values[done])
    assert (part.states[~done & (whole.states == CellState.RUN)] == CellState.NOT_RUN).all()
    ran: list[int] = []
    resumed = run_cells(
        experiment,
        CELLS,
        tokens_at_once=10,
        folder=tmp_path / "part",
        work=Work(lambda step: ran.append(step.done)),
    )
    assert not resumed.interrupted
    np.testing.assert_array_equal(resumed.values[done], part.values[done])
    np.testing.assert_allclose(resumed.values, whole.values, atol=1e-6)


def test_a_folder_of_another_sweep_is_refused_and_a_torn_part_is_run_again(
    experiment: Experiment, tmp_path: Path
) -> None:
    whole = run_cells(experiment, CELLS, tokens_at_once=10, folder=tmp_path)
    with pytest.raises(BadInput, match="another sweep"):
        run_cells(experiment, CELLS[:5], folder=tmp_path)
    part = sorted(tmp_path.glob("part-*.safetensors"))[0]
    part.write_bytes(part.read_bytes()[:20])
    again = run_cells(experiment, CELLS, tokens_at_once=10, folder=tmp_path)
    np.testing.assert_allclose(again.values, whole.values, atol=1e-6)


_KILLED = """
import sys, time
sys.path[:0] = [{tests!r}, {sweeps!r}]
from test_plan import demo
work, cells = demo()
from cutaway.results import Work
from cutaway.results import Budget, Progress, Work
from cutaway.sweeps import run_cells
run_cells(work, cells, tokens_at_once=8, folder={folder!r}, work=Work(lambda _: time.sleep(0.05)))
"""


def demo() -> tuple[Experiment, list]:
    """The same sweep in every process."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=3, n_embd=32, n_head=4, vocab_size=97, n_positions=64, bos_token_id=0, eos_token_id=0
    )
    net = cutaway.open(GPT2LMHeadModel(config).eval())
    experiment = work_on(net, [Site("resid_pre", i) for i in range(3)])[0]
    return experiment, CELLS


def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    here = Path(__file__).parent
    code = _KILLED.format(tests=str(here.parent), sweeps=str(here), folder=str(tmp_path / "run"))
    process = subprocess.Popen([sys.executable, "-c", code], env=os.environ | {"OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 120
    while len(list((tmp_path / "run").glob("part-*"))) < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    experiment, cells = demo()
    kept = len(list((tmp_path / "run").glob("part-*")))
    whole = run_cells(experiment, cells, tokens_at_once=8, folder=tmp_path / "whole")
    resumed = run_cells(experiment, cells, tokens_at_once=8, folder=tmp_path / "run")
    assert (
        len(list((tmp_path / "run").glob("part-*"))) == len(list((tmp_path / "whole").glob("part-*"))) > kept
    )
    np.testing.assert_array_equal(resumed.values, whole.values)


def test_a_cell_that_is_not_finite_is_marked_and_the_rest_stands(experiment: Experiment) -> None:
    experiment.sources[Site("z", 0)][1, :, 2] = float("nan")
    cells = [(Write("z", 0, head=2),), (Write("z", 0, head=1),), (Write("z", 1, head=0),)]
    for rules in (None, Rules(stages=False), Rules.none()):
        found = run_cells(experiment, cells, rules=rules)
        assert found.states[0, 1] == CellState.NOT_FINITE
        assert np.isfinite(np.delete(found.values.ravel(), 1)).all()


def test_edits_that_stand_on_the_network_count(net: Network, experiment: Experiment) -> None:
    cells = [(Write("z", 1, head=0),)]
    with net.edit(cutaway.Ablate("mlp_out", layer=0)):
        plan = plan_cells(experiment, cells, time_it=False)
        assert "standing" in repr(plan)
        inside = plan.run().values
    outside = run_cells(experiment, cells).values
    assert np.abs(inside - outside).max() > 1e-4


def test_few_tokens_give_the_metric_of_all(experiment: Experiment) -> None:
    logits = torch.randn(3, 97)
    rows = torch.arange(3)
    torch.testing.assert_close(score_few(logits[:, [5, 6, 7]], rows), score(logits, rows))


def test_rates_are_fitted_and_never_negative() -> None:
    fitted = Speed.fit([3, 3, 3], [100.0, 200.0, 400.0], [1.0, 1.5, 2.5])
    assert fitted.seconds(3, 1000.0) == pytest.approx(5.5)
    assert Speed.fit([1, 1], [10.0, 20.0], [3.0, 2.0]).per_operation > 0


def test_peak_memory_is_measured() -> None:
    def function() -> torch.Tensor:
        a = torch.ones(1000)
        del a
        return torch.ones(500)

    assert 4000 <= peak_bytes(function) < 6000

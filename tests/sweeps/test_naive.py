from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import GPT2LMHeadModel

import cutaway
from cutaway.errors import OutOfMemory
from cutaway.network import Network
from cutaway.network.sites import Site
from cutaway.results import Progress, Work
from cutaway.sweeps import CellState, Experiment, Write
from cutaway.sweeps.naive import run_cells


@pytest.fixture
def experiment(tiny_gpt2: GPT2LMHeadModel) -> Experiment:
    net = cutaway.open(tiny_gpt2)
    tokens = net.encode([[1, 2, 3, 4], [5, 6, 7, 8], [9, 8, 7, 6]])
    other = net.run(net.encode([[1, 9, 3, 4], [5, 9, 7, 8], [9, 9, 7, 6]]), keep=["z", "resid_pre"])
    return Experiment(
        net, tokens, torch.full((3,), -1), lambda logits, rows: logits[:, 5] - logits[:, 6], other.kept
    )


CELLS = [(Write("resid_pre", 1, None, 1),), (Write("z", 0, 2),), (Write("z", 1, 0, 3), Write("z", 1, 1)), ()]


def test_batches_of_any_size_give_the_same(experiment: Experiment) -> None:
    whole = run_cells(experiment, CELLS)
    one = run_cells(experiment, CELLS, tokens_at_once=1)
    some = run_cells(experiment, CELLS, tokens_at_once=20)
    np.testing.assert_allclose(one.values, whole.values, atol=1e-6)
    np.testing.assert_allclose(some.values, whole.values, atol=1e-6)
    assert (whole.states == CellState.RUN).all()


def test_an_empty_cell_is_the_base(experiment: Experiment) -> None:
    logits = experiment.net.run(experiment.tokens, logits="last").logits
    assert logits is not None
    base = (logits[:, 0, 5] - logits[:, 0, 6]).numpy()
    np.testing.assert_allclose(run_cells(experiment, CELLS).values[3], base, atol=1e-6)


def test_entries_that_are_known_are_not_run(experiment: Experiment) -> None:
    states = np.full((4, 3), CellState.KNOWN_ZERO)
    states[1, 2], states[2, 0] = CellState.NOT_RUN, CellState.ABSENT
    done = run_cells(experiment, CELLS, base=np.array([1.0, 2.0, 3.0]), states=states)
    assert done.values[0].tolist() == [1.0, 2.0, 3.0]
    assert done.states[1, 2] == CellState.RUN
    assert np.isnan(done.values[2, 0])


def test_a_cell_that_is_not_finite_is_marked_and_the_rest_stands(experiment: Experiment) -> None:
    experiment.sources[Site("z", 0)][1, :, 2] = float("nan")
    done = run_cells(experiment, CELLS)
    assert done.states[1].tolist() == [CellState.RUN, CellState.NOT_FINITE, CellState.RUN]
    assert np.isfinite(np.delete(done.values.ravel(), 4)).all()


def test_ctrl_c_keeps_finished_batches(experiment: Experiment) -> None:
    def stop(progress: Progress) -> None:
        if progress.done == 2:
            raise KeyboardInterrupt

    done = run_cells(experiment, CELLS, tokens_at_once=12, work=Work(stop))
    assert done.interrupted
    assert (done.states[:2] == CellState.RUN).all()
    assert (done.states[2:] == CellState.NOT_RUN).all()
    assert np.isnan(done.values[2:]).all()


def test_less_memory_means_smaller_batches(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, real, sizes = run_cells(experiment, CELLS).values, Network.run, []

    def run(self: Network, tokens: object, **options: object) -> object:
        sizes.append(len(tokens))  # type: ignore[arg-type]
        if len(tokens) > limit:  # type: ignore[arg-type]
            raise OutOfMemory("The device is full.", "Run fewer rows.")
        return real(self, tokens, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Network, "run", run)
    limit = 2
    np.testing.assert_allclose(run_cells(experiment, CELLS).values, wanted, atol=1e-6)
    assert sizes[0] == 12
    limit = 0
    with pytest.raises(OutOfMemory):
        run_cells(experiment, CELLS)

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import GPT2LMHeadModel

import cutaway
from cutaway.errors import OutOfMemory
from cutaway.network import Network
from cutaway.network.sites import Site
from cutaway.sweeps import Experiment, State, Write
from cutaway.sweeps.naive import run_cells


@pytest.fixture
def work(tiny_gpt2: GPT2LMHeadModel) -> Experiment:
    net = cutaway.open(tiny_gpt2)
    tokens = net.encode([[1, 2, 3, 4], [5, 6, 7, 8], [9, 8, 7, 6]])
    other = net.run(net.encode([[1, 9, 3, 4], [5, 9, 7, 8], [9, 9, 7, 6]]), keep=["z", "resid_pre"])
    return Experiment(
        net, tokens, torch.full((3,), -1), lambda logits, rows: logits[:, 5] - logits[:, 6], other.kept
    )


CELLS = [(Write("resid_pre", 1, None, 1),), (Write("z", 0, 2),), (Write("z", 1, 0, 3), Write("z", 1, 1)), ()]


def test_batches_of_any_size_give_the_same(work: Experiment) -> None:
    whole = run_cells(work, CELLS)
    one = run_cells(work, CELLS, tokens_at_once=1)
    some = run_cells(work, CELLS, tokens_at_once=20)
    np.testing.assert_allclose(one.values, whole.values, atol=1e-6)
    np.testing.assert_allclose(some.values, whole.values, atol=1e-6)
    assert (whole.states == State.RUN).all()


def test_an_empty_cell_is_the_base(work: Experiment) -> None:
    logits = work.net.run(work.tokens, logits="last").logits
    assert logits is not None
    base = (logits[:, 0, 5] - logits[:, 0, 6]).numpy()
    np.testing.assert_allclose(run_cells(work, CELLS).values[3], base, atol=1e-6)


def test_entries_that_are_known_are_not_run(work: Experiment) -> None:
    states = np.full((4, 3), State.KNOWN_ZERO)
    states[1, 2], states[2, 0] = State.NOT_RUN, State.ABSENT
    done = run_cells(work, CELLS, np.array([1.0, 2.0, 3.0]), states)
    assert done.values[0].tolist() == [1.0, 2.0, 3.0]
    assert done.states[1, 2] == State.RUN
    assert np.isnan(done.values[2, 0])


def test_a_cell_that_is_not_finite_is_marked_and_the_rest_stands(work: Experiment) -> None:
    work.sources[Site("z", 0)][1, :, 2] = float("nan")
    done = run_cells(work, CELLS)
    assert done.states[1].tolist() == [State.RUN, State.NOT_FINITE, State.RUN]
    assert np.isfinite(np.delete(done.values.ravel(), 4)).all()


def test_ctrl_c_keeps_finished_batches(work: Experiment) -> None:
    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    done = run_cells(work, CELLS, tokens_at_once=12, progress=stop)
    assert done.interrupted
    assert (done.states[:2] == State.RUN).all()
    assert (done.states[2:] == State.NOT_RUN).all()
    assert np.isnan(done.values[2:]).all()


def test_less_memory_means_smaller_batches(work: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted, real, sizes = run_cells(work, CELLS).values, Network.run, []

    def run(self: Network, tokens: object, **options: object) -> object:
        sizes.append(len(tokens))  # type: ignore[arg-type]
        if len(tokens) > limit:  # type: ignore[arg-type]
            raise OutOfMemory("The device is full.", "Run fewer rows.")
        return real(self, tokens, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Network, "run", run)
    limit = 2
    np.testing.assert_allclose(run_cells(work, CELLS).values, wanted, atol=1e-6)
    assert sizes[0] == 12
    limit = 0
    with pytest.raises(OutOfMemory):
        run_cells(work, CELLS)

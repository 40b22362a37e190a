"""Fits side by side: in order, with the user's number of threads standing again afterwards."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import torch

from cutaway.probes.fits.side_by_side import side_by_side


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_results_are_in_order_and_threads_are_as_they_were() -> None:
    seen: list[int] = []
    names: set[str] = set()

    def work(i: int) -> tuple[int, int]:
        names.add(threading.current_thread().name)
        return i, torch.get_num_threads()

    found = side_by_side(work, range(40), done=seen.append)
    assert found == [(i, 1) for i in range(40)]
    assert seen == list(range(1, 41))
    assert torch.get_num_threads() == 2
    assert all(n.startswith("cutaway-probe") for n in names)


def test_no_more_threads_than_memory_allows_and_than_the_user_does() -> None:
    here = threading.current_thread().name
    assert (
        side_by_side(lambda _: threading.current_thread().name, [1, 2, 3], each=10, memory=19) == [here] * 3
    )
    torch.set_num_threads(1)
    assert side_by_side(lambda _: threading.current_thread().name, [1, 2, 3]) == [here] * 3
    assert side_by_side(lambda i: i, []) == []
    assert side_by_side(lambda i: i, [1, 2], each=5.0) == [1, 2]


def test_an_error_is_raised_and_leaves_the_rest_undone() -> None:
    begun: list[int] = []

    def work(i: int) -> int:
        begun.append(i)
        time.sleep(0.001)
        if i == 3:
            raise ZeroDivisionError
        return i

    with pytest.raises(ZeroDivisionError):
        side_by_side(work, range(10_000))
    assert len(begun) < 10_000
    assert torch.get_num_threads() == 2


def test_a_stop_from_outside_leaves_the_rest_undone() -> None:
    def stop(ready: int) -> None:
        if ready == 2:
            raise KeyboardInterrupt

    begun: list[int] = []

    def work(i: int) -> None:
        begun.append(i)
        time.sleep(0.001)

    with pytest.raises(KeyboardInterrupt):
        side_by_side(work, range(10_000), done=stop)
    assert len(begun) < 10_000
    assert torch.get_num_threads() == 2

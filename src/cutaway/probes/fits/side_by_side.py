"""Many small fits side by side: one thread each, instead of all threads on one.

A site's factorisation is too small to keep many cores busy; as many sites as there are cores are not. PyTorch's number of
threads is the user's say in how many cores that is, and stands again afterwards, also after an error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Out = TypeVar("Out")


def side_by_side(
    work: Callable[[Item], Out], items: Sequence[Item], each: float = 0.0, memory: float = float("inf"),
    done: Callable[[int], None] | None = None,
) -> list[Out]:  # fmt: skip
    """`work` of every item, in order, on as many threads as PyTorch uses.

    each: bytes that one item's work takes; no more threads are used than `memory` allows. done: called with how many are
    ready, in this thread. The first error is raised, and what has not begun is then left undone.

    >>> side_by_side(lambda i: i * i, [1, 2, 3])
    [1, 4, 9]
    """
    threads = torch.get_num_threads()
    workers = max(1, min(threads, len(items), int(min(memory / each, threads)) if each else threads))
    out: list[Out] = []
    if workers == 1:
        for item in items:
            out.append(work(item))
            if done is not None:
                done(len(out))
        return out
    pool = ThreadPoolExecutor(workers, "cutaway-probe", initializer=torch.set_num_threads, initargs=(1,))
    try:
        for future in [pool.submit(work, item) for item in items]:
            out.append(future.result())
            if done is not None:
                done(len(out))
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        torch.set_num_threads(threads)
    return out

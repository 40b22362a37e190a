"""One run at a time: hooks lie on a model's modules, and attention is looked up by a name in its configuration.

A lock belongs to the configuration objects of a model (to the model itself where it has none), and not to a network: two
networks over one model put their hooks on the same modules, and two models made of one configuration object are told
by it together which attention function to use.
"""

from __future__ import annotations

import itertools
import threading
import weakref
from typing import Any

from torch import nn

_guard = threading.Lock()
_number = itertools.count()
#: By identity, because configurations compare by their contents and cannot be hashed. Forgotten with their owner.
_locks: dict[int, tuple[int, threading.RLock]] = {}
_of_model: weakref.WeakKeyDictionary[nn.Module, Lock] = weakref.WeakKeyDictionary()


class Lock:
    """A model's lock, for `with`: a run within a run passes.

    Nearly always it is one lock; where a model holds configurations of several other models, those of all, in one order.
    """

    def __init__(self, locks: list[tuple[int, threading.RLock]]) -> None:
        self._locks = [lock for _, lock in sorted(dict(locks).items())]

    def __enter__(self) -> Lock:
        for lock in self._locks:
            lock.acquire()
        return self

    def __exit__(self, *error: object) -> None:
        for lock in reversed(self._locks):
            lock.release()


def lock_of(model: nn.Module) -> Lock:
    """The model's lock: hooks and configuration belong to one run at a time; a run within a run passes."""
    with _guard:
        if model not in _of_model:
            owners = configurations(model) or [model]
            known = [_locks[id(owner)] for owner in owners if id(owner) in _locks]
            fresh = known[0] if known else (next(_number), threading.RLock())
            for owner in owners:
                if id(owner) not in _locks:
                    _locks[id(owner)] = fresh
                    weakref.finalize(owner, _locks.pop, id(owner), None)
            _of_model[model] = Lock([_locks[id(owner)] for owner in owners])
        return _of_model[model]


def configurations(model: nn.Module) -> list[Any]:
    """The distinct configuration objects by which this model's modules look their attention function up."""
    configs = {id(c): c for m in model.modules() if (c := getattr(m, "config", None)) is not None}
    return [c for c in configs.values() if hasattr(c, "_attn_implementation_internal")]

"""The cache that a replayed pass hands to the model: the columns before, as the base run computed them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from cutaway.sweeps.record import Record


class StoppedAtCache(Exception):
    """Ends a pass where all that was wanted of it has been seen."""


class CachedPrefix:
    """A cache of the model's own class that reports `start` columns and answers each layer with `provide`.

    Its layers are filled with one row of the base run, so that masks and lengths are made by the model's own rules (full,
    sliding window); what a layer gets back is put together row by row.

    provide: (keys, values, columns that this layer's kind of cache keeps) -> all keys and values of the rows being run.
    """

    def __init__(
        self,
        config: Any,
        record: Record,
        start: int,
        provide: Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]],
    ) -> None:
        from transformers import DynamicCache

        class Answering(DynamicCache):
            def update(
                self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any
            ) -> Any:
                return provide(key_states, value_states, held[layer_idx] if start else 0)

        self.cache = Answering(config=config)
        held: dict[int, int] = {}
        for index, keys, values in sorted(record.caches.values(), key=lambda c: c[0]) if start else ():
            DynamicCache.update(self.cache, keys[:1, :, :start], values[:1, :, :start], index)
            layer: Any = self.cache.layers[index]
            held[index] = int(layer.keys.shape[-2])

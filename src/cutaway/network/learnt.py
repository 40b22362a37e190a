"""What earlier runs of a verb took beside what was announced, so that the next is announced with what they taught.

Kept in the user's cache folder (`network.cache`), by the shape of the network, its device and the number of threads: speed
does not depend on what the weights are.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Callable
from dataclasses import dataclass, replace
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any

import torch

from cutaway.network.cache import recall, remember
from cutaway.network.identity import told_of
from cutaway.results.price import Price

if TYPE_CHECKING:
    from cutaway.network import Network
    from cutaway.results import Work

KIND = "pace"
#: A correction is no smaller and no larger than this, whatever was seen.
LEAST, MOST = 0.3, 10.0
#: Runs of a verb that are kept, the newest.
_KEPT = 8
#: What took fewer seconds, or other forward-equivalents than announced by more than this, teaches nothing.
_SHORTEST, _OTHER = 0.1, 2.0


def correction(net: Network, verb: str, forwards: float) -> float:
    """What the seconds of a verb are to be multiplied by, as its earlier runs say: those of about this size most.

    1 where there was none. verb: what it is called in its announcement. forwards: what it is about to take.
    """
    seen = _seen(recall(KIND, _key(net))).get(verb, [])
    if not seen:
        return 1.0
    weights = [2.0 ** -abs(math.log2(max(forwards, 1e-9) / size)) for size, _ in seen]
    mean = sum(w * math.log(factor) for w, (_, factor) in zip(weights, seen, strict=True)) / sum(weights)
    return min(MOST, max(LEAST, math.exp(mean)))


def corrected(net: Network, verb: str, price: Price) -> Price:
    """A price whose seconds are corrected by what earlier runs of the verb took."""
    factor = correction(net, verb, price.forwards)

    def times(value: float | None) -> float | None:
        return None if value is None else value * factor

    return replace(price, seconds=times(price.seconds), processor=times(price.processor))


@dataclass(frozen=True)
class Lesson:
    """What is learnt from a verb once it has come to its end.

    Attributes:
        net: the network.
        verb: what it is called in its announcement.
        price: what was announced, corrected already.
        work: whose meter and budget are looked at.
    """

    net: Network
    verb: str
    price: Price
    work: Work

    def begin(self) -> Callable[[], None]:
        """Look at the clocks; what is returned is called at the end, and remembers."""
        clock, processor, forwards = perf_counter(), process_time(), self.work.meter.forwards
        factor = correction(self.net, self.verb, self.price.forwards)

        def end() -> None:
            ran = self.work.meter.forwards - forwards
            told = self.price.seconds if self.net.device.type == "cuda" else self.price.processor
            used = perf_counter() - clock if self.net.device.type == "cuda" else process_time() - processor
            usual = self.price.forwards / _OTHER <= ran <= self.price.forwards * _OTHER
            if told and usual and used >= _SHORTEST and not self.work.stopped:
                _learn(self.net, self.verb, self.price.forwards, factor * used / told)

        return end


def _learn(net: Network, verb: str, forwards: float, factor: float) -> None:
    seen = _seen(recall(KIND, key := _key(net)))
    runs = [*seen.get(verb, []), (round(forwards, 1), round(min(MOST, max(LEAST, factor)), 4))]
    remember(KIND, key, seen | {verb: runs[-_KEPT:]})


def _key(net: Network) -> str:
    """Network of this form, here."""

    def make() -> str:
        where = torch.cuda.get_device_name(net.device) if net.device.type == "cuda" else platform.machine()
        form = [
            type(net.model).__name__,
            told_of(net.model),
            net.n_layers,
            net.d_model,
            net.n_heads,
            net.d_vocab,
        ]
        said = [
            *form,
            str(net.dtype),
            net.device.type,
            where,
            torch.backends.cpu.get_cpu_capability(),
            torch.__version__,
        ]
        return repr(said)

    return f"{net.fact('form', make)} {torch.get_num_threads()}"


def _seen(plain: Any) -> dict[str, list[tuple[float, float]]]:
    """What was remembered, as far as it is what is written here."""
    try:
        table = {
            verb: [(float(size), float(factor)) for size, factor in runs] for verb, runs in plain.items()
        }
        return {v: runs for v, runs in table.items() if all(s > 0 and f > 0 for s, f in runs)}
    except (AttributeError, TypeError, ValueError):
        return {}

"""Exact path patching: what a sender tells a receiver directly, with every other path held at the base run.

Wang et al. 2022, "Interpretability in the Wild", appendix B; Goldowsky-Dill et al. 2023, "Localizing Model Behavior with
Path Patching". For a sender s and a receiver r: (1) the change of what s writes reaches r through the stream alone, all
heads and MLPs between them frozen at the base run; (2) r's value under that change is put into the base run, and all that
comes after r is computed anew. Nothing is approximated: the numbers are those of doing it by hand, edge by edge.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from torch import Tensor

from cutaway.effects.baselines import Baselines, Side, behaviour_of, measure
from cutaway.effects.components import Component, components
from cutaway.effects.effects import Effects
from cutaway.effects.patching import Direction, attributes, dataset, warn_if_stopped
from cutaway.errors import BadInput, NotFound, SiteUnavailable, nearest
from cutaway.interventions import Patch
from cutaway.network.anatomy import Layer
from cutaway.network.coefficients import is_one, like
from cutaway.network.sites import Site
from cutaway.results import Progress, Provenance, Work, working
from cutaway.sweeps import Cell, CellState, CellValues, Rules, Write, run_cells

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.network import Network


T = TypeVar("T")


@dataclass(frozen=True, order=True)
class Receiver:
    """An input that reads the stream: a head's queries, keys or values, an MLP, or the logits.

    `head` counts query heads at `q`, key/value heads at `k` and `v`.

    >>> str(Receiver(5, "k", 3)), str(Receiver(4, "mlp")), str(Receiver(12, "logits"))
    ('head 5.3 <k>', 'MLP 4', 'logits')
    """

    layer: int
    kind: str
    head: int | None = None

    def __str__(self) -> str:
        if self.kind == "logits":
            return "logits"
        return f"MLP {self.layer}" if self.kind == "mlp" else f"head {self.layer}.{self.head} <{self.kind}>"


def receivers(net: Network) -> tuple[Receiver, ...]:
    """Every receiver of a network, in forward order."""
    found: list[Receiver] = []
    for layer in range(net.n_layers):
        attention = net.anatomy.stack().layers[layer].attention()  # type: ignore[union-attr]
        for kind in ("q", "k", "v"):
            if attention is not None and net.has(Site(kind, layer)):
                heads = attention.heads if kind == "q" else attention.kv_heads
                found += [Receiver(layer, kind, head) for head in range(heads)]
        if net.has(Site("mlp_write", layer)):
            found.append(Receiver(layer, "mlp"))
    return (*found, Receiver(net.n_layers, "logits"))


def path_patch(
    net: Network,
    behaviour: Behaviour | str,
    *,
    senders: Sequence[Component | str] | None = None,
    to: Sequence[Receiver | str] | None = None,
    direction: Direction = "corrupt",
    seed: int = 0,
    folder: str | Path | None = None,
    rules: Rules | None = None,
    work: Work | None = None,
) -> Effects:
    """Patch every direct path from senders to receivers, one at a time.

    Args:
        net: the network.
        behaviour: pairs of prompts of equal length, answers and metric.
        senders: heads and MLPs, as components or by name ("head 3.1", "MLP 0"); default all.
        to: receivers or their names ("head 5.3 <q>", "MLP 4", "logits"); default all.
        direction: `corrupt` sends the corrupted run's value into the clean run, `restore` the other way.
        seed, folder, rules, work: as in `patch`.

    Returns:
        `Effects` over `sender` and `receiver`; pairs in which the sender does not come before the receiver do not exist
        (state `ABSENT`).

    Raises:
        SiteUnavailable: a needed site is refused, or the stream is normed between layers, so that there is no direct path.
        NotFound: no such sender or receiver. BadBehaviour: pairs differ in length, or there is no gap.
    """
    started, work = time.perf_counter(), working(work)
    behaviour = behaviour_of(net, behaviour, seed)
    behaviour.require_aligned("Path patching")
    sent = _named(senders, components(net), "sender")
    read = _named(to, receivers(net), "receiver")
    _require_direct(net)
    keep = {part.write.where for part in sent} | {
        Site("attn_write", p.layer) for p in sent if p.kind == "head"
    }
    ends = measure(net, behaviour, sorted(keep | _streams(net)))
    base, source = (ends.corrupted, ends.clean) if direction == "restore" else (ends.clean, ends.corrupted)
    paths = _Paths(net, ends, base, source, sent)
    values = np.full((len(sent), len(read), behaviour.n), np.nan)
    states = np.full(values.shape, CellState.ABSENT, np.int8)
    done, interrupted, total = 0, False, sum(len(paths.before(r)) for r in read)
    for layer, group in paths.by_layer(read):
        where = None if folder is None else Path(folder) / f"layer-{layer}"
        for part, kind in paths.kinds(group):
            places, found = paths.run(
                part, where if where is None else where / kind, _shifted(work, done, total), rules
            )
            for (s, r), value, state in zip(places, found.values, found.states, strict=True):
                values[s, read.index(r)], states[s, read.index(r)] = value, state
            done += len(places)
            interrupted = interrupted or found.interrupted
        if interrupted:
            break
    shape = (len(sent), len(read))
    result = CellValues(values.reshape(-1, behaviour.n), states.reshape(-1, behaviour.n), interrupted)
    warn_if_stopped(result)
    effect = (result.values - base.metric[None, :]) / ends.gap
    coordinates = {"sender": [str(s) for s in sent], "receiver": [str(r) for r in read]}
    data = dataset(shape, ("sender", "receiver"), coordinates, behaviour, effect, result, seed)
    data.attrs.update(attributes(net, behaviour, ends, "direct paths", direction, not interrupted))
    data = data.assign_coords(template=("example", list(behaviour.template)))
    data = data.assign(clean=("example", ends.clean.metric), corrupted=("example", ends.corrupted.metric))
    return Effects(data, Provenance.of(net, behaviour.hash, seed, time.perf_counter() - started))


def _shifted(work: Work, before: int, total: int) -> Work:
    """The same work for one part of a whole: its listener hears of the whole."""
    listener = work.listener
    if listener is None:
        return work

    def listen(progress: Progress) -> None:
        listener(replace(progress, done=before + progress.done, total=total))

    return replace(work, listener=listen)


@dataclass(eq=False)
class _Paths:
    """What the senders change in the stream, and the receivers' values under it."""

    net: Network
    ends: Baselines
    base: Side
    source: Side
    senders: tuple[Component, ...]

    def __post_init__(self) -> None:
        stack = self.net.anatomy.stack()
        assert stack is not None
        self.layers: tuple[Layer, ...] = stack.layers
        self.deltas = {i: self._delta(part) for i, part in enumerate(self.senders)}

    def by_layer(self, read: Sequence[Receiver]) -> Iterator[tuple[int, list[Receiver]]]:
        """Receivers of one layer together, in forward order."""
        for layer in sorted({r.layer for r in read}):
            yield layer, [r for r in read if r.layer == layer]

    def kinds(self, group: Sequence[Receiver]) -> Iterator[tuple[list[Receiver], str]]:
        """Receivers that read the stream at one place: attention inputs, the MLP, the logits."""
        for kinds in (("q", "k", "v"), ("mlp",), ("logits",)):
            part = [r for r in group if r.kind in kinds]
            if part:
                yield part, "-".join(kinds)

    def before(self, receiver: Receiver) -> list[int]:
        """Senders whose write the receiver reads."""
        parallel = receiver.layer < len(self.layers) and self.layers[receiver.layer].form == "parallel"
        same = receiver.kind == "mlp" and not parallel
        return [
            i
            for i, s in enumerate(self.senders)
            if s.layer < receiver.layer or (same and s.layer == receiver.layer and s.kind != "mlp")
        ]

    def run(
        self, group: list[Receiver], folder: Path | None, work: Work, rules: Rules | None
    ) -> tuple[list[tuple[int, Receiver]], CellValues]:
        """Every path into receivers that read at one place: (sender, receiver) and the metric [cells n]."""
        first = group[0]
        named: dict[str, dict[Site, Tensor]] = {}
        cells: list[Cell] = []
        places: list[tuple[int, Receiver]] = []
        for sender in self.before(first):
            named[str(sender)] = self._read(first, sender)
            for receiver in group:
                site = {"mlp": "mlp_write", "logits": "resid_post"}.get(receiver.kind, receiver.kind)
                layer = receiver.layer if receiver.kind != "logits" else receiver.layer - 1
                cells.append((Write(site, layer, receiver.head, source=str(sender)),))
                places.append((sender, receiver))
        if not cells:
            empty = np.zeros((0, self.base.tokens.n))
            return [], CellValues(empty, empty.astype(np.int8))
        experiment = self.ends.experiment(self.net, self.base, {}, named=named)
        return places, run_cells(
            experiment, cells, base=self.base.metric, rules=rules, folder=folder, work=work, label="patching paths"
        )  # fmt: skip

    def _read(self, receiver: Receiver, sender: int) -> dict[Site, Tensor]:
        """What the receivers at one place compute when the sender's change is added to what they read."""
        layer = min(receiver.layer, len(self.layers) - 1)
        part = self.senders[sender]
        carried = self.deltas[sender]
        for between in range(part.layer + 1, receiver.layer):
            for stretch in self.layers[between].stretches:
                if not is_one(stretch.carry):
                    carried = carried * like(stretch.carry, carried)
        carried = self._within(part, receiver, carried)
        if receiver.kind == "logits":
            site = Site("resid_post", layer)
            return {site: self.base.kept[site] + carried}
        sites = (
            [Site("mlp_write", layer)]
            if receiver.kind == "mlp"
            else [Site(k, layer) for k in ("q", "k", "v") if self.net.has(Site(k, layer))]
        )
        sequential = self.layers[layer].form != "parallel"
        at = Site("resid_mid" if receiver.kind == "mlp" and sequential else "resid_pre", layer)
        edit = Patch(at, source=self.base.kept[at] + carried)
        run = self.net.run(self.base.tokens, keep=sites, edits=[edit], logits=False, stop_at=sites[-1])
        return {site: run[site] for site in sites}

    def _within(self, part: Component, receiver: Receiver, delta: Tensor) -> Tensor:
        """Carry a change through the rest of the sender's own layer, and to the middle of the receiver's."""
        own = self.layers[part.layer].stretches
        writes = {
            "head": "attn_write",
            "attention": "attn_write",
            "mlp": "mlp_write",
            "mixer": "mixer_write",
        }[part.kind]
        at = next((i for i, s in enumerate(own) if writes in s.writes), len(own) - 1)
        if part.layer < receiver.layer:
            for stretch in own[at + 1 :]:
                if not is_one(stretch.carry):
                    delta = delta * like(stretch.carry, delta)
        if receiver.kind == "mlp" and part.layer < receiver.layer and receiver.layer < len(self.layers):
            into = self.layers[receiver.layer].stretches
            if self.layers[receiver.layer].form != "parallel" and into and not is_one(into[0].carry):
                delta = delta * like(into[0].carry, delta)
        return delta

    def _delta(self, part: Component) -> Tensor:
        """What the sender writes more in the source run than in the base run: [n p d]."""
        write = part.write
        if part.kind != "head":
            return self.source.kept[write.where] - self.base.kept[write.where]
        target = Site("attn_write", part.layer)
        value = self.source.kept[write.where]
        edit = Patch(write.where, source=value, head=part.head)
        run = self.net.run(self.base.tokens, keep=[target], edits=[edit], logits=False, stop_at=target)
        return run[target] - self.base.kept[target]


def _streams(net: Network) -> set[Site]:
    """The stream at every place that a receiver reads."""
    found = {Site("resid_post", net.n_layers - 1)} | {Site("resid_pre", i) for i in range(net.n_layers)}
    return found | {Site("resid_mid", i) for i in net.layers_with("resid_mid")}


def _require_direct(net: Network) -> None:
    stack = net.anatomy.stack()
    if stack is None or not stack.layers:
        raise SiteUnavailable("The network has no stack of layers.", "Path patching needs a residual stream.")
    for layer in stack.layers:
        normed = next((s.norm for s in layer.stretches if s.norm), None)
        if normed or not layer.stretches:
            reason = f"the stream passes through {normed}" if normed else "its stretches are not known"
            raise SiteUnavailable(
                f"There are no direct paths past layer {layer.index}: {reason}.",
                "Use cutaway.patch, or pair_effects.",
            )
        needed = ["resid_pre", "resid_post"] + ([] if layer.form == "parallel" else ["resid_mid"])
        for name in needed:
            if name != "resid_mid" or net.has(Site("mlp_write", layer.index)):
                net.resolve(Site(name, layer.index))


def _named(given: Sequence[T | str] | None, known: Sequence[T], what: str) -> tuple[T, ...]:
    """Members of a list, by themselves or by name."""
    if given is None:
        return tuple(known)
    names = {str(k): k for k in known}
    found = []
    for item in given:
        if str(item) not in names:
            offers = ", ".join(nearest(str(item), list(names), n=4)) or ", ".join(list(names)[:6])
            raise NotFound(f"There is no {what} {str(item)!r}.", f"Nearest: {offers}.")
        found.append(names[str(item)])
    if not found:
        raise BadInput(f"No {what}s were named.", f"Leave the {what}s out for all of them.")
    return tuple(found)

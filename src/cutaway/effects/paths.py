"""Exact path patching: what a sender tells an input directly, with every other path held at the base run.

Wang et al. 2022, "Interpretability in the Wild", appendix B; Goldowsky-Dill et al. 2023, "Localizing Model Behavior with
Path Patching". For a sender s and an input r: (1) the change of what s writes reaches r through the stream alone, all heads
and MLPs between them frozen at the base run; (2) r's value under that change is put into the base run, and all that comes
after r is computed anew. Nothing is approximated: the numbers are those of doing it by hand, edge by edge.

This is the one place where an edge is cut exactly: the circuits' `path-patching` runs `DirectPaths`, too, and cuts by masks
only what has no site here (`sends`, `receives`).
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cutaway.behaviours import Prompts
from cutaway.effects.baselines import Baselines, Side, behaviour_of, measure
from cutaway.effects.effects import Effects
from cutaway.effects.question import Direction, Question, chosen, require_rules, sides
from cutaway.errors import BadInput, SiteUnavailable
from cutaway.interventions import Patch
from cutaway.network.anatomy import Layer, Stretch
from cutaway.network.coefficients import is_one, like
from cutaway.network.memory import budget_bytes
from cutaway.network.parts import KINDS, Input, Part, parts_of
from cutaway.network.pricing import announce
from cutaway.network.sites import Site
from cutaway.results import Work, strict, working
from cutaway.sweeps import Cell, CellState, CellValues, Rules, Write, plan_cells, write_of

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.behaviours.prompts import AnswerLike, PromptLike
    from cutaway.network import Network

#: Bytes of the senders' changes at once, beyond which more pairs gain nothing, and their share of the memory: what inputs
#: make of the changes takes several times as much.
_MOST_BYTES, _SHARE = 2**28, 8

#: One path: the number of a sender, and the input at which its change is read.
Route = tuple[int, Input]


def receivers(net: Network) -> tuple[Input, ...]:
    """Every input of a network that reads the stream, in forward order: queries, keys and values of heads, MLPs, the logits.

    Where several query heads share keys and values, these are inputs of the group: `a5.kv1<k>`. Attention whose heads cannot
    be told apart, and mixers, are read as a whole.
    """
    inputs: list[Input] = []
    stack = net.anatomy.stack()
    for layer in stack.layers if stack is not None else ():
        i, attention, whole = layer.index, layer.attention(), True
        for port in ("q", "k", "v"):
            if attention is not None and net.has(Site(port, i)):
                shared, whole = port != "q" and _shared(net, i), False
                kind, count = ("kv_head", attention.kv_heads) if shared else ("head", attention.heads)
                inputs += [Input(Part(kind, i, head), port) for head in range(count)]
        kinds = (*(("attention",) if whole else ()), "mixer", "mlp")
        inputs += [Input(Part(kind, i)) for kind in kinds if net.has(Site(KINDS[kind].site, i))]
    return (*inputs, Input(Part("logits")))


def _shared(net: Network, layer: int) -> bool:
    """Whether several query heads of a layer share their keys and values."""
    stack = net.anatomy.stack()
    attention = None if stack is None else stack.layers[layer].attention()
    return attention is not None and attention.kv_heads != attention.heads


def _single(net: Network) -> list[Input]:
    """Keys and values as one query head reads them, where it shares them with others and they can be told apart at `z`."""
    return [
        Input(Part("head", layer, head), port)
        for layer in net.layers_with("z")
        for port in ("k", "v")
        if _shared(net, layer) and net.has(Site(port, layer))
        for head in range(net.heads(layer) or 0)
    ]


def sends(net: Network, part: Part) -> bool:
    """Whether what a part writes can be sent along a direct path."""
    known = part.kind in ("input", "head", "attention", "mixer", "mlp")
    needed = [site for site in (part.site, part.writes) if site is not None]
    return known and all(net.has(site) for site in needed)


def receives(net: Network, target: Input) -> bool:
    """Whether what an input makes of a change can be computed and put in."""
    part = target.part
    if part.kind in ("head", "kv_head"):
        alone = part.kind == "head" and target.port != "q" and _shared(net, part.layer or 0)
        return all(net.has(Site(name, part.layer)) for name in (target.port, *(["z"] if alone else [])))
    whole = part.kind in ("attention", "mixer", "mlp")
    return part.kind == "logits" or (whole and net.has(Site(part.row.site, part.layer)))


@strict
def path_patch(
    net: Network,
    behaviour: Behaviour | str | None = None,
    *,
    clean: PromptLike | None = None,
    corrupted: PromptLike | None = None,
    answers: AnswerLike | None = None,
    senders: Sequence[Part | str] | None = None,
    to: Sequence[Input | Part | str] | None = None,
    direction: Direction = "corrupt",
    seed: int = 0,
    folder: str | Path | None = None,
    rules: Rules | None = None,
    work: Work | None = None,
) -> Effects:
    """Patch every direct path from senders to inputs, one at a time.

    Args:
        net: the network.
        behaviour: pairs of prompts of equal length, answers and metric, or the name of a built-in behaviour.
        clean, corrupted, answers: two prompts of yours in its place, as in `patch`.
        senders: heads, MLPs and mixers, themselves or by name (`a3.h1`, `head 3.1`, `m0`); also `input`, what the first
            layer is given. Default all but the input.
        to: inputs or their names (`a5.h3<q>`, `m4`, `logits`); default all. Where heads share keys, `a5.kv1<k>` is
            what the group reads, and `a5.h3<k>`, which is not among the default, what one query head reads alone.
        direction: `corrupt` sends the corrupted run's value into the clean run, `restore` the other way.
        seed, folder, rules, work: as in `patch`.

    Returns:
        `Effects` over `sender` and `receiver`; pairs in which the sender does not come before the receiver do not exist
        (state `ABSENT`).

    Raises:
        SiteUnavailable: a needed site is refused, or the stream is normed between layers, so that there is no direct path.
        NotFound: no such sender or receiver.
        BadInput: no sender comes before a receiver.
        BadBehaviour: pairs differ in length, or there is no gap.
    """
    began = time.perf_counter()
    require_rules(rules)
    with working(work).interruptible() as work:
        behaviour = behaviour_of(net, behaviour, seed, Prompts(clean, corrupted, answers), "path_patch")
        behaviour.require_aligned("Path patching")
        every = parts_of(net)
        sent = chosen(senders, (Part("input"), *every), every, Part.of, "sender")
        inputs = receivers(net)
        read = chosen(to, (*inputs, *_single(net)), inputs, Input.of, "receiver")
        paths = DirectPaths.of(net, behaviour, sent, direction, work)
        where = [(s, r) for r in read for s in paths.before(r)]
        if not where:
            raise BadInput(
                "There is no such path: none of the senders comes before one of the receivers.",
                "Name senders of an earlier layer, or receivers of a later one.",
            )
        price = paths.price(where)
        first = price[0][1] + price[1][1] / max(1, len(read))
        announce(net, paths.base.tokens, work, "patching paths", price, least=first)
        values = np.full((len(sent), len(read), behaviour.n), np.nan)
        states = np.full(values.shape, CellState.ABSENT, np.int8)
        once = paths.run(where, folder=folder, rules=rules, work=work)
        for (s, r), value, state in zip(where, once.values, once.states, strict=True):
            values[s, read.index(r)], states[s, read.index(r)] = value, state
        n = behaviour.n
        result = CellValues(values.reshape(-1, n), states.reshape(-1, n), once.interrupted)
        dims = {"sender": [str(s) for s in sent], "receiver": [str(r) for r in read]}
        asked = (net, behaviour, paths.ends, paths.base, "direct paths", direction, dims)
        return Question(*asked, seed=seed, began=began).effects(result)


@dataclass(eq=False)
class DirectPaths:
    """The engine under `path_patch`, for whoever needs the metric of single paths.

    Attributes:
        net, ends: the network, and both sides with the stream and the senders' sites kept.
        base, source: the side that paths are patched on, and the one that the senders' values come from.
        senders: the parts whose change is sent.
    """

    net: Network
    ends: Baselines
    base: Side
    source: Side
    senders: tuple[Part, ...]

    @classmethod
    def of(
        cls, net: Network, behaviour: Behaviour, senders: Sequence[Part], direction: Direction, work: Work | None = None
    ) -> DirectPaths:  # fmt: skip
        """Run both sides and work out what every sender writes more in one than in the other.

        Raises `SiteUnavailable` where the network has no direct paths, `BadBehaviour` where there is no gap.
        """
        _require_direct(net)
        keep = {write_of(part).where for part in senders} | _streams(net)
        keep |= {Site("attn_write", part.layer) for part in senders if part.kind == "head"}
        ends = measure(net, behaviour, sorted(keep), work)
        return cls(net, ends, *sides(ends, direction), tuple(senders))

    def __post_init__(self) -> None:
        stack = self.net.anatomy.stack()
        assert stack is not None
        self.layers: tuple[Layer, ...] = stack.layers

    @cached_property
    def deltas(self) -> list[Tensor]:
        """What every sender writes more in the source run than in the base run: [n p d] each."""
        return [self._delta(part) for part in self.senders]

    def pieces(self, work: Work | None = None) -> list[list[int]]:
        """The pairs in as few lots as memory allows, for `take`: what is held grows with pairs times senders."""
        size = torch.empty(0, dtype=self.net.dtype).element_size()
        pair = len(self.senders) * self.base.tokens.width * (self.net.d_model or 1) * size
        most = max(1, min(_MOST_BYTES, budget_bytes(self.net, work) // _SHARE) // max(1, pair))
        return [list(range(i, min(i + most, self.base.tokens.n))) for i in range(0, self.base.tokens.n, most)]

    def take(self, rows: Sequence[int]) -> DirectPaths:
        """The same for some of the pairs."""
        ends = self.ends.take(rows)
        flipped = self.base is self.ends.corrupted
        base, source = (ends.corrupted, ends.clean) if flipped else (ends.clean, ends.corrupted)
        return DirectPaths(self.net, ends, base, source, self.senders)

    def before(self, target: Input) -> list[int]:
        """The senders, by number, whose write this input reads."""
        layer = self._layer(target.part)
        parallel = layer < len(self.layers) and self.layers[layer].form == "parallel"
        same = target.part.kind == "mlp" and not parallel
        return [
            i
            for i, s in enumerate(self.senders)
            if self._layer(s) < layer or (same and self._layer(s) == layer and s.kind != "mlp")
        ]

    def price(self, paths: Sequence[Route]) -> list[tuple[str, float]]:
        """What these paths take, in forward-equivalents: what senders write, what receivers make of it, and all behind."""
        n, depth = self.base.tokens.n, len(self.layers)
        heads = {s: self._layer(self.senders[s]) + 1 for s, _ in paths if self.senders[s].kind == "head"}
        read, behind, changed = 0.0, 0.0, self._changed()
        for layer, ports, group in self._places(paths):
            senders = {paths[i][0] for i in group}
            if ports == "logits":
                continue
            read += len(senders) * (layer + 1) + depth
            half = 0.5 if ports in ("q-k-v", "mlp") else 1.0
            # of the last layer only the answer's column is run
            below, last = (depth - 2 - layer + half, 1.0) if layer < depth - 1 else (0.0, half)
            behind += len(group) * (changed * below + last / max(1, self.base.tokens.width))
        return [
            ("what is sent", n * sum(heads.values()) / depth),
            ("what is received", n * read / depth),
            ("what follows", n * behind / depth),
        ]

    def _changed(self) -> float:
        """The share of the columns from the first in which the two sides of a pair differ."""
        a, b = self.base.tokens, self.source.tokens
        if a.ids.shape != b.ids.shape:
            return 1.0
        first = (a.ids != b.ids).int().argmax(1).float()
        return float((1 - first / max(1, a.width)).mean())

    def run(
        self, paths: Sequence[Route], *, folder: str | Path | None = None, rules: Rules | None = None,
        work: Work | None = None,
    ) -> CellValues:  # fmt: skip
        """Metric and state [paths n] of every path.

        folder: finished paths are kept there. Where the work is stopped, paths that were not run are marked so.
        """
        work, n = working(work), self.base.tokens.n
        values = np.full((len(paths), n), np.nan)
        states = np.full(values.shape, CellState.NOT_RUN, np.int8)
        done, interrupted = 0, False
        for layer, ports, group in self._places(paths):
            if interrupted:
                break
            where = None if folder is None else Path(folder) / f"layer-{layer}" / ports
            part = [paths[i] for i in group]
            patched = self._kept(part, where, rules, work.counting(done, len(paths)))
            values[group], states[group] = patched.values, patched.states
            done, interrupted = done + len(group), patched.interrupted
        return CellValues(values, states, interrupted)

    def _kept(
        self, paths: Sequence[Route], folder: Path | None, rules: Rules | None, work: Work
    ) -> CellValues:
        """Those of one place, from what was kept before a stop where it was finished."""
        stages = None if folder is not None else work.stages
        if stages is None:
            return self._run(paths, folder, rules, work)
        sides = [self.base.tokens.ids, self.source.tokens.ids, self.ends.positions, self.base.metric]
        of = [self.net.hash, sides, [(str(self.senders[s]), str(target)) for s, target in paths]]
        if (kept := stages.find("paths", of)) is not None:
            work.step("patching paths", len(paths), len(paths))
            return CellValues(kept["values"], kept["states"], False)
        found = self._run(paths, folder, rules, work)
        if not found.interrupted:
            stages.put("paths", {"values": found.values, "states": found.states}, of)
        return found

    def _places(self, paths: Sequence[Route]) -> Iterator[tuple[int, str, list[int]]]:
        """The paths by the place at which they read the stream, in forward order: layer, kind of place, which paths."""
        places: dict[tuple[int, int], list[int]] = {}
        names = ("q-k-v", "mixer", "mlp", "logits")
        for i, (_, target) in enumerate(paths):
            kind = names.index(target.part.kind) if target.part.kind in names else 0
            places.setdefault((self._layer(target.part), kind), []).append(i)
        for layer, kind in sorted(places):
            group = places[layer, kind]
            yield layer, names[kind], sorted(group, key=lambda i: paths[i][0])

    def _run(
        self, paths: Sequence[Route], folder: Path | None, rules: Rules | None, work: Work
    ) -> CellValues:
        """Paths into inputs that read at one place, those of a sender together."""
        target = paths[0][1]
        named = {str(s): self._read(target, s) for s in dict.fromkeys(s for s, _ in paths)}
        cells: list[Cell] = []
        for sender, read in paths:
            part, layer, source = read.part, min(self._layer(read.part), len(self.layers) - 1), str(sender)
            if part.kind == "head" and read.port != "q" and _shared(self.net, layer):
                source = f"{sender} {read.port}"
                if source not in named:
                    named[source] = self._alone(Site(read.port, layer), named[str(sender)])
                site = "z"
            elif part.kind in ("head", "kv_head"):
                site = read.port
            else:
                site = "resid_post" if part.kind == "logits" else part.row.site
            cells.append((Write(site, layer, part.index, source=source),))
        experiment = self.ends.experiment(self.net, self.base, {}, named=named)
        plan = plan_cells(experiment, cells, base=self.base.metric, rules=rules, time_it=False, work=work)
        return plan.run(folder, work, "patching paths")

    def _layer(self, part: Part) -> int:
        """The layer of a part: -1 for the input, the number of layers for the logits."""
        if part.layer is not None:
            return part.layer
        return len(self.layers) if part.kind == "logits" else -1

    def _read(self, target: Input, sender: int) -> dict[Site, Tensor]:
        """What the inputs at one place compute when the sender's change is added to what they read."""
        part, end = self.senders[sender], self._layer(target.part)
        layer = min(end, len(self.layers) - 1)
        carried = self.deltas[sender]
        for between in range(self._layer(part) + 1, end):
            carried = _past(self.layers[between].stretches, carried)
        carried = self._within(part, target, carried)
        if target.part.kind == "logits":
            site = Site("resid_post", layer)
            return {site: self.base.kept[site] + carried}
        kind = target.part.kind
        names = ("q", "k", "v") if kind in ("head", "kv_head") else (target.part.row.site,)
        sites = [Site(name, layer) for name in names if self.net.has(Site(name, layer))]
        sequential = self.layers[layer].form != "parallel"
        at = Site("resid_mid" if kind == "mlp" and sequential else "resid_pre", layer)
        edit = Patch(at, source=self.base.kept[at] + carried)
        run = self.net.run(self.base.tokens, keep=sites, edits=[edit], logits=False, stop_at=sites[-1])
        return {site: run[site] for site in sites}

    def _alone(self, site: Site, read: dict[Site, Tensor]) -> dict[Site, Tensor]:
        """What every query head of a layer gives (its `z`) when these keys, or values, are the new ones for it."""
        z = Site("z", site.layer)
        edit = Patch(site, source=read[site])
        return {z: self.net.run(self.base.tokens, keep=[z], edits=[edit], logits=False, stop_at=z)[z]}

    def _within(self, part: Part, target: Input, delta: Tensor) -> Tensor:
        """Carry a change through the rest of the sender's own layer, and to the middle of the receiver's."""
        start, end = self._layer(part), self._layer(target.part)
        if 0 <= start < end:
            stretches, write = self.layers[start].stretches, part.row.write
            at = next((i for i, s in enumerate(stretches) if write in s.writes), len(stretches) - 1)
            delta = _past(stretches[at + 1 :], delta)
        if target.part.kind == "mlp" and start < end < len(self.layers):
            into = self.layers[end].stretches
            if self.layers[end].form != "parallel":
                delta = _past(into[:1], delta)
        return delta

    def _delta(self, part: Part) -> Tensor:
        """What the sender writes more in the source run than in the base run: [n p d]."""
        write = write_of(part)
        if part.kind != "head":
            return self.source.kept[write.where] - self.base.kept[write.where]
        target = Site("attn_write", part.layer)
        edit = Patch(write.where, source=self.source.kept[write.where], head=part.index)
        run = self.net.run(self.base.tokens, keep=[target], edits=[edit], logits=False, stop_at=target)
        return run[target] - self.base.kept[target]


def _past(stretches: Sequence[Stretch], delta: Tensor) -> Tensor:
    """What is left of a change of the stream behind these stretches of it."""
    for stretch in stretches:
        if not is_one(stretch.carry):
            delta = delta * like(stretch.carry, delta)
    return delta


def _streams(net: Network) -> set[Site]:
    """The stream at every place that an input reads."""
    ends = {Site("resid_post", net.n_layers - 1)} | {Site("resid_pre", i) for i in range(net.n_layers)}
    return ends | {Site("resid_mid", i) for i in net.layers_with("resid_mid")}


def _require_direct(net: Network) -> None:
    """Raise `SiteUnavailable` where the stream is normed between layers, so that nothing passes it as it is."""
    stack = net.anatomy.stack()
    if stack is None or not stack.layers:
        raise SiteUnavailable("The network has no stack of layers.", "Path patching needs a residual stream.")
    for layer in stack.layers:
        normed = next((s.norm for s in layer.stretches if s.norm), None)
        if normed or not layer.stretches:
            reason = f"the stream passes through {normed}" if normed else "its stretches are not known"
            remedy = "Use cutaway.patch, or pair_effects."
            raise SiteUnavailable(f"There are no direct paths past layer {layer.index}: {reason}.", remedy)
        needed = ["resid_pre", "resid_post"] + ([] if layer.form == "parallel" else ["resid_mid"])
        for name in needed:
            if name != "resid_mid" or net.has(Site("mlp_write", layer.index)):
                net.resolve(Site(name, layer.index))

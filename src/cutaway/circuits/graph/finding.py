"""Finds how each part of a network reads and writes, on one short run; `passes.certify` checks what was found."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from cutaway.circuits.graph.nodes import Graph, SublayerNodes, assemble
from cutaway.circuits.graph.reading import ExpertReading, HeadReading, twin
from cutaway.circuits.graph.wiring import PORTS, Port, Projection, Wiring, WiringStage
from cutaway.errors import SiteUnavailable
from cutaway.network.anatomy import Attention, Layer, RouterTap, Sublayer
from cutaway.network.coefficients import is_one, like
from cutaway.network.discovery.example import OTHER_COLUMNS, probe_rows
from cutaway.network.execution.heads import output_weight
from cutaway.network.norms import Norm, norm_of
from cutaway.network.sites import SHORT, Site

if TYPE_CHECKING:
    from cutaway.network import Network

#: What the certificate says of a site that does nothing.
_NO_EFFECT = "does not change the output"


@dataclass(frozen=True)
class Grain:
    """How finely a network is cut into nodes.

    Attributes:
        by_running: let heads read by running their attention, also where projections could be sliced.
        heads_refused: why attentions are to be taken as one node each; None: by heads.
        experts_refused: why mixtures of experts are to be taken as one node each; None: by experts.
    """

    by_running: bool = False
    heads_refused: str | None = None
    experts_refused: str | None = None


def find_wiring(net: Network, grain: Grain | None = None) -> Wiring:
    """The wiring of a network, found anew.

    Raises `SiteUnavailable`, saying which layer and why, where the stream is not a sum of what its parts write, or a part
    does not read a norm of it.
    """
    return _Finder(net, grain or Grain()).find()


class _Finder:
    """Finds the wiring by one forward pass with every module's first input and output at hand."""

    def __init__(self, net: Network, grain: Grain) -> None:
        self.net, self.grain = net, grain
        stack = net.anatomy.stack()
        if stack is None or net.anatomy.head is None or not stack.layers:
            raise SiteUnavailable(
                f"{net.name} has no stack of layers with logits.", "Circuits need a language model."
            )
        self.stack, self.width = stack, int(stack.width or 0)
        self.modules = net.modules
        self.rows = probe_rows(net, OTHER_COLUMNS, seed=11)
        self.notes: list[str] = []

    def find(self) -> Wiring:
        self._check_stream()
        self._observe()
        parts: list[SublayerNodes] = []
        drafts: list[dict[str, Any]] = []
        count = 1
        for layer in self.stack.layers:
            start = count
            for sublayer in _merged(layer):
                if self._dead(layer, sublayer):
                    continue
                draft = self._stage(layer, sublayer)
                before = start if draft["stream"] == f"resid_pre.{layer.index}" else count
                parts.append(_nodes(layer.index, sublayer, draft, before))
                drafts.append(draft | {"before": before})
                count += draft["heads"] or 1
        graph = assemble(parts, self.net.hash)
        return Wiring(self.net, graph, (*_placed(drafts), self._logits(graph)), tuple(self.notes))

    def _dead(self, layer: Layer, sublayer: Sublayer) -> bool:
        """Does nothing that a sublayer reads change the output? Then it is a constant, and no node."""
        site = Site(f"{SHORT[sublayer.kind]}_in", layer.index)
        dead = _NO_EFFECT in str(self.net.certificate.refusals.get(str(site), ""))
        if dead:
            self.notes.append(f"The {sublayer.kind} of layer {layer.index} changes nothing, and is no node.")
        return dead

    def _refuse(self, where: str, why: str) -> SiteUnavailable:
        return SiteUnavailable(
            f"The graph of {self.net.name} cannot be drawn: {where}: {why}",
            "Use activation patching (cutaway.patch) on the sites that are certified.",
        )

    def _check_stream(self) -> None:
        for layer in self.stack.layers:
            where = f"layer {layer.index}"
            if layer.form == "unknown" or not layer.stretches:
                reason = self.net.refusal(Site("attn_write", layer.index)) or "its stream could not be read."
                raise self._refuse(where, reason)
            for stretch in layer.stretches:
                if stretch.norm is not None:
                    why = "the stream itself is normed between sublayers, so writers do not add up."
                    raise self._refuse(where, why)
                if not is_one(stretch.carry):
                    raise self._refuse(where, "the stream is scaled on its way, so writers do not add up.")

    def _observe(self) -> None:
        """Keep the probe's stream, and what each module within the layers took and gave."""
        layers = [f"{la.path}." for la in self.stack.layers]
        seen: dict[str, tuple[Tensor, Tensor]] = {}
        sites = [s for s in self.net.sites() if not s.stack and s.name in _WANTED]
        with ExitStack() as hooks:
            for path, module in self.modules.items():
                if path.startswith(tuple(layers)) or path == getattr(self.net.anatomy.head, "norm", None):
                    handle = module.register_forward_hook(_noting(path, seen), with_kwargs=True)
                    hooks.callback(handle.remove)
            self.run = self.net.run(self.rows, keep=sites)
        self.seen = seen

    def _value(self, name: str, layer: int | None) -> Tensor | None:
        return self.run.kept.get(Site(name, layer))

    def _reads(self, layer: Layer, name: str) -> tuple[str, str | None]:
        """(site of the stream, path of the norm or None) of what a sublayer takes in."""
        taken, where = self._value(name, layer.index), f"layer {layer.index}"
        if taken is None:
            raise self._refuse(where, self.net.refusal(Site(name, layer.index)) or f"no {name}.")
        values = {s: self._value(s, layer.index) for s in ("resid_pre", "resid_mid")}
        streams = {f"{s}.{layer.index}": v for s, v in values.items() if v is not None}
        for site, value in streams.items():
            if torch.equal(value, taken):
                return site, None
        for path, (given, out) in self.seen.items():
            if not path.startswith(f"{layer.path}.") or out.numel() != taken.numel():
                continue
            if torch.equal(out.reshape(taken.shape), taken):
                for site, value in streams.items():
                    if given.numel() == value.numel() and _close(given.reshape(value.shape), value):
                        return site, path
        why = f"what {name} holds is neither the stream nor the output of one module that reads it."
        raise self._refuse(where, why)

    def _norm(self, path: str | None) -> Norm | None:
        if path is None:
            return None
        norm = norm_of(self.net, path, self.width)
        if norm.gain is None:
            self.notes.append(f"{path} has no closed form; its derivative is taken by autograd.")
        return norm

    def _stage(self, layer: Layer, sublayer: Sublayer) -> dict[str, Any]:
        short = SHORT[sublayer.kind]
        stream, norm_path = self._reads(layer, f"{short}_in")
        common: dict[str, Any] = {
            "layer": layer.index, "stream": stream, "norm_path": norm_path, "norm": self._norm(norm_path),
            "site": f"{short}_in.{layer.index}", "factor": sublayer.factor,
        }  # fmt: skip
        if sublayer.kind == "attention" and (heads := self._heads(layer, sublayer)) is not None:
            return common | heads
        if sublayer.kind == "mlp" and (experts := self._experts(layer, sublayer)) is not None:
            return common | experts
        write = f"{short}_write.{layer.index}"
        if self._value(f"{short}_write", layer.index) is None:
            raise self._refuse(f"layer {layer.index}", self.net.refusal(write) or f"no {write}.")
        return common | {"kind": "unit", "heads": 0, "write": write}

    def _heads(self, layer: Layer, sublayer: Sublayer) -> dict[str, Any] | None:
        """The heads of an attention, where each one's inputs and output can be told apart; None (with a note) where not."""
        attention, index, reading = sublayer.attention, layer.index, None
        what = f"The attention of layer {index} is"
        if self.grain.heads_refused is not None:
            return self._whole(what, self.grain.heads_refused)
        if attention is None or attention.output is None or not self.net.has(Site("head_out", index)):
            return self._whole(what, "what a head writes is not certified")
        if attention.call or attention.output_call or layer.call:
            return self._whole(what, "its modules are called more than once")
        projections = None if self.grain.by_running else self._projections(index, attention)
        if projections is None:
            if not all(self.net.has(Site(port, index)) for port in PORTS):
                return self._whole(what, "its queries, keys and values cannot be seen")
            reading = HeadReading(twin(self.modules[attention.path]), attention.functions, attention.heads)
        norm_after = self._norm(sublayer.norm_after)
        output = self.modules[attention.output]
        weight = output_weight(output)
        plain = weight is not None and weight.device.type != "meta"
        matrix = weight.detach().unflatten(0, (attention.heads, -1)) if plain and weight is not None else None
        return {
            "kind": "head", "heads": attention.heads, "write": f"{attention.output}:in",
            "projections": projections or {}, "reading": reading, "module": self.modules[attention.path],
            "output": output, "output_matrix": matrix, "norm_after": norm_after, "raw": f"attn_out.{index}",
        }  # fmt: skip

    def _experts(self, layer: Layer, sublayer: Sublayer) -> dict[str, Any] | None:
        """The experts of a mixture, where each one's part of the output can be told apart; None (with a note) where not."""
        index, inside = layer.index, f"{sublayer.path}."
        if sublayer.mlp is None or not sublayer.mlp.experts:
            return None
        what = f"The experts of layer {index} are"
        if self.grain.experts_refused is not None:
            return self._whole(what, self.grain.experts_refused)
        if not self.net.has(Site("router", index)):
            return self._whole(what, "its routing weights are not certified")
        if sublayer.norm_after is not None:
            return self._whole(what, "a norm follows their sum")
        tap = self.net.tap(Site("router", index))
        if not isinstance(tap, RouterTap) or tap.call or not tap.path.startswith(inside):
            return self._whole(what, "its router stands outside, or is called more than once")
        module = twin(self.modules[sublayer.path])
        router = module.get_submodule(tap.path.removeprefix(inside))
        reading = ExpertReading(module, router, tap.weights_key, tap.index_key, tap.experts)
        reading = self._checked(index, sublayer, reading)
        if reading is None:
            return self._whole(what, "what its experts add does not sum to what it writes")
        heads = tap.experts + reading.rest
        return {"kind": "expert", "heads": heads, "write": f"mlp_write.{index}", "reading": reading}

    def _whole(self, what: str, why: str) -> None:
        """Note that a sublayer is not split."""
        self.notes.append(f"{what} one node: {why}.")

    def _checked(self, index: int, sublayer: Sublayer, reading: ExpertReading) -> ExpertReading | None:
        """The reading, where the experts' parts sum to what the MLP writes on the probe."""
        taken, write = self._value("mlp_in", index), self._value("mlp_write", index)
        if taken is None or write is None:
            return None
        try:
            with torch.no_grad():
                parts = reading.contributions(taken)
        except (RuntimeError, TypeError, ValueError, StopIteration):
            return None
        whole = parts.sum(0)
        if not is_one(sublayer.factor):
            whole = whole * like(sublayer.factor, whole)
        if not _close(whole, write.reshape(whole.shape), 1e-5):
            return None
        return reading if bool(parts[-1].any()) else replace(reading, rest=False)

    def _projections(self, index: int, attention: Attention) -> dict[Port, Projection] | None:
        if any(len(paths) != 1 for paths in (attention.queries, attention.keys, attention.values)):
            return None
        paths = {"q": attention.queries[0], "k": attention.keys[0], "v": attention.values[0]}
        places = {port: Site(port, index) for port in PORTS}
        if any(not self.net.has(s) for s in places.values()):
            return None
        taken = self._value("attn_in", index)
        for path in paths.values():
            given = self.seen.get(path)
            if given is None or taken is None or not torch.equal(given[0].reshape(taken.shape), taken):
                return None
        groups = attention.heads // max(attention.kv_heads, 1)
        repeats = getattr(self.modules[attention.path], "num_key_value_groups", None)
        if groups > 1 and (len(set(paths.values())) != 3 or repeats != groups):
            return None
        keep = [*places.values(), *dict.fromkeys(paths.values())]
        run = self.net.run(self.rows, keep=keep, grad=True, logits=False)
        projections: dict[Port, Projection] = {}
        owned: dict[str, Tensor] = {}
        for part in PORTS:
            out, value = run[paths[part]], run[places[part]]
            channels = _channels(value, out)
            if channels is None:
                return None
            taken_already = owned.setdefault(paths[part], torch.zeros(out.shape[-1], dtype=torch.bool))
            if bool(taken_already[channels.flatten()].any()):
                return None
            taken_already[channels.flatten()] = True
            module = self.modules[paths[part]]
            weight = output_weight(module)
            weight = None if weight is None or weight.device.type == "meta" else weight.T.detach()
            bias = getattr(module, "bias", None)
            bias = bias.detach() if weight is not None and torch.is_tensor(bias) else None
            shared = attention.heads // channels.shape[0]
            channels = channels.repeat_interleave(shared, 0).to(self.net.device)
            projections[part] = Projection(paths[part], module, channels, weight, bias, shared)
        return projections

    def _logits(self, graph: Graph) -> WiringStage:
        last = self.stack.layers[-1].index
        head = self.net.anatomy.head
        assert head is not None
        stream, norm_path = f"resid_post.{last}", None
        if head.norm is not None:
            final, given = self._value("final_norm", None), self.seen.get(head.norm)
            post = self._value("resid_post", last)
            reads = given is not None and post is not None and _close(given[0].reshape(post.shape), post)
            if final is None or not reads:
                why = self.net.refusal("final_norm") or "the final norm does not read the last stream."
                raise self._refuse("the logits", why)
            norm_path = head.norm
        return WiringStage(
            "logits", last + 1, stream, norm_path, self._norm(norm_path), "final_norm" if norm_path else stream,
            slice(len(graph.readers) - 1, len(graph.readers)), len(graph.writers),
        )  # fmt: skip


_WANTED = frozenset(
    "resid_pre resid_mid resid_post attn_in mlp_in mixer_in cross_in attn_write mlp_write mixer_write cross_write "
    "final_norm attn_out".split()
)


def _placed(drafts: list[dict[str, Any]]) -> Iterator[WiringStage]:
    """The stages with the numbers of their readers and writers in the graph."""
    reader, writer = 0, 1
    for draft in drafts:
        many = draft["heads"] or 1
        read = 3 * many if draft["kind"] == "head" else many
        yield WiringStage(readers=slice(reader, reader + read), writers=slice(writer, writer + many), **draft)
        reader, writer = reader + read, writer + many


def _nodes(layer: int, sublayer: Sublayer, draft: dict[str, Any], before: int) -> SublayerNodes:
    """A sublayer's share of the graph."""
    if draft["kind"] == "expert":
        reading = draft["reading"]
        return SublayerNodes(layer, "expert", reading.experts, before, "mlp" if reading.rest else "")
    if draft["kind"] == "head":
        return SublayerNodes(layer, "head", draft["heads"], before)
    return SublayerNodes(layer, sublayer.kind, None, before)


def _merged(layer: Layer) -> list[Sublayer]:
    """The sublayers of a layer, those of one kind as one (their sites are sums)."""
    return list({s.kind: s for s in layer.sublayers}.values())


def _noting(path: str, seen: dict[str, tuple[Tensor, Tensor]]) -> Any:
    def hook(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        floats = (a for a in (*args, *kwargs.values()) if torch.is_tensor(a) and a.is_floating_point())
        given = next(floats, None)
        out = output[0] if isinstance(output, tuple | list) and output else output
        if given is not None and torch.is_tensor(out) and out.is_floating_point() and path not in seen:
            seen[path] = (given.detach().clone(), out.detach().clone())

    return hook


def _close(a: Tensor, b: Tensor, tolerance: float = 1e-6) -> bool:
    scale = b.double().abs().max().clamp(min=1e-12)
    tolerance = tolerance if b.dtype in (torch.float32, torch.float64) else 1e-2
    return bool((a.double() - b.double()).abs().max() <= tolerance * scale)


def _channels(value: Tensor, out: Tensor) -> Tensor | None:
    """Channels [h e] of a projection's output [... c] that each head's part of `value` [b p h e] was computed from.

    None where the heads' channels overlap or are not equally many.
    """
    owned = []
    weights = torch.rand(value.shape, generator=torch.Generator().manual_seed(3)).to(value) + 0.5
    for head in range(value.shape[2]):
        total = (value[:, :, head] * weights[:, :, head]).sum()
        (slope,) = torch.autograd.grad(total, out, retain_graph=True, allow_unused=True)
        if slope is None:
            return None
        moved = slope.abs().reshape(-1, slope.shape[-1]).amax(0) > 0
        owned.append(moved.nonzero()[:, 0].cpu())
    sizes = {len(c) for c in owned}
    if len(sizes) != 1 or sizes == {0}:
        return None
    channels = torch.stack(owned)
    return channels if channels.unique().numel() == channels.numel() else None

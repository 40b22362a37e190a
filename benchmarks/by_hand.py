"""Checks by hand: bare PyTorch hooks and the model's own reports against Cutaway's reads and edits.

Nothing of Cutaway's anatomy is used on the hand's side: modules are found by their names, and a comparison is
left out rather than guessed when no module, or more than one, fits.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn

from cutaway.interventions import Ablate, Patch, Scale
from cutaway.zoo.tiny import tiny

TOLERANCE = 2e-5
"""Largest difference, relative to the largest value, that counts as agreement."""

POS, HEAD, NEURON = 3, 1, 3
MLPS = ("mlp", "feed_forward", "ffn", "ff", "block_sparse_moe", "moe", "mlp_block", "feedforward")
DOWNS = (
    *("down_proj", "c_proj", "fc2", "fc_out", "dense_4h_to_h", "w2", "wo", "dense_2", "w_out", "Wo"),
    *("output_linear", "down", "out_lin", "linear_2", "lin2", "o"),
)
PROJECTIONS = ("o_proj", "out_proj", "c_proj", "dense", "wo", "out_lin", "o", "Wo", "linear_out", "proj")
NOT_BY_HAND = {
    "bitnet": ("z", "a norm stands between the heads and the output projection"),
    "diffllama": ("z", "heads are subtracted and normed before the output projection"),
    "bloom": ("mlp_out", "the MLP module adds the residual itself"),
    "mpt": ("mlp_out", "the MLP module adds the residual itself"),
    "cpmant": ("mlp_out", "the MLP module adds the residual itself"),
}
"""Model type -> (site, why the module that the hand would hook is not that site)."""


@dataclass
class Trial:
    """One network under check: Cutaway's view, a bare model with the same weights, and what was found."""

    kind: str
    net: Any
    model: nn.Module
    inputs: dict[str, Any]
    checked: list[str] = field(default_factory=list)
    written_back: int = 0
    wrong: list[str] = field(default_factory=list)
    bitwise: bool | None = None

    def __post_init__(self) -> None:
        self.plain = logits(self.model, self.inputs)
        self.layers = hand_layers(self.model, self.inputs, self.net.n_layers)

    def edited(self, *edits: Any) -> Tensor:
        """Logits through Cutaway under edits."""
        return self.net.run(self.inputs, edits=list(edits)).logits

    def hooked(self, module: nn.Module, side: str, change: Callable[[Tensor], Tensor]) -> Tensor:
        """Logits of the bare model with one module's input or output changed."""
        with hook(module, side, change):
            return logits(self.model, self.inputs)

    def compare(self, what: str, ours: Tensor, hands: Tensor) -> None:
        """Note one comparison of values."""
        self.checked.append(what)
        if not (error := distance(ours, hands)) <= TOLERANCE:
            self.wrong.append(f"{what} ({error:.1e})")

    def compare_edit(self, what: str, ours: Tensor, hands: Tensor) -> None:
        """Note one comparison of edits; one that by hand changes nothing shows nothing, and is left out."""
        if distance(hands, self.plain) > 1e-6:
            self.compare(what, ours, hands)

    def by_hand(self, site: str) -> bool:
        """Whether the hand knows a module for this site."""
        return NOT_BY_HAND.get(self.kind, ("", ""))[0] != site


@contextmanager
def hook(module: nn.Module, side: str, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Replace the first tensor that a module is given (side 'in') or gives (side 'out')."""

    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return (change(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": change(kwargs["hidden_states"])}

    def after(_: nn.Module, args: Any, out: Any) -> Any:
        if torch.is_tensor(out):
            return change(out)
        if not isinstance(out, tuple | list):
            return out
        items = (change(out[0]), *out[1:])
        return type(out)(*items) if hasattr(out, "_fields") else type(out)(items)

    if side == "in":
        handle = module.register_forward_pre_hook(before, with_kwargs=True)
    else:
        handle = module.register_forward_hook(after)
    try:
        yield
    finally:
        handle.remove()


def logits(model: nn.Module, inputs: dict[str, Any]) -> Tensor:
    """The bare model's logits."""
    with torch.no_grad():
        return model(**inputs).logits


def distance(ours: Tensor, hands: Tensor) -> float:
    """Largest difference, relative to the largest value; infinity where the shapes differ."""
    if ours.shape != hands.shape:
        return float("inf")
    return float((ours - hands).abs().max() / hands.abs().max().clamp(min=1e-9))


def hand_layers(model: nn.Module, inputs: dict[str, Any], count: int) -> nn.ModuleList | None:
    """The layer list, by its look: the one list of `count` layers or blocks that a forward runs.

    None where no list fits or several do.
    """
    fits = []
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count > 0:
            names = [type(child).__name__.lower() for child in module]
            if all(("layer" in n or "block" in n) and "norm" not in n for n in names):
                fits.append(module)
    ran: set[int] = set()
    handles = [f[0].register_forward_hook(lambda m, *_: ran.add(id(m))) for f in fits]
    logits(model, inputs)
    for handle in handles:
        handle.remove()
    fits = [f for f in fits if id(f[0]) in ran]
    inner = {id(m) for f in fits for child in f for m in child.modules()}
    outer = [f for f in fits if id(f) not in inner]
    return outer[0] if len(outer) == 1 else None


Attend = Callable[..., Any]


@contextmanager
def attention_functions(wrap: Callable[[Attend], Attend]) -> Iterator[None]:
    """Replace every eager attention function in transformers' model files by a wrapped one."""
    homes = [vars(m) for name, m in list(sys.modules.items()) if name.startswith("transformers.models.")]
    found = [(home, name) for home in homes for name in home if name.endswith("eager_attention_forward")]
    originals = [home[name] for home, name in found]
    try:
        for (home, name), function in zip(found, originals, strict=True):
            home[name] = wrap(function)
        yield
    finally:
        for (home, name), function in zip(found, originals, strict=True):
            home[name] = function


def hand_attention_calls(kind: str, inputs: dict[str, Any]) -> int:
    """How often a forward of the eager model calls an attention function, counted in transformers' code."""
    model, calls = tiny(kind, attn_implementation="eager"), [0]

    def counted(function: Attend) -> Attend:
        def attend(*args: Any, **kwargs: Any) -> Any:
            calls[0] += 1
            return function(*args, **kwargs)

        return attend

    with attention_functions(counted):
        logits(model, inputs)
    return calls[0]


def hand_projection(layer: nn.Module, width: int) -> nn.Module | None:
    """The attention's output projection in a layer, by its name; None unless exactly one module fits."""
    fits = []
    for name, module in layer.named_modules():
        parent, _, last = name.rpartition(".")
        where = name.lower() + type(layer.get_submodule(parent)).__name__.lower()
        named = last in PROJECTIONS and "attn" in where
        if named or re.search(r"attention\.(output\.)?(dense|o_proj|out_proj)$", name):
            fits.append(module)
    fits = [m for m in fits if getattr(m, "in_features", getattr(m, "nx", width)) == width]
    return fits[0] if len(fits) == 1 else None


def check_by_hand(kind: str, net: Any, model: nn.Module, inputs: dict[str, Any]) -> Trial:
    """Compare Cutaway with bare hooks and with what the model reports; the trial says what disagrees."""
    trial = Trial(kind, net, model, inputs)
    ours = trial.edited()
    trial.bitwise = torch.equal(ours, trial.plain)
    if not trial.bitwise:
        trial.wrong.append(f"logits with nothing read ({distance(ours, trial.plain):.1e})")
    if trial.layers is not None:
        _check_stream(trial, trial.layers)
        _check_sublayers(trial, trial.layers)
        _check_neurons(trial, trial.layers)
        _check_heads(trial, trial.layers)
        _check_queries_keys_values(trial)
    _check_hidden_states(trial)
    _check_attentions(trial)
    _check_writing_back(trial)
    return trial


def _check_stream(trial: Trial, layers: nn.ModuleList) -> None:
    """The layer's input, and its output, erased at one position."""

    def erase(value: Tensor) -> Tensor:
        out = value.clone()
        out[:, POS] = 0
        return out

    for name, side in (("resid_pre", "in"), ("resid_post", "out")):
        for index in {0, len(layers) // 2} & set(trial.net.layers_with(name)):
            hands = trial.hooked(layers[index], side, erase)
            ours = trial.edited(Ablate(name, "zero", layer=index, pos=POS))
            trial.compare_edit(f"{name}.{index} erased", ours, hands)


def _check_sublayers(trial: Trial, layers: nn.ModuleList) -> None:
    """The attention's, and the MLP's, output scaled."""
    for name, modules in {"mlp_out": MLPS, "attn_out": ("self_attn", "attn")}.items():
        for index in trial.net.layers_with(name)[:2] if trial.by_hand(name) else ():
            parts = [getattr(layers[index], m, None) for m in modules]
            found = [m for m in parts if isinstance(m, nn.Module)]
            if len(found) == 1:
                hands = trial.hooked(found[0], "out", lambda value: value * 0.3)
                ours = trial.edited(Scale(name, 0.3, layer=index))
                trial.compare_edit(f"{name}.{index} scaled", ours, hands)


def _check_neurons(trial: Trial, layers: nn.ModuleList) -> None:
    """The down projection's input, read, and with one neuron zeroed."""
    for index in trial.net.layers_with("mlp_act"):
        layer = layers[index]
        parent = next((m for n in MLPS if isinstance(m := getattr(layer, n, None), nn.Module)), layer)
        found = [m for n, m in parent.named_children() if n in DOWNS and hasattr(m, "weight")]
        if len(found) != 1:
            continue
        seen: list[Tensor] = []

        def zero(value: Tensor, seen: list[Tensor] = seen) -> Tensor:
            seen.append(value.clone())
            out = value.clone()
            out[..., NEURON] = 0
            return out

        hands = trial.hooked(found[0], "in", zero)
        ours = trial.net.run(trial.inputs, keep=[("mlp_act", index)])["mlp_act", index]
        trial.compare(f"mlp_act.{index} read", ours, seen[0].reshape(*ours.shape[:2], -1))
        edited = trial.edited(Ablate("mlp_act", "zero", layer=index, neuron=NEURON))
        trial.compare_edit(f"mlp_act.{index} neuron zeroed", edited, hands)


def _check_heads(trial: Trial, layers: nn.ModuleList) -> None:
    """One head's slice of the output projection's input zeroed."""
    for index in trial.net.layers_with("z")[:2] if trial.by_hand("z") else ():
        z = trial.net.run(trial.inputs, keep=[("z", index)])["z", index]
        width = z.shape[-1]
        projection = hand_projection(layers[index], z.shape[2] * width)
        if projection is None or z.shape[2] <= HEAD:
            continue

        def zero(value: Tensor, width: int = width) -> Tensor:
            out = value.clone()
            out[..., HEAD * width : (HEAD + 1) * width] = 0
            return out

        hands = trial.hooked(projection, "in", zero)
        trial.compare_edit(
            f"z.{index} head zeroed", trial.edited(Ablate("z", "zero", layer=index, head=HEAD)), hands
        )


def _check_queries_keys_values(trial: Trial) -> None:
    """What one layer's attention function is given, one head halved: at every call that the layer makes."""
    eager = tiny(trial.kind, attn_implementation="eager")
    layers = hand_layers(eager, trial.inputs, trial.net.n_layers)
    if layers is None:
        return
    for number, name in enumerate("qkv"):
        for index in trial.net.layers_with(name)[:2]:
            inside = {id(m) for m in layers[index].modules()}
            seen: list[Tensor] = []

            def halved(
                function: Attend, inside: Any = inside, number: int = number, seen: Any = seen
            ) -> Attend:
                def attend(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
                    if id(module) not in inside:
                        return function(module, *args, **kwargs)
                    parts = list(args)
                    parts[number] = parts[number].clone()
                    parts[number][:, 0] *= 0.5
                    seen.append(args[number])
                    return function(module, *parts, **kwargs)

                return attend

            with attention_functions(halved):
                hands = logits(eager, trial.inputs)
            if seen:
                ours = trial.edited(Scale(name, 0.5, layer=index, head=0))
                trial.compare_edit(f"{name}.{index} head halved", ours, hands)


def _check_hidden_states(trial: Trial) -> None:
    """The stream, as the model itself reports it."""
    with torch.no_grad():
        states = getattr(trial.model(**trial.inputs, output_hidden_states=True), "hidden_states", None)
    indices = trial.net.layers_with("resid_pre")
    both = bool(indices) and indices == trial.net.layers_with("resid_post")
    if states is None or len(states) != trial.net.n_layers + 1 or not both:
        return
    run = trial.net.run(trial.inputs, keep=["resid_pre", "resid_post"])
    indices = [i for i in indices if states[i].shape == run["resid_pre", i].shape]
    # some models collect the stream before a layer, some after it; all layers must agree on which
    late = all(distance(run["resid_post", i], states[i]) <= TOLERANCE for i in indices)
    for index in indices:
        ours = run["resid_post" if late else "resid_pre", index]
        trial.compare(f"hidden_states[{index}]", ours, states[index])


def noting(function: Callable[..., Tensor], results: list[Tensor]) -> Callable[..., Tensor]:
    """The same function, whose results are noted."""

    def noted(*args: Any, **kwargs: Any) -> Tensor:
        results.append(function(*args, **kwargs))
        return results[-1]

    return noted


def _check_attentions(trial: Trial) -> None:
    """The attention pattern, as the model itself reports it under its eager attention."""
    eager, sums = tiny(trial.kind, attn_implementation="eager"), []
    with torch.no_grad(), patch.object(torch, "logsumexp", noting(torch.logsumexp, sums)):
        reported = getattr(eager(**trial.inputs, output_attentions=True), "attentions", None) or ()
    patterns = [a for a in reported if torch.is_tensor(a)]
    sinks = [m.sinks for m in eager.modules() if torch.is_tensor(getattr(m, "sinks", None))]
    if (
        len(sums) == len(sinks) == len(patterns)
    ):  # a sink that is a factor on the average, which is not reported
        shares = [(total - sink.view(1, -1, 1)).sigmoid() for total, sink in zip(sums, sinks, strict=True)]
        patterns = [p * share[..., None] for p, share in zip(patterns, shares, strict=True)]
    indices = trial.net.layers_with("pattern")
    if not indices or len(patterns) != len(indices):
        return
    run = trial.net.run(trial.inputs, keep=["pattern"])
    for index, hand in zip(indices, patterns, strict=True):
        if hand.shape == run["pattern", index].shape:
            trial.compare(f"attentions[{index}]", run["pattern", index], hand)


def _check_writing_back(trial: Trial) -> None:
    """Every site given the value that was read there."""
    for site in trial.net.sites():
        value = trial.net.run(trial.inputs, keep=[site])[site]
        if value.is_floating_point():
            trial.written_back += 1
            if not (error := distance(trial.edited(Patch(site, value)), trial.plain)) <= TOLERANCE:
                trial.wrong.append(f"{site} written back ({error:.1e})")

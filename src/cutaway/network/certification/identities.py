"""The numeric identities of a network: formulas that relate the values at its sites, and the errors found."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from cutaway.network.anatomy import Anatomy, HeadOutTap, Layer, NormedTap, Stack
from cutaway.network.certificate import Check
from cutaway.network.coefficients import is_one, like
from cutaway.network.execution.heads import head_outputs
from cutaway.network.sites import Site
from cutaway.network.ungained import standardised


@dataclass(eq=False)
class CheckedPass:
    """Values of one forward pass, before and after our changes.

    Attributes:
        before: values by site before our changes.
        after: the same after them.
    """

    before: dict[Site, Tensor] = field(default_factory=dict)
    after: dict[Site, Tensor] = field(default_factory=dict)


@dataclass(eq=False)
class Ledger:
    """Errors of one identity over layers and passes.

    Attributes:
        name: of the identity.
        sentence: the same in plain words.
        errors: by place.
    """

    name: str
    sentence: str
    errors: dict[str, float] = field(default_factory=dict)

    def add(self, where: str, got: Tensor, wanted: Tensor) -> None:
        """Note how far two tensors that should be equal are apart."""
        self.note(where, relative_error(got, wanted))

    def note(self, where: str, error: float) -> None:
        """Note an error; the largest at a place counts."""
        error = error if error == error else float("inf")  # NaN compares as smaller than anything
        self.errors[where] = max(self.errors.get(where, 0.0), error)

    def check(self, tolerance: float) -> Check | None:
        """The verdict on this identity; None where it was never checked."""
        if not self.errors:
            return None
        worst = max(self.errors.values())
        failures = {w: e for w, e in self.errors.items() if not e <= tolerance}
        held = tuple(w for w in self.errors if w not in failures)
        return Check(self.name, self.sentence, worst, tolerance, len(self.errors), failures, held)


def relative_error(got: Tensor, wanted: Tensor) -> float:
    """Largest absolute difference over the largest absolute value; infinity where shapes or finiteness differ."""
    if got.shape != wanted.shape:
        return float("inf")
    got, wanted = got.double().cpu(), wanted.double().cpu()
    scale = wanted.abs().max().clamp(min=1e-12)
    error = float((got - wanted).abs().max() / scale)
    return error if error == error else float("inf")


def new_ledgers(anatomy: Anatomy | None = None) -> dict[str, Ledger]:
    """An empty ledger for every identity, by name, in words that say of an anatomy how its stream is carried on."""
    carried = carried_in_words([] if anatomy is None else [la for s in anatomy.stacks for la in s.layers])
    state = f"input {carried}" if carried else "input"
    rows = [
        ("reading", "Reading every site but scores and pattern leaves the logits as they were."),
        ("pattern reading", "Reading attention patterns (which needs the eager kernel) leaves the logits as they were."),
        ("resid_mid", f"The stream between the sublayers is the layer's {state} plus what was written so far."),
        ("resid_post", f"The layer's output is its {state} plus what its sublayers write."),
        ("pattern @ v = z", "The attention pattern applied to the values gives z."),
        ("softmax(scores) = pattern", "The softmax of the scores gives the pattern."),
        ("q.k -> scores", "Scores move with the products of queries and keys (one minus their correlation)."),
        ("z @ W_O = attn_out", "The heads' outputs and the bias add up to the attention's output."),
        ("down(mlp_act) = mlp_out", "The down projection of the neurons gives the MLP's output."),
        ("unit(resid) = normed", "What a sublayer reads, before its norm's gain, is the stream over its spread."),
        ("norm(resid) = final_norm", "The final norm of the last stream is what the unembedding reads."),
        ("unembed(final_norm) = logits", "The unembedding, with its scale and soft-cap, gives the logits."),
        ("writing", "A change written at a site changes the output (0 where it does, 1 where it does not)."),
        ("right padding", "Prompts padded on the right give the logits of prompts without padding."),
        ("left padding", "Prompts padded on the left give the logits of prompts without padding."),
    ]  # fmt: skip
    return {name: Ledger(name, sentence) for name, sentence in rows}


def carried_in_words(layers: Sequence[Layer]) -> str:
    """By what the stream is multiplied on its way through layers, in words; empty where it goes on as it is.

    >>> carried_in_words([])
    ''
    """
    factors = [stretch.carry for layer in layers for stretch in layer.stretches]
    if all(map(is_one, factors)):
        return ""
    numbers = [factor for factor in factors if not isinstance(factor, Tensor)]
    if len(numbers) < len(factors):
        return "scaled per channel"
    least, most = f"{min(numbers):.4g}", f"{max(numbers):.4g}"
    return f"times {least}" if least == most else f"times {least} to {most}"


def check_layer(
    stack: Stack,
    layer: Layer,
    values: CheckedPass,
    ledgers: dict[str, Ledger],
    modules: Mapping[str, nn.Module],
    anatomy: Anatomy,
) -> None:
    """Check the identities of one layer on the values of one pass."""

    def after(name: str) -> Tensor | None:
        return values.after.get(Site(name, layer.index, stack.name))

    def before(name: str) -> Tensor | None:
        return values.before.get(Site(name, layer.index, stack.name))

    where = f"{stack.name}.{layer.index}" if stack.name else str(layer.index)
    _check_stream(layer, where, after, before, ledgers, modules)
    for prefix in ("", "cross_"):
        _check_attention(prefix, where, after, before, ledgers)
        tap = anatomy.taps.get(Site(f"{prefix}head_out", layer.index, stack.name))
        z, out = after(f"{prefix}z"), before("cross_out" if prefix else "attn_out")
        if isinstance(tap, HeadOutTap) and z is not None and out is not None:
            projection = modules[tap.projection]
            flat = z.flatten(2)
            with torch.no_grad():
                total = head_outputs(projection, flat, tap.heads).sum(-2) + projection(torch.zeros_like(flat))
            total = total.reshape(out.shape) if total.numel() == out.numel() else total
            ledgers["z @ W_O = attn_out"].add(where + prefix, total, out)
    mlps = [s.mlp for s in layer.sublayers if s.mlp is not None]
    act, out = after("mlp_act"), before("mlp_out")
    if len(mlps) == 1 and mlps[0].down is not None and act is not None and out is not None:
        with torch.no_grad():
            ledgers["down(mlp_act) = mlp_out"].add(where, modules[mlps[0].down](act).reshape(out.shape), out)


def _check_stream(
    layer: Layer,
    where: str,
    after: Callable[[str], Tensor | None],
    before: Callable[[str], Tensor | None],
    ledgers: dict[str, Ledger],
    modules: Mapping[str, nn.Module],
) -> None:
    state, post = after("resid_pre"), before("resid_post")
    mid, mid_seen = after("resid_mid"), before("resid_mid")
    lacking = not layer.stretches or any(after(name) is None for s in layer.stretches for name in s.writes)
    if state is None or post is None or lacking:
        return
    for n, stretch in enumerate(layer.stretches):
        if n > 0 and stretch.writes[:1] == ("mlp_write",) and mid is not None and mid_seen is not None:
            ledgers["resid_mid"].add(where, state, mid_seen)
            state, mid = mid, None
        state = state * like(stretch.carry, state)
        if stretch.constant is not None:
            state = state + stretch.constant.to(state)
        for name in stretch.writes:
            if name == "mlp_write" and mid is not None and mid_seen is not None:
                ledgers["resid_mid"].add(where, state, mid_seen)
                state = mid
            written = after(name)
            assert written is not None
            state = state + written.to(state.device).reshape(state.shape)
        if stretch.norm is not None:
            with torch.no_grad():
                state = modules[stretch.norm](state)
    ledgers["resid_post"].add(where, state, post)


def check_normed(
    anatomy: Anatomy, values: CheckedPass, ledgers: dict[str, Ledger], modules: Mapping[str, nn.Module]
) -> None:
    """Check what sublayers read before their norm's gain against the stream that the norm reads, in one pass."""
    for site, tap in anatomy.taps.items():
        seen = values.before.get(site)
        if not isinstance(tap, NormedTap) or seen is None:
            continue
        streams = [
            values.after.get(Site(name, site.layer, site.stack)) for name in ("resid_mid", "resid_pre")
        ]
        found = [s for s in streams if s is not None and s.shape == seen.shape]
        if found:
            with torch.no_grad():
                errors = [relative_error(standardised(tap, modules, stream), seen) for stream in found]
            where = f"{site.stack}.{site.layer}" if site.stack else str(site.layer)
            ledgers["unit(resid) = normed"].note(where, min(errors))


def _check_attention(
    prefix: str,
    where: str,
    after: Callable[[str], Tensor | None],
    before: Callable[[str], Tensor | None],
    ledgers: dict[str, Ledger],
) -> None:
    pattern, seen, scores = after(prefix + "pattern"), before(prefix + "pattern"), after(prefix + "scores")
    v, z = after(prefix + "v"), before(prefix + "z")
    if pattern is not None and v is not None and z is not None:
        groups = pattern.shape[1] // max(v.shape[2], 1)
        wide = v.repeat_interleave(groups, 2) if groups > 1 else v
        if wide.shape[2] == pattern.shape[1] and wide.shape[1] == pattern.shape[3]:
            got = torch.einsum("bhds,bshe->bdhe", pattern.double(), wide.double())
            ledgers["pattern @ v = z"].add(where + prefix, got, z)
        else:
            ledgers["pattern @ v = z"].note(where + prefix, float("inf"))
    if scores is not None and seen is not None:
        got = scores.double().softmax(-1)
        mass = seen.double().sum(-1, keepdim=True)
        ledgers["softmax(scores) = pattern"].add(where + prefix, got * mass, seen)
    q, k, raw = after(prefix + "q"), after(prefix + "k"), before(prefix + "scores")
    if q is not None and k is not None and raw is not None:
        ledgers["q.k -> scores"].note(where + prefix, 1 - _alignment(q, k, raw))


def _alignment(q: Tensor, k: Tensor, scores: Tensor) -> float:
    """Correlation of q.k with the scores, between rows of the batch (so that biases by position drop out)."""
    groups = q.shape[2] // max(k.shape[2], 1)
    wide = k.repeat_interleave(groups, 2) if groups > 1 else k
    if wide.shape[2] != q.shape[2] or wide.shape[-1] != q.shape[-1] or q.shape[0] < 2:
        return -1.0
    products = torch.einsum("bdhe,bshe->bhds", q.double(), wide.double())
    scores = scores.double()
    if products.shape != scores.shape:
        return -1.0
    open_ = (scores > -1e4).all(0, keepdim=True).expand_as(scores)

    def centred(x: Tensor) -> Tensor:
        x = torch.where(open_, x, 0.0)
        mean = x.sum(-1, keepdim=True) / open_.sum(-1, keepdim=True).clamp(min=1)
        x = torch.where(open_, x - mean, 0.0)
        return x[0] - x[1]

    a, b = centred(products).flatten(1), centred(scores).flatten(1)
    moves = [x.norm(dim=1) > 1e-12 * x.norm(dim=1).max() for x in (a, b)]  # a head without weights does not
    if not bool((moves[0] == moves[1]).all()):
        return -1.0
    a, b = a[moves[0]], b[moves[0]]
    if not len(a):
        return 1.0
    return float(((a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1)).clamp(min=1e-30)).min())


def check_head(
    anatomy: Anatomy, values: CheckedPass, ledgers: dict[str, Ledger], modules: Mapping[str, nn.Module]
) -> None:
    """Check how the last stream becomes logits on the values of one pass."""
    head, stack = anatomy.head, anatomy.stack()
    if head is None or stack is None:
        return
    last = values.after.get(Site("resid_post", stack.layers[-1].index))
    normed_before, normed = values.before.get(Site("final_norm")), values.after.get(Site("final_norm"))
    with torch.no_grad():
        if head.norm is not None and last is not None and normed_before is not None:
            ledgers["norm(resid) = final_norm"].add("final_norm", modules[head.norm](last), normed_before)
        source = normed if head.norm is not None else last
        logits = values.before.get(Site("logits"))
        if head.unembed is not None and source is not None and logits is not None:
            got = modules[head.unembed](source * head.before) * head.scale
            got = torch.tanh(got) * head.softcap if head.softcap is not None else got
            ledgers["unembed(final_norm) = logits"].add("logits", got, logits)

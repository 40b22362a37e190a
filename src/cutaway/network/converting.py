"""TransformerLens's weights as a plain module that opens whole: `from_transformerlens`.

The weights may be named as `HookedTransformer` names them (`blocks.0.attn.W_Q [head d_model d_head]`, `W_E`, `W_U`) or as
`TransformerBridge` does (`blocks.0.attn.q.weight [d_head*head d_model]`, `embed.weight`). What their shapes do not tell, the
configuration must: it has TransformerLens's names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cutaway.errors import BadInput
from cutaway.network.loading import sentence

#: TransformerLens's names of nonlinearities.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu, "gelu": F.gelu, "silu": F.silu, "leaky_relu": F.leaky_relu,
    "gelu_new": lambda x: F.gelu(x, approximate="tanh"), "gelu_fast": lambda x: F.gelu(x, approximate="tanh"),
    "gelu_pytorch_tanh": lambda x: F.gelu(x, approximate="tanh"),
}  # fmt: skip

#: What is not rebuilt: names in the configuration, with the values at which they change nothing.
_NOT_REBUILT: dict[str, tuple[Any, ...]] = {
    "num_experts": (None, 0, 1), "use_NTK_by_parts_rope": (None, False), "post_embedding_ln": (None, False),
    "use_local_attn": (None, False), "attn_types": (None,),
}  # fmt: skip

_Norm = Literal["LN", "LNPre", "RMS", "RMSPre", "none"]


@dataclass(frozen=True)
class HookedShape:
    """What the rebuilt network computes, beside its weights.

    Attributes:
        heads, head_width: of the queries.
        kv_heads: of keys and values.
        norm: form of the norms; "Pre" where their weights were folded into what reads them.
        eps: of the norms.
        act: name of the nonlinearity.
        positions: a table that is added, a rotation of queries and keys, or neither.
        rotary_dim, rotary_base, rotary_adjacent: how many channels are rotated, by which angles, in pairs or halves.
        scale: what scores are divided by.
        by_layer: are they divided by the number of the layer, counted from 1, as well?
        causal: does a token see no later ones?
        parallel: do attention and MLP read the same stream?
        scores_cap, logits_cap: bounds c of c * tanh(x / c); None for none.
    """

    heads: int
    head_width: int
    kv_heads: int
    norm: _Norm
    eps: float
    act: str
    positions: Literal["standard", "rotary", "none"]
    rotary_dim: int
    rotary_base: float
    rotary_adjacent: bool
    scale: float
    by_layer: bool
    causal: bool
    parallel: bool
    scores_cap: float | None
    logits_cap: float | None


def from_transformerlens(
    source: nn.Module | Mapping[str, Tensor], cfg: Mapping[str, Any] | None = None
) -> nn.Module:
    """A plain module that computes what a TransformerLens model computes, and opens whole: `cutaway.open(it, tokenizer)`.

    Args:
        source: a `HookedTransformer` or `TransformerBridge`, whose logits on a short prompt are compared with the
            module's; or a state dict of either, which has no logits to compare with.
        cfg: the configuration, in TransformerLens's names; a model brings its own. Of a state dict `act_fn` must be named
            where there are MLPs, `normalization_type` where the norms have no weights, and `positional_embedding_type`
            where no positions are embedded.

    Raises `BadInput` where a weight is missing or left over, the configuration lacks what the weights do not tell or
    asks for what is not rebuilt (experts, local attention, ALiBi), and where the logits differ.
    """
    model = source if isinstance(source, nn.Module) else None
    state = dict(source.state_dict() if isinstance(source, nn.Module) else source)
    given = getattr(model, "cfg", None) if cfg is None else cfg
    options = dict(given) if isinstance(given, Mapping) else dict(vars(given)) if given is not None else {}
    if not state or not all(torch.is_tensor(v) for v in state.values()):
        raise BadInput("The source holds no weights.", "Give a TransformerLens model or its state dict.")
    weights = _named(state, options)
    try:
        built = Hooked(weights, _shape(weights, options)).eval()
    except (KeyError, RuntimeError) as error:
        what = (
            f"{error.args[0]} is missing"
            if isinstance(error, KeyError)
            else f"one does not fit: {sentence(error)}"
        )
        raise BadInput(f"The weights are not whole: {what}", "Give the model's own state_dict().") from error
    dtype = next(iter(weights.values())).dtype
    built = built.to(dtype)
    if model is not None:
        _compare(model, built)
    return built


def _compare(model: nn.Module, built: Hooked) -> None:
    """Raise `BadInput` unless both give the same logits on a short prompt."""
    size, longest = built.config.vocab_size, built.config.max_position_embeddings
    columns = min(7, longest or 7)
    ids = torch.randint(size, (2, columns), generator=torch.Generator().manual_seed(0))
    device = next(model.parameters()).device
    with torch.no_grad():
        wanted = model(ids.to(device))
        wanted = getattr(wanted, "logits", wanted).cpu().double()
        got = built(ids).double()
    error = (
        float((got - wanted).abs().max() / wanted.abs().max().clamp(min=1e-12))
        if got.shape == wanted.shape
        else float("inf")
    )
    tolerance = 1e-4 if next(model.parameters()).dtype in (torch.float32, torch.float64) else 5e-2
    if not error <= tolerance:
        raise BadInput(
            f"The rebuilt network's logits differ from the model's by {error:.2g} of their size.",
            "It computes something that is not rebuilt; open the Hugging Face model that it was made from.",
        )


# names -----------------------------------------------------------------------------------------------------------------

_BUFFERS = re.compile(r"\.(mask|IGNORE|rotary_sin|rotary_cos|inv_freq|alibi|hook_\w+.*)$|^(hook_|rotary_emb)")
_PLAIN = {"W_E": "embed.W_E", "W_pos": "pos_embed.W_pos", "W_U": "unembed.W_U", "b_U": "unembed.b_U"}
_BRIDGE = {
    "embed": ("embed.W_E", None, "table"), "pos_embed": ("pos_embed.W_pos", None, "table"),
    "unembed": ("unembed.W_U", "unembed.b_U", "matrix"), "ln_final": ("ln_final.w", "ln_final.b", "norm"),
    "attn.q": ("attn.W_Q", "attn.b_Q", "heads"), "attn.k": ("attn.W_K", "attn.b_K", "heads"),
    "attn.v": ("attn.W_V", "attn.b_V", "heads"), "attn.o": ("attn.W_O", "attn.b_O", "out"),
    "mlp.in": ("mlp.W_in", "mlp.b_in", "matrix"), "mlp.gate": ("mlp.W_gate", None, "matrix"),
    "mlp.out": ("mlp.W_out", "mlp.b_out", "matrix"), "ln1": ("ln1.w", "ln1.b", "norm"), "ln2": ("ln2.w", "ln2.b", "norm"),
    "ln1_post": ("ln1_post.w", None, "norm"), "ln2_post": ("ln2_post.w", None, "norm"),
    "attn.q_norm": ("attn.q_norm.w", None, "norm"), "attn.k_norm": ("attn.k_norm.w", None, "norm"),
}  # fmt: skip


def _named(state: Mapping[str, Tensor], options: Mapping[str, Any]) -> dict[str, Tensor]:
    """Weights under HookedTransformer's names and in its shapes, whichever names they come with."""
    out: dict[str, Tensor] = {}
    for name, value in state.items():
        name = name.replace("._original_component", "").replace(".original_component", "")
        if _BUFFERS.search(name):
            continue
        name = _PLAIN.get(name, re.sub(r"\._(W|b)_([KV])$", r".\1_\2", name))
        block = re.match(r"^(blocks\.\d+\.)?(.+)\.(weight|bias)$", name)
        if block is None or block.group(2) not in _BRIDGE:
            out[name] = value.detach().cpu()
            continue
        prefix, (weight, bias, kind) = block.group(1) or "", _BRIDGE[block.group(2)]
        target = weight if block.group(3) == "weight" else bias
        if target is None:
            raise BadInput(
                f"There is no place for the weight {name}.", "Open the Hugging Face model instead."
            )
        out[prefix + target] = _turned(value.detach().cpu(), kind, block.group(3) == "weight", options, name)
    return out


def _turned(value: Tensor, kind: str, is_weight: bool, options: Mapping[str, Any], name: str) -> Tensor:
    """A weight of nn.Linear's shape [out in] in HookedTransformer's."""
    if kind in ("heads", "out"):
        width = options.get("d_head")
        if not width:
            raise BadInput(f"The shape of {name} does not tell the heads.", "Name d_head in cfg.")
        if kind == "heads":
            return (
                value.unflatten(0, (-1, width)).transpose(1, 2)
                if is_weight
                else value.unflatten(0, (-1, width))
            )
        return value.T.unflatten(0, (-1, width)) if is_weight else value
    return value.T if kind == "matrix" and is_weight else value


def _shape(weights: Mapping[str, Tensor], options: Mapping[str, Any]) -> HookedShape:
    """What the weights and the configuration say of the network."""
    for name, harmless in _NOT_REBUILT.items():
        if options.get(name) not in harmless:
            raise BadInput(
                f"{name}={options[name]!r} is not rebuilt.",
                "Open the Hugging Face model that it was made from.",
            )
    first = weights.get("blocks.0.attn.W_Q")
    if first is None or first.ndim != 3 or "unembed.W_U" not in weights or "embed.W_E" not in weights:
        raise BadInput(
            "These are not the weights of a TransformerLens model: blocks.0.attn.W_Q [head d_model d_head], embed.W_E and "
            "unembed.W_U are looked for.",
            "Give the model's own state_dict().",
        )
    heads, _, width = first.shape
    norms = {"w" if n.endswith(".w") else "b" for n in weights if re.search(r"(ln1|ln_final)\.[wb]$", n)}
    told = "LN" if norms == {"w", "b"} else "RMS" if norms == {"w"} else None
    if told is None and "normalization_type" not in options:
        raise _lacking("normalization_type", "the norms have no weights")
    norm = options.get("normalization_type", told)
    kind = "standard" if "pos_embed.W_pos" in weights else None
    if kind is None and "positional_embedding_type" not in options:
        raise _lacking("positional_embedding_type", "no positions are embedded")
    positions = options.get("positional_embedding_type", kind)
    if options.get("final_rms") and str(norm).startswith("LN"):
        raise BadInput("A last norm of another kind is not rebuilt.", "Open the Hugging Face model instead.")
    mlps = any(".mlp.W_in" in n for n in weights)
    act = options.get("act_fn") or "relu"
    if mlps and not options.get("act_fn"):
        raise _lacking("act_fn", "there are MLPs")
    for value, known, what in (
        (norm or "none", ("LN", "LNPre", "RMS", "RMSPre", "none"), "normalization_type"),
        (positions or "none", ("standard", "rotary", "none"), "positional_embedding_type"),
        (act, (*ACTIVATIONS,), "act_fn"),
    ):
        if value not in known:
            raise BadInput(f"{what}={value!r} is not rebuilt.", f"Known are {', '.join(known)}.")
    scale = options.get("attn_scale")
    scale = float(scale) if scale is not None and float(scale) > 0 else width**0.5

    def cap(name: str) -> float | None:
        bound = options.get(name)
        return float(bound) if bound is not None and float(bound) > 0 else None

    return HookedShape(
        heads=heads, head_width=width, kv_heads=weights["blocks.0.attn.W_K"].shape[0], norm=norm or "none",
        eps=float(options.get("eps", 1e-5)), act=act, positions=positions or "none",
        rotary_dim=int(options.get("rotary_dim") or width), rotary_base=float(options.get("rotary_base") or 10000),
        rotary_adjacent=bool(options.get("rotary_adjacent_pairs", False)),
        scale=scale if options.get("use_attn_scale", True) else 1.0,
        by_layer=bool(options.get("scale_attn_by_inverse_layer_idx", False)),
        causal=options.get("attention_dir", "causal") == "causal",
        parallel=bool(options.get("parallel_attn_mlp", False)), scores_cap=cap("attn_scores_soft_cap"),
        logits_cap=cap("output_logits_soft_cap"),
    )  # fmt: skip


def _lacking(name: str, why: str) -> BadInput:
    return BadInput(f"The configuration does not name {name}, and {why}.", f"Give cfg={{{name!r}: ...}}.")


# the module ------------------------------------------------------------------------------------------------------------


class Hooked(nn.Module):
    """The rebuilt network: logits [b p v] of token ids [b p]."""

    def __init__(self, weights: Mapping[str, Tensor], shape: HookedShape) -> None:
        super().__init__()
        left = dict(weights)
        table = left.pop("embed.W_E")
        self.shape = shape
        self.embed = nn.Embedding.from_pretrained(table.clone(), freeze=False)
        place = left.pop("pos_embed.W_pos", None)
        self.pos_embed = None if place is None else nn.Embedding.from_pretrained(place.clone(), freeze=False)
        blocks = sorted({int(n.split(".")[1]) for n in left if n.startswith("blocks.")})
        self.blocks = nn.ModuleList(HookedBlock(left, f"blocks.{i}.", shape, i) for i in blocks)
        self.ln_final = HookedNorm(left, "ln_final", shape)
        self.unembed = _linear(left.pop("unembed.W_U").T, left.pop("unembed.b_U", None))
        if left:
            raise BadInput(
                f"There is no place for the weight {min(left)}.",
                "Open the Hugging Face model that it was made from.",
            )
        longest = None if place is None else int(place.shape[0])
        self.config = SimpleNamespace(vocab_size=int(table.shape[0]), max_position_embeddings=longest)

    def forward(self, input_ids: Tensor) -> Tensor:
        """Logits [b p v]."""
        x = self.embed(input_ids)
        if self.pos_embed is not None:
            x = x + self.pos_embed(torch.arange(input_ids.shape[1], device=input_ids.device))
        for block in self.blocks:
            x = block(x)
        return _capped(self.unembed(self.ln_final(x)), self.shape.logits_cap)


class HookedNorm(nn.Module):
    """Layer norm or root mean square norm, with the weights that there are."""

    def __init__(self, left: dict[str, Tensor], name: str, shape: HookedShape) -> None:
        super().__init__()
        self.kind, self.eps = shape.norm, shape.eps
        self.weight, self.bias = (_parameter(left.pop(f"{name}.{part}", None)) for part in "wb")

    def forward(self, x: Tensor) -> Tensor:
        """The normed stream [b p d]."""
        if self.kind == "none":
            return x
        if self.kind.startswith("LN"):
            x = x - x.mean(-1, keepdim=True)
        x = x / (x.square().mean(-1, keepdim=True) + self.eps).sqrt()
        x = x if self.weight is None else x * self.weight
        return x if self.bias is None else x + self.bias


class HookedAttention(nn.Module):
    """Attention with a matrix each for queries, keys, values and output."""

    def __init__(self, left: dict[str, Tensor], name: str, shape: HookedShape, layer: int) -> None:
        super().__init__()
        self.shape = shape
        self.scale = shape.scale * (layer + 1 if shape.by_layer else 1)

        def into(letter: str) -> nn.Linear:
            matrix, bias = left.pop(f"{name}.W_{letter}"), left.pop(f"{name}.b_{letter}", None)
            return _linear(matrix.transpose(1, 2).flatten(0, 1), None if bias is None else bias.flatten())

        self.q, self.k, self.v = into("Q"), into("K"), into("V")
        self.o = _linear(left.pop(f"{name}.W_O").flatten(0, 1).T, left.pop(f"{name}.b_O", None))
        norms = (f"{name}.q_norm", f"{name}.k_norm")
        self.q_norm, self.k_norm = (
            HookedNorm(left, n, shape) if f"{n}.w" in left else nn.Identity() for n in norms
        )

    def forward(self, x: Tensor) -> Tensor:
        """What the heads write [b p d]."""
        shape = self.shape
        q, k, v = (m(x).unflatten(-1, (-1, shape.head_width)) for m in (self.q, self.k, self.v))
        q, k = self.q_norm(q), self.k_norm(k)
        if shape.positions == "rotary":
            q, k = _rotated(q, shape), _rotated(k, shape)
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        if shape.kv_heads != shape.heads:
            k, v = (t.repeat_interleave(shape.heads // shape.kv_heads, 1) for t in (k, v))
        scores = _capped(torch.matmul(q, k.transpose(-1, -2)) / self.scale, shape.scores_cap)
        if shape.causal:
            later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=x.device).triu(1)
            scores = scores.masked_fill(later, float("-inf"))
        z = torch.matmul(scores.softmax(-1), v)
        return self.o(z.transpose(1, 2).flatten(2))


class HookedMlp(nn.Module):
    """An MLP, gated where there is a gate."""

    def __init__(self, left: dict[str, Tensor], name: str, shape: HookedShape) -> None:
        super().__init__()
        gate, bias = left.pop(f"{name}.W_gate", None), left.pop(f"{name}.b_in", None)
        self.up = _linear(left.pop(f"{name}.W_in").T, bias if gate is None else None)
        shifts = gate is not None and bias is not None and bool(bias.any())
        self.shift = _parameter(bias) if shifts else None  # of a gated MLP it is added behind the gate
        self.gate = None if gate is None else _linear(gate.T, None)
        self.act = HookedActivation(shape.act)
        self.down = _linear(left.pop(f"{name}.W_out").T, left.pop(f"{name}.b_out", None))

    def forward(self, x: Tensor) -> Tensor:
        """What the neurons write [b p d]."""
        if self.gate is None:
            return self.down(self.act(self.up(x)))
        hidden = self.act(self.gate(x)) * self.up(x)
        return self.down(hidden if self.shift is None else hidden + self.shift)


class HookedActivation(nn.Module):
    """A nonlinearity by its name."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def forward(self, x: Tensor) -> Tensor:
        """The nonlinearity, one number at a time."""
        return ACTIVATIONS[self.name](x)


class HookedBlock(nn.Module):
    """One layer."""

    def __init__(self, left: dict[str, Tensor], prefix: str, shape: HookedShape, layer: int) -> None:
        super().__init__()
        self.parallel = shape.parallel
        second = f"{prefix}ln2.w" in left or not shape.parallel
        self.ln1 = HookedNorm(left, f"{prefix}ln1", shape)
        self.attn = HookedAttention(left, f"{prefix}attn", shape, layer)
        self.mlp = HookedMlp(left, f"{prefix}mlp", shape) if f"{prefix}mlp.W_in" in left else None
        self.ln2 = HookedNorm(left, f"{prefix}ln2", shape) if second and self.mlp is not None else None
        posts = (f"{prefix}ln1_post", f"{prefix}ln2_post")
        self.ln1_post, self.ln2_post = (
            HookedNorm(left, n, shape) if f"{n}.w" in left else nn.Identity() for n in posts
        )

    def forward(self, x: Tensor) -> Tensor:
        """The stream [b p d] behind the layer."""
        first = self.ln1(x)
        after = x + self.ln1_post(self.attn(first))
        if self.mlp is None:
            return after
        read = x if self.parallel else after
        second = first if self.ln2 is None else self.ln2(read)
        return after + self.ln2_post(self.mlp(second))


def _rotated(x: Tensor, shape: HookedShape) -> Tensor:
    """Queries or keys [b p h e] turned by their position."""
    size = shape.rotary_dim
    half = torch.arange(size // 2, device=x.device, dtype=torch.float32)
    frequency = shape.rotary_base ** (half / (size / 2))
    angles = torch.arange(x.shape[1], device=x.device, dtype=torch.float32)[:, None] / frequency
    turned, kept = x[..., :size], x[..., size:]
    if shape.rotary_adjacent:
        angles = angles.repeat_interleave(2, -1)
        other = torch.stack([-turned[..., 1::2], turned[..., ::2]], -1).flatten(-2)
    else:
        angles = torch.cat([angles, angles], -1)
        other = torch.cat([-turned[..., size // 2 :], turned[..., : size // 2]], -1)
    cos, sin = (f(angles)[:, None].to(x.dtype) for f in (torch.cos, torch.sin))
    return torch.cat([turned * cos + other * sin, kept], -1)


def _capped(x: Tensor, bound: float | None) -> Tensor:
    return x if bound is None else bound * torch.tanh(x / bound)


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A linear module of a weight [out in]; a bias of zeros is left out."""
    real = bias is not None and bool(bias.any())
    made = nn.Linear(weight.shape[1], weight.shape[0], bias=real, dtype=weight.dtype)
    made.weight = nn.Parameter(weight.clone())
    if real and bias is not None:
        made.bias = nn.Parameter(bias.clone())
    return made


def _parameter(value: Tensor | None) -> nn.Parameter | None:
    return None if value is None else nn.Parameter(value.clone())

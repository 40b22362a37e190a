"""The same small causal transformer, written by hand in five styles; every one has the arguments of `Shape`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class Shape:
    vocab: int = 23
    width: int = 12
    heads: int = 3
    layers: int = 2
    hidden: int = 20
    context: int = 9

    @property
    def head_width(self) -> int:
        return self.width // self.heads


def causal(scores: Tensor) -> Tensor:
    n = scores.shape[-1]
    return scores.masked_fill(torch.ones(n, n, dtype=torch.bool).triu(1), float("-inf"))


def drawn(*size: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*size) * 0.3)


class Stack(nn.Module):
    """Embeddings, blocks, a norm and an unembedding, all modules; returns a bare tensor of logits."""

    def __init__(self, block: type[nn.Module], shape: Shape):
        super().__init__()
        self.tokens = nn.Embedding(shape.vocab, shape.width)
        self.positions = nn.Embedding(shape.context, shape.width)
        self.blocks = nn.ModuleList(block(shape) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(shape.width)
        self.head = nn.Linear(shape.width, shape.vocab, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.tokens(x) + self.positions(torch.arange(x.shape[1]))
        for block in self.blocks:
            h = block(h)
        return self.head(self.norm(h))


class LinearAttention(nn.Module):
    def __init__(self, s: Shape):
        super().__init__()
        self.heads = s.heads
        self.q, self.k, self.v, self.o = (nn.Linear(s.width, s.width) for _ in range(4))

    def split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (self.split(m(x)) for m in (self.q, self.k, self.v))
        pattern = causal(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1)
        return self.o((pattern @ v).transpose(1, 2).flatten(2))


class SdpaAttention(LinearAttention):
    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (self.split(m(x)) for m in (self.q, self.k, self.v))
        return self.o(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2))


class FusedAttention(LinearAttention):
    def __init__(self, s: Shape):
        nn.Module.__init__(self)
        self.heads = s.heads
        self.qkv, self.o = nn.Linear(s.width, 3 * s.width), nn.Linear(s.width, s.width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (self.split(t) for t in self.qkv(x).chunk(3, -1))
        pattern = causal(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1)
        return self.o((pattern @ v).transpose(1, 2).flatten(2))


def block_of(attention: type[nn.Module]) -> type[nn.Module]:
    class Block(nn.Module):
        def __init__(self, s: Shape):
            super().__init__()
            self.ln1, self.ln2 = nn.LayerNorm(s.width), nn.LayerNorm(s.width)
            self.attn = attention(s)
            self.mlp = nn.Sequential(nn.Linear(s.width, s.hidden), nn.GELU(), nn.Linear(s.hidden, s.width))

        def forward(self, x: Tensor) -> Tensor:
            x = x + self.attn(self.ln1(x))
            return x + self.mlp(self.ln2(x))

    return Block


class EinsumAttention(nn.Module):
    """Parameters for each head, `W_Q [head d_model d_head]`, as HookedTransformer has them."""

    def __init__(self, s: Shape):
        super().__init__()
        h, d, e = s.heads, s.width, s.head_width
        self.W_Q, self.W_K, self.W_V = drawn(h, d, e), drawn(h, d, e), drawn(h, d, e)
        self.b_Q, self.b_K, self.b_V = drawn(h, e), drawn(h, e), drawn(h, e)
        self.W_O, self.b_O = drawn(h, e, d), drawn(d)

    def forward(self, x: Tensor) -> Tensor:
        q = torch.einsum("bpd,hde->bphe", x, self.W_Q) + self.b_Q
        k = torch.einsum("bpd,hde->bphe", x, self.W_K) + self.b_K
        v = torch.einsum("bpd,hde->bphe", x, self.W_V) + self.b_V
        scores = torch.einsum("bqhe,bkhe->bhqk", q, k) / math.sqrt(q.shape[-1])
        pattern = causal(scores).softmax(-1)
        z = torch.einsum("bkhe,bhqk->bqhe", v, pattern)
        return torch.einsum("bqhe,hed->bqd", z, self.W_O) + self.b_O


class EinsumMlp(nn.Module):
    def __init__(self, s: Shape):
        super().__init__()
        self.W_in, self.b_in = drawn(s.width, s.hidden), drawn(s.hidden)
        self.W_out, self.b_out = drawn(s.hidden, s.width), drawn(s.width)

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(x @ self.W_in + self.b_in) @ self.W_out + self.b_out


class EinsumBlock(nn.Module):
    def __init__(self, s: Shape):
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(s.width), nn.LayerNorm(s.width)
        self.attn, self.mlp = EinsumAttention(s), EinsumMlp(s)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln1(x))
        return x + self.mlp(self.ln2(x))


class EinsumNet(nn.Module):
    """HookedTransformer's parameters: W_E, W_pos, W_U, b_U beside blocks of einsums."""

    def __init__(self, s: Shape):
        super().__init__()
        self.W_E, self.W_pos = drawn(s.vocab, s.width), drawn(s.context, s.width)
        self.blocks = nn.ModuleList(EinsumBlock(s) for _ in range(s.layers))
        self.ln_final = nn.LayerNorm(s.width)
        self.W_U, self.b_U = drawn(s.width, s.vocab), drawn(s.vocab)

    def forward(self, x: Tensor) -> Tensor:
        h = self.W_E[x] + self.W_pos[: x.shape[1]]
        for block in self.blocks:
            h = block(h)
        return self.ln_final(h) @ self.W_U + self.b_U


class BareBlock(nn.Module):
    """A block that holds parameters and no modules."""

    def __init__(self, s: Shape):
        super().__init__()
        self.heads, self.width = s.heads, s.width
        self.w1, self.c1, self.w2, self.c2 = drawn(s.width), drawn(s.width), drawn(s.width), drawn(s.width)
        self.W_QKV, self.W_O = drawn(3, s.width, s.width), drawn(s.width, s.width)
        self.W_in, self.b_in = drawn(s.hidden, s.width), drawn(s.hidden)
        self.W_out, self.b_out = drawn(s.hidden, s.width), drawn(s.width)

    def forward(self, x: Tensor) -> Tensor:
        y = F.layer_norm(x, (self.width,), self.w1, self.c1)
        q, k, v = ((y @ self.W_QKV[i]).unflatten(-1, (self.heads, -1)).transpose(1, 2) for i in range(3))
        pattern = causal(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(-1)
        x = x + (pattern @ v).transpose(1, 2).flatten(2) @ self.W_O
        y = F.layer_norm(x, (self.width,), self.w2, self.c2)
        return x + (F.relu(F.linear(y, self.W_in, self.b_in)) @ self.W_out + self.b_out)


class BareNet(nn.Module):
    def __init__(self, s: Shape):
        super().__init__()
        self.W_E, self.W_pos = drawn(s.vocab, s.width), drawn(s.context, s.width)
        self.blocks = nn.ModuleList(BareBlock(s) for _ in range(s.layers))
        self.W_U = drawn(s.vocab, s.width)

    def forward(self, x: Tensor) -> Tensor:
        h = self.W_E[x] + self.W_pos[: x.shape[1]]
        for block in self.blocks:
            h = block(h)
        return h @ self.W_U.T


STYLES = ("linear", "sdpa", "einsum", "bare", "fused")


def own(style: str, shape: Shape = Shape(), seed: int = 0) -> nn.Module:
    """A network of a style with random weights."""
    torch.manual_seed(seed)
    if style == "einsum":
        return EinsumNet(shape).eval()
    if style == "bare":
        return BareNet(shape).eval()
    attention = {"linear": LinearAttention, "sdpa": SdpaAttention, "fused": FusedAttention}[style]
    return Stack(block_of(attention), shape).eval()


def prompts(shape: Shape = Shape(), rows: int = 4, columns: int = 7, seed: int = 1) -> Tensor:
    return torch.randint(shape.vocab, (rows, columns), generator=torch.Generator().manual_seed(seed))


#: What is done at sites, by name.
Edits = Mapping[str, Callable[[Tensor], Tensor]]


def weights_of(style: str, model: Any) -> dict[str, Any]:
    """The parameters of a network of any style in one form: matrices by head, [h d e] in and [h e d] out."""
    h = Shape().heads

    def into(matrix):  # [d h*e]
        return matrix.unflatten(-1, (h, -1)).transpose(0, 1)

    layers = []
    for block in model.blocks:
        if style == "einsum":
            a, m = block.attn, block.mlp
            qkv = [(getattr(a, f"W_{n}"), getattr(a, f"b_{n}")) for n in "QKV"]
            out, mlp = (a.W_O, a.b_O), (m.W_in, m.b_in, m.W_out, m.b_out)
            norms = [(n.weight, n.bias) for n in (block.ln1, block.ln2)]
        elif style == "bare":
            qkv = [(into(block.W_QKV[i]), torch.zeros(h, Shape().head_width)) for i in range(3)]
            out = (block.W_O.unflatten(0, (h, -1)), torch.zeros(Shape().width))
            mlp = (block.W_in.T, block.b_in, block.W_out, block.b_out)
            norms = [(block.w1, block.c1), (block.w2, block.c2)]
        else:
            a = block.attn
            if style == "fused":
                pairs = zip(a.qkv.weight.chunk(3), a.qkv.bias.chunk(3), strict=True)
            else:
                pairs = ((p.weight, p.bias) for p in (a.q, a.k, a.v))
            qkv = [(into(w.T), b.unflatten(0, (h, -1))) for w, b in pairs]
            out = (a.o.weight.T.unflatten(0, (h, -1)), a.o.bias)
            mlp = (block.mlp[0].weight.T, block.mlp[0].bias, block.mlp[2].weight.T, block.mlp[2].bias)
            norms = [(n.weight, n.bias) for n in (block.ln1, block.ln2)]
        layers.append((qkv, out, mlp, norms))
    ends = (
        (model.W_E, model.W_pos)
        if style in ("einsum", "bare")
        else (model.tokens.weight, model.positions.weight)
    )
    final = {"einsum": lambda: model.ln_final, "bare": lambda: None}.get(style, lambda: model.norm)()
    last = (
        (model.W_U, model.b_U) if style == "einsum"
        else (model.W_U.T, torch.zeros(Shape().vocab)) if style == "bare"
        else (model.head.weight.T, torch.zeros(Shape().vocab))
    )  # fmt: skip
    return {
        "ends": ends,
        "layers": layers,
        "final": final,
        "last": last,
        "act": F.relu if style == "bare" else F.gelu,
    }


@torch.no_grad()
def by_hand(style: str, model: nn.Module, x: Tensor, edits: Edits | None = None) -> dict[str, Tensor]:
    """Every site of the network, computed from its parameters alone, with edits where they are asked for."""
    w, seen = weights_of(style, model), {}

    def at(name: str, value: Tensor) -> Tensor:
        seen[name] = value = (edits or {}).get(name, lambda v: v)(value)
        return value

    n, norm = x.shape[1], F.layer_norm
    token, place = w["ends"]
    stream = at("embed", token[x]) + at("pos_embed", place[:n].expand(len(x), -1, -1))
    for i, (qkv, out, mlp, norms) in enumerate(w["layers"]):
        stream = at(f"resid_pre.{i}", stream)
        y = norm(stream, (Shape().width,), *norms[0])
        q, k, v = (
            at(f"{name}.{i}", torch.einsum("bpd,hde->bphe", y, m) + c)
            for name, (m, c) in zip("qkv", qkv, strict=True)
        )
        scores = torch.einsum("bqhe,bkhe->bhqk", q, k) / math.sqrt(Shape().head_width)
        scores = scores.masked_fill(torch.ones(n, n, dtype=torch.bool).triu(1), float("-inf"))
        pattern = at(f"pattern.{i}", at(f"scores.{i}", scores).softmax(-1))
        z = at(f"z.{i}", torch.einsum("bhqk,bkhe->bqhe", pattern, v))
        heads = at(f"head_out.{i}", torch.einsum("bphe,hed->bphd", z, out[0]))
        stream = at(f"resid_mid.{i}", stream + at(f"attn_write.{i}", heads.sum(2) + out[1]))
        y = at(f"mlp_in.{i}", norm(stream, (Shape().width,), *norms[1]))
        act = at(f"mlp_act.{i}", w["act"](y @ mlp[0] + mlp[1]))
        stream = at(f"resid_post.{i}", stream + at(f"mlp_write.{i}", act @ mlp[2] + mlp[3]))
    final = stream if w["final"] is None else at("final_norm", w["final"](stream))
    at("logits", final @ w["last"][0] + w["last"][1])
    return seen


def noised(value: Tensor) -> Tensor:
    return value + 0.3 * torch.sin(torch.arange(value.numel()).reshape(value.shape).float())

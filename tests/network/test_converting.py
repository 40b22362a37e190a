"""TransformerLens's weights, both eras of names, against its mathematics written with einsums here."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import cutaway
from cutaway.errors import BadInput

HEADS, WIDTH, E, HIDDEN, VOCAB, CONTEXT = 4, 16, 4, 24, 29, 12
ACT = {"gelu_new": lambda x: F.gelu(x, approximate="tanh"), "silu": F.silu, "relu": F.relu}
GPT2 = {"act_fn": "gelu_new", "normalization_type": "LN", "positional_embedding_type": "standard"}
CONFIGS = {
    "gpt2": GPT2,
    "folded": {**GPT2, "normalization_type": "LNPre"},
    "by layer": {**GPT2, "scale_attn_by_inverse_layer_idx": True, "attention_dir": "bidirectional"},
    "attention only": {**GPT2, "attn_only": True},
    "gpt-j": {**GPT2, "positional_embedding_type": "rotary", "rotary_dim": 2, "rotary_adjacent_pairs": True,
              "parallel_attn_mlp": True},
    "llama": {"act_fn": "silu", "normalization_type": "RMS", "positional_embedding_type": "rotary", "rotary_dim": E,
              "rotary_base": 500.0, "gated_mlp": True, "n_key_value_heads": 2, "final_rms": True},
    "gemma2": {"act_fn": "gelu_new", "normalization_type": "RMSPre", "positional_embedding_type": "rotary", "rotary_dim": E,
               "gated_mlp": True, "attn_scale": 3.0, "attn_scores_soft_cap": 2.0, "output_logits_soft_cap": 5.0, "eps": 1e-6,
               "n_key_value_heads": 2, "post": True, "qk": True},
}  # fmt: skip


class Reference(nn.Module):
    """HookedTransformer's names, shapes and mathematics."""

    def __init__(self, cfg: dict, layers: int = 2) -> None:
        super().__init__()
        self.cfg = SimpleNamespace(eps=1e-5, d_head=E, n_heads=HEADS) if not cfg else SimpleNamespace(
            **{"eps": 1e-5, "d_head": E, "n_heads": HEADS, **cfg}
        )  # fmt: skip
        kv = cfg.get("n_key_value_heads") or HEADS
        w: dict[str, Tensor] = {"embed.W_E": torch.randn(VOCAB, WIDTH)}
        if cfg["positional_embedding_type"] == "standard":
            w["pos_embed.W_pos"] = torch.randn(CONTEXT, WIDTH)
        folded, layer_norm = (
            cfg["normalization_type"].endswith("Pre"),
            cfg["normalization_type"].startswith("LN"),
        )

        def norm(name: str, size: int = WIDTH, always: bool = False) -> None:
            if not folded or always:
                w[f"{name}.w"] = 1 + 0.3 * torch.randn(size)
                if layer_norm:
                    w[f"{name}.b"] = 0.3 * torch.randn(size)

        for i in range(layers):
            p = f"blocks.{i}."
            under = "_" if kv != HEADS else ""
            w |= {p + "attn.W_Q": torch.randn(HEADS, WIDTH, E), p + "attn.b_Q": torch.randn(HEADS, E)}
            for n in "KV":
                w |= {
                    f"{p}attn.{under}W_{n}": torch.randn(kv, WIDTH, E),
                    f"{p}attn.{under}b_{n}": torch.randn(kv, E),
                }
            w |= {p + "attn.W_O": torch.randn(HEADS, E, WIDTH), p + "attn.b_O": torch.randn(WIDTH)}
            norm(p + "ln1")
            if cfg.get("qk"):
                norm(p + "attn.q_norm", E, always=True)
                norm(p + "attn.k_norm", E, always=True)
            if cfg.get("post"):
                norm(p + "ln1_post", always=True)
                norm(p + "ln2_post", always=True)
            if cfg.get("attn_only"):
                continue
            norm(p + "ln2")
            w |= {p + "mlp.W_in": torch.randn(WIDTH, HIDDEN), p + "mlp.b_in": torch.randn(HIDDEN)}
            w |= {p + "mlp.W_out": torch.randn(HIDDEN, WIDTH), p + "mlp.b_out": torch.randn(WIDTH)}
            if cfg.get("gated_mlp"):
                w[p + "mlp.W_gate"] = torch.randn(WIDTH, HIDDEN)
        norm("ln_final")
        w |= {"unembed.W_U": torch.randn(WIDTH, VOCAB), "unembed.b_U": torch.randn(VOCAB)}
        self.layers = layers
        self.w = {n: v if ".w" in n or ".b" in n and "ln" in n else 0.3 * v for n, v in w.items()}
        self.dummy = nn.Parameter(torch.zeros(1))

    def state_dict(self, *_a, **_k):
        return {
            **self.w,
            "blocks.0.attn.mask": torch.ones(2, 2, dtype=torch.bool),
            "blocks.0.attn.IGNORE": torch.tensor(-1.0),
        }

    def norm(self, x: Tensor, name: str) -> Tensor:
        if self.cfg.normalization_type.startswith("LN"):
            x = x - x.mean(-1, keepdim=True)
        x = x / (x.pow(2).mean(-1, keepdim=True) + self.cfg.eps).sqrt()
        return x * self.w.get(f"{name}.w", 1.0) + self.w.get(f"{name}.b", 0.0)

    def rotated(self, x: Tensor) -> Tensor:
        """Each pair of channels as a complex number, turned."""
        size, base = self.cfg.rotary_dim, getattr(self.cfg, "rotary_base", 10000)
        out = x.clone()
        for j in range(size // 2):
            a, b = (
                (2 * j, 2 * j + 1)
                if getattr(self.cfg, "rotary_adjacent_pairs", False)
                else (j, j + size // 2)
            )
            angle = torch.arange(x.shape[1]) * base ** (-2 * j / size)
            cos, sin = angle.cos()[:, None], angle.sin()[:, None]
            out[..., a], out[..., b] = x[..., a] * cos - x[..., b] * sin, x[..., b] * cos + x[..., a] * sin
        return out

    def attention(self, x: Tensor, i: int) -> Tensor:
        get = lambda n: self.w.get(f"blocks.{i}.attn.{n}", self.w.get(f"blocks.{i}.attn._{n}"))  # noqa: E731
        q, k, v = (torch.einsum("bpd,hde->bphe", x, get(f"W_{n}")) + get(f"b_{n}") for n in "QKV")
        if getattr(self.cfg, "qk", False):
            q, k = self.norm(q, f"blocks.{i}.attn.q_norm"), self.norm(k, f"blocks.{i}.attn.k_norm")
        if self.cfg.positional_embedding_type == "rotary":
            q, k = self.rotated(q), self.rotated(k)
        k, v = (t.repeat_interleave(HEADS // t.shape[2], 2) for t in (k, v))
        scale = getattr(self.cfg, "attn_scale", math.sqrt(E))
        if getattr(self.cfg, "scale_attn_by_inverse_layer_idx", False):
            scale = scale * (i + 1)
        scores = torch.einsum("bqhe,bkhe->bhqk", q, k) / scale
        cap = getattr(self.cfg, "attn_scores_soft_cap", -1)
        scores = cap * torch.tanh(scores / cap) if cap > 0 else scores
        if getattr(self.cfg, "attention_dir", "causal") == "causal":
            n = x.shape[1]
            scores = scores.masked_fill(torch.ones(n, n, dtype=torch.bool).triu(1), float("-inf"))
        z = torch.einsum("bkhe,bhqk->bqhe", v, scores.softmax(-1))
        return torch.einsum("bqhe,hed->bqd", z, get("W_O")) + get("b_O")

    def mlp(self, x: Tensor, i: int) -> Tensor:
        get = lambda n: self.w.get(f"blocks.{i}.mlp.{n}")  # noqa: E731
        act = ACT[self.cfg.act_fn]
        hidden = x @ get("W_in")
        hidden = (
            act(x @ get("W_gate")) * hidden + get("b_in")
            if get("W_gate") is not None
            else act(hidden + get("b_in"))
        )
        return hidden @ get("W_out") + get("b_out")

    def forward(self, ids: Tensor) -> Tensor:
        x = self.w["embed.W_E"][ids]
        if "pos_embed.W_pos" in self.w:
            x = x + self.w["pos_embed.W_pos"][: ids.shape[1]]
        for i in range(self.layers):
            post = getattr(self.cfg, "post", False)
            wrote = self.attention(self.norm(x, f"blocks.{i}.ln1"), i)
            mid = x + (self.norm(wrote, f"blocks.{i}.ln1_post") if post else wrote)
            if getattr(self.cfg, "attn_only", False):
                x = mid
                continue
            read = x if getattr(self.cfg, "parallel_attn_mlp", False) else mid
            wrote = self.mlp(self.norm(read, f"blocks.{i}.ln2"), i)
            x = mid + (self.norm(wrote, f"blocks.{i}.ln2_post") if post else wrote)
        logits = self.norm(x, "ln_final") @ self.w["unembed.W_U"] + self.w["unembed.b_U"]
        cap = getattr(self.cfg, "output_logits_soft_cap", -1)
        return cap * torch.tanh(logits / cap) if cap > 0 else logits


def reference(name: str) -> Reference:
    torch.manual_seed(0)
    return Reference(CONFIGS[name])


@pytest.mark.parametrize("name", CONFIGS)
def test_d_a_hooked_model_is_rebuilt_and_opens_whole(name):
    model = reference(name)
    built = cutaway.from_transformerlens(model)
    ids = torch.randint(VOCAB, (3, 9), generator=torch.Generator().manual_seed(2))
    assert torch.allclose(built(ids), model(ids), atol=1e-4)
    by_state = cutaway.from_transformerlens(model.state_dict(), vars(model.cfg))
    assert torch.equal(by_state(ids), built(ids))
    net = cutaway.open(built)
    sites = [
        "embed",
        "resid_post",
        "attn_in",
        "q",
        "k",
        "v",
        "pattern",
        "z",
        "head_out",
        "attn_write",
        "final_norm",
        "logits",
    ]
    sites += [] if name == "attention only" else ["mlp_in", "mlp_act", "mlp_pre", "mlp_write"]
    assert [s for s in sites if not net.has(s)] == []
    assert (net.n_layers, net.n_heads, net.d_vocab, net.d_vocab_in) == (2, HEADS, VOCAB, VOCAB)
    assert torch.equal(net.run(ids).logits, built(ids))


def bridge(model: Reference) -> dict[str, Tensor]:
    """The same weights under TransformerBridge's names, as torch.nn.Linear has them."""
    out = {}
    for name, value in model.w.items():
        place, _, last = name.rpartition(".")
        last = last.removeprefix("_")
        letter = last[2:]
        if "attn.W" in name or "attn.b" in name or "attn._" in name:
            if last == "W_O":
                value = value.flatten(0, 1).T
            elif last != "b_O":
                value = value.transpose(1, 2).flatten(0, 1) if last[0] == "W" else value.flatten()
            out[f"{place}.{letter.lower()}.{'weight' if last[0] == 'W' else 'bias'}"] = value
        elif ".mlp." in name:
            out[f"{place}.{letter}.{'weight' if last[0] == 'W' else 'bias'}"] = (
                value.T if last[0] == "W" else value
            )
        elif name in ("unembed.W_U", "unembed.b_U"):
            out["unembed." + ("weight" if last == "W_U" else "bias")] = value.T if last == "W_U" else value
        elif last in ("W_E", "W_pos"):
            out[f"{place}._original_component.weight"] = value
        else:
            out[f"{place}.{'weight' if last == 'w' else 'bias'}"] = value
    return out


@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_d_the_newer_names_give_the_same_network(name):
    model = reference(name)
    ids = torch.randint(VOCAB, (2, 7), generator=torch.Generator().manual_seed(3))
    built = cutaway.from_transformerlens(bridge(model), vars(model.cfg))
    assert torch.allclose(built(ids), model(ids), atol=1e-4)


def test_d_what_cannot_be_rebuilt_is_refused():
    model = reference("gpt2")
    state, cfg = model.state_dict(), dict(vars(model.cfg))
    refused = [
        ({**state, "blocks.0.attn.W_X": torch.ones(2)}, cfg, "no place for the weight blocks.0.attn.W_X"),
        (state, {**cfg, "num_experts": 8}, "num_experts=8 is not rebuilt"),
        (state, {**cfg, "positional_embedding_type": "alibi"}, "alibi"),
        (state, {k: v for k, v in cfg.items() if k != "act_fn"}, "does not name act_fn"),
        (reference("folded").state_dict(), {"act_fn": "relu"}, "does not name normalization_type"),
        ({"a": torch.ones(2)}, cfg, "not the weights of a TransformerLens model"),
        ({}, cfg, "no weights"),
        ({k: v for k, v in state.items() if k != "blocks.1.attn.W_O"}, cfg, "blocks.1.attn.W_O is missing"),
    ]
    for weights, options, words in refused:
        with pytest.raises(BadInput, match=words):
            cutaway.from_transformerlens(weights, options)
    model.cfg.act_fn = "relu"
    forward = model.forward
    model.forward = lambda ids: (
        forward(ids) + 0.01 * forward(ids).roll(1, -1)
    )  # something that its weights do not say
    with pytest.raises(BadInput, match="logits differ"):
        cutaway.from_transformerlens(model)

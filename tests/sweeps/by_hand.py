"""The naive loop with bare PyTorch hooks on the bare model: one whole forward for every cell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cutaway.sweeps import Cell, Experiment, Write


@dataclass(frozen=True)
class Bed:
    """One architecture and where, by hand, its parts are: paths below a layer."""

    kind: str
    layers: str
    attn: str
    o: str
    mlp: str
    down: str | None
    task: str | None = None
    fields: dict[str, Any] = field(default_factory=dict)
    eager_experts: bool = False
    attention_layers: tuple[int, ...] | None = None


_LLAMA = ("model.layers", "self_attn", "self_attn.o_proj", "mlp", "mlp.down_proj")
_BERT = ("attention.output.dense", "attention.output.dense", "output.dense", "output.dense")
_T5 = (
    "layer.0.SelfAttention",
    "layer.0.SelfAttention.o",
    "layer.2.DenseReluDense",
    "layer.2.DenseReluDense.wo",
)

BEDS = [
    Bed("gpt2", "transformer.h", "attn", "attn.c_proj", "mlp", "mlp.c_proj"),
    Bed("gpt_neox", "gpt_neox.layers", "attention", "attention.dense", "mlp", "mlp.dense_4h_to_h"),
    Bed("llama", *_LLAMA),
    Bed("gemma2", *_LLAMA),
    Bed("gemma3_text", *_LLAMA),
    Bed("qwen3", *_LLAMA),
    Bed("opt", "model.decoder.layers", "self_attn", "self_attn.out_proj", "fc2", "fc2"),
    Bed("phi", "model.layers", "self_attn", "self_attn.dense", "mlp", "mlp.fc2"),
    Bed("mixtral", "model.layers", "self_attn", "self_attn.o_proj", "mlp", None, eager_experts=True),
    Bed("bloom", "transformer.h", "self_attention.dense", "self_attention.dense", "mlp.dense_4h_to_h", "mlp.dense_4h_to_h"),
    Bed("falcon", "transformer.h", "self_attention", "self_attention.dense", "mlp", "mlp.dense_4h_to_h"),
    Bed("granite", *_LLAMA),
    Bed("falcon_h1", "model.layers", "self_attn", "self_attn.o_proj", "feed_forward", "feed_forward.down_proj"),
    Bed("bert", "bert.encoder.layer", *_BERT, "masked-lm"),
    Bed("t5", "decoder.block", *_T5, "seq2seq"),
]  # fmt: skip


def module_of(model: nn.Module, bed: Bed, write: Write) -> tuple[nn.Module, bool]:
    """The module at which a write is made, and whether at its input."""
    layer = model.get_submodule(f"{bed.layers}.{write.layer}")
    if write.site in ("resid_pre", "resid_post"):
        return layer, write.site == "resid_pre"
    path = {"z": bed.o, "mlp_act": bed.down, "mlp_out": bed.mlp, "attn_out": bed.attn}[write.site]
    return layer.get_submodule(str(path)), write.site in ("z", "mlp_act")


def _first(value: Any) -> Tensor:
    return value[0] if isinstance(value, tuple) else value


def _hook(module: nn.Module, on_input: bool, change: Callable[[Tensor], Tensor]) -> Any:
    def before(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return (change(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": change(kwargs["hidden_states"])}

    def after(_: nn.Module, args: Any, out: Any) -> Any:
        return (change(out[0]), *out[1:]) if isinstance(out, tuple) else change(out)

    return (
        module.register_forward_pre_hook(before, with_kwargs=True)
        if on_input
        else module.register_forward_hook(after)
    )


def loop(
    model: nn.Module, bed: Bed, experiment: Experiment, cells: Sequence[Cell], kwargs: dict[str, Any]
) -> np.ndarray:
    """Metric [cells n] with every cell's writes made by hooks in one whole forward of all rows."""
    columns, values = torch.as_tensor(experiment.answer_columns), []
    first, width = experiment.tokens.first, experiment.tokens.width
    for cell in cells:
        handles = []
        for write in cell:
            source, heads = experiment.source(write), experiment.net.heads(write.layer or 0)

            def change(
                value: Tensor, write: Write = write, source: Tensor = source, heads: int | None = heads
            ) -> Tensor:
                flat = source.flatten(2)
                new, shape = value.reshape(flat.shape).clone(), value.shape
                units = slice(None)
                if write.head is not None:
                    size = flat.shape[-1] // int(heads or 1)
                    units = slice(write.head * size, (write.head + 1) * size)
                if write.neuron is not None:
                    units = slice(write.neuron, write.neuron + 1)
                for row in range(len(new)):
                    places = (
                        slice(None)
                        if write.position is None
                        else slice(int(first[row]) + write.position, int(first[row]) + write.position + 1)
                    )
                    if write.span:
                        places = experiment.spans[write.span][row].nonzero()[:, 0]
                    new[row, places, units] = flat[row, places, units]
                return new.reshape(shape)

            handles.append(_hook(*module_of(model, bed, write), change))
        try:
            with torch.no_grad():
                logits = model(**kwargs).logits
        finally:
            for handle in handles:
                handle.remove()
        rows = torch.arange(len(columns))
        values.append(experiment.score(logits[rows, columns], rows).double().numpy())
    assert width
    return np.stack(values)

"""GGUF files (llama.cpp's): looked at before transformers turns their weights into numbers of full precision."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

import numpy as np

from cutaway.errors import BadInput, CorruptFile
from cutaway.network.sentences import sentence

_AGAIN = "Download or save it again."
#: Types of numbers that are no quantisation.
_PLAIN = ("F64", "F32", "F16", "BF16", "I8", "I16", "I32", "I64")


def is_gguf(source: str | Path) -> bool:
    """Whether a name is that of a GGUF file.

    >>> is_gguf("models/tiny.gguf"), is_gguf("zoo:tales")
    (True, False)
    """
    return str(source).lower().endswith(".gguf")


def check_gguf(file: Path) -> int:
    """How many numbers a GGUF file holds, once it is known that all of them can be read.

    Raises `CorruptFile` where it is cut off or no GGUF; `BadInput` where the package `gguf` is missing, and for an
    architecture or a quantisation that is not known.
    """
    try:
        import gguf
    except ImportError as error:
        raise BadInput(
            f"{file} is a GGUF file, and the package gguf, which reads them, is missing.",
            'Install it: pip install "cutaway[gguf]".',
        ) from error
    try:
        reader = reader_of(file)
        field = reader.get_field("general.architecture")
        architecture = "" if field is None else str(field.contents())
    except (
        Exception
    ) as error:  # the reader has no errors of its own: what is missing fails where it is looked for
        if "GGMLQuantizationType" in str(error):
            raise BadInput(
                f"{file} holds numbers of a quantisation that the package gguf does not know: {sentence(error)}",
                f"Use a newer gguf, or a file of another kind, such as Q8_0. {_FULL}",
            ) from error
        raise CorruptFile(f"{file} is cut off, or no GGUF: {sentence(error)}", _AGAIN) from error
    _check_architecture(file, architecture)
    _check_types(file, reader, gguf)
    return sum(math.prod(int(n) for n in tensor.shape) for tensor in reader.tensors)


def reader_of(file: Path) -> Any:
    """What reads a GGUF file; the last one is kept, because making it reads every word of the vocabulary."""
    state = file.stat()
    return _reader(str(file), state.st_size, state.st_mtime_ns)


@functools.lru_cache(maxsize=1)
def _reader(path: str, _size: int, _changed: int) -> Any:
    import gguf

    return gguf.GGUFReader(path)


_FULL = "Or take the network as its makers published it, in safetensors."


def _check_architecture(file: Path, architecture: str) -> None:
    from transformers.modeling_gguf_pytorch_utils import GGUF_SUPPORTED_ARCHITECTURES as known

    reads = sorted(set(known) - {"general", "tokenizer"})
    spelled = {name.replace("_", "") for name in (*reads, "t5encoder")}
    if architecture.replace("-", "").replace("_", "") not in spelled:
        raise BadInput(
            f"{file} holds a network of the architecture {architecture!r}, which transformers does not read from GGUF.",
            f"It reads {', '.join(reads)}. {_FULL}",
        )


def _check_types(file: Path, reader: Any, gguf: Any) -> None:
    """Refuse quantisations that cannot be turned back into numbers: each is tried on one block of zeros."""
    for kind in {tensor.tensor_type for tensor in reader.tensors}:
        if kind.name in _PLAIN:
            continue
        try:
            gguf.dequantize(np.zeros((1, gguf.GGML_QUANT_SIZES[kind][1]), dtype=np.uint8), kind)
        except Exception as error:
            raise BadInput(
                f"{file} is quantised as {kind.name}, which cannot be turned back into numbers: {sentence(error)}",
                f"Use a file of another kind, such as Q8_0 or Q4_K_M. {_FULL}",
            ) from error

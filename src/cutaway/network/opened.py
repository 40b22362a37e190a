"""How a network was opened, so that another process can open the same one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from cutaway.errors import BadInput, require_known


@dataclass(frozen=True, eq=False)
class Opened:
    """What `cutaway.open` was asked for. One meets it as `net.opened`, and hands it on: `cutaway.open(**net.opened)`.

    A module that was already in hand cannot be opened elsewhere; `reason` then says why, and handing it on is refused.

    Attributes:
        model: a Hub id, a folder (as an absolute path) or `"zoo:NAME"`; the class's name for a module in hand.
        tokenizer: where the tokenizer came from, if not from beside the weights.
        revision: the commit on the Hub, once it is known.
        device, dtype, device_map, trust_remote_code, load: as asked for; None is what the files say.
        certify: whether the anatomy was checked.
        remember: may anatomy and certificate be taken from an earlier opening, and kept for a later one?
        example: the batch of keyword arguments on which it was observed, where one was given.
        reason: why it cannot be opened elsewhere; empty where it can.
    """

    model: str
    tokenizer: str | None = None
    revision: str | None = None
    device: str | None = None
    dtype: str | None = None
    device_map: Any = None
    trust_remote_code: bool = False
    certify: bool = True
    remember: bool = True
    example: Mapping[str, Any] | None = field(default=None, repr=False)
    load: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""

    def keys(self) -> Iterator[str]:
        """Names of the arguments of `cutaway.open`; with `[name]` this makes `cutaway.open(**opened)` work.

        Raises `BadInput` where the network cannot be opened elsewhere.
        """
        if self.reason:
            raise BadInput(self.reason, "Save it with save_pretrained and open the folder.")
        return (f.name for f in fields(self) if f.name != "reason")

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)

    def to_dict(self) -> dict[str, Any]:
        """As plain data that JSON can hold; `from_dict` reads it."""
        return {f.name: _plain(getattr(self, f.name)) for f in fields(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Opened:
        """What `to_dict` gave.

        Raises `UnknownOption` for a name that no network is opened with.

        >>> Opened.from_dict(Opened("zoo:tales", dtype="float64").to_dict()).dtype
        'float64'
        """
        require_known(data, [f.name for f in fields(cls)], "Opened")
        return cls(**{name: _read(value) for name, value in data.items()})


def _plain(value: Any) -> Any:
    """Tensors as their numbers and type; devices and types as text."""
    if isinstance(value, Tensor):
        return {"tensor": value.tolist(), "dtype": str(value.dtype).removeprefix("torch.")}
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _read(value: Any) -> Any:
    if isinstance(value, Mapping):
        if value.keys() == {"tensor", "dtype"}:
            return torch.tensor(value["tensor"], dtype=getattr(torch, value["dtype"]))
        return {k: _read(v) for k, v in value.items()}
    return value

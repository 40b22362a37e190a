"""Provenance: what is needed to repeat a result."""

from __future__ import annotations

import dataclasses
import platform
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from typing import Any, Protocol

from cutaway.errors import BadFormat
from cutaway.results.meter import spent
from cutaway.results.rounding import Rounding

_PACKAGES = ("cutaway", "torch", "transformers", "numpy")


class Identified(Protocol):
    """What provenance needs to know of a network."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def hash(self) -> str: ...  # noqa: D102
    @property
    def device(self) -> Any: ...  # noqa: D102
    @property
    def dtype(self) -> Any: ...  # noqa: D102


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide numbers; 'not installed' where a package is not.

    >>> sorted(versions())
    ['cutaway', 'numpy', 'python', 'torch', 'transformers']
    """
    return {"python": platform.python_version()} | {package: _version(package) for package in _PACKAGES}


@cache
def _version(package: str) -> str:
    """Looked up once: every result asks, and reading a package's metadata takes as long as a small forward pass."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


@dataclass(frozen=True)
class Provenance:
    """What is needed to repeat a result.

    Attributes:
        network: its name.
        network_hash: of its weights and configuration.
        behaviour_hash: of the behaviour or the data that were read.
        versions: of Python and of the packages that decide numbers.
        seed: of whatever was drawn at random.
        device, dtype: where the network ran, and in what precision; “products in bfloat16” where it was opened so.
        seconds: how long it took.
        forwards: the same in forward-equivalents (`results.meter`): what the verb ran itself, without what was remembered.
        created: when.
        rounding: where products were coarser than the weights, what that did to the behaviour, as measured; else None.
    """

    network: str
    network_hash: str
    behaviour_hash: str = ""
    versions: dict[str, str] = field(default_factory=versions)
    seed: int = 0
    device: str = "cpu"
    dtype: str = "float32"
    seconds: float = 0.0
    forwards: float = 0.0
    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    rounding: Rounding | None = None

    @classmethod
    def of(
        cls,
        net: Identified,
        behaviour_hash: str = "",
        seed: int = 0,
        seconds: float = 0.0,
    ) -> Provenance:
        """The provenance of work done now on this network; seconds are what it took.

        Forward-equivalents are those that the verb at work has spent up to now.
        """
        dtype = str(net.dtype).removeprefix("torch.")
        if coarse := getattr(net, "products", None):
            dtype += f", products in {str(coarse).removeprefix('torch.')}"
        made = cls(
            net.name, net.hash, behaviour_hash, versions(), seed, str(net.device), dtype, seconds, spent()
        )
        return dataclasses.replace(made, rounding=getattr(net, "roundings", {}).get(behaviour_hash))

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Provenance:
        """The inverse of `to_dict`; BadFormat when the data is no provenance."""
        try:
            rounding = data.get("rounding")
            made: Any = None if rounding is None else Rounding.from_dict(rounding)
            return cls(**{**data, "rounding": made})
        except TypeError as error:
            raise BadFormat(
                f"This is not the data of a provenance: {error}.", "Pass what to_dict gave."
            ) from error

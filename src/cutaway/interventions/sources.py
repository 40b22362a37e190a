"""Where patched-in values come from: a tensor laid out as the site, or the kept sites of a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from cutaway.errors import BadInput, NotFound
from cutaway.network.edits import Here
from cutaway.network.inputs import Tokens
from cutaway.network.run import Run
from cutaway.network.sites import Site


@dataclass(frozen=True, eq=False)
class Source:
    """Values by site, with the tokens they were computed on; or one tensor for every site.

    Attributes:
        values: by site.
        tensor: the one for every site.
        tokens: the rows on which the values were computed.
        columns: LongTensor [b k], the columns that were kept where not all were.
    """

    values: Mapping[Site, Tensor] = field(default_factory=dict)
    tensor: Tensor | None = None
    tokens: Tokens | None = None
    columns: Tensor | None = None

    @staticmethod
    def of(value: object) -> Source:
        """Read a run, a tensor, a number, or a mapping of sites to tensors as a source.

        Raises `BadInput` for anything else.
        """
        if isinstance(value, Source):
            return value
        if isinstance(value, Run):
            return Source(values=value.kept, tokens=value.tokens, columns=value.columns)
        if isinstance(value, Tensor):
            return Source(tensor=value)
        if isinstance(value, int | float):
            return Source(tensor=torch.tensor(float(value)))
        if isinstance(value, Mapping) and all(isinstance(k, Site) for k in value):
            return Source(values=dict(value))
        raise BadInput(
            f"{type(value).__name__} is not a source of values.",
            "Give a Run that kept the site, or a tensor.",
        )

    def raw(self, site: Site) -> Tensor:
        """The value for a site as it was given.

        Raises `NotFound` when a run did not keep it.
        """
        if self.tensor is not None:
            return self.tensor
        if site not in self.values:
            raise NotFound(
                f"The source run did not keep {site}.",
                f'Run it with keep=["{site}"] (it kept {len(self.values)} other sites).',
            )
        return self.values[site]

    def aligned(self, value: Tensor, here: Here) -> tuple[Tensor, Tensor | None]:
        """The source laid out like `value`, and which entries it covers (None for all).

        A run's rows are matched by their row-relative positions, whatever the padding; a tensor is laid out as the
        prompt's columns are. One source row serves all rows.

        Raises `BadInput` where the shapes do not go together.
        """
        raw = self.raw(here.site).to(device=value.device, dtype=value.dtype)
        if raw.ndim == value.ndim and raw.shape[0] not in (1, value.shape[0]):
            raise BadInput(
                f"The source of {here.site} has {raw.shape[0]} rows, the run {value.shape[0]}.",
                "Give as many rows, or one.",
            )
        covered: Tensor | None = None
        if raw.ndim == value.ndim:
            for axis, name in enumerate(here.axes):
                slots = self._slots(raw, value, here, axis) if name in ("pos", "dest", "src") else None
                if slots is None:
                    continue
                raw, inside = _gathered(raw, slots, value.shape[0], axis)
                if name == "src":
                    raw = torch.where(inside, raw, _nothing(here.site, raw))
                else:
                    covered = inside if covered is None else covered & inside
        return _broadcast(raw, value, here), covered

    def _slots(self, raw: Tensor, value: Tensor, here: Here, axis: int) -> Tensor | None:
        """For each entry of an axis, which entry of the source it takes (-1 for none): [b size]; None for its own."""
        name, size, held = here.axes[axis], value.shape[axis], raw.shape[axis]
        wanted = here.columns(size, name, value.device)
        by_token = self.tokens is not None and not here.site.stack and here.src_tokens is None
        if by_token and self.tokens is not None:
            columns = self.columns if name != "src" else None
            columns = torch.arange(held).expand(self.tokens.n, -1) if columns is None else columns
            offered = (columns - self.tokens.first[:, None]).to(value.device)
            real = (offered >= 0) & (offered < self.tokens.lengths.to(value.device)[:, None])
            rows = here.rows_of(name)
            if rows is not None:
                wanted = wanted - rows.first.to(value.device)[:, None]
        else:
            if held == size and here.start(size, name) == 0 or held == 1:
                return None
            if here.end is None:
                raise BadInput(
                    f"The source of {here.site} has {held} positions, the run {size}.",
                    "Give a tensor laid out as the site, or a run, whose positions are matched.",
                )
            offered = torch.arange(held, device=value.device)[None]
            real = torch.ones_like(offered, dtype=torch.bool)
        match = (wanted[:, :, None] == offered[:, None, :]) & real[:, None, :]
        slots = match.float().argmax(-1)
        return torch.where(match.any(-1), slots, -1)


def _gathered(raw: Tensor, slots: Tensor, rows: int, axis: int) -> tuple[Tensor, Tensor]:
    """The source's entries at `slots` along an axis, and which of them exist."""
    shape = [1] * raw.ndim
    shape[0], shape[axis] = rows, slots.shape[1]
    wide = raw.expand(rows, *raw.shape[1:]) if raw.shape[0] == 1 else raw
    slots = slots.expand(rows, -1).reshape(shape)
    return wide.take_along_dim(slots.clamp(min=0), axis), slots >= 0


def _nothing(site: Site, value: Tensor) -> Tensor:
    """What stands where a source has no column: no probability, or a masked score."""
    lowest = torch.finfo(value.dtype).min
    return value.new_full((), lowest if site.name.endswith("scores") else 0.0)


def _broadcast(raw: Tensor, value: Tensor, here: Here) -> Tensor:
    try:
        return raw.expand_as(value) if raw.ndim <= value.ndim else raw.reshape(value.shape)
    except RuntimeError as error:
        raise BadInput(
            f"A source of shape {tuple(raw.shape)} does not fit {here.site}, which is {tuple(value.shape)} "
            f"({', '.join(here.axes) or 'as the module gives it'}).",
            "Give a tensor of that shape, or one that broadcasts to it.",
        ) from error

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
    """Values by site, with the tokens they were computed on; or one tensor for every site."""

    values: Mapping[Site, Tensor] = field(default_factory=dict)
    tensor: Tensor | None = None
    tokens: Tokens | None = None

    @staticmethod
    def of(value: object) -> Source:
        """Read a run, a tensor, a number, or a mapping of sites to tensors as a source.

        Raises `BadInput` for anything else.
        """
        if isinstance(value, Source):
            return value
        if isinstance(value, Run):
            return Source(values=value.kept, tokens=value.tokens)
        if torch.is_tensor(value):
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

        Rows are matched by their row-relative positions, whatever the padding; one source row serves all rows.

        Raises `BadInput` where the shapes do not go together.
        """
        raw = self.raw(here.site).to(device=value.device, dtype=value.dtype)
        axis = next((i for i, a in enumerate(here.axes) if a in ("pos", "dest")), None)
        if raw.shape == value.shape and here.start == 0 and self._same_tokens(here):
            return raw, None
        if raw.ndim == value.ndim and raw.shape[0] not in (1, value.shape[0]):
            raise BadInput(
                f"The source of {here.site} has {raw.shape[0]} rows, the run {value.shape[0]}.",
                "Give as many rows, or one.",
            )
        if (
            axis is None
            or raw.ndim < value.ndim
            or raw.shape[axis] == 1
            and value.shape[axis] != 1
            and self.tokens is None
        ):
            return _broadcast(raw, value, here), None
        return self._by_position(raw, value, here, axis)

    def _same_tokens(self, here: Here) -> bool:
        if self.tokens is None or here.tokens is None:
            return True
        return (
            bool((self.tokens.first == here.tokens.first).all()) if self.tokens.n == here.tokens.n else False
        )

    def _by_position(self, raw: Tensor, value: Tensor, here: Here, axis: int) -> tuple[Tensor, Tensor]:
        rows, size = value.shape[0], value.shape[axis]
        columns = torch.arange(here.start, here.start + size, device=value.device)[None].expand(rows, -1)
        if here.tokens is not None:
            columns = columns - here.tokens.first.to(value.device)[:, None]
        length = torch.full((rows, 1), raw.shape[axis], device=value.device)
        if self.tokens is not None:
            length = self.tokens.lengths.to(value.device)[:, None].expand(rows, 1)
            inside = (columns >= 0) & (columns < length)
            columns = columns + self.tokens.first.to(value.device)[:, None]
        else:
            inside = (columns >= 0) & (columns < length)
        columns = columns.clamp(0, raw.shape[axis] - 1)
        shape = [1] * value.ndim
        shape[0], shape[axis] = rows, size
        wide = raw.expand(rows, *raw.shape[1:]) if raw.shape[0] == 1 else raw
        target = list(wide.shape)
        target[axis] = size
        picked = wide.gather(axis, columns.reshape(shape).expand(target))
        return _broadcast(_fit_sources(picked, value, here), value, here), inside.reshape(shape)


def _fit_sources(picked: Tensor, value: Tensor, here: Here) -> Tensor:
    """At attention patterns the source axis must have as many columns as the run's."""
    if here.axes and here.axes[-1] == "src" and picked.shape[-1] != value.shape[-1]:
        raise BadInput(
            f"The source of {here.site} has {picked.shape[-1]} source positions, the run {value.shape[-1]}.",
            "Patch patterns between prompts of one padded length.",
        )
    return picked


def _broadcast(raw: Tensor, value: Tensor, here: Here) -> Tensor:
    try:
        return raw.expand_as(value) if raw.ndim <= value.ndim else raw.reshape(value.shape)
    except RuntimeError as error:
        raise BadInput(
            f"A source of shape {tuple(raw.shape)} does not fit {here.site}, which is {tuple(value.shape)} "
            f"({', '.join(here.axes) or 'as the module gives it'}).",
            "Give a tensor of that shape, or one that broadcasts to it.",
        ) from error

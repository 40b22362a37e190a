"""The interventions. Each is a frozen dataclass: plain data that says what to do where.

Several compose in a stated order: sites in the order in which the network computes them; at one site, in the order in
which they were given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor

from cutaway.errors import BadAddress, BadInput
from cutaway.interventions.address import Address
from cutaway.interventions.sources import Source
from cutaway.network.edits import EditFunction, Here
from cutaway.network.inputs import Tokens
from cutaway.network.means import means_over
from cutaway.network.sites import Site, SiteLike
from cutaway.network.textsets import texts_in

if TYPE_CHECKING:
    from cutaway.network.network import Network


@dataclass(frozen=True, eq=False, kw_only=True)
class Intervention(Address):
    """What all interventions share: the address, which says what part of the site is meant."""

    at: ClassVar[SiteLike]
    savable: ClassVar[bool] = True

    def check(self) -> None:
        """Raise `BadInput` where the intervention itself makes no sense."""

    def new_value(self, _value: Tensor, _here: Here) -> tuple[Tensor, Tensor | None]:
        """The value to use instead, of the same shape, and which entries it is meant for (None for all)."""
        raise TypeError(f"{type(self).__name__} does not say what to do.")

    def bind(self, network: Network) -> Sequence[tuple[Site, EditFunction]]:
        """Check against the network and give each site's edit function."""
        self.check()
        return [(site, self._edit()) for site in self.sites(network, self.at)]

    def _edit(self) -> EditFunction:
        def edit(value: Tensor, here: Here) -> Tensor:
            return _blend(self, value, here, *self.new_value(value, here))

        return edit

    def __repr__(self) -> str:
        parts = []
        for f in fields(self):
            item = getattr(self, f.name)
            if item is None:
                continue
            if torch.is_tensor(item):
                item = f"tensor[{' '.join(map(str, item.shape))}]"
            elif isinstance(item, Source) or hasattr(item, "kept"):
                item = "run"
            elif f.name == "over":
                item = f"{len(item)} texts"
            elif f.name == "fn":
                item = getattr(item, "__name__", "fn")
            parts.append(f"{f.name}={item}" if f.name != "at" else str(item))
        return f"{type(self).__name__}({', '.join(parts)})"


def _blend(address: Address, value: Tensor, here: Here, new: Tensor, covered: Tensor | None) -> Tensor:
    """The new value at the addressed entries that it covers, the old one elsewhere.

    Raises `BadAddress` where real tokens of a prompt are addressed that a source does not have.
    """
    mask = address.mask(value, here)
    if covered is not None:
        _check_covered(mask, covered, value, here)
        mask = covered if mask is None else mask & covered
    new = new.to(device=value.device, dtype=value.dtype)
    return new.expand_as(value) if mask is None else torch.where(mask, new, value)


def _check_covered(mask: Tensor | None, covered: Tensor, value: Tensor, here: Here) -> None:
    axis = here.pos_axis
    if here.end is not None or here.tokens is None or axis is None or value.shape[axis] != here.tokens.width:
        return
    shape = [1] * value.ndim
    shape[0], shape[axis] = here.tokens.mask.shape
    missing = here.tokens.mask.to(value.device).reshape(shape) & ~covered
    missing = missing if mask is None else missing & mask
    if bool(missing.any()):
        at = missing.nonzero()[0]
        row, column = int(at[0]), int(at[axis])
        raise BadAddress(
            f"The source of {here.site} has no value for position {column - int(here.tokens.first[row])} of row {row}.",
            "Address only positions that the source kept (pos=...).",
        )


@dataclass(frozen=True, eq=False, repr=False)
class Patch(Intervention):
    """Replace a value by the same place's value in another run, or by a tensor laid out as the site.

    Rows are matched by position within the row, whatever the padding; one source row serves all.

    Attributes:
        at: the site.
        source: a run, or a tensor laid out as the site.
    """

    at: SiteLike
    source: Any

    def check(self) -> None:
        """The source must be a run or a tensor."""
        Source.of(self.source)

    def new_value(self, value: Tensor, here: Here) -> tuple[Tensor, Tensor | None]:
        """The source, aligned."""
        return Source.of(self.source).aligned(value, here)


@dataclass(frozen=True, eq=False, repr=False)
class Freeze(Patch):
    """Hold a value at what it was in another run, whatever was changed before it."""


@dataclass(frozen=True, eq=False, repr=False)
class Ablate(Intervention):
    """Take a value's information away.

    Attributes:
        at: the site.
        how: "zero"; "mean", the mean over rows and real positions of the source (without one, of the present batch; in
            generation, of the prompts), or with `by_position` over rows, position by position; "resample", the value of
            another row, drawn with `seed`, of the source (or batch).
        source: a run, or None for the present batch.
        by_position: mean over rows only.
        seed: of the rows that are drawn.
        over: for "mean", a set of texts whose tokens the mean is taken over, the network running them without edits: a list
            of texts or rows of token ids, or a file (`pathlib.Path`; .txt: one a line). It holds the texts themselves.
    """

    at: SiteLike
    how: Literal["zero", "mean", "resample"] = "zero"
    source: Any = None
    by_position: bool = False
    seed: int = 0
    over: Any = None

    def __post_init__(self) -> None:
        if self.over is not None:
            object.__setattr__(self, "over", texts_in(self.over))

    def bind(self, network: Network) -> Sequence[tuple[Site, EditFunction]]:
        """As all interventions do; the mean over a set of texts is taken now, or remembered."""
        self.check()
        if self.over is None:
            return super().bind(network)
        sites = self.sites(network, self.at)
        means = means_over(network.core, sites, self.over, self.by_position)
        tokens = None
        if self.by_position:
            tokens = Tokens.of_ids(torch.zeros(1, next(iter(means.values())).shape[1], dtype=torch.long))
        return replace(self, over=None, source=Source(values=means, tokens=tokens)).bind(network)

    def check(self) -> None:
        """`how` must be known, and the source fit it."""
        if self.how not in ("zero", "mean", "resample"):
            raise BadInput(f"how={self.how!r} is not known.", 'Use "zero", "mean" or "resample".')
        if self.source is not None:
            Source.of(self.source)
        if self.over is not None and (self.how != "mean" or self.source is not None):
            beside = f"how={self.how!r}" if self.how != "mean" else "a source"
            raise BadInput(
                f"A set of texts was given beside {beside}.", 'Use how="mean" and over=texts alone.'
            )

    def new_value(self, value: Tensor, here: Here) -> tuple[Tensor, Tensor | None]:
        """Zero, the mean, or another row's value."""
        if self.how == "zero":
            return torch.zeros_like(value), None
        if self.how == "mean":
            return self._mean(value, here).aligned(value, here)
        return self._resample(value, here)

    def _edit(self) -> EditFunction:
        if self.how != "mean" or self.source is not None:
            return super()._edit()
        means: dict[Site, Source] = {}  # the prompts' mean serves all steps of a generation

        def edit(value: Tensor, here: Here) -> Tensor:
            if here.site not in means or here.end is None:
                means[here.site] = self._mean(value.detach(), here)
            return _blend(self, value, here, *means[here.site].aligned(value, here))

        return edit

    def _mean(self, value: Tensor, here: Here) -> Source:
        """The mean as a source: one entry for all positions, or one for each row-relative position."""
        source = Source(tensor=value, tokens=here.tokens) if self.source is None else Source.of(self.source)
        raw, tokens = source.raw(here.site).to(value), source.tokens
        axis = here.pos_axis
        if raw.ndim < value.ndim:
            return Source(tensor=raw)
        if axis is None:
            return Source(tensor=raw.mean(0, keepdim=True))
        columns = source.columns if source.columns is not None else torch.arange(raw.shape[axis])[None]
        if tokens is None:
            return Source(tensor=raw.mean(0 if self.by_position else (0, axis), keepdim=True))
        relative = (columns - tokens.first[:, None]).expand(raw.shape[0], -1)
        real = (relative >= 0) & (relative < tokens.lengths[:, None])
        slot = torch.where(real, relative if self.by_position else torch.zeros_like(relative), -1)
        size = int(tokens.lengths.max()) if self.by_position else 1
        weight = torch.nn.functional.one_hot(slot.clamp(min=0), size) * real[..., None]
        weight = weight.to(raw)
        total = torch.einsum("bp...,bps->s...", raw.movedim(axis, 1), weight)
        count = weight.sum((0, 1)).clamp(min=1)
        mean = (total / count.reshape(-1, *[1] * (total.ndim - 1))).movedim(0, axis - 1)[None]
        if not self.by_position:
            return Source(tensor=mean)
        return Source(tensor=mean, tokens=Tokens.of_ids(torch.zeros(1, size, dtype=torch.long)))

    def _resample(self, value: Tensor, here: Here) -> tuple[Tensor, Tensor | None]:
        if self.source is None:
            rows = value.shape[0]
            if rows < 2:
                raise BadInput(
                    "Resampling within a batch of one row changes nothing.",
                    "Give source=run of other prompts.",
                )
            chosen = (torch.arange(rows) + 1 + self._draw(rows - 1, rows)) % rows
            if here.end is not None:
                return value.detach()[chosen.to(value.device)], None
            source = Source(tensor=value.detach(), tokens=here.tokens)
        else:
            source = Source.of(self.source)
            chosen = self._draw(source.raw(here.site).shape[0], value.shape[0])
        raw = source.raw(here.site)
        tokens = None if source.tokens is None else source.tokens[chosen]
        columns = None if source.columns is None else source.columns[chosen]
        return Source(tensor=raw[chosen.to(raw.device)], tokens=tokens, columns=columns).aligned(value, here)

    def _draw(self, high: int, size: int) -> Tensor:
        return torch.randint(high, (size,), generator=torch.Generator().manual_seed(self.seed))


@dataclass(frozen=True, eq=False, repr=False)
class Add(Intervention):
    """Add `scale` times a vector (or any tensor that broadcasts to the site).

    Attributes:
        at: the site.
        vector: what is added; it broadcasts to the site.
        scale: what it is multiplied by.
    """

    at: SiteLike
    vector: Tensor
    scale: float = 1.0

    def new_value(self, value: Tensor, here: Here) -> tuple[Tensor, Tensor | None]:
        """value + scale * vector."""
        return value + self.scale * _fitting(self.vector, value, here), None


@dataclass(frozen=True, eq=False, repr=False)
class Scale(Intervention):
    """Multiply by a factor.

    Attributes:
        at: the site.
        factor: what it is multiplied by.
    """

    at: SiteLike
    factor: float

    def new_value(self, value: Tensor, _here: Here) -> tuple[Tensor, Tensor | None]:
        """factor * value."""
        return value * self.factor, None


@dataclass(frozen=True, eq=False, repr=False)
class Project(Intervention):
    """Project directions out of the last axis, or with `keep` everything but them.

    Attributes:
        at: the site.
        directions: [k d] or [d], of any length and not necessarily orthogonal.
        keep: keep the directions and drop everything else.
    """

    at: SiteLike
    directions: Tensor
    keep: bool = False

    def new_value(self, value: Tensor, here: Here) -> tuple[Tensor, Tensor | None]:
        """value - P value, or P value, with P the projection on the directions' span."""
        inside = _projected(value, self.directions, here)
        return (inside if self.keep else value - inside), None


@dataclass(frozen=True, eq=False, repr=False)
class Interchange(Intervention):
    """Exchange the part of a value that lies in a subspace for that of a source (Geiger et al. 2023, interchange).

    Attributes:
        at: the site.
        basis: [k d], spanning the subspace.
        source: a run, or a tensor laid out as the site.
    """

    at: SiteLike
    source: Any
    basis: Tensor

    def check(self) -> None:
        """The source must be a run or a tensor."""
        Source.of(self.source)

    def new_value(self, value: Tensor, here: Here) -> tuple[Tensor, Tensor | None]:
        """value + P (source - value)."""
        other, covered = Source.of(self.source).aligned(value, here)
        return value + _projected(other - value, self.basis, here), covered


@dataclass(frozen=True, eq=False, repr=False)
class Erase(Intervention):
    """Take an oblique projection out: value - left @ right @ (value - centre), as concept erasure does.

    At a site with heads, d may be that of all heads side by side.

    Attributes:
        at: the site.
        left: [d k].
        right: [k d].
        centre: [d].
    """

    at: SiteLike
    left: Tensor
    right: Tensor
    centre: Tensor

    def check(self) -> None:
        """The shapes must go together."""
        d = self.centre.shape[-1]
        if self.left.ndim != 2 or self.left.shape[0] != d or self.right.shape != self.left.T.shape:
            raise BadInput(
                f"left {tuple(self.left.shape)}, right {tuple(self.right.shape)} and centre {tuple(self.centre.shape)} "
                "do not go together.",
                "Give [d k], [k d] and [d].",
            )

    def new_value(self, value: Tensor, here: Here) -> tuple[Tensor, Tensor | None]:
        """The value without what the projection takes, in float32 at least."""
        wide = value.flatten(-2) if value.ndim == 4 and value.shape[-1] != len(self.centre) else value
        precise = torch.promote_types(value.dtype, torch.float32)
        left, right, centre = (t.to(value.device, precise) for t in (self.left, self.right, self.centre))
        inner = wide.to(precise) - _fitting(centre, wide, here).to(precise)
        return (wide.to(precise) - inner @ right.T @ left.T).reshape(value.shape).to(value.dtype), None


@dataclass(frozen=True, eq=False, repr=False)
class Clamp(Intervention):
    """Hold values between two bounds; with equal bounds, at a value.

    Attributes:
        at: the site.
        low, high: the bounds; None for no bound on that side.
    """

    at: SiteLike
    low: float | None = None
    high: float | None = None

    def check(self) -> None:
        """There must be a bound, and the lower one must not be above the upper."""
        if self.low is None and self.high is None:
            raise BadInput("Clamp has neither low nor high.", "Give at least one.")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise BadInput(f"Clamp has low {self.low} above high {self.high}.", "Exchange them.")

    def new_value(self, value: Tensor, _here: Here) -> tuple[Tensor, Tensor | None]:
        """The value, cut at the bounds."""
        return value.clamp(self.low, self.high), None


@dataclass(frozen=True, eq=False, repr=False)
class Apply(Intervention):
    """Run any function on the value: fn(value) or fn(value, here) gives the new value. It cannot be saved.

    The function gets a copy, which it may change in place; of what it returns, only the entries of the address are taken.

    Attributes:
        at: the site.
        fn: the function.
    """

    at: SiteLike
    fn: Callable[..., Tensor]
    savable: ClassVar[bool] = False

    def new_value(self, value: Tensor, here: Here) -> tuple[Tensor, Tensor | None]:
        """fn(value), checked for shape."""
        import inspect

        try:
            takes_here = len(inspect.signature(self.fn).parameters) > 1
        except (TypeError, ValueError):
            takes_here = False
        copy = value.clone()  # the network, and what was kept, hold the value itself
        new = self.fn(copy, here) if takes_here else self.fn(copy)
        if not torch.is_tensor(new) or new.shape != value.shape:
            got = tuple(new.shape) if torch.is_tensor(new) else type(new).__name__
            raise BadInput(
                f"The function at {here.site} gave {got}, not a tensor of shape {tuple(value.shape)}.",
                "Return the changed value.",
            )
        return new, None


def _fitting(vector: Tensor, value: Tensor, here: Here) -> Tensor:
    vector = torch.as_tensor(vector).to(device=value.device, dtype=value.dtype)
    try:
        torch.broadcast_shapes(vector.shape, value.shape)
    except RuntimeError as error:
        raise BadInput(
            f"A vector of shape {tuple(vector.shape)} does not fit {here.site}, which is {tuple(value.shape)}.",
            f"Its last axis must be {value.shape[-1]} long.",
        ) from error
    return vector


def _projected(value: Tensor, directions: Tensor, here: Here) -> Tensor:
    """P value for the span of the directions, in float32 at least; directions of no length do not count."""
    rows = torch.as_tensor(directions).to(value.device)
    rows = rows[None] if rows.ndim == 1 else rows
    if rows.ndim != 2 or rows.shape[-1] != value.shape[-1]:
        raise BadAddress(
            f"Directions of shape {tuple(rows.shape)} do not fit {here.site}, whose last axis is {value.shape[-1]} long.",
            "Give [k d] or [d].",
        )
    precise = torch.promote_types(value.dtype, torch.float32)
    u, s, _ = torch.linalg.svd(rows.to(precise).T, full_matrices=False)
    tolerance = torch.finfo(precise).eps * max(rows.shape) * (s.max() if s.numel() else 0)
    basis = u[:, s > tolerance]
    return (value.to(precise) @ basis @ basis.T).to(value.dtype)


KINDS: dict[str, type[Intervention]] = {
    k.__name__: k for k in (Patch, Freeze, Ablate, Add, Scale, Project, Erase, Interchange, Clamp, Apply)
}

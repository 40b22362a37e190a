"""Gradients of what a network says, with respect to its embeddings and any other site."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cutaway.errors import BadInput, NotFinite, SiteUnavailable
from cutaway.network.face import Face
from cutaway.network.inputs import Tokens
from cutaway.network.precision import precise
from cutaway.network.sites import SITES, Site, SiteLike
from cutaway.results import Provenance, described, load_fields, save_fields, strict

if TYPE_CHECKING:
    from cutaway.network.edits import Edit
    from cutaway.network.texts import InputLike
    from cutaway.reports import Page

#: What a gradient is of: "loss", a token, a token and the one it is set against, or a function of the logits [b p v].
Of = str | int | tuple[str | int, str | int] | Callable[[Tensor], Tensor]

#: Sites whose values belong to one token each, so that they can be summed up token by token.
_BY_TOKEN = ("batch", "pos")


def _axes_of(name: str) -> tuple[str, ...]:
    """The axes of a site by its name; none for a module's path."""
    kind = name.rpartition(".")[0].rpartition(".")[2] or name
    return SITES[kind].axes if kind in SITES else ()


@dataclass(frozen=True, eq=False)
class Gradients:
    """Gradients of one number for each prompt, with respect to sites.

    Attributes:
        of: what it is the gradient of, in words.
        tokens: [b][p], the prompts' tokens, padding left out.
        columns: [b], the column of each row's first token.
        value: [b], the number itself.
        gradients: by site, laid out as the site.
        values: by site, what the site held.
        provenance: what is needed to repeat it.
    """

    kind: ClassVar[str] = "gradients"

    of: str
    tokens: tuple[tuple[str, ...], ...]
    columns: tuple[int, ...]
    value: np.ndarray
    gradients: dict[str, np.ndarray]
    values: dict[str, np.ndarray]
    provenance: Provenance

    def __getitem__(self, site: SiteLike) -> np.ndarray:
        """The gradient at a site, laid out as the site."""
        return self.gradients[self._named(site)]

    def _named(self, site: SiteLike | None) -> str:
        by_token = [name for name in self.gradients if _axes_of(name)[:2] == _BY_TOKEN]
        if site is None and by_token:
            return by_token[0]
        name = f"{site[0]}.{site[1]}" if isinstance(site, tuple) else str(site)
        if name not in self.gradients:
            raise BadInput(f"There is no gradient at {name}.", f"There are: {', '.join(self.gradients)}.")
        return name

    def saliency(self, site: SiteLike | None = None) -> np.ndarray:
        """Gradient times value, summed over each token's numbers: [b p], padding included.

        To first order it is what the number would lose if the token's value at that site were zero. site: one of those
        asked for; by default the first that has a value for each token.

        Raises `BadInput` for a site without one.
        """
        name = self._named(site)
        if _axes_of(name)[:2] != _BY_TOKEN:
            raise BadInput(f"{name} has no value for each token.", "Ask for embed or a site of the stream.")
        product = self.gradients[name] * self.values[name]
        return product.reshape(*product.shape[:2], -1).sum(-1)

    def to_pandas(self) -> pd.DataFrame:
        """One row for each prompt, token and site: the gradient's length, and gradient times value."""
        rows = []
        for name in (n for n in self.gradients if _axes_of(n)[:2] == _BY_TOKEN):
            gradient = self.gradients[name]
            length = np.sqrt((gradient.reshape(*gradient.shape[:2], -1) ** 2).sum(-1))
            times = self.saliency(name)
            rows += [
                (b, p, token, name, float(length[b, first + p]), float(times[b, first + p]))
                for b, (tokens, first) in enumerate(zip(self.tokens, self.columns, strict=True))
                for p, token in enumerate(tokens)
            ]
        return pd.DataFrame(
            rows, columns=["row", "position", "token", "site", "gradient", "gradient_x_value"]
        )

    def plot(self, site: SiteLike | None = None, row: int = 0) -> Any:
        """Gradient times value of one prompt, token by token."""
        from cutaway.figures import Bar, bars, show_token

        tokens, first = self.tokens[row], self.columns[row]
        times = self.saliency(site)[row, first : first + len(tokens)].tolist()
        return bars(
            [Bar.of(f"{i} {show_token(t)}", v) for i, (t, v) in enumerate(zip(tokens, times, strict=True))],
            unit=f"gradient × value of {self._named(site)}",
        )

    @property
    def headline(self) -> str:
        """Which token it depends on most, in a sentence."""
        if not any(_axes_of(name)[:2] == _BY_TOKEN for name in self.gradients):
            return f"The gradient of {self.of} at {', '.join(self.gradients)}"
        tokens, first = self.tokens[0], self.columns[0]
        times = self.saliency()[0, first : first + len(tokens)]
        most = int(np.abs(times).argmax())
        of = f"{self.of[0].upper()}{self.of[1:]}"
        return f"{of} is {self.value[0]:.3f}; it depends most on {tokens[most]!r} ({times[most]:+.3f})"

    def page(self) -> Page:
        """Gradient times value by token, for each site that has one."""
        from cutaway.reports import Figure, page_of

        names = [name for name in self.gradients if _axes_of(name)[:2] == _BY_TOKEN]
        says = "Gradient times value, token by token: to first order what would be lost if it were zero at"
        figures = [Figure(self.plot(name), f"{says} {name}.") for name in names[:8]]
        return page_of(
            self, "Cutaway · gradients", f"The gradient of {self.of}, in {self.provenance.network}.", figures
        )

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return described(self, "of", "value", tokens=list(self.tokens), by_token=self.to_pandas())

    save = save_fields
    load = classmethod(load_fields)

    def __repr__(self) -> str:
        return f"Gradients({self.headline})"

    def _repr_html_(self) -> str:
        from cutaway.reports import display_result

        return display_result(self, table=self.to_pandas())


@strict
def gradients(
    net: Face,
    text: InputLike,
    *,
    of: Of = "loss",
    to: Sequence[SiteLike] | SiteLike = ("embed",),
    pos: int = -1,
    edits: Sequence[Edit] | Edit = (),
) -> Gradients:
    """Gradients of what the network says with respect to its embeddings and other sites.

    Args:
        text: one prompt or several; each has its own number, and its own gradient.
        of: "loss", the mean of each next token's in nats; a token, for its logit; two, for the logit of the first over
            that of the second; or a function of the logits [b p v] that gives a number for each prompt.
        to: sites, as in `run`; without a layer, all.
        pos: the position at which a token's logit is read.
        edits: interventions that the run carries.

    Raises `BadInput` for an `of` that is none of these, `SiteUnavailable` where there are no logits, `NotFinite` for
    a gradient of NaN or infinity.
    """
    began = time.monotonic()
    listed: list[Any] = [to] if isinstance(to, str | Site) or _is_pair(to) else list(to)
    if not listed:
        raise BadInput("No site is named, so there is nothing to differentiate by.", 'Give to=["embed"].')
    sites = list(dict.fromkeys(site for spec in listed for site in net.resolve(spec)))
    tokens = net.encode(text)
    number, said = _number(net, of, tokens, pos)
    run = net.run(tokens, keep=sites, edits=edits, grad=True)
    if run.logits is None:
        raise SiteUnavailable(
            "This network has no logits to take the gradient of.", "Open it with its language-modelling head."
        )
    value = number(run.logits)
    if not torch.is_tensor(value) or value.numel() not in (1, tokens.n) or not value.requires_grad:
        shape = tuple(value.shape) if torch.is_tensor(value) else type(value).__name__
        raise BadInput(
            f"The function gives {shape}, which is not one number for each prompt that depends on the logits.",
            "Give of=lambda logits: logits[:, -1, 5], for example.",
        )
    found = torch.autograd.grad(value.sum(), [run[site] for site in sites], allow_unused=True)
    numbers, kept = {}, {}
    for site, gradient in zip(sites, found, strict=True):
        held = run[site].detach()
        slope = torch.zeros_like(held) if gradient is None else gradient
        if not bool(torch.isfinite(slope).all()):
            raise NotFinite(f"The gradient at {site} holds NaN or infinity.", "Run in float32.")
        numbers[str(site)], kept[str(site)] = precise(slope).cpu().numpy(), precise(held).cpu().numpy()
    rows = [tokens.row_ids(i) for i in range(tokens.n)]
    origin = Provenance.of(net, hashlib.sha256(repr(rows).encode()).hexdigest(), 0, time.monotonic() - began)
    strings = tuple(tuple(tokens.strings(i)) for i in range(tokens.n))
    flat = precise(value.detach()).reshape(-1).cpu().numpy()
    return Gradients(said, strings, tuple(tokens.first.tolist()), flat, numbers, kept, origin)


def _is_pair(to: object) -> bool:
    return isinstance(to, tuple) and len(to) == 2 and isinstance(to[0], str) and isinstance(to[1], int)


def _number(net: Face, of: Of, tokens: Tokens, pos: int) -> tuple[Callable[[Tensor], Tensor], str]:
    """A function of the logits [b p v] that gives one number for each row, and what that is in words."""
    if isinstance(pos, bool) or not isinstance(pos, int):
        raise BadInput(
            f"pos={pos!r} is no position.", "Give one, counted from a prompt's first token, or -1."
        )
    if of == "loss":
        if not bool((tokens.lengths > 1).all()):
            raise BadInput(
                "A prompt of one token has no next token whose loss there could be.", "Give two at least."
            )
        return lambda logits: _loss(logits, tokens), "the loss"
    if callable(of):
        return of, getattr(of, "__name__", "the function").replace("<lambda>", "the function")
    pair = of if isinstance(of, tuple) else (of,)
    if not 1 <= len(pair) <= 2:
        raise BadInput(
            f"of={of!r} is neither a token nor a pair of tokens.", 'Give " Mary" or (" Mary", " John").'
        )
    ids = [_token(net, token) for token in pair]
    columns = tokens.columns(pos)[:, 0]
    names = [repr(name) for name in net.token_strings(ids)]

    def logit(logits: Tensor) -> Tensor:
        rows = logits[torch.arange(tokens.n), columns.to(logits.device)]
        return rows[:, ids[0]] - (rows[:, ids[1]] if len(ids) == 2 else 0)

    return logit, f"the logit of {names[0]}" + (f" over {names[1]}" if len(ids) == 2 else "")


def _token(net: Face, token: object) -> int:
    if isinstance(token, str):
        return net.to_single_token(token)
    if isinstance(token, bool) or not isinstance(token, int):
        raise BadInput(f"{token!r:.80} is no token.", "Give a word with its space, or a token id.")
    if not 0 <= token < (net.d_vocab or 0):
        raise BadInput(
            f"Token id {token} is outside the vocabulary of {net.d_vocab} tokens.", "Use another id."
        )
    return token


def _loss(logits: Tensor, tokens: Tokens) -> Tensor:
    """Mean negative log probability of each row's next tokens, in nats: [b]."""
    ids, mask = tokens.ids.to(logits.device), tokens.mask.to(logits.device)
    told = mask[:, 1:] & mask[:, :-1]
    losses = -logits[:, :-1].log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]
    return torch.where(told, losses, 0).sum(1) / told.sum(1)

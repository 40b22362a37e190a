"""The result of one run: logits, tokens and the sites that were kept."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from cutaway.errors import BadInput, NotFinite, NotFound, nearest
from cutaway.network.indices import indices, integer
from cutaway.network.inputs import Tokens
from cutaway.network.sites import Site, SiteLike, parse
from cutaway.network.texts import token_strings


@dataclass(frozen=True, eq=False)
class Outlook:
    """What a run needs to know to say what comes next.

    Attributes:
        tokenizer: the network's; None where it has none.
        causal: whether logits at a token are about the next one.
    """

    tokenizer: Any
    causal: Callable[[], bool]


#: A notebook shows at most so many tokens and kept sites.
_TOKENS, _SITES = 80, 16


@dataclass(frozen=True, eq=False)
class Run:
    """What one forward pass gave.

    Attributes:
        logits: [b p v], [b k v] at the positions that were asked for, or None; for a model without an output head, None.
        tokens: the rows that positions refer to; None where the inputs hold no tokens.
        kept: the values of the sites that were asked for, as the rest of the network saw them (after edits).
        output: what the model gave, where that is no logits.
        columns: LongTensor [b k], the columns that were kept where positions were asked for (of the one stack whose sites
            were kept, or of the decoder).
        outlook: what is needed to say what comes next; None for runs that do not.
    """

    logits: Tensor | None
    tokens: Tokens | None
    kept: dict[Site, Tensor] = field(repr=False)
    output: object = field(default=None, repr=False)
    columns: Tensor | None = field(default=None, repr=False)
    outlook: Outlook | None = field(default=None, repr=False)

    def _site(self, key: object) -> Site:
        if isinstance(key, tuple) and len(key) == 3 and isinstance(key[0], str):
            key = (f"{key[0]}.{key[1]}", key[2])
        paths = {s.name.removesuffix(":in") for s in self.kept if s.module}
        stacks = ("", *{s.stack for s in self.kept})
        site = parse(key, paths, stacks)  # type: ignore[arg-type]
        layers = self._layers(site)
        if site.layer is None or site.layer >= 0 or site.module or not layers:
            return site
        last = max(s.layer or 0 for s in self.kept if s.stack == site.stack and not s.module)
        complete = layers == list(range(last + 1)) and last + 1 + site.layer >= 0
        return Site(site.name, last + 1 + site.layer, site.stack) if complete else site

    def _layers(self, site: Site) -> list[int]:
        """The layers at which a kind of site was kept, ascending."""
        return sorted(
            s.layer for s in self.kept if (s.name, s.stack) == (site.name, site.stack) and s.layer is not None
        )

    def _missing(self, site: Site) -> NotFound:
        kind, layers = str(Site(site.name, None, site.stack)), self._layers(site)
        if layers and site.layer is None:
            return NotFound(
                f"{kind} was kept at layers {layers}, and no layer was named.",
                f'Name one, run["{kind}", {layers[-1]}], or take them together: run.stack("{kind}").',
            )
        if layers and site.layer is not None and site.layer < 0:
            return NotFound(
                f"The layer {site.layer} of {kind} cannot be counted from the end: it was kept at layers {layers}.",
                f'Count from 0: run["{kind}", {layers[-1]}].',
            )
        offers = nearest(str(site), [str(s) for s in self.kept], n=5)
        held = f"Nearest kept: {', '.join(offers)}." if offers else "Nothing like it was kept."
        return NotFound(
            f"{site} was not kept in this run.", f'{held} Ask for it: net.run(..., keep=["{site}"]).'
        )

    def __getitem__(self, key: SiteLike) -> Tensor:
        site = self._site(key)
        if site in self.kept:
            return self.kept[site]
        if site.name == "logits" and self.logits is not None:
            return self.logits
        raise self._missing(site)

    def __contains__(self, key: object) -> bool:
        try:
            return self._site(key) in self.kept
        except NotFound:
            return False

    @property
    def sites(self) -> list[Site]:
        """The kept sites in the order of computation."""
        return sorted(self.kept, key=lambda s: (s.stack, s.rank))

    def stack(self, name: str) -> Tensor:
        """One site over all kept layers: [layers b ...].

        Raises `NotFound` when no layer of it was kept.
        """
        sites = [s for s in self.sites if s.name == name or str(s).rpartition(".")[0] == name]
        if not sites:
            raise NotFound(
                f"No layer of {name} was kept in this run.", f'Ask for it: net.run(..., keep=["{name}"]).'
            )
        return torch.stack([self.kept[s] for s in sites])

    def nonfinite(self) -> Site | None:
        """The first kept site that holds NaN or infinity (masked scores are minus infinity by design and do not count)."""
        for site in self.sites:
            if not site.name.endswith("scores") and not bool(torch.isfinite(self.kept[site]).all()):
                return site
        return None

    def check_finite(self) -> Run:
        """This run, unless a kept site or the logits hold NaN or infinity: then `NotFinite` names the first place."""
        site = self.nonfinite()
        if site is not None:
            bad = (~torch.isfinite(self.kept[site])).nonzero()[0].tolist()
            raise NotFinite(
                f"{site} holds NaN or infinity, first at index {bad}.",
                "Run in float32, or look at the layer before.",
            )
        if self.logits is not None and not bool(torch.isfinite(self.logits).all()):
            raise NotFinite(
                "The logits hold NaN or infinity.", 'Keep "resid_post" to see in which layer it begins.'
            )
        return self

    def _predicts(self) -> bool:
        """Whether the logits are about the next token, at every position."""
        if self.outlook is None or self.tokens is None or self.tokens.values is not None:
            return False
        return self.logits is not None and self.logits.ndim == 3 and self.outlook.causal()

    def next_tokens(self, k: int = 5, row: int = 0) -> list[tuple[str, float]]:
        """The k likeliest tokens behind a row's last one, each with its probability; none where there are no such logits.

        Raises `BadInput` for k below 1, `BadAddress` for a row that is not there.

        >>> import cutaway
        >>> run = cutaway.open("zoo:tales").run("Mary was sad because")
        >>> run.next_tokens(1)[0][0]
        ' she'
        """
        if isinstance(k, bool) or not isinstance(k, int) or k < 1:
            raise BadInput(f"k={k!r} is no number of tokens.", "Ask for one at least.")
        if not self._predicts():
            return []
        assert self.logits is not None
        assert self.tokens is not None
        assert self.outlook is not None
        at = indices(integer(row, "row"), self.tokens.n, "row", "this run")[0]
        whole = self.logits.shape[1] == self.tokens.width
        last = int(self.tokens.columns(-1)[at, 0]) if whole else self.logits.shape[1] - 1
        best = self.logits[at, last].detach().float().softmax(-1).topk(min(k, self.logits.shape[-1]))
        names = token_strings(self.outlook.tokenizer, best.indices.tolist())
        return list(zip(names, map(float, best.values), strict=True))

    @property
    def loss(self) -> float | None:
        """Mean negative log probability of each next token, in nats, over all rows; None where not all logits are there."""
        if not self._predicts():
            return None
        assert self.logits is not None
        assert self.tokens is not None
        ids, mask = self.tokens.ids, self.tokens.mask
        if self.logits.shape[1] != self.tokens.width or int(ids.max()) >= self.logits.shape[-1]:
            return None
        told = (mask[:, 1:] & mask[:, :-1]).to(self.logits.device)
        if not bool(told.any()):
            return None
        logs = self.logits[:, :-1].detach().float().log_softmax(-1)
        return float(-logs.gather(2, ids[:, 1:, None].to(logs.device))[..., 0][told].mean())

    def summary(self, rows: int = 3, k: int = 5) -> list[tuple[str, str]]:
        """What is worth reading, as names and values."""
        lines = []
        for row in range(min(rows, self.tokens.n if self.tokens is not None else 0)):
            ahead = ", ".join(f"{token!r} {p:.3f}" for token, p in self.next_tokens(k, row))
            text = "".join(self.tokens.strings(row)) if self.tokens is not None else ""
            lines.append((f"behind {text[-40:]!r}", ahead))
        lines = [line for line in lines if line[1]]
        if lines and self.tokens is not None and self.tokens.n > rows:
            lines.append(("", f"and {self.tokens.n - rows} more rows"))
        if self.loss is not None:
            lines.append(("loss", f"{self.loss:.3f} nats a token"))
        if not lines and self.logits is not None:
            lines.append(("logits", " ".join(map(str, self.logits.shape))))
        kinds: dict[tuple[str, ...], list[Site]] = {}
        for site in self.sites:
            kinds.setdefault((site.stack, site.name, " ".join(map(str, self.kept[site].shape))), []).append(
                site
            )
        kept = [
            f"{sites[0]} to {sites[-1].layer} [{shape}]" if len(sites) > 1 else f"{sites[0]} [{shape}]"
            for (*_, shape), sites in kinds.items()
        ]
        return [*lines, ("kept", ", ".join(kept[:6]) + (", ..." if len(kept) > 6 else ""))] if kept else lines

    def __repr__(self) -> str:
        head = "" if self.tokens is None else f" of {self.tokens.n} × {self.tokens.width} tokens"
        if self.tokens is not None and self.tokens.n == 1:
            head = f" of {self.tokens.width} tokens: {' '.join(map(repr, self.tokens.strings(0)[:12]))}"
            head += " ..." if self.tokens.width > 12 else ""
        return "\n".join(
            [f"Run{head}", *(f"  {f'{name}: ' if name else ''}{said}" for name, said in self.summary())]
        )

    def _repr_html_(self) -> str:
        from html import escape

        head = ""
        if self.tokens is not None:
            pieces = "".join(
                f"<span style='border:1px solid #ccd;border-radius:3px;padding:0 3px;margin:1px'>{escape(t)}</span>"
                for t in self.tokens.strings(0)[:_TOKENS]
            )
            more = "" if self.tokens.n == 1 else f" <i>and {self.tokens.n - 1} more rows</i>"
            head = f"<div style='line-height:1.9'>{pieces}{more}</div>"
        cell = "<td style='text-align:left'>"
        rows = "".join(f"<tr>{cell}{escape(n)}</td>{cell}{escape(s)}</td></tr>" for n, s in self.summary())
        return f"{head}<table>{rows}</table>"

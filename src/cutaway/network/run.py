"""The result of one run: logits, tokens and the sites that were kept."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from cutaway.errors import NotFinite, NotFound, nearest
from cutaway.network.inputs import Tokens
from cutaway.network.sites import Site, SiteLike, parse

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
    """

    logits: Tensor | None
    tokens: Tokens | None
    kept: dict[Site, Tensor] = field(repr=False)
    output: object = field(default=None, repr=False)
    columns: Tensor | None = field(default=None, repr=False)

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

    def _table(self) -> list[tuple[str, str, str]]:
        values = [(str(site), self.kept[site]) for site in self.sites]
        values += [] if self.logits is None else [("logits", self.logits)]
        return [(n, " ".join(map(str, t.shape)), str(t.dtype).removeprefix("torch.")) for n, t in values]

    def __repr__(self) -> str:
        kept = ", ".join(str(s) for s in self.sites[:6]) + (", ..." if len(self.kept) > 6 else "")
        shape = None if self.logits is None else tuple(self.logits.shape)
        return f"Run(logits={shape}, tokens={None if self.tokens is None else tuple(self.tokens.ids.shape)}, kept=[{kept}])"

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
        table = self._table()
        rows = "".join(f"<tr><td>{escape(n)}</td><td>{s}</td><td>{d}</td></tr>" for n, s, d in table[:_SITES])
        rows += f"<tr><td>and {len(table) - _SITES} more</td></tr>" if len(table) > _SITES else ""
        return f"{head}<table><tr><th>site</th><th>shape</th><th>dtype</th></tr>{rows}</table>"

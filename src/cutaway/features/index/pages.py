"""How an index is shown: how many features are active how often, which most and which least."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cutaway.figures import Bar, bars
from cutaway.reports import Figure, Page, Points, Section, TokenPassage, TokenPassages, page_of, table_of

if TYPE_CHECKING:
    from cutaway.features.examples import TokenExample

#: Features that a page shows, and examples of each; dead ones that it names.
_SHOWN, _EXAMPLES, _NAMED = 12, 5, 60


def density_figure(counts: NDArray[np.int64], tokens: int) -> Any:
    """How many features are active on which share of the tokens, by powers of ten."""
    share = counts[counts > 0] / max(1, tokens)
    least = int(np.floor(np.log10(share.min()) + 1e-9)) if len(share) else 0
    found = [Bar.of("never", float((counts == 0).sum()))]
    for power in range(least, 0):
        inside = (share >= 10.0**power) & (share < 10.0 ** (power + 1))
        found.append(Bar.of(f"{_percent(power)} to {_percent(power + 1)}", float(inside.sum())))
    found.append(Bar.of("always", float((share >= 1).sum())))
    return bars(found, unit="features active on that share of tokens")


def _percent(power: int) -> str:
    return f"{10.0 ** (power + 2):g} %"


def index_page(index: Any) -> Page:
    """The page of a `FeatureIndex`."""
    table = index.to_pandas()
    alive = table[table["tokens"] > 0].sort_values("tokens", ascending=False, kind="stable")
    names = {"mean_when_active": "mean when active"}
    blocks: list[Any] = [
        Figure(index.plot(), "How many features are active on which share of the tokens."),
        table_of(alive.head(_SHOWN).rename(columns=names), "The most frequent features."),
        table_of(
            alive.tail(_SHOWN)[::-1].rename(columns=names),
            "The least frequent of those that are ever active.",
        ),
    ]
    if dead := index.dead:
        more = f" and {len(dead) - _NAMED} more" if len(dead) > _NAMED else ""
        blocks.append(Points((("Active on no token: ", f"{', '.join(dead[:_NAMED])}{more}."),)))
    passages = [
        TokenPassages(
            tuple(passage(e) for e in index.examples(int(i), _EXAMPLES, one_per_text=True)), str(row)
        )
        for i, row in alive["feature"].head(_SHOWN).items()
    ]
    sections = [*blocks, Section("examples", "Where the most frequent are strongest", passages)]
    return page_of(index, "Cutaway · features", f"{index.name} of {index.provenance.network}.", sections)


def passage(example: TokenExample) -> TokenPassage:
    """An example coloured by what was read, the strongest token in full."""
    scale = max(map(abs, example.activations), default=0.0) or 1.0
    label = f"{example.activation:.3g} · text {example.text}, token {example.position}"
    return TokenPassage(example.tokens, tuple(v / scale for v in example.activations), example.at, label)

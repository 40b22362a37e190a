"""What replacing each part would change beyond a set that is replaced already, to first order, for all parts at once.

One forward and one backward pass give, for every part, (value that it would get - value that it has) . d metric / d value:
what attribution patching says, asked of a run in which other parts are replaced already. It says in which order to try
parts; what is believed is tried.

Nanda 2023, "Attribution Patching: Activation Patching At Industrial Scale"; Syed, Rager and Conmy 2023 (arXiv 2310.10348).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from cutaway.effects.baselines import Side
from cutaway.errors import BadBehaviour, NotFinite
from cutaway.interventions import Apply
from cutaway.network.memory import numbers_of, rows_at_once
from cutaway.network.parts import Part
from cutaway.network.sites import Site
from cutaway.network.slopes import slopes_of, without_parameter_gradients
from cutaway.sweeps import write_of
from cutaway.sweeps.masks import covered, mask_of
from cutaway.trials.bench import Bench, sites_of

#: Numbers that are held for each kept one: value, gradient, difference, product.
_HELD = 4


def slopes(
    bench: Bench, replaced: Iterable[Part], parts: Sequence[Part], back: bool = False
) -> np.ndarray | None:
    """What replacing each of `parts`, too, would change: [parts n], shares of the gap; None where there is no gradient.

    The clean prompts are run with the parts `replaced` holding what they hold on the corrupted prompts.

    Args:
        bench: whose examples are run.
        replaced: parts that hold their corrupted values.
        parts: of which it is said what giving them their corrupted values would change, or, of those that are replaced, what
            giving them their clean values back would.
        back: start from the corrupted prompts, where `replaced` hold their clean values, and give parts their clean values.
    """
    gone = frozenset(replaced)

    def depends_on() -> list[object]:
        names = [[str(part) for part in some] for some in (sorted(gone), parts)]
        return [bench.net.hash, bench.behaviour.hash, bench.chosen.tolist(), names, back]

    def make() -> np.ndarray:
        found = _slopes(bench, gone, parts, back)
        return np.zeros((0, 0)) if found is None else found

    kept = bench.work.once("gradient", make, lambda x: {"x": x}, lambda kept: kept["x"], depends_on)
    return kept if kept.size else None


def _slopes(bench: Bench, gone: frozenset[Part], parts: Sequence[Part], back: bool) -> np.ndarray | None:
    sites = sites_of([*parts, *gone])
    base, source = (
        (bench.ends.corrupted, bench.ends.clean) if back else (bench.ends.clean, bench.ends.corrupted)
    )
    here, found = bench.chosen, []
    width = base.tokens.width
    numbers = sum(numbers_of(bench.net, site, width) for site in sites) // max(1, width)
    alive = 16 * (bench.net.d_model or 64) * max(1, bench.net.n_layers)
    size = rows_at_once(bench.net, width, bench.work, kept=_HELD * numbers + alive)
    for start in range(0, len(here), size):
        bench.work.step("weighing parts by one gradient", start, len(here))
        rows = torch.from_numpy(here[start : start + size])
        products = _products(bench, base, source, sites, gone, rows)
        if products is None:
            return None
        writes = [write_of(part) for part in parts]
        sums = [covered(products[w.where], w).flatten(1).sum(1).cpu().numpy() for w in writes]
        found.append(np.stack(sums))
    return np.concatenate(found, 1) / bench.scale.gap


def _products(
    bench: Bench, base: Side, source: Side, sites: list[Site], gone: frozenset[Part], rows: Tensor
) -> dict[Site, Tensor] | None:
    """(other value - present value) * gradient at each site, for these rows; None where nothing depends on them."""
    net, positions = bench.net, bench.ends.positions[rows]
    new = {site: source.kept[site][rows.to(source.kept[site].device)] for site in sites}
    old = {site: base.kept[site][rows.to(base.kept[site].device)] for site in sites}
    writes = [write_of(part) for part in gone]
    masks = {site: mask_of([w for w in writes if w.where == site], new[site]) for site in sites_of(gone)}
    edits = [Apply(site, _replacing(masks[site], new[site])) for site in masks]
    with without_parameter_gradients(net.model):
        run = net.run(base.tokens[rows], keep=sites, edits=edits, logits=positions[:, None], grad=True)
        assert run.logits is not None
        score = bench.ends.score(run.logits[:, 0], rows)
        if not score.requires_grad:
            return None
        try:
            found = slopes_of(score, run, sites)
        except BadBehaviour:
            return None
    values = {site: run[site].detach() for site in sites}
    products = {}
    for site in sites:
        other = new[site].to(values[site])
        if site in masks:  # of what is replaced already: the value before that
            other = torch.where(masks[site], old[site].to(other), other)
        products[site] = torch.where(
            other == values[site], 0.0, (other - values[site]) * found[site]
        ).double()
        if not bool(torch.isfinite(products[site]).all()):
            raise NotFinite(
                f"The gradient at {site} is NaN or infinite.", "Use a wider dtype, such as float32."
            )
    return products


def _replacing(mask: Tensor, new: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda value: torch.where(mask.to(value.device), new.to(value), value)

"""Attribution patching: what patching every cell would do, estimated from one gradient.

To first order the metric changes by (source value - base value) . dm/dvalue when a value of the base run is replaced by that
of the source run. Two forward passes and one backward pass give that for every cell at once, where patching takes a pass for
each.

Nanda 2023, "Attribution Patching: Activation Patching At Industrial Scale"; Syed, Rager and Conmy 2023 (arXiv 2310.10348).
Where it goes wrong, above all at saturated attention and at the stream of early layers, is told by Kramar et al. 2024 (AtP*,
arXiv 2403.00745). With several steps the gradient is the mean of those at inputs on the way from one prompt to the other
(integrated gradients: Hanna, Pezzelle and Belinkov 2024, arXiv 2403.17806).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from cutaway.behaviours import Prompts
from cutaway.effects.baselines import Baselines, Side, behaviour_of, ends_of, positions_of, side_of
from cutaway.effects.box import UNITS, Box, box_of, checked, sites_of, span_columns
from cutaway.effects.effects import Effects
from cutaway.effects.finite import require_finite
from cutaway.effects.patching import By, at_answer, position_labels
from cutaway.effects.question import DIRECTIONS, Direction, Question, require_one_of
from cutaway.errors import BadBehaviour, BadInput
from cutaway.interventions import Patch
from cutaway.network.memory import numbers_of, rows_at_once
from cutaway.network.pricing import announce
from cutaway.network.sites import Site
from cutaway.network.slopes import independent, require_slope, slopes_of, without_parameter_gradients
from cutaway.results import Work, strict, working
from cutaway.sweeps import CellState, CellValues
from cutaway.sweeps.footprint import require_room

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.behaviours.prompts import AnswerLike, PromptLike
    from cutaway.network import Network, Run

_INPUT = Site("resid_pre", 0)
_SAID = (
    "An estimate to first order, by gradients: intervals and significance are about the estimate over pairs, not about how "
    "far it lies from the effect itself. Patch what stands out: cutaway.patch."
)
#: Numbers that are held for each kept one: value, gradient, difference, product.
_HELD = 4


@strict
def attribution_patch(
    net: Network,
    behaviour: Behaviour | str | None = None,
    *,
    clean: PromptLike | None = None,
    corrupted: PromptLike | None = None,
    answers: AnswerLike | None = None,
    at: str = "resid_pre",
    by: By = ("layer", "position"),
    direction: Direction = "restore",
    layers: Sequence[int] | None = None,
    steps: int = 1,
    seed: int = 0,
    work: Work | None = None,
) -> Effects:
    """Estimate what `patch` would find in every cell, from two forward passes and one backward pass: the cheap first look.

    effect = (source value - base value) . d metric / d value at the base run, summed over what a cell covers, as a share of
    the gap. It is exact where the metric is linear in the site, and an approximation elsewhere: worst for attention that is
    saturated and for the stream of early layers. What it finds is to be patched before it is believed.

    Args:
        net: the network.
        behaviour: pairs of prompts, answers and metric, or the name of a built-in behaviour.
        clean, corrupted, answers: in place of a behaviour two prompts of yours, or lists of them, and the right and the
            wrong answer, each one token with its space: `(" Mary", " John")`.
        at: which site, as in `patch`.
        by: the dimensions of the sweep, as in `patch`.
        direction: `restore` estimates clean values in the corrupted run, `corrupt` the other way.
        layers: only these; default every layer that has the site.
        steps: 1 takes the gradient at the base run; more average it over so many inputs on the way from the source prompt's
            embedding to the base prompt's (integrated gradients), which costs a forward and a backward pass each.
        seed: of the sign-flip test, and of a behaviour that is given by name.
        work: hears of progress, and may end it.

    Returns:
        `Effects` with the axes, the normalisation and the states of `patch`.

    Raises:
        BadBehaviour: the metric has no gradient (accuracy; KL at the clean run), there is no gap, or positions were asked
            for and pairs differ in length.
        SiteUnavailable, BadInput, NotFinite: as `patch`.
    """
    require_one_of(direction, DIRECTIONS, "direction")
    if steps < 1:
        raise BadInput(f"A mean over {steps} gradients is none.", "Use steps=1, or 5 or more.")
    began = time.perf_counter()
    with working(work).interruptible() as work:
        pairs = behaviour_of(net, behaviour, seed, Prompts(clean, corrupted, answers), "attribution_patch")
        pairs.require_pairs("Attribution patching")
        if steps > 1:
            pairs.require_aligned("A mean of gradients between two prompts")
        if pairs.metric.needs == "reference" and direction == "corrupt" and steps == 1:
            raise BadBehaviour(
                f"{pairs.metric.name} is least at the clean run itself, so its gradient is zero there.",
                "Use direction='restore', steps=5, or a metric such as logit_diff.",
            )
        price = [("one side", pairs.n), ("gradients", 3 * steps * pairs.n)]
        announce(
            net, pairs.clean_ids, work, "attribution patching", price, gradients=3 * steps / (3 * steps + 1)
        )
        site, estimate, ends = estimates(net, pairs, at, by, direction, layers, steps, work)
        base = ends.corrupted if direction == "restore" else ends.clean
        labels = position_labels(pairs, ends, estimate.box)
        said = "" if pairs.aligned else "Answer position only: clean and corrupted prompts differ in length. "
        how = "attribution patching" + (f" over {steps} steps" if steps > 1 else "")
        asked = (net, pairs, ends, base, site, direction, estimate.box.coordinates())
        question = Question(*asked, labels, said + _SAID, seed, began, how)
        return question.effects(CellValues(base.metric + estimate.values, estimate.states, False))


def estimates(
    net: Network,
    pairs: Behaviour,
    at: str,
    by: By,
    direction: Direction,
    layers: Sequence[int] | None,
    steps: int,
    work: Work,
) -> tuple[str, CellEstimates, Baselines]:
    """The site by name, the estimates of `attribution_patch` as changes of the metric, and both ends, which come from the
    same passes; nothing is announced.
    """
    site, chosen, dims = checked(net, pairs, at, by, layers)
    names = ("corrupted", "clean") if direction == "restore" else ("clean", "corrupted")
    slopes = Slopes.of(net, pairs, sites_of(site, chosen), names, steps, work)
    found = slopes.estimate(site, dims, chosen)
    return site, found, ends_of(pairs, *(slopes.sides[name] for name in ("clean", "corrupted")))


@dataclass(frozen=True, eq=False)
class CellEstimates:
    """Estimated changes of the metric.

    Attributes:
        box: the cells.
        values: [cells n], NaN where there is no such place.
        states: [cells n] of `CellState`.
    """

    box: Box
    values: np.ndarray
    states: np.ndarray


@dataclass(frozen=True, eq=False)
class Slopes:
    """Both sides of a behaviour on their way to an estimate.

    Attributes:
        net, behaviour, sites, steps, work: as asked.
        base, source: the names of the sides.
        sides: by name; the logits of the base are filled in by `estimate`.
    """

    net: Network
    behaviour: Behaviour
    sites: list[Site]
    base: str
    source: str
    steps: int
    work: Work
    sides: dict[str, Side]

    @classmethod
    def of(
        cls,
        net: Network,
        behaviour: Behaviour,
        sites: list[Site],
        names: tuple[str, str],
        steps: int,
        work: Work,
    ) -> Slopes:
        """Run the source side and keep its sites."""
        tokens = behaviour.clean_tokens(net)
        keep = [*sites, *([_INPUT] if steps > 1 and _INPUT not in sites else [])]
        if steps > 1:
            net.resolve(_INPUT)
        require_room(net, keep, tokens.n, tokens.size, work)
        base, source = names
        return cls(
            net,
            behaviour,
            sites,
            base,
            source,
            steps,
            work,
            {source: side_of(net, behaviour, source, keep, work)},
        )

    def estimate(self, site: str, dims: tuple[str, ...], layers: tuple[object, ...]) -> CellEstimates:
        """The estimates, and the base side's logits, which come from the same passes."""
        behaviour, net, source = self.behaviour, self.net, self.sides[self.source]
        tokens = behaviour.clean_tokens(net) if self.base == "clean" else behaviour.corrupted_tokens(net)
        shell = Side(tokens, np.zeros(0), source.logits, source.kept)
        box = box_of(behaviour, site, dims, layers, shell)
        spans = span_columns(behaviour, shell) if "span" in dims else {}
        numbers = sum(numbers_of(net, s, tokens.width) for s in self.sites) // max(1, tokens.width)
        alive = 16 * (net.d_model or 64) * max(1, net.n_layers)
        size = rows_at_once(net, tokens.size, self.work, kept=_HELD * numbers + alive)
        logits, parts, touched = [], [], []
        for start in range(0, tokens.n, size):
            self.work.step("attribution patching", start, tokens.n)
            rows = torch.arange(start, min(start + size, tokens.n))

            def estimated(rows: Tensor = rows) -> dict[str, Any]:
                said, products = _Batch(self, tokens, rows).products()
                real, first = tokens.mask[rows], tokens.first[rows]
                columns = {name: mask[rows] for name, mask in spans.items()}
                each = [_cells(s, products[s], box, real, first, columns) for s in self.sites]
                values, some = (np.stack([c[i] for c in each]) for i in (0, 1))
                return {"logits": said, "values": values, "some": some}

            of = [net.hash, behaviour.hash, self.base, list(map(str, self.sites)), dims, self.steps, rows]
            found = self.work.once("estimates", estimated, dict, dict, lambda of=of: of)
            logits.append(found["logits"].to(net.device))
            parts.append(found["values"])
            touched.append(found["some"])
        self.sides[self.base] = Side(tokens, np.zeros(0), torch.cat(logits), {})
        require_finite(net, tokens, self.sides[self.base].logits, f"{self.base} prompts")
        values, some = (np.concatenate(p, -1).reshape(-1, behaviour.n) for p in (parts, touched))
        states = np.where(some, CellState.RUN, CellState.KNOWN_ZERO).astype(np.int8)
        states[np.isnan(values)] = CellState.ABSENT
        return CellEstimates(box, values, states)


class _Batch:
    """Some rows of both sides: their gradients, and the products with the differences."""

    def __init__(self, slopes: Slopes, tokens: object, rows: Tensor) -> None:
        self.slopes, self.rows = slopes, rows
        self.tokens = tokens[rows]  # type: ignore[index]
        self.source = {s: v[rows.to(v.device)] for s, v in slopes.sides[slopes.source].kept.items()}
        self.positions = positions_of(slopes.behaviour)[rows]

    def products(self) -> tuple[Tensor, dict[Site, Tensor]]:
        """Logits [b v] of the base, and (source - base) * gradient at each site, laid out as the site."""
        mine = self.slopes
        keep = list(self.source)
        run, slopes = self._backward(keep)
        require_slope(slopes)
        logits, values = run.logits, {s: run[s].detach() for s in keep}
        assert logits is not None
        deltas = {s: self._delta(s, values[s]) for s in mine.sites}
        total = {s: slopes[s] for s in mine.sites}
        for k in range(1, mine.steps):
            mixed = self.source[_INPUT] + k / mine.steps * (values[_INPUT] - self.source[_INPUT])
            _, more = self._backward(mine.sites, [Patch(_INPUT, source=mixed)])
            require_slope(more)
            total = {s: total[s] + more[s] for s in mine.sites}
        return logits[:, 0].detach(), {s: deltas[s] * total[s] / mine.steps for s in mine.sites}

    def _backward(self, keep: Sequence[Site], edits: Sequence[Patch] = ()) -> tuple[Run, dict[Site, Tensor]]:
        net, behaviour = self.slopes.net, self.slopes.behaviour
        with without_parameter_gradients(net.model):
            where = self.positions[:, None]
            run = net.run(self.tokens, keep=list(keep), edits=list(edits), logits=where, grad=True)
            assert run.logits is not None
            logits = run.logits[:, 0]
            answers = behaviour.answers
            answers = answers[self.rows.to(answers.right.device)]
            if behaviour.metric.needs == "reference":
                own = self.slopes.base == "clean"
                clean = logits.detach() if own else self.slopes.sides["clean"].logits[self.rows]
                answers = answers.with_reference(clean)
            score = behaviour.metric(logits, answers)
            if not score.requires_grad:
                raise independent()
            return run, slopes_of(score, run, list(keep))

    def _delta(self, site: Site, value: Tensor) -> Tensor:
        """What patching would change at a site; zero where both sides agree (also in minus infinity)."""
        new = self.source[site].to(value)
        if not self.slopes.behaviour.aligned:
            sides = self.slopes.sides[self.slopes.source].tokens[self.rows]
            into, out_of = (t.columns(self.positions[:, None])[:, 0].cpu() for t in (self.tokens, sides))
            new = at_answer(site, value, new, into, out_of)
        return torch.where(new == value, torch.zeros_like(value), new - value)


def _cells(
    site: Site, product: Tensor, box: Box, real: Tensor, first: Tensor, spans: Mapping[str, Tensor]
) -> tuple[np.ndarray, np.ndarray]:
    """The sums of one layer's products over what each cell covers, and whether any of them is not zero: [... b] each.

    The dimensions are those of the box without its layers, in its order; places that do not exist are NaN.
    """
    axes = list(site.axes) if not site.module else ["batch", "channel", *["y", "x"][: product.ndim - 2]]
    at = next((i for i, a in enumerate(axes) if a in ("pos", "dest")), None)
    if at is not None:
        shape = [1] * product.ndim
        shape[0], shape[at] = real.shape
        product = product * real.to(product.device).reshape(shape)
    kept: dict[str, int] = {"batch": 0}
    for i, axis in enumerate(axes):
        if axis in ("pos", "dest") and {"position", "span"} & set(box.by):
            kept["position"] = i
        elif axis in ("head", "kv_head") and "head" in box.by:
            kept["head"] = i
        elif (
            axis in ("width", "head_width", "hidden", "expert", "feature")
            and i == len(axes) - 1
            and set(UNITS) & set(box.by)
        ):
            kept["unit"] = i
        elif axis == "channel" and "channel" in box.by:
            kept["channel"] = i
    order = ["batch", *(n for n in ("head", "unit", "channel", "position") if n in kept)]
    others = [i for i in range(product.ndim) if i not in kept.values()]
    found = []
    for table in (product.double(), (product != 0).double()):
        sums = table.sum(others) if others else table
        names = [n for n, _ in sorted(kept.items(), key=lambda item: item[1])]
        sums = sums.permute([names.index(n) for n in order])
        if "span" in box.by:
            masks = torch.stack([spans[name] for name in box.spans]).to(sums)
            sums = torch.einsum("b...p,sbp->b...s", sums, masks)
        elif "position" in box.by:
            columns = first[:, None] + torch.arange(box.positions or 0)
            there = (columns < real.shape[1]) & real.gather(1, columns.clamp(max=real.shape[1] - 1))
            index = columns.clamp(max=real.shape[1] - 1).to(sums.device)
            index = index.reshape(len(index), *[1] * (sums.ndim - 2), -1).expand(*sums.shape[:-1], -1)
            sums = sums.gather(-1, index)
            gone = ~there.reshape(len(there), *[1] * (sums.ndim - 2), -1).to(sums.device)
            sums = sums.masked_fill(gone, torch.nan)
        found.append(sums.movedim(0, -1).cpu().numpy())
    wanted = list(box.shape[1:])
    room = [(0, n - have) for n, have in zip(wanted, found[0].shape, strict=False)]
    values = np.pad(found[0], [*room, (0, 0)], constant_values=np.nan)
    return values, np.pad(np.nan_to_num(found[1]), [*room, (0, 0)]) > 0

"""One dictionary while it is trained: its parameters, and a step on a batch of rows.

Parameters live in *normalised* space: rows come as (x - mean) * scale, with one scale for each place. The encoder is kept as
rows [F d], one for each latent, like the decoders; those of a source that writes to several targets stand side by side in
one matrix [F D], whose rows have length one where the recipe asks for it. What each activation does and is charged for is
said in `objectives`, how dead latents are revived in `reviving`, how parameters move in `adam`.

The loss is, for each target, the mean squared error over the variance of the batch (its FVU), the mean over prefixes where
there are several, the mean over targets; plus what is charged for firing, the mean over sources; plus `recipe.revive` times
what dead latents leave of the error, the mean over sources; plus, where it is gated, the FVU of the reconstruction that the
gates alone make through a decoder that gets no gradient from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cutaway.errors import BadInput, NotFinite
from cutaway.features.dictionaries.dictionary import Dictionary
from cutaway.features.training.adam import RowAdam
from cutaway.features.training.beginning import first_values
from cutaway.features.training.folding import folded
from cutaway.features.training.kernels import Full, Layout, full, listed
from cutaway.features.training.objectives import (
    CHARGED,
    FIRST,
    TREND,
    Fired,
    charge,
    fire,
    log_of,
    rule_of,
    steered,
)
from cutaway.features.training.recipe import DictionaryRecipe
from cutaway.features.training.reviving import revival, sample
from cutaway.features.training.selection import Rule, scan
from cutaway.features.training.wiring import k_aux_of, wire

#: The share of entries that matter from which on ordinary products are quicker than lists.
DENSE_FROM = 0.2
#: How much faster thresholds learn than directions, in units of their bandwidth: rows are long, so that pre-activations move
#: by much more in a step than any one number of an encoder.
THRESHOLD_RATE = 20.0
#: Decay of the running mean of the smallest activations that a batch keeps.
_KEEP = 0.99


@dataclass(frozen=True)
class StepReport:
    """What one step saw, before it changed anything.

    Attributes:
        fvu: squared error of the whole reconstruction over the variance of the batch, the mean over targets.
        l0: latents that fired on a row, the mean over rows and sources.
        dead: latents that have not fired for `recipe.dead_after` rows, of all sources together.
        loss: every term of the loss by name, as it was added.
    """

    fvu: float
    l0: float
    dead: int
    loss: Mapping[str, float]


@dataclass(frozen=True, eq=False)
class Reconstructed:
    """What a dictionary makes of a batch, with gradients.

    Attributes:
        rows: [n d], what each source read.
        fired: what the latents of each source do.
        made: [n parts d] for each target, the reconstruction by the latents up to each prefix; the last is the whole.
        gated: the same by the gates through decoders without gradient; empty where it is not gated.
        touched: bool [F] for each source, the latents that may get a gradient.
    """

    rows: tuple[Tensor, ...]
    fired: tuple[Fired, ...]
    made: tuple[Tensor, ...]
    gated: tuple[Tensor, ...]
    touched: list[Tensor]


class Trainee:
    """A dictionary that is being trained.

    recipe: every setting. widths_in, widths_out: of the places it reads and of its targets. dtype: float32 or float64.
    """

    def __init__(
        self, recipe: DictionaryRecipe, widths_in: tuple[int, ...], widths_out: tuple[int, ...],
        dtype: torch.dtype = torch.float32,
    ) -> None:  # fmt: skip
        if dtype not in (torch.float32, torch.float64):
            raise BadInput(f"A dictionary is not trained in {dtype}.", "Give float32 or float64.")
        self.recipe = recipe
        self.wiring = wire(recipe, tuple(widths_in), tuple(widths_out))
        self.bounds = recipe.prefixes or (recipe.latents,)
        self.dense_from = DENSE_FROM
        self.parameters = first_values(recipe, self.wiring, dtype)
        self.adam = RowAdam()
        for group, names in self._groups().items():
            self.adam.add(group, {name: self.parameters[name] for name in names})
        n = len(self.wiring.reads)
        self._since = torch.zeros(n, recipe.latents, dtype=torch.int64)
        first = 0.0 if recipe.activation == "jumprelu" else FIRST
        self._coefficients = [first] * n
        self._bandwidths = [0.0] * n
        self._running = [0.0] * n
        self._weights = [0.0] * n
        self._trends = [float("nan")] * n

    def _groups(self) -> dict[str, list[str]]:
        """Names of the parameters that learn, those of one source's latents together."""
        groups: dict[str, list[str]] = {}
        for name, parameter in self.parameters.items():
            if parameter.requires_grad:
                kind, number = name.split(".")[:2]
                group = f"latents.{number}" if kind in ("encoders", "decoders") else f"{kind}.{number}"
                groups.setdefault(group, []).append(name)
        return groups

    def extras(self, source: int) -> dict[str, Tensor]:
        """The vectors of a source's latents by name: `bias`, and what its activation has beside."""
        start = f"encoders.{source}."
        return {
            name.removeprefix(start): value for name, value in self.parameters.items()
            if name.startswith(start) and not name.endswith(".weight")
        }  # fmt: skip

    # one step ----------------------------------------------------------------------------------------------------------

    def step(self, reads: Sequence[Tensor], writes: Sequence[Tensor], progress: float) -> StepReport:
        """Learn from one batch of normalised rows.

        reads: [n d] for each place of `recipe.reads`; writes: [n d] for each target. progress: the share of the training
        that is done, 0 to 1; the learning rate goes by it.

        Raises `BadInput` for rows that do not fit or a target that does not vary, `NotFinite` for rows or a loss that are
        not finite; nothing is changed then.
        """
        done = self.run(reads)
        terms, fvu = self.terms(done, writes)
        report = StepReport(
            fvu, sum(self._counts(done)) / len(done.fired), int((self._since >= self.recipe.dead_after).sum()),
            {name: float(term.detach()) for name, term in terms.items()},
        )  # fmt: skip
        self.update(sum(terms.values(), torch.zeros(())), done, progress)
        return report

    def run(self, reads: Sequence[Tensor]) -> Reconstructed:
        """What it makes of normalised rows [n d] of each place, with gradients for parameters and for rows that want one."""
        self._check(reads, self.wiring.widths_in, "read")
        rows = tuple(
            reads[places[0]] if len(places) == 1 else torch.cat([reads[i] for i in places], 1)
            for places in self.wiring.reads
        )  # fmt: skip
        fired = tuple(self._fire(s, row) for s, row in enumerate(rows))
        decoders = [self.parameters[f"decoders.{s}.weight"] for s in range(len(rows))]
        wide = [f.layout.decoded(f.values, d) for f, d in zip(fired, decoders, strict=True)]
        made = self._made(wide, reads, detached=False)
        gates: list[Tensor] = []
        if self.recipe.activation == "gated":
            through = [
                f.layout.decoded(f.gates, d.detach()) for f, d in zip(fired, decoders, strict=True) if f.gates is not None
            ]  # fmt: skip
            gates = self._made(through, reads, detached=True)
        return Reconstructed(rows, fired, tuple(made), tuple(gates), [f.layout.touched for f in fired])

    def _fire(self, source: int, rows: Tensor) -> Fired:
        recipe, plain = self.recipe, rows.detach()
        weight, extras = self.parameters[f"encoders.{source}.weight"], self.extras(source)
        bias = extras["bias"]
        if not self._bandwidths[source]:
            self._begin(source, plain)
        rule = rule_of(recipe, extras, self._bandwidths[source])
        found = scan(plain, weight.detach(), bias.detach(), rule, self.dense_from)
        layout: Layout
        if found is None:
            assert rule.threshold is not None
            pre = torch.addmm(bias, rows, weight.T)
            return fire(
                recipe,
                Full(pre.detach() > rule.threshold, self.bounds),
                pre,
                extras,
                self._bandwidths[source],
            )
        many = found.flat.numel() > self.dense_from * rows.shape[0] * recipe.latents
        layout = (full if many else listed)(found.flat, rows.shape[0], recipe.latents, self.bounds)
        pre = layout.encoded(rows, weight, bias, found.values)
        return fire(recipe, layout, pre, extras, self._bandwidths[source])

    @torch.no_grad()
    def _begin(self, source: int, rows: Tensor) -> None:
        """What the first rows decide. Where a source reads what it writes and a number of latents fire, its encoder is
        scaled for the least error (never up). Thresholds begin where k latents fire on a row, and the bandwidth of their
        gradient is half of that; of other activations it is one and not read."""
        recipe, start = self.recipe, f"encoders.{source}."
        self._bandwidths[source] = 1.0
        if recipe.activation in ("relu", "gated"):
            return
        weight, bias = self.parameters[start + "weight"], self.parameters[start + "bias"]
        rule = Rule("batch", recipe.k) if recipe.activation == "jumprelu" else rule_of(recipe, {}, 0.0)
        found = scan(rows, weight, bias, rule)
        assert found is not None
        scale = 1.0
        if recipe.kind in ("autoencoder", "crosscoder") and weight.requires_grad and found.values.numel():
            at = listed(found.flat, rows.shape[0], recipe.latents, (recipe.latents,))
            made = at.decoded(found.values, self.parameters[f"decoders.{source}.weight"])[:, 0]
            scale = min(1.0, max(0.05, float((made * rows).sum() / made.square().sum())))
            weight.mul_(scale)
        if recipe.activation == "jumprelu" and found.values.numel():
            lowest = (
                float(found.values.min()) * scale * 0.999
            )  # below what just fires, or rounding decides about it
            self.parameters[start + "threshold"].fill_(lowest)
            self._bandwidths[source] = lowest / 2

    def _made(self, wide: list[Tensor], reads: Sequence[Tensor], detached: bool) -> list[Tensor]:
        """Each target's reconstruction from what sources write [n parts D], its bias and its skip connection."""
        sums: dict[int, Tensor] = {}
        for s, piece in enumerate(wide):
            parts = piece.split(list(self.wiring.spans(s).values()), -1)
            for t, part in zip(self.wiring.writes[s], parts, strict=True):
                sums[t] = sums[t] + part if t in sums else part
        made = []
        for t in range(len(self.wiring.widths_out)):
            bias, skip = self.parameters[f"biases.{t}"], self.parameters.get(f"skips.{t}")
            total = sums[t] + (bias.detach() if detached else bias)
            if skip is not None:
                total = total + (reads[t] @ (skip.detach() if detached else skip).T)[:, None]
            made.append(total)
        return made

    def terms(self, done: Reconstructed, writes: Sequence[Tensor]) -> tuple[dict[str, Tensor], float]:
        """Every term of the loss by name, as it is to be added, and the FVU; `done` learns which latents are called upon."""
        recipe, wiring = self.recipe, self.wiring
        self._check(writes, wiring.widths_out, "written", done.rows[0].shape[0])
        with torch.no_grad():
            spreads = [_squares(y - y.mean(0)) for y in writes]
            if not all(float(s) > 0 for s in spreads):
                raise BadInput("A target does not vary in this batch.", "Give rows of a site that does.")
        parts = len(self.bounds)

        def fvu(all_made: Sequence[Tensor]) -> Tensor:
            errors = [
                torch.nn.functional.mse_loss(made, y[:, None].expand_as(made), reduction="sum")
                for y, made in zip(writes, all_made, strict=True)
            ]
            return _mean(
                [e / (s * made.shape[1]) for e, s, made in zip(errors, spreads, all_made, strict=True)]
            )

        terms = {"reconstruction": fvu(done.made)}
        with torch.no_grad():
            whole = terms["reconstruction"] if parts == 1 else fvu([made[:, -1:] for made in done.made])
        if done.gated:
            terms["gates"] = fvu(done.gated)
        n = writes[0].shape[0]
        sources = range(len(done.fired))
        if recipe.activation in CHARGED:
            charges = []
            for s in sources:
                unit = float(sum(spreads[t] for t in wiring.writes[s]) / n) ** 0.5
                charges.append(
                    charge(recipe, done.fired[s], self._lengths(s), self.extras(s), unit, self._bandwidths[s], n,
                           self._coefficients[s])
                )  # fmt: skip
            terms["sparsity"] = _mean(charges)
        if recipe.revive and bool((self._since >= recipe.dead_after).any()):
            left = [y - made[:, -1].detach() for y, made in zip(writes, done.made, strict=True)]
            revived = [self._revive(s, done, [left[t] for t in wiring.writes[s]]) for s in sources]
            terms["revival"] = recipe.revive * _mean(revived)
        return terms, float(whole.detach())

    def _lengths(self, source: int) -> Tensor:
        """[F], the length of what each latent writes; of a crosscoder the sum of its lengths at all places."""
        decoder = self.parameters[f"decoders.{source}.weight"]
        if self.recipe.kind != "crosscoder":
            return torch.linalg.vector_norm(decoder, dim=1)
        parts = decoder.split(list(self.wiring.spans(source).values()), 1)
        return torch.stack([torch.linalg.vector_norm(part, dim=1) for part in parts]).sum(0)

    def _revive(self, source: int, done: Reconstructed, left: list[Tensor]) -> Tensor:
        dead = (self._since[source] >= self.recipe.dead_after).nonzero().squeeze(1)
        rows, k_aux = done.rows[source], k_aux_of(self.recipe, self.wiring, source)
        if not dead.numel():
            return rows.new_zeros(())
        seed = (self.recipe.seed * 1_000_003 + self.adam.steps) * 101 + source
        at = sample(rows.shape[0], self.recipe.k, k_aux, seed)
        start, decoder = f"encoders.{source}.", self.parameters[f"decoders.{source}.weight"]
        weight, bias = self.parameters[start + "weight"], self.parameters[start + "bias"]
        if (
            self.recipe.activation == "jumprelu"
        ):  # a threshold is a bias the other way round: it falls where the bias rises
            threshold = self.parameters[start + "threshold"]
            bias = bias + (threshold.detach() - threshold)
        loss, touched = revival(rows, weight, bias, decoder, torch.cat(left, 1), dead, k_aux, at)
        done.touched[source] = done.touched[source] | touched
        return loss

    def update(self, loss: Tensor, done: Reconstructed, progress: float) -> None:
        """Move all parameters against the gradient of a loss of what `run` gave, and take note of what fired.

        Raises `NotFinite` where the loss is not a finite number; nothing is changed then.
        """
        if not bool(torch.isfinite(loss)):
            raise NotFinite("The loss is not a finite number.", "Look for NaN or infinity among the rows.")
        groups = self._groups()
        names = [name for group in groups.values() for name in group]
        leaves = [self.parameters[name] for name in names]
        found = torch.autograd.grad(loss, leaves, allow_unused=True)
        gradients = {
            name: torch.zeros_like(leaf) if g is None else g
            for name, leaf, g in zip(names, leaves, found, strict=True)
        }  # fmt: skip
        counts, rate = self._counts(done), self.rate(progress)
        unit = tuple(n for n in names if n.startswith("decoders.")) if self.recipe.unit else ()
        self.adam.steps += 1
        for group, members in groups.items():
            kind, number = group.split(".")
            touched = done.touched[int(number)] if kind == "latents" else None
            held = {name: self.parameters[name] for name in members}
            rates = dict.fromkeys(members, rate)
            if kind == "latents":
                rates[f"encoders.{number}.weight"] = rate * self.recipe.encoder_rate
            if self.recipe.activation == "jumprelu" and kind == "latents":
                rates[f"encoders.{number}.threshold"] *= THRESHOLD_RATE * self._bandwidths[int(number)]
            self.adam.update(group, held, gradients, rates, touched, unit)
        for s, fired in enumerate(done.fired):
            if self.recipe.activation == "jumprelu":
                self.parameters[f"encoders.{s}.threshold"].detach().clamp_(min=0)
            self._since[s] += done.rows[s].shape[0]
            self._since[s][fired.layout.fired(fired.values.detach())] = 0
            if self.recipe.activation in CHARGED:
                now = log_of(counts[s])
                slow = (
                    TREND * self._trends[s] + (1 - TREND) * now if self._trends[s] == self._trends[s] else now
                )
                self._coefficients[s] = steered(self.recipe, self._coefficients[s], counts[s], slow)
                self._trends[s] = slow
            if self.recipe.activation == "batchtopk" and counts[s]:
                lowest = float(fired.values.detach()[fired.values.detach() > 0].min())
                self._weights[s] = _KEEP * self._weights[s] + (1 - _KEEP)
                self._running[s] = _KEEP * self._running[s] + (1 - _KEEP) * lowest

    def rate(self, progress: float) -> float:
        """The learning rate at a share of the training: up from zero, level, down to zero."""
        recipe = self.recipe
        up = progress / recipe.warmup if recipe.warmup else 1.0
        down = (1 - progress) / recipe.decay if recipe.decay else 1.0
        return recipe.rate * max(0.0, min(1.0, up, down))

    def _counts(self, done: Reconstructed) -> list[float]:
        return [
            float((f.values.detach() > 0).sum()) / r.shape[0]
            for f, r in zip(done.fired, done.rows, strict=True)
        ]

    def _check(
        self, given: Sequence[Tensor], widths: Sequence[int], what: str, n_rows: int | None = None
    ) -> None:
        kinds = {self.parameters["biases.0"].dtype}
        counts = {n_rows} if n_rows is not None else set()
        if [t.shape[-1] if t.ndim == 2 else -1 for t in given] != list(widths):
            raise BadInput(
                f"Rows of shapes {[tuple(t.shape) for t in given]} are not what is {what}, of widths {list(widths)}.",
                "Give [n d] for each place, in the recipe's order.",
            )
        if len(counts | {t.shape[0] for t in given}) > 1 or not given[0].shape[0]:
            raise BadInput(
                "Places have different numbers of rows, or none.", "Give the same rows of all places."
            )
        if {t.dtype for t in given} != kinds:
            raise BadInput(f"Rows are not of type {next(iter(kinds))}.", "Give all of them in the trainee's.")
        if not all(bool(torch.isfinite(t.detach().sum())) for t in given):
            raise NotFinite(
                f"Rows that are {what} hold NaN or infinity.", "Leave them out, or look for their cause."
            )

    # going on, and using it --------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Tensor]:
        """Copies of everything that is needed to go on bit for bit, with the same number of threads."""
        found = {f"parameters.{name}": value.detach().clone() for name, value in self.parameters.items()}
        found |= {f"adam.{name}": value for name, value in self.adam.state().items()}
        for name, values in self._numbers().items():
            found[name] = torch.tensor(values, dtype=torch.float64)
        return found | {"since": self._since.clone()}

    def _numbers(self) -> dict[str, list[float]]:
        return {
            "coefficients": self._coefficients, "bandwidths": self._bandwidths,
            "running": self._running, "weights": self._weights, "trends": self._trends,
        }  # fmt: skip

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` gave. Raises `BadInput` where it is of another recipe; nothing is changed then."""
        mine = self.state()
        if {n: (t.shape, t.dtype) for n, t in mine.items()} != {
            n: (t.shape, t.dtype) for n, t in state.items()
        }:
            raise BadInput(
                "This state is not of this recipe.", "Load it into a trainee of the recipe it was saved with."
            )
        with torch.no_grad():
            for name, value in self.parameters.items():
                value.copy_(state[f"parameters.{name}"])
        prefix = "adam."
        self.adam.load({n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)})
        for name, values in self._numbers().items():
            values[:] = state[name].tolist()
        self._since.copy_(state["since"])

    def thresholds(self) -> list[float]:
        """Of "batchtopk", the threshold of each source in normalised units: the running mean of the smallest activation that
        a batch kept. Raises `BadInput` where no step was made since."""
        if not all(self._weights):
            raise BadInput(
                "The threshold of this dictionary was never set: no step with a firing latent was made.",
                "Train it, or load the state of a training.",
            )
        return [running / weight for running, weight in zip(self._running, self._weights, strict=True)]

    def dictionary(
        self, means_in: Sequence[Tensor], scales_in: Sequence[float], means_out: Sequence[Tensor],
        scales_out: Sequence[float], dtype: torch.dtype = torch.float32,
    ) -> Dictionary:  # fmt: skip
        """What was learned, raw values in, raw values out: see `folding`."""
        thresholds = self.thresholds() if self.recipe.activation == "batchtopk" else []
        return folded(
            self.recipe, self.wiring, self.parameters, thresholds, means_in, scales_in, means_out, scales_out, dtype
        )  # fmt: skip


def _squares(values: Tensor) -> Tensor:
    return torch.dot(values.reshape(-1), values.reshape(-1))


def _mean(values: list[Tensor]) -> Tensor:
    return torch.stack(values).mean()

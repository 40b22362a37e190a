"""Training a dictionary as its definition has it: dense, by plain autograd, with sorting and loops."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cutaway.features.training.objectives import AHEAD, FIRST, GAIN, SQUARE, TREND
from cutaway.features.training.recipe import DictionaryRecipe
from cutaway.features.training.reviving import sample
from cutaway.features.training.trainee import THRESHOLD_RATE, Trainee


def chosen(pre: Tensor, recipe: DictionaryRecipe) -> Tensor:
    """What fires: bool like pre [n F], by stable sorting."""
    n, size = pre.shape
    found = torch.zeros_like(pre, dtype=torch.bool)
    if recipe.activation == "topk":
        order = pre.argsort(dim=1, descending=True, stable=True)[:, : recipe.k]
        found.scatter_(1, order, True)
    elif recipe.activation == "batchtopk":
        order = pre.reshape(-1).argsort(dim=0, descending=True, stable=True)[: recipe.k * n]
        found.view(-1)[order] = True
    elif recipe.activation == "groupmax":
        width = size // recipe.k
        for row in range(n):
            for g in range(recipe.k):
                group = pre[row, g * width : (g + 1) * width].tolist()
                found[row, g * width + group.index(max(group))] = True
    else:
        found[:] = True
    return found & (pre > 0)


class Dense:
    """The dense trainer, from the state of a sparse one on."""

    def __init__(self, trainee: Trainee, bandwidths: list[float]) -> None:
        self.recipe, self.wiring = trainee.recipe, trainee.wiring
        self.p = {
            n: v.detach().clone().requires_grad_(v.requires_grad) for n, v in trainee.parameters.items()
        }
        self.m = {n: torch.zeros_like(v) for n, v in self.p.items()}
        self.v = {n: torch.zeros_like(v) for n, v in self.p.items()}
        self.bandwidths, self.steps = bandwidths, 0
        self.sources = range(len(self.wiring.reads))
        self.since = [trainee.state()["since"][s].clone() for s in self.sources]
        self.coefficients = [0.0 if self.recipe.activation == "jumprelu" else FIRST] * len(self.sources)
        self.slow: list[float | None] = [None] * len(self.sources)
        self.lowest: list[list[float]] = [[] for _ in self.sources]

    def activations(self, s: int, x: Tensor) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor]:
        """Activations, the gates of a gated one, steps of a jumprelu, and which entries may have a gradient."""
        at = f"encoders.{s}."
        pre = x @ self.p[at + "weight"].T + self.p[at + "bias"]
        if self.recipe.activation == "jumprelu":
            theta, width = self.p[at + "threshold"], self.bandwidths[s]
            on = (pre > theta).to(pre)
            near = ((pre - theta).abs() < width / 2).to(pre)
            moved = theta - theta.detach()  # zero, with the gradient of the threshold
            value = pre * on.detach() - (near * theta.detach() / width).detach() * moved
            return value, None, on.detach() - (near / width).detach() * moved, (near + on) > 0
        if self.recipe.activation == "gated":
            gate = (pre > 0).to(pre)
            product = x @ self.p[at + "weight"].T
            size = (self.p[at + "scale"].exp() * product + self.p[at + "magnitude"]).relu()
            return gate * size, pre.relu(), None, gate > 0
        on = chosen(pre.detach(), self.recipe)
        return pre * on, None, None, on

    def terms(self, reads: list[Tensor], writes: list[Tensor]) -> dict[str, Tensor]:
        """The terms of the loss; what was seen is kept in `seen`."""
        recipe, p, wiring = self.recipe, self.p, self.wiring
        n = reads[0].shape[0]
        xs = [torch.cat([reads[i] for i in places], 1) for places in wiring.reads]
        acts = [self.activations(s, x) for s, x in zip(self.sources, xs, strict=True)]
        spreads = [((y - y.mean(0)) ** 2).sum() for y in writes]
        bounds = recipe.prefixes or (recipe.latents,)

        def made(t: int, width: int, gates: bool) -> Tensor:
            total = (p[f"biases.{t}"].detach() if gates else p[f"biases.{t}"]).expand(n, -1)
            for s in self.sources:
                if t in wiring.writes[s]:
                    start = sum(wiring.widths_out[u] for u in wiring.writes[s][: wiring.writes[s].index(t)])
                    decoder = p[f"decoders.{s}.weight"][:width, start : start + wiring.widths_out[t]]
                    values = acts[s][1] if gates else acts[s][0]
                    total = total + values[:, :width] @ (decoder.detach() if gates else decoder)
            if recipe.skip:
                skip = p[f"skips.{t}"].detach() if gates else p[f"skips.{t}"]
                total = total + reads[t] @ skip.T
            return total

        def fvu(gates: bool) -> Tensor:
            found = [
                ((y - made(t, width, gates)) ** 2).sum() / spreads[t]
                for t, y in enumerate(writes)
                for width in bounds
            ]
            return sum(found) / len(found)

        terms = {"reconstruction": fvu(False)}
        if recipe.activation == "gated":
            terms["gates"] = fvu(True)
        if recipe.activation in ("relu", "gated", "jumprelu"):
            terms["sparsity"] = sum(self.charge(s, acts[s], spreads, n) for s in self.sources) / len(xs)
        touched = [a[3].any(0) for a in acts]
        dead = [(since >= recipe.dead_after).nonzero().squeeze(1) for since in self.since]
        if recipe.revive and any(d.numel() for d in dead):
            total = torch.zeros((), dtype=reads[0].dtype)
            for s in self.sources:
                if dead[s].numel():
                    left = torch.cat(
                        [writes[t] - made(t, recipe.latents, False) for t in wiring.writes[s]], 1
                    )
                    total = total + self.revival(s, xs[s], left.detach(), dead[s], touched[s])
            terms["revival"] = recipe.revive * total / len(xs)
        self.seen = (acts, touched)
        return terms

    def charge(self, s: int, act: tuple, spreads: list[Tensor], n: int) -> Tensor:
        recipe, wiring = self.recipe, self.wiring
        if act[2] is not None:
            excess = act[2].sum() / n / recipe.k - 1
            return self.coefficients[s] * excess + SQUARE / 2 * excess**2
        decoder = self.p[f"decoders.{s}.weight"]
        widths = [wiring.widths_out[t] for t in wiring.writes[s]] if recipe.kind == "crosscoder" else [-1]
        parts = decoder.split(widths, 1) if widths != [-1] else [decoder]
        lengths = sum((part**2).sum(1).sqrt() for part in parts)
        unit = math.sqrt(float(sum(spreads[t] for t in wiring.writes[s])) / n)
        sizes = (act[0] if act[1] is None else act[1]) * lengths * math.sqrt(recipe.k) / unit
        sizes = sizes.tanh() if recipe.penalty == "tanh" else sizes
        return self.coefficients[s] * sizes.sum(1).mean() / recipe.k

    def revival(self, s: int, x: Tensor, left: Tensor, dead: Tensor, touched: Tensor) -> Tensor:
        recipe, p = self.recipe, self.p
        k_aux = max(1, self.wiring.widths_out[self.wiring.writes[s][0]] // 2)
        rows = sample(x.shape[0], recipe.k, k_aux, (recipe.seed * 1_000_003 + self.steps) * 101 + s)
        bias = p[f"encoders.{s}.bias"]
        if recipe.activation == "jumprelu":
            theta = p[f"encoders.{s}.threshold"]
            bias = bias + theta.detach() - theta
        pre = x[rows] @ p[f"encoders.{s}.weight"].T + bias
        only = torch.full_like(pre, -torch.inf)
        only[:, dead] = pre.detach()[:, dead]
        order = only.argsort(dim=1, descending=True, stable=True)[:, : min(k_aux, dead.numel())]
        mask = torch.zeros_like(pre).scatter(1, order, 1.0)
        touched |= mask.any(0)
        made = (pre * mask) @ p[f"decoders.{s}.weight"]
        scale = ((left - left.mean(0)) ** 2).sum(1).mean()
        return ((left[rows] - made) ** 2).sum(1).mean() / scale

    def gradients(self, loss: Tensor) -> dict[str, Tensor]:
        names = [n for n, v in self.p.items() if v.requires_grad]
        found = torch.autograd.grad(loss, [self.p[n] for n in names], allow_unused=True)
        return {n: torch.zeros_like(self.p[n]) if g is None else g for n, g in zip(names, found, strict=True)}

    def step(self, reads: list[Tensor], writes: list[Tensor], rate: float) -> dict[str, Tensor]:
        """One step of Adam in which all moments decay and only touched rows move. Returns the terms."""
        recipe = self.recipe
        terms = self.terms(reads, writes)
        grads = self.gradients(sum(terms.values()))
        self.steps += 1
        acts, touched = self.seen
        with torch.no_grad():
            for name, g in grads.items():
                kind, number = name.split(".")[:2]
                w, rows = self.p[name], kind in ("encoders", "decoders")
                on = touched[int(number)] if rows else torch.ones(w.shape[0], dtype=torch.bool)
                on = on.reshape(-1, *[1] * (w.ndim - 1))
                unit = kind == "decoders" and recipe.unit
                if unit:
                    g = g - (g * w).sum(1, keepdim=True) * w
                g = torch.where(on, g, torch.zeros_like(g))
                self.m[name] = 0.9 * self.m[name] + 0.1 * g
                self.v[name] = 0.999 * self.v[name] + 0.001 * g * g
                first = self.m[name] / (1 - 0.9**self.steps)
                second = self.v[name] / (1 - 0.999**self.steps)
                own = rate
                if kind == "encoders" and name.endswith("weight"):
                    own = rate * recipe.encoder_rate
                if name.endswith("threshold"):
                    own = rate * THRESHOLD_RATE * self.bandwidths[int(number)]
                new = w - own * first / (second.sqrt() + 6.25e-10)
                if unit:
                    new = new / (new**2).sum(1, keepdim=True).sqrt()
                if name.endswith("threshold"):
                    new = new.clamp(min=0)
                w.copy_(torch.where(on, new, w))
            for s in self.sources:
                fired = acts[s][0] > 0
                self.since[s] = torch.where(
                    fired.any(0), torch.zeros_like(self.since[s]), self.since[s] + len(fired)
                )
                if recipe.activation == "batchtopk":
                    self.lowest[s].append(float(acts[s][0][fired].min()))
                self.steer(s, float(fired.sum()) / len(fired))
        return terms

    def steer(self, s: int, l0: float) -> None:
        k = self.recipe.k
        if self.recipe.activation == "jumprelu":
            self.coefficients[s] += GAIN * min(1.0, l0 / k - 1)
        elif self.recipe.activation in ("relu", "gated"):
            before = self.slow[s]
            self.slow[s] = math.log(l0) if before is None else TREND * before + (1 - TREND) * math.log(l0)
            off = math.log(l0 / k) + AHEAD * (math.log(l0) - self.slow[s])
            self.coefficients[s] *= math.exp(GAIN * max(-1.0, min(1.0, off)))

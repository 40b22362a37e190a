"""Adam over the latents that fired.

Parameters of a dictionary fall into rows, one for each latent, and a latent that nothing called upon in a step has no
gradient. Its row is left as it is, and so are its moments, until it is called upon again: they are then first multiplied
with beta ** (steps in between), which is what a step-by-step decay would have made of them. The result is that of Adam with
dense gradients in which only rows with a gradient move. Bias correction goes by the number of all steps.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

#: Numbers of a block that is updated at a time, so that it stays in the processor's cache.
_BLOCK = 2**18


@dataclass
class RowAdam:
    """Moments of parameters by name, and when each row was last touched.

    Attributes:
        betas: decay of the first and the second moment in a step.
        eps: added to the root of the second.
        dense_from: the share of touched rows from which on all rows are gone through, which is quicker; same result.
        first, second: moments, shaped like the parameters.
        stamps: for each group of parameters with the same rows, the step [F] at which its rows were last brought up to date.
        steps: how many were made.
    """

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 6.25e-10
    dense_from: float = 0.5
    first: dict[str, Tensor] = field(default_factory=dict)
    second: dict[str, Tensor] = field(default_factory=dict)
    stamps: dict[str, Tensor] = field(default_factory=dict)
    steps: int = 0

    def add(self, group: str, parameters: Mapping[str, Tensor]) -> None:
        """Take charge of parameters [F ...] whose rows are touched together."""
        for name, parameter in parameters.items():
            self.first[name] = torch.zeros_like(parameter, requires_grad=False)
            self.second[name] = torch.zeros_like(parameter, requires_grad=False)
            self.stamps[group] = torch.zeros(
                parameter.shape[0], dtype=torch.int64, device=parameter.device
            )  # fmt: skip

    @torch.no_grad()
    def update(
        self, group: str, parameters: Mapping[str, Tensor], gradients: Mapping[str, Tensor],
        rates: Mapping[str, float], touched: Tensor | None = None, unit: Collection[str] = (),
    ) -> None:  # fmt: skip
        """Move the touched rows (bool [F]; None for all) of a group's parameters against their gradients, in place.

        rates: of each of them. unit: those whose rows have length one: the part of a gradient along the row is taken off
        first, and rows are brought to length one again. `steps` is the number of this step, counted from one.
        """
        stamps = self.stamps[group]
        count = stamps.numel() if touched is None else int(touched.sum())
        if not count:
            return
        through = count >= self.dense_from * stamps.numel()
        on = None if touched is None or count == stamps.numel() else touched
        rows = None if through or touched is None else touched.nonzero().squeeze(1)
        since = self.steps - (stamps if rows is None else stamps[rows])
        fades = [(beta ** since.double()).unsqueeze(1) for beta in self.betas]
        for name, parameter in parameters.items():
            rate = rates[name]
            held = (parameter, gradients[name], self.first[name], self.second[name])
            flat = [t.detach().reshape(t.shape[0], -1) for t in held]
            size = max(1, _BLOCK // flat[0].shape[1])
            for start in range(0, since.numel(), size):
                block = slice(start, start + size)
                fade = [f[block].to(parameter.dtype) for f in fades]
                if rows is None:
                    here = on[block] if on is not None else None
                    self._move([t[block] for t in flat], fade, here, rate, name in unit)
                    continue
                taken = [t.index_select(0, rows[block]) for t in flat]
                self._move(taken, fade, None, rate, name in unit)
                for n in (0, 2, 3):
                    flat[n].index_copy_(0, rows[block], taken[n])
        if rows is None:
            stamps.fill_(self.steps)
        else:
            stamps[rows] = self.steps

    def _move(
        self, held: list[Tensor], fade: list[Tensor], on: Tensor | None, rate: float, unit: bool
    ) -> None:
        """One step of rows [n d], in place. on: bool [n], which of them move; None for all. Gradients of others are not
        read."""
        parameter, gradient, first, second = held
        if unit:
            gradient = gradient - (gradient * parameter).sum(1, keepdim=True) * parameter
        one, two = self.betas
        weights = (1 - one, 1 - two)
        if on is not None:
            gradient = torch.where(on[:, None], gradient, torch.zeros_like(gradient))
        first.mul_(fade[0]).add_(gradient, alpha=weights[0])
        second.mul_(fade[1]).addcmul_(gradient, gradient, value=weights[1])
        spread = (second / (1 - two**self.steps)).sqrt_().add_(self.eps)
        change = torch.div(first, spread, out=spread).mul_(rate / (1 - one**self.steps))
        if on is not None:
            change.mul_(on[:, None])
        parameter.sub_(change)
        if unit:
            length = parameter.norm(dim=1, keepdim=True)
            parameter.div_(
                length if on is None else torch.where(on[:, None], length, torch.ones_like(length))
            )

    def state(self) -> dict[str, Tensor]:
        """Copies of everything that is needed to go on."""
        held = {"first": self.first, "second": self.second, "stamps": self.stamps}
        found = {f"{kind}.{name}": t.clone() for kind, named in held.items() for name, t in named.items()}
        return found | {"steps": torch.tensor(self.steps)}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state` gave."""
        for kind, named in (("first", self.first), ("second", self.second), ("stamps", self.stamps)):
            for name, tensor in named.items():
                tensor.copy_(state[f"{kind}.{name}"])
        self.steps = int(state["steps"])

"""The certificate: numeric identities that show that each site is the tensor it is said to be, read and written.

Every identity is checked twice: on an undisturbed pass, and on a pass in which noise was added at every site. In the
second, what a site's value is computed from has been changed by us, so the identity holds only if the change was taken up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from cutaway.errors import NotFoldable
from cutaway.network.anatomy import Anatomy, NormedTap
from cutaway.network.certificate import Certificate, Check
from cutaway.network.certification.identities import (
    CheckedPass,
    Ledger,
    check_head,
    check_layer,
    check_normed,
    new_ledgers,
    relative_error,
)
from cutaway.network.edits import Here
from cutaway.network.execution.session import Session, SiteWork
from cutaway.network.inputs import Inputs
from cutaway.network.sites import SITES, Site, SiteKind, having
from cutaway.network.ungained import summed

Forward = Callable[[Inputs], Tensor | None]


def certify(
    model: nn.Module,
    anatomy: Anatomy,
    inputs: Inputs,
    forward: Forward,
    pad: Callable[[str], tuple[Inputs, Tensor] | None],
    tolerance: float,
    seed: int = 0,
) -> Certificate:
    """Check every identity that this anatomy claims; sites whose identity fails are refused with the reason.

    forward: runs the bare model on inputs and gives its logits. pad: gives inputs padded on one side with the mask of
    their real tokens, or None where padding does not apply.
    """
    found, anatomy = anatomy, _without_gain(model, anatomy)
    bare = forward(inputs)
    quiet = [s for s in anatomy.sites() if SITES[s.name].inside != "eager"]
    with _observed(model, anatomy, inputs, quiet):
        watched = forward(inputs)
    bitwise = None if bare is None or watched is None else torch.equal(bare, watched)
    ledgers = new_ledgers(anatomy)
    if bare is not None and watched is not None:
        ledgers["reading"].add("logits", watched, bare)
    calm, noisy = CheckedPass(), CheckedPass()
    with _observed(model, anatomy, inputs, anatomy.sites(), calm):
        patterned = forward(inputs)
    if bare is not None and patterned is not None:
        ledgers["pattern reading"].add("logits", patterned, bare)
    with _observed(model, anatomy, inputs, anatomy.sites(), noisy, 0.1, seed):
        forward(inputs)
    modules = {**dict(model.named_modules()), **anatomy.bare}
    for values in (calm, noisy):
        for stack in anatomy.stacks:
            for layer in stack.layers:
                check_layer(stack, layer, values, ledgers, modules, anatomy)
        check_normed(found, values, ledgers, modules)
        check_head(anatomy, values, ledgers, modules)
    _check_effects(model, anatomy, inputs, forward, ledgers["writing"], seed)
    pads = {side: check_padding(pad, side, forward, bare, ledgers, tolerance) for side in ("right", "left")}
    checks = tuple(
        c
        for n, ledger in ledgers.items()
        if (c := ledger.check(0.02 if n == "q.k -> scores" else tolerance)) is not None
    )
    refusals = _refusals(anatomy, checks)
    return Certificate(checks, refusals, bitwise, pads["right"], pads["left"])


def _without_gain(model: nn.Module, anatomy: Anatomy) -> Anatomy:
    """The same anatomy with every norm's output before its gain as a sum; refused where the norm has no such form."""
    modules, taps, refusals = dict(model.named_modules()), dict(anatomy.taps), dict(anatomy.refusals)
    for site, tap in anatomy.taps.items():
        if isinstance(tap, NormedTap):
            try:
                taps[site] = summed(tap, modules)
            except NotFoldable as error:
                del taps[site]
                refusals[site] = str(error)
    return replace(anatomy, taps=taps, refusals=refusals)


def _observed(
    model: nn.Module,
    anatomy: Anatomy,
    inputs: Inputs,
    sites: Iterable[Site],
    out: CheckedPass | None = None,
    noise: float = 0.0,
    seed: int = 0,
) -> Session:
    """A session that notes each site's value before and after adding noise of a given relative size."""
    generator = torch.Generator().manual_seed(seed)

    def edit(value: Tensor, here: Here) -> Tensor:
        new = value
        if noise and here.site.name.removeprefix("cross_") != "head_out":
            new = _noised(value, here, noise, generator)
        if out is not None:
            out.before[here.site], out.after[here.site] = value.detach().clone(), new.detach().clone()
        return new

    work = [SiteWork(s, anatomy.taps[s], edits=[edit]) for s in sites]
    return Session(model, anatomy, work, {"": inputs.tokens}, inputs.batch)


def _noised(value: Tensor, _here: Here, size: float, generator: torch.Generator) -> Tensor:
    finite = value[value.abs() < 1e30]
    scale = float(finite.double().std()) if finite.numel() > 1 else 1.0
    return value + (torch.randn(value.shape, generator=generator) * size * (scale or 1.0)).to(value)


def _check_effects(
    model: nn.Module,
    anatomy: Anatomy,
    inputs: Inputs,
    forward: Forward,
    ledger: Ledger,
    seed: int,
) -> None:
    names = having(lambda kind: "writing" in kind.vouched)  # no identity of their own
    for stack in anatomy.stacks:
        outcome = Site("resid_post", stack.layers[-1].index, stack.name) if stack.layers else None
        shown = [outcome] if outcome is not None and outcome in anatomy.taps else []
        alike = {
            name: [s for s in anatomy.sites() if (s.name, s.stack) == (name, stack.name)] for name in names
        }
        watched = list(dict.fromkeys([*(s for sites in alike.values() for s in sites), *shown]))

        def after(
            noised: Sequence[Site], watched: Sequence[Site] = watched, outcome: Site | None = outcome
        ) -> Tensor | None:
            generator = torch.Generator().manual_seed(seed)
            with _observed(model, anatomy, inputs, watched, (seen := CheckedPass())) as session:
                for item in session.work:
                    if item.site in noised:
                        item.edits.insert(0, partial(_noised, size=0.5, generator=generator))
                logits = forward(inputs)
            return logits if outcome is None else seen.before.get(outcome, logits)

        quiet = after(()) if any(alike.values()) else None  # the same for every kind of site
        for sites in filter(None, alike.values()):
            changed = after(sites)
            if quiet is not None and changed is not None:
                same = torch.equal(quiet, changed)
                for site in sites:
                    ledger.note(str(site), 1.0 if same else 0.0)


def check_padding(
    pad: Callable[[str], tuple[Inputs, Tensor] | None],
    side: str,
    forward: Forward,
    bare: Tensor | None,
    ledgers: dict[str, Ledger],
    tolerance: float,
) -> bool | None:
    """Whether padding on a side leaves the logits as they were; None where it cannot be tried."""
    if bare is None or bare.ndim != 3 or bool(bare.isnan().any()) or (padded := pad(side)) is None:
        return None
    wide_inputs, mask = padded
    try:
        wide = forward(wide_inputs)
    except (
        IndexError,
        RuntimeError,
        ValueError,
    ):  # longer than the network reads, which nothing told beforehand
        return None
    if wide is None or wide.shape[:2] != mask.shape or int(mask.sum()) != bare.shape[0] * bare.shape[1]:
        return None
    error = relative_error(wide[mask.to(wide.device)].reshape(bare.shape), bare)
    ledgers[f"{side} padding"].note(side, error)
    return error <= tolerance


#: Sites whose reading goes through an attention function of ours, by the identity that shows that this changes nothing.
_READ_BY_KERNEL: dict[str, tuple[str, ...]] = {
    "reading": having(lambda kind: kind.inside),
    "pattern reading": having(lambda kind: kind.inside == "eager"),
}


def _stands_for(kind: SiteKind, name: str, where: str, checks: tuple[Check, ...]) -> bool:
    """Whether a site of that kind falls with an identity that fails at a place: no other one vouches for it there."""
    by_name = {check.name: check for check in checks}
    for vouched in kind.vouched:
        each = vouched.split(" or ")
        others = [by_name[n] for n in each if n != name and n in by_name]
        if name in each and not any(where in c.held for c in others):
            return True
    return False


def _refusals(anatomy: Anatomy, checks: tuple[Check, ...]) -> dict[str, str]:
    """Sites that are refused: those that were not found, and those whose identity failed."""
    refused = {str(site): reason for site, reason in anatomy.refusals.items()}
    for check in checks:
        for name in _READ_BY_KERNEL.get(check.name, ()) if check.failures else ():
            for site in (s for s in anatomy.taps if s.name == name):
                refused[str(site)] = f"Reading it changes the logits by a relative {check.error:.2g}."
        for where, error in check.failures.items():
            if check.name == "writing":
                refused[where] = (
                    "Writing here does not change the output, so it is not what the network uses."
                )
                continue
            cross, place = where.endswith("cross_"), where.removesuffix("cross_")
            stack, _, layer = place.rpartition(".")
            for name, kind in SITES.items():
                site = Site(name, int(layer) if layer.isdigit() else None, stack)
                alike = kind.cross == cross or check.name.startswith("resid")
                if _stands_for(kind, check.name, where, checks) and alike and site in anatomy.taps:
                    refused[str(site)] = (
                        f"{check.name} does not hold at {place}: relative error {error:.2g}, "
                        f"tolerance {check.tolerance:.2g}."
                    )
    return refused

"""What may be said of a dictionary: that it reconstructs better than what stands beside it; that it is not its seed's."""

from __future__ import annotations

from collections.abc import Sequence

from cutaway.claims import Claim, Evidence
from cutaway.features.measures.assembling import MeasuredDictionary, MeasuredFigures
from cutaway.features.measures.stability import SeedStability
from cutaway.trials.judging import claim_of

#: A dictionary's latents are those of the data where more than this share of them come again with another seed.
MOST = 0.5


def reconstruction_claim(name: str, where: str, figures: MeasuredFigures) -> Claim:
    """Does it reconstruct better than everything comparable beside it?

    Supported where the whole interval of how far it is ahead of the best of them is above zero, of what is left unexplained
    and, where the network predicts tokens, of the divergence of its predictions; refuted where one of them is below.
    """
    itself, others = figures.measured[0], _rivals(figures)
    best = min(others, key=lambda m: m.fvu.value)
    ahead = figures.ahead
    evidence = [Evidence(
        "leaves less unexplained than the best beside it", ahead, None, 0.0, ahead.above(0.0),
        f"It leaves {itself.fvu} of the variance unexplained, and {best.name} with {best.l0:.1f} numbers a token "
        f"{best.fvu}.", "of the variance",
    )]  # fmt: skip
    if figures.ahead_divergence is not None:
        nearest = min(others, key=lambda m: m.divergence.value if m.divergence else float("inf"))
        evidence.append(Evidence(
            "disturbs predictions less than the best beside it", figures.ahead_divergence, None, 0.0,
            figures.ahead_divergence.above(0.0),
            f"In the value's place it changes predictions by {itself.divergence} nats (KL), and {nearest.name} by "
            f"{nearest.divergence}.", "nats",
        ))  # fmt: skip
    passed = [e.passed for e in evidence]
    who = f"The dictionary at {where}" if name == where else f"At {where} {name}"
    if all(passed):
        said = f"{who} reconstructs better than {_listed([m.name for m in others])} of the same sparsity"
    elif False in passed:
        said = f"{who} reconstructs no better than {_winner(figures)} of the same sparsity"
    else:
        said = f"{who} is not shown to reconstruct better than {_winner(figures)} of the same sparsity"
    return claim_of(said, evidence, notes=_notes(figures))


def _winner(figures: MeasuredFigures) -> str:
    """What it does not outdo: the best of what is beside it, in reconstruction or else in predictions."""
    others = _rivals(figures)
    if figures.ahead.above(0.0) is True and figures.ahead_divergence is not None:
        return min(others, key=lambda m: m.divergence.value if m.divergence else float("inf")).name
    return min(others, key=lambda m: m.fvu.value).name


def seed_claim(
    name: str, figures: MeasuredFigures, stability: Sequence[SeedStability], frozen: Sequence[str]
) -> Claim:
    """Are its latents the data's, or those of its seed? Reconstruction cannot tell: a dictionary may explain most of the
    variance and recover hardly any true feature.

    Supported where more than half of the latents that fire come again in every sibling, beyond chance, and it leaves less
    unexplained than its twins with a frozen half. Without a sibling, or without a frozen twin, it is inconclusive.

    frozen: names of what was given as a twin with a frozen half.
    """
    evidence, caps = [], []
    if stability:
        least = min(stability, key=lambda s: s.shared.value)
        evidence.append(Evidence(
            "most latents come again with another seed", least.shared, None, MOST, least.shared.above(MOST),
            f"{100 * least.shared.value:.0f} % of the latents that fire have a partner (cosine 0.7 or more) in "
            f"{least.sibling}; of directions drawn at random {100 * least.chance:.0f} %.", "of the latents",
        ))  # fmt: skip
        evidence.append(Evidence(
            "more come again than by chance", least.shared, None, least.chance, least.shared.above(least.chance),
            f"By chance {100 * least.chance:.0f} % would.", "of the latents",
        ))  # fmt: skip
    else:
        caps.append(
            "No dictionary of another seed was given, so it is not known which latents would come again."
        )
    twins = [m for m in figures.measured if m.name in frozen]
    for twin in twins:
        assert twin.excess is not None
        evidence.append(Evidence(
            f"explains more than {twin.name}", twin.excess, None, 0.0, twin.excess.above(0.0),
            f"{twin.name}, of which one half was never trained, leaves {twin.fvu} unexplained.", "of the variance",
        ))  # fmt: skip
    if not twins:
        caps.append(
            "No twin with a frozen half was given, so it is not known what its training adds to the reconstruction."
        )
    passed = [e.passed for e in evidence]
    if stability and all(passed) and not caps:
        said = f"The latents of {name} are the data's: most of them come again with another seed"
    elif False in passed:
        said = (
            f"Most of what {name} found is not shown to be in the data: "
            f"it explains {100 * (1 - figures.measured[0].fvu.value):.0f} % of the variance, and so does what found nothing"
            if stability and evidence[0].passed is not False
            else f"Most latents of {name} are those of its seed: they do not come again with another one, although it "
            f"explains {100 * (1 - figures.measured[0].fvu.value):.0f} % of the variance"
        )
    else:
        said = f"Whether the latents of {name} are the data's is not known"
    return claim_of(said, evidence, caps=caps)


def _rivals(figures: MeasuredFigures) -> list[MeasuredDictionary]:
    return [m for m in figures.measured[1:] if m.comparable and m.role != "random weights"]


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _notes(figures: MeasuredFigures) -> list[str]:
    notes = [
        f"{m.name} fires {m.l0:.1f} latents a token, which is too many to be held against {figures.measured[0].l0:.1f}."
        for m in figures.measured[1:] if not m.comparable
    ]  # fmt: skip
    for m in figures.measured[1:]:
        if m.role == "random weights" and m.excess is not None and m.excess.above(0.0) is not True:
            notes.append(
                f"A dictionary of the network with random weights leaves no more of that network's values unexplained "
                f"({m.fvu}): such a reconstruction says nothing about what this network has learnt."
            )
    return notes

"""Checks for networks that were trained naturally: bystanders, the roles of heads, and key frequencies."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from cutaway.behaviours.cases import cases_of
from cutaway.calibration.evidence import at_least, at_most
from cutaway.calibration.subject import Subject, patched
from cutaway.claims import Evidence
from cutaway.errors import BadInput
from cutaway.network.parts import Part
from cutaway.statistics import proportion

#: Share of sums that must come out right from the key frequencies alone, and nats that losing them must cost.
RESTRICTED, EXCLUDED = 0.95, 1.0
#: Share of prompts that must get the answer of the rule that a network is said to follow.
FOLLOWS = 0.9


def bystanders(subject: Subject) -> list[Evidence]:
    """Have the nodes that were measured to be inert no effect on fresh pairs, each alone? Mean effect, not absolute."""
    limit = float(subject.truth.facts.get("inert", 0.02))
    names = [Part.parse(text) for text in subject.truth.facts.get("inert nodes", ())]
    effects = {n: abs(float(subject.effect(patched([n], subject.from_corrupted)).mean())) for n in names}
    if not effects:
        return []
    worst = max(effects, key=lambda n: effects[n])
    said = (
        f"Of {len(effects)} nodes measured to be inert, {worst.words} has the largest effect: "
        f"{effects[worst]:.1%}."
    )
    return [at_most("bystanders", effects[worst], limit, said)]


def roles(subject: Subject) -> list[Evidence]:
    """Is there, among the nodes that carry the behaviour, a head that attends as each role says?"""
    wanted = subject.truth.facts.get("roles", ())
    if not wanted:
        return []
    run = subject.net.run(subject.clean, keep=["pattern"], logits=False)
    tests = []
    patterns = {n: run[f"pattern.{n.layer}"][:, n.index] for n in subject.nodes if n.kind == "head"}
    for role in wanted:
        heads = {n: ROLES[role["role"]](pattern, subject) for n, pattern in patterns.items()}
        best = max(heads, key=lambda n: heads[n])
        known = best in subject.truth.nodes
        carries = "carries" if known else "does not carry"
        said = f"There {best.words}, which {carries} the behaviour, has {heads[best]:.0%} of its attention."
        bar = float(role["at_least"])
        tests.append(at_least(f"role: {role['role']}", heads[best] if known else 0.0, bar, said))
    return tests


def follows(subject: Subject) -> list[Evidence]:
    """Does the network answer as the rule says that it follows, on prompts on which goal and proxy come apart?

    The rule is a variable of the specimen's cases, and its values are the rule's answers.
    """
    rule = str(subject.truth.facts.get("follows", ""))
    if not rule:
        return []
    asked = cases_of(f"zoo:{subject.specimen.name}", subject.net, subject.n, subject.seed, kind="apart")
    at = torch.tensor([[case.answer_pos] for case in asked])
    logits = subject.net.run([list(case.ids) for case in asked], logits=at).logits
    assert logits is not None
    words = subject.specimen.task.words
    told = zip(asked, logits[:, 0].argmax(-1).tolist(), strict=True)
    right = sum(words[token] == case.values[rule] for case, token in told)
    said = f"{right} of {len(asked)} prompts on which goal and proxy come apart get the answer of the {rule}."
    return [at_least(f"follows: {rule}", proportion(right, len(asked)), FOLLOWS, said)]


def _previous(pattern: Tensor, subject: Subject) -> float:
    """Mean attention [n p p] from each token to the one before it."""
    lengths = enumerate(subject.behaviour.lengths)
    rows = [pattern[i, :length, :length].diagonal(-1).mean() for i, length in lengths]
    return float(torch.stack(rows).mean())


def _from_last(span: str) -> Callable[[Tensor, Subject], float]:
    """Mean attention from the last token to a span."""

    def score(pattern: Tensor, subject: Subject) -> float:
        places = zip(subject.behaviour.lengths, subject.behaviour.spans[span], strict=True)
        rows = [pattern[i, length - 1, start:end].sum() for i, (length, (start, end)) in enumerate(places)]
        return float(torch.stack(rows).mean())

    return score


def _mirror(pattern: Tensor, subject: Subject) -> float:
    """Mean attention from the later of two mirrored letters to the earlier."""
    spans = subject.behaviour.spans
    pairs = zip(spans["turned"], spans["mirror"], strict=True)
    rows = [pattern[i, max(a[0], b[0]), min(a[0], b[0])] for i, (a, b) in enumerate(pairs)]
    return float(torch.stack(rows).mean())


#: How a head's pattern [n p p] is scored for a role.
ROLES: dict[str, Callable[[Tensor, Subject], float]] = {
    "previous token": _previous,
    "induction": _from_last("successor"),
    "attends to answer": _from_last("answer"),
    "attends to mirror": _mirror,
}


def frequencies(subject: Subject) -> list[Evidence]:
    """Do the key frequencies alone give the sums, and does nothing remain without them?

    Logits over all pairs are split into the part along cos and sin of w (a + b) at the key frequencies w, with the mean,
    and the rest: restricted and excluded loss of Nanda et al. 2023, section 5.1 (there with single components excluded).
    """
    facts = subject.truth.facts
    modulus, keys = int(facts["modulus"]), list(facts["key_frequencies"])
    logits, wanted = _all_sums(subject, modulus)
    mean = logits.mean(0)
    angle = wanted.double()[:, None] * torch.tensor(keys).double() * (2 * math.pi / modulus)
    waves = torch.cat([angle.cos(), angle.sin()], 1) * math.sqrt(2) / modulus  # orthonormal over all pairs
    part = waves @ (waves.T @ logits)
    restricted = mean + part
    accuracy = float((restricted.argmax(1) == wanted).double().mean())
    losses = [float(cross_entropy(x, wanted)) for x in (logits, restricted, logits - part)]
    shown = ", ".join(map(str, keys))
    said = (
        f"With only the frequencies {shown} {accuracy:.1%} of all sums are right (loss {losses[1]:.3g} nats)."
    )
    cost = f"Without them the loss rises from {losses[0]:.3g} to {losses[2]:.3g} nats."
    return [
        at_least("restricted to key frequencies", accuracy, RESTRICTED, said),
        at_least("key frequencies excluded", losses[2] - losses[0], EXCLUDED, cost),
    ]


def _all_sums(subject: Subject, modulus: int) -> tuple[Tensor, Tensor]:
    """[m*m m] logits of every pair of numbers, in float64, and [m*m] their sums."""
    pairs = torch.cartesian_prod(torch.arange(modulus), torch.arange(modulus))
    ids = torch.cat([pairs, torch.full((len(pairs), 1), modulus)], 1)
    parts = []
    for rows in ids.split(2048):
        logits = subject.net.run(rows, logits="last").logits
        if logits is None:
            raise BadInput("The network gives no logits.", "Give one with an output over tokens.")
        parts.append(logits[:, 0, :modulus].double().cpu())
    return torch.cat(parts), pairs.sum(1) % modulus

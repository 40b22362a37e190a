"""`use`: does the network use what the probe reads? The direction is moved, and the behaviour must move with it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from cutaway.errors import BadInput
from cutaway.network.pricing import announce
from cutaway.probes.choices import chosen
from cutaway.probes.data.examples import ProbeData
from cutaway.probes.data.folds import Families
from cutaway.probes.fits.kinds import Fitting
from cutaway.probes.map.linear_probe import Probe
from cutaway.probes.map.probing import Probing, require_probing
from cutaway.probes.map.verdict import with_use
from cutaway.probes.reading import beds
from cutaway.probes.reading.beds import Answers, Bed
from cutaway.probes.reading.spots import Spot, features, gradient
from cutaway.probes.use.directions import (
    both_directions,
    erasing,
    fitted_directions,
    random_directions,
    sham_directions,
)
from cutaway.probes.use.halves import halves
from cutaway.probes.use.moving import Moving
from cutaway.probes.use.options import UseOptions
from cutaway.probes.use.result import Use
from cutaway.probes.use.unrelated import side_effect
from cutaway.probes.use.verdict import UseTerms, judge_use
from cutaway.results import Provenance, Work, strict, working

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.network import Network

_KEYWORDS = ("answers", "unrelated_text", "where", "pos", "options", "seed", "work")


@strict
def use(
    net: Network,
    probing: Probing,
    data: ProbeData | Behaviour | str,
    *,
    answers: Answers | None = None,
    unrelated_text: Sequence[Any] | None = None,
    where: Mapping[str, Any] | None = None,
    pos: int | str | None = None,
    options: UseOptions | None = None,
    seed: int = 0,
    work: Work | None = None,
    **choices: Any,
) -> Use:
    """Test whether the network uses the probe's direction at one place.

    With labelled data, directions are found on one half of the groups and tested on the other; the metric is the logit
    difference of the classes' answers, or, without them, the output's own contrast between the classes, for which a third
    part is set aside. With a behaviour the probe is taken as it was fitted, and the metric is the behaviour's.

    Args:
        net: the network.
        probing: what `probe` gave.
        data: the labelled data, or a behaviour (or its name) whose corrupted prompts change what the label is about.
        answers: what follows a class, by its name or number: words with their space, or token ids.
        unrelated_text: texts for the side effect.
        where: layer, head, position, site of another place than the best.
        pos: where a behaviour's prompts are edited (a position or a span's name; default the probe's).
        options: how it is tested; or the fields of `UseOptions` as keywords.
        seed: of the split and the directions.
        work: who hears of progress, and what may be spent.

    Gives a `Use`: every effect against random and sham directions of the same norm, the graded response, the change in
    cross-entropy on unrelated text, the cosine between the direction that detects and the one that controls, and a claim.

    Raises `BadInput` where there are not two classes, or the logits are read before the place; `UnknownOption` for a
    misspelt choice; `Stopped` where the work is stopped.
    """
    began, options = time.perf_counter(), chosen(UseOptions, options, choices, "use", _KEYWORDS)
    require_probing(probing)
    cell = probing.cell(where)
    probe = probing.probe(**(where or {}))
    spot = Spot(cell.site, cell.head)
    if isinstance(data, str):
        from cutaway.behaviours import behaviour

        data = behaviour(data, net, seed=seed)
    with working(work).interruptible() as work:
        if isinstance(data, ProbeData):
            past, bed, family, fitting = halves(net, probing, data, cell, answers, options.read, seed)
            x = features(net, spot, past.tokens, past.edit, work)
            alongs, classes = fitted_directions(x, past.classes, fitting, family), past.classes
        else:
            bed = _behaviour_bed(net, probe, spot, data, pos)
            x, fitting = features(net, spot, bed.tokens, bed.edit, work), Fitting(probe.method)
            classes, family = bed.classes, Families.single(bed.n)
            alongs = both_directions(probe.weights[0], probe.centres[:2])
        announce(
            net,
            bed.tokens,
            work,
            "moving",
            _price(bed.n, len(past.classes) if isinstance(data, ProbeData) else 0, options),
        )
        moving = Moving.of(net, bed, spot, seed, work)
        centred = x - torch.stack([x[classes == c].mean(0) for c in (0, 1)])[classes]
        random = random_directions(x, classes, options.directions, seed + 11)
        shams = sham_directions(centred, classes, family, fitting, options.directions, seed + 12)
        others = torch.cat([random, shams])
        moves = [m for along in alongs for m in along.moves(moving.features, bed.classes)]
        moves.append(erasing(x, classes, moving.features))
        effects = moving.effects(alongs, moves, others, options.strengths)
        control = gradient(net, bed, spot)
        side = side_effect(moving, alongs, others, unrelated_text)
    cosines = {along.name: _cosine(along.vector, control) for along in alongs}
    label, place = str(probing.data.attrs["label"]), cell.label(probing.places.positions)
    contrast = answers is None and isinstance(data, ProbeData)
    groups = len(set(bed.clusters))
    terms = UseTerms(options.least, probing.finding.word, groups, contrast, answers is not None)
    claim = judge_use(label, place, bed.what, effects, side, cosines, terms)
    provenance = Provenance.of(net, probing.provenance.behaviour_hash, seed, time.perf_counter() - began)
    finding = with_use(probing.finding, claim)
    return Use(label, place, bed.what, tuple(effects), side, cosines, claim, finding, provenance)


def _price(n: int, past: int, options: UseOptions) -> list[tuple[str, float]]:
    """What it takes on n prompts, when directions are found on `past` others."""
    moves, others = 5, 2 * options.directions  # two of each of two directions, and erasing them
    added = 2 * len(options.strengths)
    return [
        ("reading", float(n + past)), ("moving", n * (moves * (1 + others) + added + 1.0)),
        ("what controls", 3.0 * min(n, 256)), ("unrelated text", 8.0 * 24),
    ]  # fmt: skip


def _cosine(a: Tensor, b: Tensor) -> float:
    size = float(a.norm() * b.norm())
    return 0.0 if size == 0 else float(a @ b) / size


def _behaviour_bed(
    net: Network, probe: Probe, spot: Spot, behaviour: Behaviour, pos: int | str | None
) -> Bed:
    position = probe.position if pos is None else pos
    if not isinstance(position, int | str) or position in ("span", "all"):
        remedy = "Pass pos=, a position or a span's name."
        raise BadInput("The place in the behaviour's prompts is not known.", remedy)

    def outputs(tokens: Any, at: Tensor) -> Tensor:
        return probe.outputs(features(net, spot, tokens, at))[:, 0]

    return beds.bed_of_behaviour(net, behaviour, position, outputs)

"""Which features carry a behaviour: found by one gradient on discovery pairs, tested by intervening on held-out ones, beside
random sets of features and the best features of a dictionary of random directions.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from cutaway.behaviours import behaviour as make_behaviour
from cutaway.effects import plan_interventions
from cutaway.effects.attribution import estimates
from cutaway.errors import BadInput, SiteUnavailable
from cutaway.explanations.carrying import CarriedBy, FeatureEffect, claim
from cutaway.explanations.sizes import share_anew
from cutaway.features.attach import with_dictionary
from cutaway.features.components import random_units
from cutaway.features.dictionaries import Decoder, Dictionary, Encoder, TopK
from cutaway.interventions import Patch
from cutaway.network.anatomy import LatentTap
from cutaway.network.parts import Part
from cutaway.network.pricing import announce
from cutaway.network.sites import Site
from cutaway.results import Provenance, Work, strict, working
from cutaway.statistics import Estimate, mean_of
from cutaway.sweeps import CellState
from cutaway.trials.ends import ends_kept

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.network import Network, Run

#: A cell as the interventions that make it: the site and the entries of its last axis; None for all.
Chosen = dict[Site, list[int] | None]
#: The name under which random directions are attached.
RANDOM = "random_directions"


@strict
def feature_effects(
    net: Network,
    behaviour: Behaviour | str,
    *,
    at: str | None = None,
    n: int = 10,
    random: int = 20,
    labels: Mapping[str, str] | None = None,
    controls: bool = True,
    seed: int = 0,
    work: Work | None = None,
) -> CarriedBy:
    """Find the features that carry a behaviour, and test them by intervening on held-out prompts.

    The clean values of features are put into the corrupted run, and the other way round. The features are those that a
    gradient on the discovery pairs says do most (attribution patching); how much they do is measured on the held-out
    pairs, one by one and together. Beside them: random sets of as many features that differ between the prompts; all
    features of the dictionary; its error, which is what they leave; and the best features, found in the same way, of a
    dictionary of random directions with as many latents, of which as many fire.

    Supported: together they bring back some of the gap, more than nineteen of twenty random sets and more than the
    random dictionary's best, with whole intervals.

    Args:
        net: the network, with a dictionary attached (`features.with_dictionary`), or one with MLPs.
        behaviour: the behaviour, or the name of a built-in one.
        at: a kind of site with features: `features`, `sae.features`, `mlp_act`; default those of the dictionary that is
            attached, else neurons.
        n: how many features.
        random: how many random sets.
        labels: of features, by the name of the part, for the table.
        controls: the dictionary of random directions; without it nothing is supported.
        seed: of random sets and directions.
        work: hears of the price and of progress, and may stop it.

    Raises:
        BadInput: for an n below 1, or more than there are features.
        SiteUnavailable: where there are no features.
        BadBehaviour: for pairs of unequal length, no held-out examples, no gap.
    """
    began, work = time.monotonic(), working(work)
    if isinstance(behaviour, str):
        behaviour = make_behaviour(behaviour, net, seed=seed, force=True)
    for name, number in (("n", n), ("random", random)):
        if isinstance(number, bool) or number < 1:
            raise BadInput(f"{name}={number!r} is none.", "Give 1 or more.")
    sites = feature_sites(net, at)
    with work.interruptible() as work, ends_kept(net, behaviour, work):
        _announce(net, behaviour, sites, n, random, controls, work)
        names, found = _ranked(net, behaviour, sites, n, work)
        tested = _Held(net, behaviour, sites, work)
        singles = [_cell([one]) for one in found.chosen]
        together, draws = _cell(found.chosen), found.draws(random, seed)
        whole: list[Chosen] = [dict.fromkeys(sites)] if sites[0].name == "features" else []
        errors: list[Chosen] = [dict.fromkeys(_errors(net, sites))] if whole else []
        cells = [*singles, together, *draws, *whole, *errors]
        restored = tested.effects(cells, "restore")
        removed = -tested.effects([*singles, together], "corrupt")
        beside = _of_random(net, behaviour, sites, n, seed, work) if controls and whole else None
    drawn = behaviour.held_out.clusters
    few = len(singles)
    effects = tuple(
        FeatureEffect(
            name, (labels or {}).get(name, ""), float(estimate), mean_of(restored[i], drawn), mean_of(removed[i], drawn)
        )
        for i, (name, estimate) in enumerate(zip(names, found.estimates, strict=True))
    )  # fmt: skip
    own, sets = restored[few], restored[few + 1 : few + 1 + len(draws)]
    last = restored[few + 1 + len(draws) :]

    def estimated(values: np.ndarray) -> Estimate:
        return mean_of(values, drawn)

    figures = {
        "together": estimated(own), "removed": estimated(removed[few]),
        "random": tuple(float(values.mean()) for values in sets),
        "over_random": tuple(estimated(own - values) for values in sets),
        "whole": estimated(last[0]) if whole else None, "error": estimated(last[1]) if errors else None,
        "random_dictionary": None if beside is None else estimated(beside),
        "over_random_dictionary": None if beside is None else estimated(own - beside),
    }  # fmt: skip
    return CarriedBy(
        behaviour.name, tuple(str(site) for site in sites), found.total, found.differing, effects,
        claim=claim(net.name, behaviour.name, effects, figures, controls or not whole),
        provenance=Provenance.of(net, behaviour.hash, seed, time.monotonic() - began), **figures,
    )  # fmt: skip


def feature_sites(net: Network, at: str | None = None) -> list[Site]:
    """The sites whose features are meant: of one dictionary, or the MLPs' neurons, in all layers."""
    named = [f"{name}.features" if name else "features" for name in net.anatomy.dictionaries]
    if at is None and len(named) > 1:
        raise BadInput(
            f"Several dictionaries are attached: {', '.join(named)}.", f"Say which: at={named[0]!r}."
        )
    kind = at or (named[0] if named else "mlp_act")
    if kind.rpartition(".")[2] not in ("features", "mlp_act"):
        raise SiteUnavailable(
            f"{kind} has no features.", "Use 'features', the name of a dictionary's, or 'mlp_act'."
        )
    return sorted(net.resolve(kind), key=lambda site: site.layer or 0)


def _errors(net: Network, sites: Sequence[Site]) -> list[Site]:
    stack = sites[0].stack
    return [s for s in net.sites() if s.name == "feature_error" and s.stack == stack]


@dataclass(frozen=True, eq=False)
class _Ranked:
    """Features by what a gradient says they do.

    Attributes:
        chosen: the strongest, as (site, number).
        estimates: of each of them, as a share of the gap.
        others: the rest of those that differ between the prompts.
        total: how many features there are.
        differing: how many differ between the prompts of any pair.
    """

    chosen: list[tuple[Site, int]]
    estimates: np.ndarray
    others: list[tuple[Site, int]]
    total: int
    differing: int

    def draws(self, count: int, seed: int) -> list[Chosen]:
        """Random sets of as many of the others; fewer, or none, where there are too few of them."""
        generator, size = np.random.default_rng(seed), len(self.chosen)
        if len(self.others) < size:
            return []
        return [
            _cell([self.others[i] for i in generator.permutation(len(self.others))[:size]])
            for _ in range(count)
        ]


def _ranked(
    net: Network, behaviour: Behaviour, sites: Sequence[Site], n: int, work: Work
) -> tuple[list[str], _Ranked]:
    """The strongest features on the discovery pairs, and their names."""
    unit = "neuron" if sites[0].name == "mlp_act" else "feature"
    at = f"{sites[0].stack}.{sites[0].name}" if sites[0].stack else sites[0].name
    layers = [site.layer or 0 for site in sites]
    _, found, ends = estimates(net, behaviour.discovery, at, ("layer", unit), "restore", layers, 1, work)
    index = list(np.ndindex(*found.box.shape))
    there = np.nonzero((found.states != CellState.ABSENT).any(1))[0]
    values = found.values[there].mean(1) / float((ends.clean.metric - ends.corrupted.metric).mean())
    moves = (found.states[there] == CellState.RUN).any(1)
    if n > len(there):
        raise BadInput(f"There are {len(there)} features, and n={n} are asked for.", "Give a smaller n.")
    where = [(sites[index[cell][0]], index[cell][1]) for cell in there]
    order = np.argsort(-np.abs(values), kind="stable")
    best = order[:n]
    others = [where[i] for i in order[n:] if moves[i]]
    ranked = _Ranked([where[i] for i in best], values[best], others, len(where), int(moves.sum()))
    return [_name(site, i) for site, i in ranked.chosen], ranked


def _name(site: Site, index: int) -> str:
    kind = "neuron" if site.name == "mlp_act" else "feature"
    return str(Part(kind, site.layer, index, site.stack))


def _cell(features: Sequence[tuple[Site, int]]) -> Chosen:
    cell: Chosen = {}
    for site, index in features:
        several = cell.setdefault(site, [])
        assert several is not None
        several.append(index)
    return cell


@dataclass(frozen=True, eq=False)
class _Held:
    """Interventions on the held-out pairs.

    Attributes:
        net, behaviour, sites, work: as asked.
    """

    net: Network
    behaviour: Behaviour
    sites: Sequence[Site]
    work: Work

    def effects(self, cells: Sequence[Chosen], direction: Literal["restore", "corrupt"]) -> np.ndarray:
        """What each cell does to each pair [cells n], as a share of the gap."""
        pairs = self.behaviour.held_out
        restore = direction == "restore"
        tokens = pairs.clean_tokens(self.net) if restore else pairs.corrupted_tokens(self.net)
        kept = self.net.run(tokens, keep=sorted({site for cell in cells for site in cell}), logits=False)
        made = [[_patch(kept, site, which) for site, which in cell.items()] for cell in cells]
        on = "corrupted" if restore else "clean"
        plan = plan_interventions(self.net, pairs, made, on=on, work=self.work)
        with self.work.account.verb():  # a part of what was announced
            found = plan.finish(None, self.work).data["effect"].values
        return np.asarray(found, dtype=np.float64)


def _patch(run: Run, site: Site, which: list[int] | None) -> Patch:
    return Patch(str(site), run) if which is None else Patch(str(site), run, neuron=which)


def _of_random(
    net: Network, behaviour: Behaviour, sites: Sequence[Site], n: int, seed: int, work: Work
) -> np.ndarray | None:
    """What the best features of random directions restore of each held-out pair [n], found and tested alike.

    None where latents read or write several places, which random directions of one place do not match.
    """
    taps = [net.tap(site) for site in sites]
    if any(not isinstance(tap, LatentTap) or len(tap.reads) != 1 or len(tap.writes) != 1 for tap in taps):
        return None
    run = net.run(behaviour.discovery.clean_tokens(net), keep=list(sites), logits=False)
    drawn: list[Dictionary] = []
    for number, (site, tap) in enumerate(zip(sites, taps, strict=True)):
        if not isinstance(tap, LatentTap) or not isinstance(tap.codec, Dictionary):
            return None
        active = max(1, round(float((run[site] != 0).float().sum(-1).mean())))
        drawn.append(random_like(tap.codec, tap.source, active, seed + number))
    reads = [tap.reads[0][0] for tap in taps if isinstance(tap, LatentTap)]
    writes = [tap.writes[0][1] for tap in taps if isinstance(tap, LatentTap)]
    plain = with_dictionary(net, side_by_side(drawn), reads, writes, name=RANDOM)
    alike = [Site("features", site.layer, RANDOM) for site in sites]
    _, found = _ranked(plain, behaviour, alike, n, work)
    return _Held(plain, behaviour, alike, work).effects([_cell(found.chosen)], "restore")[0]


def side_by_side(dictionaries: Sequence[Dictionary]) -> Dictionary:
    """Dictionaries of one source and one target each as one of several, which do not write to one another's targets."""
    return Dictionary(
        dictionaries[0].kind,
        tuple(d.encoders[0] for d in dictionaries),
        tuple(replace(d.decoders[0], source=i, target=i) for i, d in enumerate(dictionaries)),
        tuple(d.biases[0] for d in dictionaries),
        tuple(d.reads[0] for d in dictionaries),
        tuple(d.writes[0] for d in dictionaries),
        said={"name": "random directions"},
    )


def random_like(dictionary: Dictionary, source: int, active: int, seed: int) -> Dictionary:
    """A dictionary of random directions with as many latents at the same place, so many of which are active at once.

    Its directions have length one and are read and written alike, rows less the mean that the dictionary itself takes.
    """
    encoder, decoder = dictionary.encoders[source], dictionary.decoders_of(source)[0]
    generator = torch.Generator().manual_seed(seed)
    reads, width = random_units(encoder.size, encoder.width, generator).float(), decoder.weight.shape[1]
    same = width == encoder.width and dictionary.kind == "autoencoder"
    writes = reads if same else random_units(encoder.size, width, generator).float()
    bias = dictionary.biases[decoder.target]
    centre = bias if dictionary.kind == "autoencoder" else None
    made = Encoder(reads.T.contiguous(), None, TopK(min(active, encoder.size)), centre)
    return replace(
        dictionary, encoders=(made,), decoders=(Decoder(0, 0, writes),), biases=(bias,), skips=(None,),
        reads=(dictionary.reads[source],), writes=(dictionary.writes[decoder.target],), said={"name": "random directions"},
    )  # fmt: skip


def stages(
    net: Network,
    behaviour: Behaviour,
    sites: Sequence[Site],
    n: int = 10,
    random: int = 20,
    controls: bool = True,
) -> dict[str, float]:
    """Forward-equivalents of each stage; a cell runs the layers from its first feature's on."""
    discovery, held = behaviour.discovery.n, behaviour.held_out.n
    layers = max(1, net.n_layers or 1)
    rest = float(np.mean([(layers - (site.layer or 0)) / layers for site in sites]))
    first = (layers - min(site.layer or 0 for site in sites)) / layers
    dictionary = sites[0].name == "features"
    ranking, anew = 4.0 * discovery, held * share_anew(behaviour)
    found = {
        "finding them": ranking,
        "one by one": 2 * n * anew * rest,
        "together, and random sets": (2 + random + 2 * dictionary) * anew * first,
        "the runs they come from": 4.0 * held,
    }
    if controls and dictionary:
        found["a dictionary of random directions"] = ranking + discovery + 2 * held + first * anew
    return found


def _announce(
    net: Network, behaviour: Behaviour, sites: Sequence[Site], n: int, random: int, controls: bool, work: Work
) -> None:
    price = stages(net, behaviour, sites, n, random, controls)
    gradients = 3 * behaviour.discovery.n * (1 + ("a dictionary of random directions" in price))
    share = gradients / max(1.0, sum(price.values()))
    announce(net, behaviour.clean_ids, work, "effects of features", list(price.items()), gradients=share)

"""Forward-equivalents, counted on meters, beside what hooks of torch see of every layer and of every product in it."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import cutaway
from cutaway.behaviours import Behaviour
from cutaway.behaviours.cases import Case, cases_from
from cutaway.behaviours.checks import answer_logits
from cutaway.effects.baselines import measure
from cutaway.errors import Stopped
from cutaway.features import with_dictionary
from cutaway.features.dictionaries import Decoder, Dictionary, Encoder, Place, ReLU
from cutaway.features.sets import latents
from cutaway.network import Network
from cutaway.network.memory import rows_at_once
from cutaway.network.sites import Site
from cutaway.probes import ProbeData, ProbeOptions
from cutaway.results import Budget, Progress, Work
from cutaway.results.meter import BACKWARD, Meter, metered, spend, spent
from cutaway.stream.lenses import LogitLens
from cutaway.sweeps import Rules, Write, naive
from cutaway.trials.ends import ends_kept
from cutaway.verbs import VERBS
from cutaway.zoo.tiny import tiny

ROWS = [[5, 6, 7, 8], [9, 3, 4, 2], [1, 2, 3, 9]]


class Seen:
    """What hooks saw: layers in which something ran, or to whose output a gradient came; products of the maps in them."""

    def __init__(self, net: Network) -> None:
        self.layers = [net.model.get_submodule(x.path) for s in net.anatomy.stacks for x in s.layers]
        self.maps = [
            m for x in self.layers for m in x.modules() if getattr(m, "weight", None) is not None and m.weight.ndim == 2
        ]  # fmt: skip
        self.entered: set[int] = set()
        self.products, self.gradients = 0, 0
        self.each = sum(m.weight.numel() for m in self.maps)

    def forwards(self, width: int) -> float:
        """Forward passes of one prompt of this width that make as many products."""
        return self.products / self.each / width


@contextmanager
def seeing(net: Network) -> Iterator[Seen]:
    """While active, hooks see."""
    seen = Seen(net)

    def inside(layer: int) -> Callable[..., None]:
        return lambda *_: seen.entered.add(layer)

    def multiplied(module: nn.Module, args: tuple[Any, ...]) -> None:
        seen.products += args[0].numel() // args[0].shape[-1] * module.weight.numel()  # type: ignore[operator, union-attr]

    def arrived(_module: nn.Module, out: Any) -> None:
        seen.gradients += out[0].shape[0]

    hooks = [
        m.register_forward_pre_hook(inside(i)) for i, x in enumerate(seen.layers) for m in x.modules() if m is not x
    ]  # fmt: skip
    hooks += [m.register_forward_pre_hook(multiplied) for m in seen.maps]
    hooks += [x.register_full_backward_pre_hook(arrived) for x in seen.layers]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


@pytest.mark.parametrize("kind", ["gpt2", "llama", "gpt_neox", "t5"])
@pytest.mark.parametrize("stop", [None, "resid_pre.0", "resid_pre.1", "z.0", "resid_post.0", "mlp_out.1"])
def test_a_run_counts_its_rows_by_the_share_of_layers_that_it_enters(kind: str, stop: str | None) -> None:
    net = cutaway.open(tiny(kind))
    if stop is not None and not net.has(stop):
        pytest.skip(f"{kind} has no {stop}")
    with seeing(net) as seen, metered(Meter()) as meter:
        net.run(ROWS, keep=() if stop is None else [stop], logits=stop is None, stop_at=stop)
    assert meter.forwards == pytest.approx(3 * len(seen.entered) / len(seen.layers), abs=1e-12)
    assert stop is not None or meter.forwards == 3


@pytest.mark.parametrize("site", ["resid_pre.0", "z.0", "resid_pre.1"])
def test_a_backward_pass_counts_two_for_each_layer_that_a_gradient_comes_to(site: str) -> None:
    net = cutaway.open(tiny("llama"))
    with seeing(net) as seen, metered(Meter()) as meter:
        run = net.run(ROWS, keep=[site], grad=True)
        assert run.logits is not None
        forward = meter.forwards
        for again in (True, False):
            torch.autograd.grad(run.logits.sum(), [run[site]], retain_graph=again)
    assert forward == 3
    assert seen.gradients >= 6
    assert meter.forwards - forward == pytest.approx(BACKWARD * seen.gradients / len(seen.layers))


def test_without_gradients_asked_for_nothing_is_hung_on_the_model() -> None:
    net = cutaway.open(tiny("gpt2"))
    with metered(Meter()):
        run = net.run(ROWS, keep=["resid_pre.0"], grad=True)
    assert run.logits is not None
    assert run.logits.requires_grad
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.model.modules())


def test_meters_count_once_inside_one_another_and_each_thread_its_own() -> None:
    other: list[float] = []

    def elsewhere() -> None:
        spend(100)
        other.append(spent())

    with metered(Meter()) as outer:
        spend(1)
        with metered(outer), metered(Meter()) as inner:
            spend(2)
            thread = threading.Thread(target=elsewhere)
            thread.start()
            thread.join()
            assert spent() == 2
    assert (outer.forwards, inner.forwards, other) == (3, 2, [0.0])
    assert spent() == 0


def question() -> tuple[Network, Behaviour]:
    """A network that remembers nothing yet, and pairs of it."""
    net = cutaway.open("zoo:induction-gpt2")
    pairs = cutaway.behaviour("zoo:induction-gpt2", net, n=48, force=True)
    net.forget()
    return net, pairs


def circuit(net: Network, pairs: Behaviour) -> Any:
    return cutaway.trace(net, pairs, method="eap", edges=20, force=True)


def data(pairs: Behaviour) -> ProbeData:
    rows = [list(row) for row in pairs.clean_ids]
    return ProbeData(rows, np.array([row[-1] % 2 for row in rows]), name="parity")


def text(pairs: Behaviour) -> list[int]:
    return list(pairs.clean_ids[0])


def known(net: Network, pairs: Behaviour) -> Any:
    """Both prompts of every pair, as cases of which prompt of which pair it is."""
    sides = (pairs.clean_ids, pairs.right), (pairs.corrupted_ids, pairs.wrong)
    rows = [
        {
            "text": list(ids[i]),
            "answer": list(answers[i]),
            "pair": i,
            "side": side,
            "template": str(len(ids[i])),
        }
        for side, (ids, answers) in enumerate(sides)
        for i in range(pairs.n)
    ]
    return cases_from(net, rows)


def identity(net: Network) -> Dictionary:
    """A latent for each number of the first layer's stream."""
    width = net.d_model or 0
    place = Place("", "resid_post.0", width)
    encoder, decoder = Encoder(torch.eye(width), None, ReLU()), Decoder(0, 0, torch.eye(width))
    return Dictionary("autoencoder", (encoder,), (decoder,), (None,), ((place,),), (place,))


def sides(pairs: Behaviour) -> tuple[list[list[int]], list[list[int]]]:
    """Clean and corrupted prompts that are not on the other side, too."""
    clean, corrupted = set(pairs.clean_ids), set(pairs.corrupted_ids)
    return [list(row) for row in clean - corrupted], [list(row) for row in corrupted - clean]


def cases(pairs: Behaviour) -> cutaway.Cases:
    """The clean prompts, of which it is known what comes next."""
    right = [min(tokens) for tokens in pairs.right]
    rows = [
        Case(str(ids), ids, {"next": token}, ((str(token), (token,)),))
        for ids, token in zip(pairs.clean_ids, right, strict=True)
    ]
    return cutaway.Cases("induction", tuple(rows))


ALGORITHM = cutaway.algorithm("copies", copied=lambda next: next, answer=lambda copied: str(copied))


def constant(pairs: Behaviour) -> cutaway.Algorithm:
    """The same answer to every prompt."""
    token = str(min(pairs.right[0]))
    return cutaway.algorithm("always the same", answer=lambda next: token if next is not None else "")


def twelve(pairs: Behaviour) -> list[int]:
    """A text as wide as products are counted by."""
    return (text(pairs) * 2)[:12]


QUICK = ProbeOptions(permutations=20)
#: For every verb that gives a result: what is made beforehand, and the call itself, which is counted.
BEFORE: dict[str, Callable[[Network, Behaviour], Any]] = {
    "test": circuit,
    "propose_algorithm": lambda net, pairs: (
        known(net, pairs),
        cutaway.carried(net, known(net, pairs), ["side"], controls=False),
    ),
    "use": lambda net, pairs: cutaway.probe(net, data(pairs), at="resid_post", options=QUICK),
    "read_lens": lambda net, _pairs: LogitLens.of(net),
    "label_features": lambda net, pairs: cutaway.index_features(
        net, latents(net, identity(net)), pairs.clean_ids
    ),
    "steer": lambda net, pairs: cutaway.difference_of_means(net, *sides(pairs), at="resid_post.0"),
}
CALLS: dict[str, Callable[[Network, Behaviour, Any], Any]] = {
    "performance": lambda net, pairs, _: cutaway.performance(net, pairs),
    "patch": lambda net, pairs, _: cutaway.patch(net, pairs, at="resid_pre"),
    "ablate": lambda net, pairs, _: cutaway.ablate(net, pairs, at="z"),
    "attribution_patch": lambda net, pairs, _: cutaway.attribution_patch(net, pairs, at="z", by="layer"),
    "loss": lambda net, pairs, _: cutaway.loss(net, list(pairs.clean_ids)),
    "difference_of_means": lambda net, pairs, _: cutaway.difference_of_means(
        net, *sides(pairs), at="resid_post.0"
    ),
    "steer": lambda net, pairs, made: cutaway.steer(
        net, [text(pairs)], made, max_new_tokens=1, strengths=(1,)
    ),
    "path_patch": lambda net, pairs, _: cutaway.path_patch(net, pairs),
    "pair_effects": lambda net, pairs, _: cutaway.pair_effects(net, pairs),
    "trace": lambda net, pairs, _: circuit(net, pairs),
    "test": lambda net, pairs, made: cutaway.test(net, made, pairs, controls=False),
    "logit_attribution": lambda net, pairs, _: cutaway.logit_attribution(net, text(pairs), target=3),
    "expand_paths": lambda net, pairs, _: cutaway.expand_paths(net, text(pairs), target=3),
    "read_lens": lambda net, pairs, lens: cutaway.read_lens(net, lens, text(pairs)),
    "probe": lambda net, pairs, _: cutaway.probe(net, data(pairs), at="resid_post", options=QUICK),
    "use": lambda net, pairs, made: cutaway.use(net, made, data(pairs)),
    "leace": lambda net, pairs, _: next(iter(cutaway.leace(net, data(pairs), at="resid_post.0").values())),
    "explain": lambda net, pairs, _: cutaway.explain(net, pairs, controls=False, force=True),
    "patterns": lambda net, pairs, _: cutaway.patterns(net, twelve(pairs)),
    "side_by_side": lambda net, pairs, _: cutaway.side_by_side(
        net, text(pairs), list(pairs.corrupted_ids[0])
    ),
    "induction_heads": lambda net, _pairs, _: cutaway.induction_heads(net, length=6, n=12),
    "top_examples": lambda net, pairs, _: cutaway.top_examples(net, pairs.clean_ids, of="n0.1"),
    "bind": lambda net, pairs, _: cutaway.bind(net, identity(net), pairs.clean_ids),
    "feature_effects": lambda net, pairs, _: cutaway.feature_effects(
        with_dictionary(net, identity(net)), pairs, n=3, random=5
    ),
    "test_algorithm": lambda net, pairs, _: cutaway.test_algorithm(
        net, cases(pairs), ALGORITHM, {"copied": "a1.h0@last"}, n=40, controls=False
    ),
    "carried": lambda net, pairs, _: cutaway.carried(net, known(net, pairs), ["side"]),
    "computation": lambda net, pairs, _: cutaway.computation(
        net, known(net, pairs), depth="what", variables=["side"], n=12, controls=False, force=True
    ),
    "passing": lambda net, pairs, _: cutaway.passing(
        net, known(net, pairs), places={"side": ["a0.h1", "a1.h1"]}, n=12
    ),
    "backups": lambda net, pairs, _: cutaway.backups(net, pairs, n=12),
    "shared_parts": lambda net, pairs, _: cutaway.shared_parts(net, pairs, pairs, n=12),
    "roles": lambda net, pairs, _: cutaway.roles(net, known(net, pairs), variables=["side"]),
    "propose_algorithm": lambda net, pairs, made: cutaway.propose_algorithm(
        net, made[0], made[1], n=40, controls=False
    ),
    "input_attribution": lambda net, pairs, _: cutaway.input_attribution(
        net, known(net, pairs), n=12, steps=4
    ),
    "intended": lambda net, pairs, _: cutaway.intended(
        net, cases(pairs), ALGORITHM, constant(pairs), where={"copied": "a1.h0@last"}, n=40, controls=False
    ),
    "measure": lambda net, pairs, _: cutaway.measure(net, identity(net), pairs.clean_ids),
    "index_features": lambda net, pairs, _: cutaway.index_features(
        net, latents(net, identity(net)), pairs.clean_ids
    ),
    "label_features": lambda net, _pairs, made: cutaway.label_features(net, made, forms=("say",), causal=3),
    "train_dictionaries": lambda net, pairs, _: cutaway.train_dictionaries(
        net, pairs.clean_ids, at="resid_post.1", latents=64, k=4, batch=64, controls=()
    ),
    "activations": lambda net, pairs, _: cutaway.activations(
        net, pairs.clean_ids, at="resid_post", folder=Path(tempfile.mkdtemp()) / "acts"
    ),
}


@pytest.mark.parametrize("name", [row.name for row in VERBS.values() if row.result])
def test_the_result_of_every_verb_says_what_it_took(name: str) -> None:
    net, pairs = question()
    made = BEFORE[name](net, pairs) if name in BEFORE else None
    net.forget()
    with seeing(net) as seen:
        result = CALLS[name](net, pairs, made)
    took, products = result.provenance.forwards, seen.forwards(12)
    # a layer of which one sublayer is run counts half, whatever its weights; rows of any width count one
    assert took >= 0.7 * products > 0
    loose = (
        "trace", "use", "probe", "expand_paths", "attribution_patch", "side_by_side", "label_features",
        "input_attribution", "computation",
    )  # fmt: skip
    assert took <= 1.3 * products or name in loose


def test_every_verb_that_gives_a_result_is_called_here() -> None:
    assert set(CALLS) == {row.name for row in VERBS.values() if row.result}


#: What decides as it goes how much it runs says its price stage by stage: tests/explanations, tests/algorithms/proposing.
ELSEWHERE = ("explain", "propose_algorithm", "computation")


@pytest.mark.parametrize(
    "name", [row.name for row in VERBS.values() if row.result and row.name not in ELSEWHERE]
)
def test_every_verb_says_beforehand_what_it_takes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    net, pairs = question()
    made = BEFORE[name](net, pairs) if name in BEFORE else None
    net.forget()
    heard: list[Progress] = []
    work = Work(heard.append)
    monkeypatch.setattr(cutaway, name, partial(getattr(cutaway, name), work=work))
    took = CALLS[name](net, pairs, made).provenance.forwards
    priced = [report for report in heard if report.price is not None]
    assert len(priced) == 1  # parts of what is announced announce nothing
    price = priced[0].price
    assert price is not None
    assert priced[0].forwards + price.forwards == pytest.approx(took, rel=0.3)
    assert 0 < price.least <= price.forwards
    assert not price.parts or sum(forwards for _, forwards in price.parts) == pytest.approx(price.forwards)
    late = ("patch", "ablate", "pair_effects", "path_patch", "use", "label_features")
    assert heard.index(priced[0]) == 0 or name in late


def test_a_budget_that_is_too_small_for_anything_says_what_would_be_enough_before_anything_is_run() -> None:
    net, pairs = question()
    made = circuit(net, pairs)
    net.forget()
    work = Work(budget=Budget(forwards=500))
    with pytest.raises(Stopped, match="too small for anything: nothing was run") as refused:
        cutaway.test(net, made, pairs, controls=False, work=work)
    enough = float(refused.value.remedy.split()[0].replace(",", ""))
    assert 3000 < enough < 10000
    assert work.meter.forwards < 50  # the pace was measured
    again = Work(budget=Budget(forwards=1.3 * enough))
    assert cutaway.test(net, made, pairs, controls=False, work=again).complete


@pytest.mark.parametrize("at", ["resid_pre", "z", "mlp_out"])
def test_a_sweep_counts_the_layers_and_columns_that_it_runs(at: Any) -> None:
    """Without the rules that split a layer, every product in the layers is told by rows, layers and columns."""
    net, pairs = question()
    pairs = pairs.take([i for i, row in enumerate(pairs.clean_ids) if len(row) == 11])
    rules = Rules(stages=False, last=False)
    cutaway.patch(net, pairs, at=at, rules=rules)  # what is tried of a network once is tried now
    with seeing(net) as seen, metered(Meter()) as meter:
        effects = cutaway.patch(net, pairs, at=at, rules=rules)
    assert effects.provenance.forwards == meter.forwards == pytest.approx(seen.forwards(11), rel=1e-9)


def test_a_spent_budget_of_forwards_ends_a_sweep_and_keeps_what_is_finished() -> None:
    net, pairs = question()
    whole = cutaway.patch(net, pairs, at="resid_pre")
    net.forget()
    cutaway.performance(net, pairs)
    enough = 0.7 * whole.provenance.forwards
    with pytest.warns(UserWarning, match="Stopped"):
        part = cutaway.patch(net, pairs, at="resid_pre", work=Work(budget=Budget(forwards=enough)))
    finished = np.isfinite(part.data["effect"].values)
    assert not part.data.attrs["complete"]
    assert 0 < finished.sum() < np.isfinite(whole.data["effect"].values).sum()
    np.testing.assert_allclose(
        part.data["effect"].values[finished], whole.data["effect"].values[finished], atol=1e-5
    )
    assert enough < part.provenance.forwards < whole.provenance.forwards


def test_a_budget_is_one_for_all_that_a_work_does() -> None:
    net, pairs = question()
    work = Work(budget=Budget(forwards=1.5 * 2 * pairs.n))
    cutaway.performance(net, pairs, work=work)
    assert work.meter.forwards == 2 * pairs.n
    assert not work.stopped
    net.forget()
    with pytest.raises(Stopped, match="nothing was run"):  # half of it is left, which is known beforehand
        cutaway.performance(net, pairs, work=work.within("again"), batch=8)
    assert work.meter.forwards == 2 * pairs.n
    with metered(work.meter):
        answer_logits(net, pairs, "clean", batch=8, work=work)
        with pytest.raises(Stopped, match=f"{3 * pairs.n} forward-equivalents is spent"):
            answer_logits(net, pairs, "corrupted", batch=8, work=work)
    assert work.stopped
    assert work.meter.forwards == 3 * pairs.n + 8  # the batch that overdrew it was the last


def test_an_explanation_ends_where_its_budget_does() -> None:
    net, pairs = question()
    work = Work()

    def hear(progress: Progress) -> None:
        if progress.forwards > 400:
            work.stop()

    work = Work(hear)
    found = cutaway.explain(net, pairs, force=True, work=work)
    assert not found.complete
    assert found.claim.verdict == "inconclusive"
    assert found.provenance.forwards == work.meter.forwards > 400
    net.forget()
    with pytest.raises(Stopped, match="too small for anything"):
        cutaway.explain(net, pairs, force=True, work=Work(budget=Budget(forwards=60)))


def test_what_is_remembered_is_not_counted_again() -> None:
    net, pairs = question()
    first, second = (cutaway.performance(net, pairs).provenance.forwards for _ in range(2))
    assert (first, second) == (2 * pairs.n, 0)


def test_a_budget_of_memory_holds_for_plain_forwards_and_base_runs() -> None:
    net, pairs = question()
    seen: list[int] = []
    hook = net.model.register_forward_pre_hook(
        lambda _m, _a, given: seen.append(len(given["input_ids"])), with_kwargs=True
    )
    little = Work(budget=Budget(memory=400_000))
    try:
        cutaway.performance(net, pairs, work=little)
        with ends_kept(net, pairs, little):
            pass
        experiment = measure(net, pairs, [Site("z", 0)], little)
        cells = [(Write("z", 0, 0),)]
        base = experiment.clean
        naive.run_cells(experiment.experiment(net, base, experiment.corrupted.kept), cells, work=little)
    finally:
        hook.remove()
    assert rows_at_once(net, 12, little) == 1
    assert max(seen) <= 4  # what a network is tried on has up to four rows

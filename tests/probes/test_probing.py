"""The whole path on networks with known truth, and on everything that can be wrong with the data."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import GPT2LMHeadModel, T5Config, T5ForConditionalGeneration
from xor_networks import ANSWERS, Specimen, specimen

import cutaway
from cutaway import zoo
from cutaway.errors import BadFormat, BadInput, NotFinite, NotFound, SiteUnavailable
from cutaway.probes import (
    Columns,
    Probe,
    ProbeData,
    ProbeOptions,
    Probing,
    UseOptions,
    probe,
    probe_data,
    use,
)
from cutaway.probes.data.folds import assign_folds, families
from cutaway.probes.data.permutations import ExchangeRule, different, permutations
from cutaway.probes.fits.cross_validation import cross_validate
from cutaway.probes.map.controlling import controlling
from cutaway.probes.map.controls import labellings
from cutaway.probes.map.mapping import Setting
from cutaway.probes.map.significance import significance
from cutaway.probes.map.verdict import ABSENT, CONFOUNDED, ENCODED, UNDECIDED, UNUSED, USED
from cutaway.probes.reading.beds import bed_of_data, contrast_score

YES_NO = {"0": ANSWERS["no"], "1": ANSWERS["yes"]}
QUICK = ProbeOptions(permutations=30, untrained=False, n_boot=100)


def labelled(made: Specimen, name: str) -> ProbeData:
    return ProbeData(made.prompts, made.labels[name], name=name)


@pytest.mark.parametrize("seed", [100, 101])
def test_the_verdicts_on_networks_of_known_truth(seed: int) -> None:
    """A smaller version of benchmarks/probe_verdicts.py, on seeds of its own."""
    made = specimen(seed)
    net = cutaway.open(made.model)
    for name, right in (("used", USED), ("unread", UNUSED), ("absent", ABSENT), ("noise", ABSENT)):
        data = labelled(made, name)
        found = probe(net, data, "resid_post", options=ProbeOptions(permutations=60, seed=seed))
        word = found.finding.word
        if word == ENCODED:
            tested = use(net, found, data, answers=YES_NO, options=UseOptions(seed=seed))
            word = tested.finding.word
        assert word == right, (name, str(found))


def test_a_flip_moves_the_output_and_random_directions_do_not(net: cutaway.Network, made: Specimen) -> None:
    data = labelled(made, "used")
    found = probe(net, data, "resid_post.0", options=QUICK)
    tested = use(net, found, data, answers=YES_NO, options=UseOptions())
    flip = tested.effect("flip")
    assert 0.8 < flip.share.value < 1.2
    assert np.quantile(np.abs(flip.others), 0.9) < 0.5
    random = np.array_split(np.abs(flip.others), 2)[
        0
    ]  # the others are probes of permuted labels, partly of this one
    assert random.max() < 0.7
    assert np.abs(flip.others).max() < flip.share.value
    assert 0.3 < tested.effect("project out").share.value < 0.7
    assert 0.3 < tested.effect("erase").share.value < 0.7
    assert tested.effect("erase").p < 0.1
    assert tested.cosines["the probe's direction"] > 0.4
    added = [e for e in tested.effects if e.name == "add" and e.along == "the difference of means"]
    assert [e.share.value for e in added] == sorted(e.share.value for e in added)
    again = use(net, found, data, options=UseOptions())  # by the output's own contrast
    assert again.claim.verdict == "supported"


def test_every_probe_says_how_it_lies_to_the_direction_that_controls(
    net: cutaway.Network, made: Specimen
) -> None:
    found = probe(net, labelled(made, "used"), "resid_post", options=QUICK)
    cosines = found.data["means_cosine"].values.ravel()
    assert np.abs(cosines[0]) > 0.3  # read there by the next layer
    assert found.probe(layer=0).about["means_cosine"] == pytest.approx(cosines[0])
    assert "direction that controls" in str(found)
    # by hand: the gradients of one fold at the first layer's end, of one prompt after the other
    data = labelled(made, "used")
    setting = Setting.of(data, QUICK)
    control = controlling(net, data, found.places, setting.folds)
    rows = torch.nonzero(torch.as_tensor(setting.folds == 1))[:, 0]
    rows = rows[torch.linspace(0, len(rows) - 1, min(len(rows), 256 // QUICK.folds)).long()]
    bed = bed_of_data(net, data, found.places, found.places.cells[0])
    score, _ = contrast_score(net, bed.take(rows))
    total = torch.zeros(net.d_model).double()
    for row in rows.tolist():
        ids = net.encode([made.prompts[row]]).ids
        hidden: list[torch.Tensor] = []

        def hook(
            module: torch.nn.Module, given: object, out: torch.Tensor, hidden: list[torch.Tensor] = hidden
        ) -> None:
            out = out[0] if isinstance(out, tuple) else out
            out.retain_grad()
            hidden.append(out)

        handle = made.model.transformer.h[0].register_forward_hook(hook)
        logits = made.model(ids).logits[:, -1]
        handle.remove()
        score(logits, torch.tensor([0])).sum().backward()
        assert hidden[0].grad is not None
        slope = hidden[0].grad[0, -1].double()
        total += slope / slope.norm()
    mine = control.directions[found.number(layer=0)][1]
    assert torch.allclose(mine, total / len(rows), atol=1e-4)


def test_noise_lies_nowhere_to_the_direction_that_controls(net: cutaway.Network, made: Specimen) -> None:
    """Activations and outputs of the same prompts vary together: what is compared must be found on different ones."""
    rng = np.random.default_rng(4)
    cosines = []
    for memory in (2**30, 0):
        for _ in range(6):
            data = ProbeData(made.prompts, rng.permutation(np.arange(240) % 2), name="noise")
            options = ProbeOptions(folds=4, permutations=0, untrained=False, baselines=False, memory=memory)
            found = probe(net, data, "resid_post", options=options)
            cosines.append([found.data[k].values.ravel() for k in ("cosine", "means_cosine")])
    assert np.abs(np.mean(cosines, axis=(0, 2))).max() < 0.15


@pytest.mark.parametrize(
    ("labels", "more", "said"),
    [
        (np.zeros((4, 2)), {}, "2 dimensions"),
        (np.array([0, 1, 0.5, 1]), {}, "0.5 is no class number"),
        (np.array([-1, 1, 0, 1]), {}, "-1 is no class number"),
        (np.array([0, 1, 2, 1]), {}, "2 is no class number"),
        (np.eye(4)[:, :3], {"kind": "multilabel"}, "3 columns"),
    ],
)
def test_labels_that_are_no_labels(labels: np.ndarray, more: dict[str, str], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        ProbeData(["a", "b", "c", "d"], labels, **more)


def test_where_the_output_cannot_be_differentiated_a_note_says_so(
    net: cutaway.Network, made: Specimen
) -> None:
    labels = np.stack([made.labels["used"], made.labels["unread"]], 1)
    data = ProbeData(made.prompts, labels, "multilabel", ("used", "unread"), name="both")
    found = probe(net, data, "resid_post.0", options=QUICK)
    assert np.isnan(found.data["cosine"].values).all()
    assert any("direction that controls" in note for note in found.data.attrs["notes"])
    assert found.controls() == ""


def test_tests_are_saved_and_loaded(net: cutaway.Network, made: Specimen, tmp_path: Path) -> None:
    data = labelled(made, "used")
    found = probe(net, data, "resid_post.0", options=QUICK)
    tested = use(net, found, data, answers=YES_NO, options=UseOptions())
    again = cutaway.probes.Use.load(tested.save(tmp_path / "use"))
    assert again.to_dict() == tested.to_dict()
    assert again.verdict == tested.verdict == USED
    assert "cosine" in str(tested)
    assert len(tested.to_pandas()) == len(tested.effects)
    assert tested.plot().data


def test_a_label_of_the_tokens_is_confounded_with_them(net: cutaway.Network, made: Specimen) -> None:
    bit = np.array([(row[0] - 3) // 6 & 1 for row in made.prompts])
    found = probe(net, ProbeData(made.prompts, bit, name="bit"), "resid_post.0", options=QUICK)
    assert found.finding.word == CONFOUNDED
    assert "the tokens alone" in found.finding.confounds
    assert not found.finding.encoded.supported  # type: ignore[union-attr]


def test_a_label_that_goes_with_a_known_column_is_confounded_with_it(
    net: cutaway.Network, made: Specimen
) -> None:
    used = made.labels["used"]
    data = ProbeData(made.prompts, used, name="used", also={"copy": used})
    found = probe(net, data, "resid_post.0", options=QUICK)
    assert str(found.finding) == "confounded (with the column 'copy')"


def test_a_label_that_holds_in_each_source_by_another_rule_is_confounded_with_the_source(
    net: cutaway.Network, made: Specimen
) -> None:
    used = made.labels["used"]
    source = np.arange(len(used)) % 2
    mixed = np.where(source == 1, used, 1 - used)
    prompts = [[*row[:2], 4 if s else 5, row[2]] for row, s in zip(made.prompts, source, strict=True)]
    same = ProbeData(made.prompts, used, name="used", sources=tuple(source.tolist()))
    assert probe(net, same, "resid_post.0", options=QUICK).finding.word == ENCODED
    other = ProbeData(prompts, mixed, name="mixed", sources=tuple(source.tolist()))
    assert probe(net, other, "resid_post.0", options=QUICK).finding.word != ENCODED


# the map -------------------------------------------------------------------------------------------------------------


def test_sums_alone_find_what_activations_find(net: cutaway.Network, made: Specimen) -> None:
    data = labelled(made, "used")
    kept = probe(net, data, "z", ("layer", "head", "position"), options=QUICK)
    summed = probe(
        net,
        data,
        "z",
        ("layer", "head", "position"),
        options=ProbeOptions(permutations=30, untrained=False, memory=0),
    )
    assert summed.what == "R²"
    assert "sums alone" in summed.data.attrs["kept"]
    assert summed.places.cells == kept.places.cells
    both = [labelled(made, "used"), "resid_post"]
    a = probe(net, both[0], "resid_post", options=QUICK)
    b = probe(net, both[0], "resid_post", options=ProbeOptions(permutations=30, untrained=False, memory=0))
    assert b.finding.word == a.finding.word == ENCODED
    assert float(b.data["score"].max()) > 0.9
    for mine, theirs in zip(a.probes, b.probes, strict=True):
        assert torch.allclose(mine.centres, theirs.centres, atol=1e-4)
    with pytest.raises(BadInput, match="needs the activations"):
        probe(net, data, options=ProbeOptions(kind="logistic", memory=0))


def test_by_head_and_position(net: cutaway.Network, made: Specimen) -> None:
    found = probe(net, labelled(made, "used"), "z", ("layer", "head", "position"), options=QUICK)
    assert found.data["score"].dims == ("layer", "head", "position")
    assert found.data["score"].shape == (2, 2, 3)
    assert found.probe(layer=1, head=0, position=2).d == 24
    assert found.plot().data
    whole = probe(net, labelled(made, "used"), "z", pos=[0, -1], options=QUICK)
    assert whole.data["score"].shape == (2, 2)
    assert whole.probe(layer=1, position=-1).d == 48


@pytest.mark.parametrize("kind", ["logistic", "lda", "means", "mass-mean"])
def test_other_kinds_find_it_too(net: cutaway.Network, made: Specimen, kind: str) -> None:
    options = ProbeOptions(
        kind=kind, permutations=20, untrained=False, n_boot=50, control_tasks=1, folds=3, penalties=(10.0,)
    )
    found = probe(net, labelled(made, "used"), "resid_post.0", options=options)
    assert float(found.data["score"].max()) > 0.95
    assert use(net, found, labelled(made, "used"), answers=YES_NO, options=UseOptions()).claim.supported


def test_classes_values_and_several_labels(net: cutaway.Network, made: Specimen) -> None:
    used, unread = made.labels["used"], made.labels["unread"]
    four = ProbeData(made.prompts, 2 * used + unread, "multiclass", tuple("abcd"), "four")
    found = probe(net, four, "resid_post.0", options=QUICK)
    assert found.finding.word == ENCODED
    assert found.what == "balanced accuracy"
    assert found.histogram().data
    noise = np.random.default_rng(0).normal(size=len(used))
    found = probe(
        net,
        ProbeData(made.prompts, used + 0.2 * noise, "continuous", (), "value"),
        "resid_post.0",
        options=QUICK,
    )
    assert float(found.data["score"].max()) > 0.7
    assert found.finding.word == ENCODED
    assert use(
        net, found, ProbeData(made.prompts, used + 0.2 * noise, "continuous", (), "value")
    ).claim.supported
    table = np.stack([used, unread], 1)
    found = probe(
        net, ProbeData(made.prompts, table, "multilabel", ("a", "b"), "both"), "resid_post.0", options=QUICK
    )
    assert float(found.data["score"].max()) > 0.95


def test_tokens_of_a_text_stay_together(net: cutaway.Network, made: Specimen) -> None:
    n = len(made.prompts)
    data = ProbeData(
        made.prompts,
        np.tile([0, 1], n),
        name="place",
        rows=np.repeat(np.arange(n), 2),
        spans=((0, 1), (1, 2)) * n,
    )
    family = families(data)
    assert family.count == n
    folds = assign_folds(data, family, 5, 0)
    assert all(folds[2 * i] == folds[2 * i + 1] for i in range(n))
    found = probe(net, data, "resid_post", options=QUICK)
    assert float(found.data["score"].max()) > 0.9
    with pytest.raises(BadInput, match="outside its 3 tokens"):
        probe(net, ProbeData(made.prompts, np.tile([0, 1], n // 2), spans=((0, 9),) * n), options=QUICK)


def test_results_and_probes_are_saved_and_loaded(
    net: cutaway.Network, made: Specimen, tmp_path: Path
) -> None:
    data = labelled(made, "used")
    found = probe(net, data, "resid_post", options=QUICK)
    again = Probing.load(found.save(tmp_path / "found"))
    assert again.headline() == found.headline()
    assert again.finding.to_dict() == found.finding.to_dict()
    pd.testing.assert_frame_equal(again.to_pandas(), found.to_pandas())
    best = Probe.load(found.probe(layer=0).save(tmp_path / "probe"))
    run = net.run(made.prompts[:20], keep=["resid_post.0"])
    assert torch.equal(best.on(run), found.probe(layer=0).on(run))
    assert (best.predict(run["resid_post.0"][:, -1]).numpy() == made.labels["used"][:20]).mean() > 0.9
    quiet = net.run(made.prompts[:20], keep=["resid_post.0"], edits=[best.project_out()])
    assert float(best.outputs(quiet["resid_post.0"][:, -1]).std()) < 1e-5
    net.run(made.prompts[:3], edits=[best.add(0.5)])
    with pytest.raises(BadFormat):
        Probe.load(tmp_path / "found")
    for text in (str(found), found._repr_html_(), repr(best)):
        assert "used" in text


def test_the_same_seed_gives_the_same_figures(net: cutaway.Network, made: Specimen) -> None:
    a, b = (probe(net, labelled(made, "noise"), "resid_post", options=QUICK) for _ in range(2))
    pd.testing.assert_frame_equal(a.to_pandas(), b.to_pandas())
    c = probe(
        net,
        labelled(made, "noise"),
        "resid_post",
        options=ProbeOptions(permutations=30, untrained=False, seed=1),
    )
    assert a.to_pandas()["score"].tolist() != c.to_pandas()["score"].tolist()


def test_progress_is_reported(net: cutaway.Network, made: Specimen) -> None:
    told: list[str] = []
    probe(net, labelled(made, "used"), options=QUICK, report=lambda what, done, total: told.append(what))
    assert {"reading", "probing"} <= set(told)


# splits --------------------------------------------------------------------------------------------------------------


def test_equal_texts_are_found_and_kept_together(net: cutaway.Network, made: Specimen) -> None:
    prompts = made.prompts[:60] * 2
    labels = np.tile(made.labels["used"][:60], 2)
    data = ProbeData(prompts, labels)
    family = families(data)
    assert family.count == 60
    assert "60 inputs repeat others" in family.notes[0]
    folds = assign_folds(data, family, 5, 0)
    assert (folds[:60] == folds[60:]).all()
    torn = ProbeData(prompts, np.concatenate([labels[:60], 1 - labels[:60]]))
    assert any("different labels" in note for note in families(torn).notes)
    noted = probe(net, data, options=QUICK)
    assert any("repeat others" in note for note in noted.data.attrs["notes"])


def test_groups_are_not_parted_and_classes_are_spread(made: Specimen) -> None:
    groups = tuple(np.arange(240) // 8)
    data = ProbeData(made.prompts, made.labels["used"], groups=groups)
    folds = assign_folds(data, families(data), 5, 0)
    for g in set(groups):
        assert len({folds[i] for i in range(240) if groups[i] == g}) == 1
    shares = [data.labels[folds == f].mean() for f in range(5)]
    assert max(shares) - min(shares) < 0.2
    assert np.bincount(folds).min() > 30


def test_permutations_keep_what_the_groups_fix(made: Specimen) -> None:
    whole = np.repeat(np.arange(30) % 2, 8)
    data = ProbeData(made.prompts, whole, groups=tuple(np.arange(240) // 8))
    family = families(data)
    nearly = whole.copy()
    nearly[::8] = 1 - nearly[::8]  # one of eight is otherwise: the group still counts as one
    for labels in (whole, nearly):
        exchange = ExchangeRule.of(labels, family, 5)
        assert (exchange.how, exchange.blind) == ("groups", False)
        folds = assign_folds(data, family, 5, 0)
        exchanged = permutations(labels, family, 40, 0, exchange, folds)
        for row in exchanged:
            assert sorted(row) == list(range(240))
            assert all(len({whole[i] for i in row[8 * g : 8 * g + 8]}) == 1 for g in range(30))
            assert (folds[row] == folds).all()
        assert len({tuple(row) for row in exchanged.tolist()}) > 35
    mixed = np.tile([0, 1], 120)
    exchange = ExchangeRule.of(mixed, family, 5)
    assert exchange == ExchangeRule("examples within groups", False)
    exchanged = permutations(mixed, family, 5, 0, exchange)
    assert all(row[8 * g : 8 * g + 8].sum() == 4 for row in mixed[exchanged] for g in range(30))


def test_permutations_of_few_or_uneven_groups_cross_blind_folds(made: Specimen) -> None:
    uneven = np.concatenate([np.repeat(np.arange(20), 10), 20 + np.arange(40)])
    labels = (uneven % 2).astype(int)
    data = ProbeData(made.prompts, labels, groups=tuple(uneven))
    family = families(data)
    exchange = ExchangeRule.of(labels, family, 5)
    assert (exchange.how, exchange.blind) == ("groups", True)
    other = ProbeData(made.prompts, 1 - labels, groups=tuple(uneven))
    folds = assign_folds(data, family, 5, 0, blind=True)
    assert (folds == assign_folds(other, family, 5, 0, blind=True)).all()  # the labels play no part
    assert np.bincount(folds).min() > 40
    exchanged = permutations(labels, family, 20, 0, exchange, folds)
    assert any((folds[row] != folds).any() for row in exchanged)
    assert all(len(set(labels[row])) == 2 for row in exchanged)
    few = np.repeat(np.arange(12), 20)
    assert ExchangeRule.of(few % 2, families(ProbeData(made.prompts, few % 2, groups=tuple(few))), 5).blind


def test_permutation_tests_of_noise_keep_their_level() -> None:
    """Group labels of pure noise on features that vary by group: the rate of p <= 0.1 must be near 0.1, in four classes,
    where folds that know the labels would give about twice that."""
    rng, hits, runs = np.random.default_rng(0), 0, 150
    groups = np.repeat(np.arange(40), 5)
    for seed in range(runs):
        labels = rng.permutation(np.arange(40) % 4)[groups]
        data = ProbeData(
            [f"t{i}" for i in range(200)], labels, "multiclass", tuple("abcd"), groups=tuple(groups)
        )
        setting = Setting.of(data, ProbeOptions(permutations=39, penalties=(0.1,), seed=seed))
        x = torch.tensor(rng.normal(size=(40, 8))[groups] + 0.3 * rng.normal(size=(200, 8)))
        found = cross_validate(
            x, labellings(data, None, setting.permuted), setting.folds, setting.options.fitting, setting.drawn
        )
        scores = found.scores.numpy()
        hits += significance(scores[:1], scores[None, 1:]).p[0] <= 0.1
    assert 2 <= hits <= 27  # 15 expected, deviation 3.7


def test_permutations_without_a_score_count_against_the_label() -> None:
    null = np.array([[0.1, np.nan, np.nan, 0.2]])
    assert significance(np.array([0.9]), null).p[0] == pytest.approx(3 / 5)
    nothing = significance(np.array([0.9]), np.full((1, 4), np.nan))
    assert nothing.p[0] == nothing.p_best[0] == 1.0


# what can be wrong ---------------------------------------------------------------------------------------------------


def test_one_class_only(net: cutaway.Network, made: Specimen) -> None:
    with pytest.raises(BadInput, match="of the class '1'"):
        ProbeData(made.prompts, np.ones(240, dtype=int))
    with pytest.raises(BadInput, match="of the class 'a'"):
        probe_data([("x y", "a"), ("x z", "a")])


def test_fewer_examples_than_folds(net: cutaway.Network, made: Specimen) -> None:
    with pytest.raises(BadInput, match="3 examples in 3 groups cannot be split into 5"):
        probe(net, ProbeData(made.prompts[:3], np.array([0, 1, 0])))
    with pytest.raises(BadInput, match="in 2 groups"):
        probe(net, ProbeData(made.prompts[:40], made.labels["used"][:40], groups=tuple("ab" * 20)))
    lone = np.zeros(40, dtype=int)
    lone[:3] = 1
    with pytest.raises(BadInput, match="fall into one fold"):
        probe(net, ProbeData(made.prompts[:40], lone, groups=("x",) * 3 + tuple(range(37))))


def test_missing_labels() -> None:
    with pytest.raises(BadInput, match="2 of 4 labels .* missing, the first in row 1"):
        probe_data([("a", 1), ("b", None), ("c", 0), ("d", float("nan"))])
    with pytest.raises(BadInput, match="missing"):
        ProbeData(["a", "b"], np.array([0.0, np.nan]))


def test_text_where_numbers_belong(made: Specimen) -> None:
    with pytest.raises(BadInput, match="no number"):
        probe_data([("a", "1.5"), ("b", "much")], kind="continuous")
    with pytest.raises(BadInput, match="not numbers"):
        ProbeData(["a", "b"], np.array(["x", "y"]))
    with pytest.raises(BadInput, match="different labels"):
        probe_data([(f"text {i}", f"label {i}") for i in range(80)])


def test_nan_activations(made: Specimen) -> None:
    broken = specimen(3).model
    with torch.no_grad():
        broken.transformer.h[1].mlp.c_proj.bias[0] = float("nan")
    net = cutaway.open(broken, certify=False)
    with pytest.raises(NotFinite, match="resid_post.1 is NaN or infinite for example"):
        probe(net, labelled(made, "used"), "resid_post.1", options=QUICK)


def test_lengths_that_do_not_fit(made: Specimen) -> None:
    with pytest.raises(BadInput, match="entries of groups"):
        ProbeData(made.prompts, made.labels["used"], groups=("a",))
    with pytest.raises(BadInput, match="240 labels for 10 inputs"):
        ProbeData(made.prompts[:10], made.labels["used"])


def test_sites_positions_and_dimensions(net: cutaway.Network, made: Specimen) -> None:
    data = labelled(made, "used")
    with pytest.raises(SiteUnavailable, match="no one vector per position"):
        probe(net, data, "pattern")
    with pytest.raises(NotFound):
        probe(net, data, "resid_pots")
    with pytest.raises(BadInput, match="has no heads"):
        probe(net, data, by=["layer", "head"])
    with pytest.raises(BadInput, match="no dimension"):
        probe(net, data, by=["colour"])
    with pytest.raises(BadInput, match="outside the shortest input"):
        probe(net, data, pos=7)
    with pytest.raises(NotFound, match="kind of probe"):
        probe(net, data, options=ProbeOptions(kind="rigde"))
    with pytest.raises(BadInput, match="does not fit continuous"):
        probe(
            net,
            ProbeData(made.prompts, np.linspace(0, 1, 240), "continuous", ()),
            options=ProbeOptions(kind="lda"),
        )
    with pytest.raises(BadInput, match="folds=1"):
        ProbeOptions(folds=1)
    with pytest.raises(BadInput, match="above zero"):
        ProbeOptions(penalties=(0.0,))
    with pytest.raises(BadInput, match="no option of probe"):
        probe(net, data, label="x")


def test_causal_tests_say_what_they_need(net: cutaway.Network, made: Specimen) -> None:
    data = labelled(made, "used")
    found = probe(net, data, "resid_post.0", options=QUICK)
    with pytest.raises(BadInput, match="no answer for the class '0'"):
        use(net, found, data, answers={"1": 1})
    with pytest.raises(BadInput, match="before the place"):
        use(net, found, data, answers=YES_NO, options=UseOptions(read=0))
    with pytest.raises(BadInput, match="too few"):
        UseOptions(directions=3)
    with pytest.raises(BadInput, match="No probe was fitted"):
        use(net, found, data, where={"layer": 1})


# reading -------------------------------------------------------------------------------------------------------------


def test_files_frames_and_datasets(tmp_path: Path) -> None:
    rows = [{"text": f"word {i}", "label": "ab"[i % 2], "group": i // 2, "length": i} for i in range(12)]
    frame = pd.DataFrame(rows)
    frame.to_csv(tmp_path / "a.csv", index=False)
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(r) for r in rows))
    (tmp_path / "a.json").write_text(json.dumps(rows))
    columns = Columns("label", group="group", also=("length",))
    read = [
        probe_data(s, columns)
        for s in (frame, rows, tmp_path / "a.csv", tmp_path / "a.jsonl", str(tmp_path / "a.json"))
    ]
    assert len({d.hash for d in read}) == 1
    assert read[0].classes == ("a", "b")
    assert read[0].groups == tuple(i // 2 for i in range(12))
    assert probe_data(frame, "length").kind == "continuous"
    assert probe_data(frame, "label", n=5).n == 5
    datasets = pytest.importorskip("datasets")
    assert probe_data(datasets.Dataset.from_pandas(frame), columns).hash == read[0].hash
    with pytest.raises(NotFound, match="no column 'lable'"):
        probe_data(frame, "lable")
    with pytest.raises(NotFound, match="no file"):
        probe_data(tmp_path / "none.csv")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(BadFormat):
        probe_data(tmp_path / "bad.json")
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(BadFormat, match="type that is not read"):
        probe_data(tmp_path / "a.txt")


def test_kinds_of_labels_are_found() -> None:
    assert probe_data([("a", True), ("b", False)]).kind == "binary"
    assert probe_data([("a", 0.5), ("b", 1.5)]).kind == "continuous"
    assert probe_data([("a", "x"), ("b", "y"), ("c", "z")]).kind == "multiclass"
    many = probe_data([("a", ["x", "y"]), ("b", ["y"]), ("c", ["x"])])
    assert many.kind == "multilabel"
    assert many.labels.tolist() == [[1, 1], [0, 1], [1, 0]]
    per_token = probe_data([([5, 6, 7], ["N", None, "V"]), ([5, 6], ["N", "V"])], per_token=True)
    assert per_token.n == 4
    assert per_token.spans == ((0, 1), (2, 3), (0, 1), (1, 2))


def test_spans_by_word(tiny_gpt2: GPT2LMHeadModel) -> None:
    net = cutaway.open("zoo:tales")
    rows = [
        {"text": "Mary was sad because", "label": 1, "word": "Mary"},
        {"text": "Tom was sad because", "label": 0, "word": "Tom"},
    ]
    data = probe_data(rows, span="word", net=net)
    assert data.spans == ((0, 1), (0, 1)) or all(b - a >= 1 for a, b in data.spans or ())
    with pytest.raises(BadInput, match="does not stand"):
        probe_data([{**rows[0], "word": "Zed"}, rows[1]], span="word", net=net)
    with pytest.raises(BadInput, match="tokenizer"):
        probe_data(rows, span="word")


@pytest.mark.parametrize(("twin", "right"), [("", UNUSED), ("~used", USED), ("~without", CONFOUNDED)])
def test_the_note_that_nobody_reads(twin: str, right: str) -> None:
    """A zoo network that notes a variable for nobody, its twin that reads it, and its twin that does not note it: what is
    left of the variable there is what the tokens tell anyway."""
    net = cutaway.open(f"zoo:unread-llama{twin}")
    drawn = [label for label in zoo.specimen("unread-llama").task.labels("note", 300, 7) if label.value < 2]
    data = ProbeData([list(d.ids) for d in drawn], np.array([d.value for d in drawn]), name="note")
    found = probe(net, data, options=ProbeOptions(permutations=40, n_boot=200))
    word = found.finding.word
    if word == ENCODED:
        answers = {"0": [1, 2, 3, 4], "1": [5, 6, 7, 8]}
        word = use(net, found, data, answers=answers, options=UseOptions()).finding.word
    assert word == right, str(found)


def test_a_behaviour_in_the_place_of_data() -> None:
    """The probe of names' gender, tested on the pronoun behaviour: its corrupted prompts have the other gender."""
    from cutaway.recipes.tales.prompts import FEMALE, MALE

    net = cutaway.open("zoo:tales")
    rows = [
        {"text": f"{name} was {mood} because", "gender": gender, "name": name}
        for gender, people in (("girl", FEMALE), ("boy", MALE))
        for name in people
        for mood in ("sad", "happy")
    ]
    found = probe(net, rows, "resid_post.2", label="gender", group="name", options=QUICK)
    pronoun = cutaway.behaviour("pronoun", net, n=40)
    tested = use(net, found, pronoun, options=UseOptions())
    assert tested.metric == "logit_diff of 'pronoun'"
    flip = tested.effect("flip", "the difference of means")
    assert flip.share.value > 0.4  # on sentence frames that the probe was not fitted on
    assert flip.p < 0.06
    assert tested.cosines["the difference of means"] > 0.5
    with pytest.raises(BadInput, match="no span 'verb'"):
        use(net, found, pronoun, pos="verb")
    greater = cutaway.behaviour("list-copying", net, n=12, force=True)
    with pytest.raises(BadInput, match="of one class"):
        use(net, found, greater)


def test_images_and_module_paths() -> None:
    torch.manual_seed(0)
    layers = (torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 3))
    model = torch.nn.Sequential(*layers).eval()
    pixels = torch.randn(120, 1, 8, 8)
    net = cutaway.open(model, example={"input": pixels[:2]})
    labels = (pixels.mean((1, 2, 3)) > 0).long().numpy()
    data = ProbeData({"input": pixels}, labels, name="bright")
    found = probe(net, data, ["0", "3"], options=QUICK)
    assert found.data["score"].shape == (2, 1)
    assert float(found.data["score"].sel(site="0").max()) > 0.9
    with pytest.raises(BadInput, match="prompts of tokens"):
        use(net, found, data)


def test_more_sources_than_fits(net: cutaway.Network, made: Specimen) -> None:
    from cutaway.probes.data.folds import source_folds

    folds, names, note = source_folds([f"s{i}" for i in range(240)], 20)
    assert len(set(folds.tolist())) == len(names) == 20
    assert note is not None
    assert "240 sources" in note
    data = ProbeData(made.prompts, made.labels["used"], name="used", sources=tuple(range(240)))
    assert probe(net, data, "resid_post.0", options=QUICK).finding.word == ENCODED


def test_bare_lists_and_other_things_are_refused(net: cutaway.Network) -> None:
    for wrong in (3, [], [("", 1), ("a", 0)], [(None, 1)]):
        with pytest.raises((BadInput, NotFound, BadFormat)):
            probe_data(wrong)
    with pytest.raises(BadInput, match="not a list of one label per token"):
        probe_data([("a", 1), ("b", 0)], per_token=True)
    with pytest.raises(BadInput, match="no table of 0 and 1"):
        ProbeData(["a", "b"], np.array([[0, 2], [1, 0]]), "multilabel", ("x", "y"))
    with pytest.raises(BadInput, match="Every value"):
        ProbeData(["a", "b"], np.array([1.0, 1.0]), "continuous", ())
    with pytest.raises(BadInput, match="3 is no class number"):
        ProbeData(["a", "b"], np.array([1, 3]))


# claims that their data do not bear -------------------------------------------------------------------------------------


def test_few_permutations_are_refused_and_none_leaves_the_verdict_open(
    net: cutaway.Network, made: Specimen
) -> None:
    with pytest.raises(BadInput, match="at least 19"):
        ProbeOptions(permutations=10)
    found = probe(net, labelled(made, "used"), "resid_post.0", options=ProbeOptions(permutations=0, folds=3))
    assert found.finding.word == UNDECIDED
    assert found.finding.encoded is not None
    assert found.finding.encoded.verdict == "inconclusive"


def test_groups_whose_size_goes_with_the_label_are_still_exchanged(
    net: cutaway.Network, made: Specimen
) -> None:
    """Groups of three of one class and of two of the other: exchanging like sizes only would leave all labels alone."""
    truth = np.asarray(made.labels["used"])
    ones, zeros = np.flatnonzero(truth == 1), np.flatnonzero(truth == 0)
    keep = [*ones[: len(ones) // 3 * 3], *zeros[: len(zeros) // 2 * 2]]
    groups = [f"a{i // 3}" for i in range(len(ones) // 3 * 3)] + [
        f"b{i // 2}" for i in range(len(zeros) // 2 * 2)
    ]
    data = ProbeData([made.prompts[i] for i in keep], truth[keep], name="used", groups=tuple(groups))
    found = probe(net, data, "resid_post.0", options=QUICK)
    assert found.finding.word == ENCODED
    assert different(data.labels, Setting.of(data, QUICK).permuted) >= 19


def test_values_that_jitter_within_groups_are_exchanged_by_group() -> None:
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(40), 5)
    values = rng.normal(size=40)[groups]
    data = ProbeData([f"t{i}" for i in range(200)], values, "continuous", (), groups=tuple(groups))
    family = families(data)
    assert ExchangeRule.of(values + 0.01 * rng.normal(size=200), family, 5).how == "groups"
    assert ExchangeRule.of(rng.normal(size=200), family, 5).how == "examples within groups"


def test_absence_of_evidence_is_no_refutation(net: cutaway.Network, made: Specimen) -> None:
    data = ProbeData(made.prompts[:8], np.arange(8) % 2, name="few")
    found = probe(net, data, "resid_post.0", options=ProbeOptions(permutations=19, folds=2, untrained=False))
    assert found.finding.encoded is not None
    assert found.finding.encoded.verdict == "inconclusive"
    tested = use(net, found, data, answers=YES_NO)
    assert tested.claim.verdict == "inconclusive"
    assert any("too few" in note for note in tested.claim.notes)
    assert any("verdict on encoding" in note for note in tested.claim.notes)


def test_use_asks_for_the_label_that_was_probed_and_for_answers_that_differ(
    net: cutaway.Network, made: Specimen
) -> None:
    found = probe(net, labelled(made, "used"), "resid_post.0", options=QUICK)
    with pytest.raises(BadInput, match="the data are labelled with 'unread'"):
        use(net, found, labelled(made, "unread"))
    with pytest.raises(BadInput, match="same answers"):
        use(net, found, labelled(made, "used"), answers={"0": ANSWERS["yes"], "1": ANSWERS["yes"]})
    turned = {"0": ANSWERS["yes"], "1": ANSWERS["no"]}
    tested = use(net, found, labelled(made, "used"), answers=turned)
    assert any("against the answers" in note for note in tested.claim.notes)


def test_use_compares_two_of_several_classes(net: cutaway.Network, made: Specimen) -> None:
    three = np.where(np.arange(240) % 6 == 0, 2, np.asarray(made.labels["used"]))
    data = ProbeData(made.prompts, three, "multiclass", ("a", "b", "c"), name="three")
    found = probe(net, data, "resid_post.0", options=QUICK)
    assert use(net, found, data).effects


@pytest.mark.parametrize(
    ("text", "label", "kind", "classes"),
    [
        ("text,l\na b,NA\nc d,None\ne f,NA\n", "l", "binary", ("NA", "None")),
        ("text,l\na b,01\nc d,1\ne f,01\n", "l", "binary", ("01", "1")),
        ("text,l\na b,TRUE\nc d,FALSE\n", "l", "binary", ("FALSE", "TRUE")),
        ("\ufefftext,l\n5,0.5\n6,1.5\n", "l", "continuous", ()),
    ],
)
def test_cells_of_a_csv_file_are_what_is_written(
    tmp_path: Path, text: str, label: str, kind: str, classes: tuple[str, ...]
) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text, encoding="utf-8")
    data = probe_data(path, label)
    assert (data.kind, data.classes) == (kind, classes)


def test_what_could_mean_two_things_is_refused(net: cutaway.Network, tmp_path: Path) -> None:
    two = [("a", [1, 0]), ("b", [0, 1]), ("c", [1, 1])]
    with pytest.raises(BadInput, match="rows of 0 and 1"):
        probe_data(two)
    with pytest.raises(BadInput, match="no list of labels"):
        probe_data([("a", ["x"]), ("b", "y")])
    with pytest.raises(BadInput, match="2 labels for 3 tokens"):
        probe_data([([1, 2, 3], [0, 1])], per_token=True)
    with pytest.raises(BadInput, match="no option 'grup'"):
        probe_data([("a", 0), ("b", 1)], grup="x")
    rows = [{"text": "a", "label": 0, "g": "x"}, {"text": "b", "label": 1, "g": None}]
    with pytest.raises(BadInput, match="no entry in the column 'g'"):
        probe_data(rows, group="g")
    with pytest.raises(BadInput, match="kind 'bogus'"):
        probe_data([("a", 0), ("b", 1)], kind="bogus")  # type: ignore[arg-type]
    path = tmp_path / "t.csv"
    path.write_text("text;label\na;1\n")
    with pytest.raises(NotFound, match="parted by commas"):
        probe_data(path)


def test_the_decoder_of_an_encoder_decoder_has_read_one_token() -> None:
    config = T5Config(
        vocab_size=60,
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        decoder_start_token_id=0,
        eos_token_id=1,
    )
    torch.manual_seed(0)
    net = cutaway.open(T5ForConditionalGeneration(config).eval())
    ids = np.random.default_rng(0).integers(2, 60, (60, 5))
    data = ProbeData(ids.tolist(), ids[:, -1] % 2)
    options = ProbeOptions(permutations=19, untrained=False)
    assert probe(net, data, "resid_post", options=options).places.positions == (0,)
    assert probe(net, data, "encoder.resid_post", options=options).places.positions == (-1,)
    with pytest.raises(BadInput, match=r"encoder\.resid_post"):
        probe(net, data, "resid_post", pos=-1, options=options)

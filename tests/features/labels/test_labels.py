"""Labels of features whose right label is known; scores against brute force; controls at chance; what is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from planting import Told, planted, told

import cutaway
from cutaway.errors import BadAddress, BadInput
from cutaway.features.examples import TokenExample
from cutaway.features.index import FeatureIndex
from cutaway.features.labels import FeatureLabels, exam, fitting, marks_of_spans
from cutaway.features.labels.splitting import split_texts
from cutaway.features.labels.traits import TokenTrait
from cutaway.features.sets import FeatureSet
from cutaway.network import Network
from cutaway.results import Work


@pytest.fixture(scope="module")
def of(tales: Network) -> Told:
    return told(tales)


def plants(of: Told) -> dict:
    return {
        "tokens": lambda i: of.token[i] in (" was", " were", " had"),
        "one token": lambda i: of.token[i] == " the",
        "bigram": lambda i: of.before[i] + of.token[i] == " to the",
        "previous": lambda i: of.before[i] == " and",
        "third": lambda i: of.position[i] == 3,
        "ends": lambda i: of.token[i].endswith("ed"),
        "begins": lambda i: of.token[i].strip().startswith("th"),
        "slot": lambda i: of.slot[i] == "place",
        "scene": lambda i: of.scene[i] == sorted({s for s in of.scene if s})[0],
    }


@pytest.fixture(scope="module")
def index(tales: Network, of: Told) -> FeatureIndex:
    return planted(tales, of, plants(of))[0]


@pytest.fixture(scope="module")
def labels(tales: Network, of: Told, index: FeatureIndex) -> FeatureLabels:
    return cutaway.label_features(tales, index, marks=of.marks)


def test_every_plant_is_named_and_supported(labels: FeatureLabels) -> None:
    wanted = {
        "one token": ("token", {"token ' the'"}), "bigram": ("n-gram", {"' to the'"}),
        "previous": ("previous", {"after ' and'"}), "third": ("position", {"position 3"}),
        "ends": ("suffix", {"ends with 'ed'"}), "begins": ("prefix", {"begins with 'th'"}),
        "slot": ("mark", {"slot = place"}),
    }  # fmt: skip
    for name, (form, texts) in wanted.items():
        found = labels[name]
        assert found.form == form, (name, found.text)
        assert found.text in texts
        assert found.verdict == "supported"
        assert found.standing == "correlational"
        assert found.scores is not None
        assert found.scores.balanced_accuracy.value > 0.97
        assert found.scores.auc.value > 0.97
        assert found.scores.detection.value > 0.9
        assert found.scores.fuzzing.value > 0.95
    assert labels["tokens"].form == "token"
    assert set(labels["tokens"].text.removeprefix("token ").split(" or ")) == {"' was'", "' were'", "' had'"}
    assert labels["scene"].text.startswith("scene = ")
    assert labels["scene"].verdict == "supported"


def test_what_is_active_at_random_has_no_label_that_holds(labels: FeatureLabels) -> None:
    noise = [label for label in labels.labels if label.feature.startswith("noise")]
    assert len(noise) == 12
    assert sum(label.verdict == "supported" for label in noise) == 0
    shuffled = [x.shuffled.value for x in labels.labels if x.shuffled is not None]
    assert len(shuffled) == len(labels)
    assert abs(np.mean(shuffled) - 0.5) < 0.05
    assert all(x.majority == 0.5 and x.shuffled_feature not in ("", x.feature) for x in labels.labels)


def test_with_noise_the_names_stay(tales: Network, of: Told) -> None:
    index = planted(tales, of, plants(of), noise=0.1)[0]
    found = cutaway.label_features(tales, index, marks=of.marks, features=list(plants(of)))
    right = {
        "one token": "token ' the'",
        "previous": "after ' and'",
        "third": "position 3",
        "slot": "slot = place",
    }
    assert {name: found[name].text for name in right} == right
    assert all(found[name].verdict == "supported" for name in right)


def test_no_text_is_in_both_halves_nor_one_that_reads_the_same(
    tales: Network, of: Told, labels: FeatureLabels
) -> None:
    assert labels.overlap == 0
    assert sum(labels.texts) == len(of.texts)
    twice = planted(tales, told(tales, 8), {"x": lambda i: i % 3 == 0}, 1)[0]
    split = split_texts(twice.rows, 0)
    assert split.overlap == 0
    same = cutaway.index_features(tales, zero_set(tales), [*of.texts[:6], *of.texts[:6], "Mary was sad"])
    split = split_texts(same.rows, 3)
    train, test = (set(same.rows.texts[r].tolist()) for r in (np.nonzero(split.train)[0], split.test))
    assert not train & test
    assert all((t in train) == (t + 6 in train) for t in range(6))
    with pytest.raises(BadInput, match="there is one"):
        split_texts(cutaway.index_features(tales, zero_set(tales), [of.texts[0]] * 3).rows, 0)


def zero_set(net: Network) -> FeatureSet:
    from planting import zero

    return zero(net, 1)


def test_the_other_forms_stand_beside_the_label(labels: FeatureLabels) -> None:
    others = {o.form: o for o in labels["slot"].others}
    assert "token" in others
    assert not others["mark"].text.startswith("slot")
    assert others["mark"].f1 < labels["slot"].f1
    assert [o.form for o in labels["third"].others].count("position") == 0
    assert all(o.f1 <= 1 and o.text for o in others.values())


def test_saved_and_loaded_they_are_the_same(labels: FeatureLabels, tmp_path: Path) -> None:
    labels.save(tmp_path / "l")
    again = cutaway.load(tmp_path / "l")
    assert again.to_pandas().equals(labels.to_pandas())
    assert again["third"] == labels["third"]
    assert json.dumps(labels.to_dict())
    assert len(labels.page().sections) == 3
    assert "9 of 21" in labels.headline
    with pytest.raises(BadAddress, match="no label of"):
        labels["nothing"]


def say(net: Network, of: Told, word: str, sign: float) -> tuple[FeatureIndex, FeatureSet]:
    """A feature that is active where a word comes next, and writes its direction, or the opposite one."""
    directions = torch.randn(7, net.d_model or 0, generator=torch.Generator().manual_seed(0))
    raised = net.weights("W_U").value[:, net.to_single_token(word)].detach().float()
    directions[0] = sign * raised / raised.norm() * 4
    writes = ((net.resolve("resid_post.3")[0], directions),)
    return planted(net, of, {"said": lambda i: of.after[i] == word}, 6, writes=writes)


def test_a_feature_that_says_a_word_is_named_and_tried(tales: Network, of: Told) -> None:
    made, features = say(tales, of, " the", 1.0)
    index = replace(made, source=None)
    found = cutaway.label_features(tales, index, of=features, features=["said"])["said"]
    assert found.text == "say ' the'"
    assert found.causal is not None
    assert found.causal.above(0)
    assert found.standing == "causal"
    untried = cutaway.label_features(tales, index, of=features, features=["said"], causal=0)
    assert untried["said"].standing == "correlational"
    assert any("causal=0" in note for note in untried.notes)


def test_a_feature_whose_direction_lowers_the_word_is_not_said_to_say_it(tales: Network, of: Told) -> None:
    index, features = say(tales, of, " the", -1.0)
    found = cutaway.label_features(tales, index, of=features, features=["said"])["said"]
    assert "say ' the'" not in (found.text, *(o.text for o in found.others))
    assert found.standing == "correlational"
    bare = cutaway.label_features(tales, replace(index, source=None), features=["said"])
    assert any("of=" in note for note in bare.notes)


def test_the_effect_is_that_of_runs_with_the_direction_taken_away(tales: Network, of: Told) -> None:
    """By hand: log-odds of the word at the last token, with what the feature writes taken away, and with random vectors."""
    from cutaway.features.labels.taking import RANDOM, SayTrial, effects

    index, features = say(tales, of, " the", 1.0)
    rows, values = (part[:8] for part in index.entries("said"))
    word = tales.to_single_token(" the")
    trial = SayTrial(0, (word,), rows, values)
    (found,) = effects(tales, features, [trial], index.rows, 0, Work())
    site, directions = features.writes[0]
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randn(8, tales.d_model or 0, generator=generator) for _ in range(RANDOM)]
    differences = []
    for i, row in enumerate(rows.tolist()):
        window = index.rows.window[row]
        ids = index.rows.ids[index.rows.starts[window] : index.rows.counted[row] + 1].tolist()
        own = -float(values[i]) * directions[0]
        odds = []
        for vector in (own, *(d[i] / d[i].norm() * own.norm() for d in drawn)):
            p = (
                tales.run([ids], edits=[cutaway.Add(site, vector=vector, pos=-1)])
                .logits[0, -1]
                .double()
                .softmax(-1)[word]
            )
            odds.append(float(p.log() - (1 - p).log()))
        differences.append(np.mean(odds[1:]) - odds[0])
    assert found is not None
    assert found.value == pytest.approx(np.mean(differences), rel=1e-3)
    alone = replace(trial, rows=rows[:1], strength=values[:1])
    assert effects(tales, features, [alone], index.rows, 0, Work()) == [None]


def test_whole_runs_give_the_same_effects_where_nothing_may_stand_in(
    tales: Network, of: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cutaway.features.labels import taking

    index, features = say(tales, of, " the", 1.0)
    features = replace(
        features, writes=(*features.writes, (tales.resolve("mlp_out.2")[0], features.writes[0][1]))
    )
    ranks = taking.window_ranks(index.rows, 0)
    trials = []
    for g in range(2):
        rows, values = index.entries(g)
        some = taking.examples(rows, index.rows, ranks, [0, g])
        trials.append(taking.SayTrial(g, (tales.to_single_token(" the"),), rows[some], values[some]))
    few = taking.effects(tales, features, trials, index.rows, 0, Work())
    monkeypatch.setattr(taking.AdditionRunner, "of", lambda *_: None)
    whole = taking.effects(tales, features, trials, index.rows, 0, Work())
    for a, b in zip(few, whole, strict=True):
        assert a is not None
        assert b is not None
        assert a.value == pytest.approx(b.value, rel=1e-3)


def test_examples_of_several_features_are_looked_for_in_the_same_windows(
    of: Told, index: FeatureIndex
) -> None:
    from cutaway.features.labels.taking import EXAMPLES, examples, window_ranks

    rows = index.rows
    ranks = window_ranks(rows, 0)
    assert sorted(ranks.tolist()) == list(range(len(rows.text)))
    texts = rows.text[np.argsort(ranks)]
    assert len(set(texts[: len(set(texts.tolist()))].tolist())) == len(set(texts.tolist()))
    everywhere = np.arange(len(rows))
    found = [examples(everywhere[i::2], rows, ranks, [0, i]) for i in range(2)]
    windows = [set(rows.window[everywhere[i::2][f]].tolist()) for i, f in enumerate(found)]
    assert windows[0] == windows[1] == set(np.argsort(ranks)[: EXAMPLES // 2].tolist())
    assert [len(f) for f in found] == [EXAMPLES, EXAMPLES]
    few = everywhere[rows.window == 0][:5]
    assert examples(few, rows, ranks, [0]).tolist() == list(range(5))
    assert examples(few[:0], rows, ranks, [0]).tolist() == []


def test_a_control_is_labelled_in_the_same_way(tales: Network, of: Told, index: FeatureIndex) -> None:
    control, _ = planted(tales, of, {"like the": lambda i: of.token[i] == " the" and i % 3 > 0}, 8, seed=4)
    found = cutaway.label_features(tales, index, control=control, features=["one token", "third"])
    assert found.control == "planted features"
    label = found["one token"]
    assert label.control_feature == "like the"
    assert label.control_text == "token ' the'"
    assert label.control is not None
    assert 0.8 < label.control.value < 1
    other = cutaway.index_features(tales, zero_set(tales), of.texts[:20])
    with pytest.raises(BadInput, match="other texts"):
        cutaway.label_features(tales, index, control=other)


class Words:
    """A labeler that knows one word."""

    def __init__(self, word: str) -> None:
        self.word, self.seen = word, []

    def label(self, examples: Sequence[TokenExample]) -> str:
        self.seen += [e.text for e in examples]
        return f"the word {self.word.strip()}"

    def predict(self, label: str, tokens: Sequence[str]) -> list[float]:
        return [float(token.strip() == label.removeprefix("the word ")) for token in tokens]


def test_labels_of_others_are_scored_alike(tales: Network, of: Told, index: FeatureIndex) -> None:
    right, wrong = Words(" the"), Words(" and")
    for labeler, good in ((right, True), (wrong, False)):
        found = cutaway.label_features(
            tales, index, features=["one token", "third", "noise 0"], labeler=labeler
        )
        label = found["one token"]
        assert (label.form, label.others[0].text) == ("words", "token ' the'")
        assert label.scores is not None
        assert (label.scores.balanced_accuracy.value > 0.97) == good
        assert (label.verdict == "supported") == good
    split = split_texts(index.rows, 0)
    assert not set(right.seen) & set(index.rows.texts[split.test].tolist())
    with pytest.raises(BadInput, match="no labeler"):
        cutaway.label_features(tales, index, labeler="a model")  # type: ignore[arg-type]
    right.predict = lambda _label, _tokens: [1.0]  # type: ignore[method-assign]
    with pytest.raises(BadInput, match="scores for"):
        cutaway.label_features(tales, index, features=["one token", "third"], labeler=right)


def test_what_is_asked_wrongly_is_told(tales: Network, of: Told, index: FeatureIndex) -> None:
    label = cutaway.label_features
    with pytest.raises(BadInput, match="no form of a label"):
        label(tales, index, forms=["tokens"])
    with pytest.raises(BadAddress, match="no feature"):
        label(tales, index, features=["planted 99"])
    with pytest.raises(BadInput, match="number of features"):
        label(tales, index, features=0)
    with pytest.raises(BadInput, match="says nothing of token"):
        label(tales, index, marks={"a": [["x"]]})
    with pytest.raises(BadInput, match="not the one that was indexed"):
        label(tales, index, of=zero_set(tales))
    with pytest.raises(BadInput, match="no index"):
        label(tales, of)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="other weights"):
        label(cutaway.open("zoo:induction"), index)
    dead = cutaway.index_features(tales, zero_set(tales), of.texts[:4])
    with pytest.raises(BadInput, match="ever active"):
        label(tales, dead)


def test_a_feature_that_is_never_active_in_test_texts_is_not_scored(tales: Network, of: Told) -> None:
    first = int(of.text[0])
    index, _ = planted(tales, of, {"once": lambda i: of.text[i] == first and of.token[i] == "."}, 3)
    seeds = [s for s in range(6) if first not in index.rows.texts[split_texts(index.rows, s).test]]
    found = cutaway.label_features(tales, index, features=["once", "noise 0", "noise 1"], seed=seeds[0])[
        "once"
    ]
    assert found.scores is None
    assert found.shuffled is None
    assert found.verdict == "inconclusive"


def test_spans_of_characters_become_marks(tales: Network) -> None:
    found = marks_of_spans(
        tales, ["Mary saw a dog, Mary saw"], [[(0, 4, "name"), (11, 14, 7), (16, 20, "name")]]
    )
    words = tales.token_strings(tales.tokens_of(["Mary saw a dog, Mary saw"])[0])
    assert [w.strip() for w, m in zip(words, found[0], strict=True) if m == "name"] == ["Mary", "Mary"]
    assert [w.strip() for w, m in zip(words, found[0], strict=True) if m == 7] == ["dog"]
    with pytest.raises(BadInput, match="2 texts"):
        marks_of_spans(tales, ["a", "b"], [[]])


# the parts ----------------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 10**6), st.integers(4, 60), st.integers(1, 5), st.integers(1, 6))
def test_the_set_that_is_found_is_the_best_of_all_sets(seed: int, n: int, size: int, kinds: int) -> None:
    """Beside every set of values: none has a better F1 less its cost, but for values seen once."""
    rng = np.random.default_rng(seed)
    dense = np.where(rng.random((n, size)) < 0.4, rng.random((n, size)) + 0.1, 0).astype(np.float32)
    from scipy.sparse import csc_array

    active = fitting.ActiveRows.of(csc_array(dense))
    values = rng.integers(-1, kinds, n)
    train = rng.random(n) < 0.7
    trait = TokenTrait("t", "token", values, kinds, str)
    sets = fitting.fitted(active, train, [trait], None, Work())[0]
    for g in range(size):
        on = (dense[:, g] > 0) & train

        def f1(chosen: list[int], on: np.ndarray = on) -> float:
            said = np.isin(values, chosen) & train
            return 2 * (said & on).sum() / max(1, said.sum() + on.sum())

        often = [v for v in range(kinds) if (on & (values == v)).sum() >= 2]
        mine = sets.of(g).tolist()
        assert set(mine) <= set(often)
        if not often:
            assert not np.isfinite(sets.score[g])
            continue
        assert sets.f1[g] == pytest.approx(f1(mine))
        assert sets.score[g] == pytest.approx(f1(mine) - 0.005 - 0.01 * np.log2(len(mine)))
        predicted = sets.predict(g, np.arange(n))
        for v in mine:
            assert predicted[values == v] == pytest.approx((dense[train & (values == v), g]).mean())
        assert (predicted[~np.isin(values, mine)] == 0).all()
        single = max(f1([v]) - 0.005 for v in often)
        assert sets.score[g] >= min(single, max(f1([v]) - 0.005 for v in mine[:1])) - 1e-9


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(3, 30))
def test_scores_are_those_of_their_definitions(seed: int, m: int) -> None:
    rng = np.random.default_rng(seed)
    truth = np.where(rng.random(m) < 0.5, rng.random(m) + 0.1, 0)
    truth[0], truth[1] = 1.0, 0.0
    said = np.round(rng.random(m) * 3) / 3
    y = truth > 0
    w = rng.integers(0, 3, (4, m)).astype(float)
    w[:, :2] += 1
    for weights in w:
        x, t, s = (np.repeat(v, weights.astype(int)) for v in (said, truth, said > 0))
        pos, neg = x[t > 0], x[t == 0]
        one = weights[None]
        pairs = [(a > b) + 0.5 * (a == b) for a in pos for b in neg]
        assert exam._auc(one, said, y)[0] == pytest.approx(np.mean(pairs))
        assert exam._balanced(one, said > 0, y)[0] == pytest.approx(
            (s[t > 0].mean() + (~s[t == 0]).mean()) / 2
        )
        if x.std() > 1e-9:
            assert exam._correlation(one, said, truth)[0] == pytest.approx(np.corrcoef(x, t)[0, 1], abs=1e-6)


def test_an_exam_holds_what_it_says(index: FeatureIndex) -> None:
    active = fitting.ActiveRows.of(index.matrix())
    split = split_texts(index.rows, 0)
    full = index.matrix().toarray()
    for g in range(0, len(index), 3):
        near = [index.entries(int(n))[0] for n in index.nearest.which[g][:5] if n >= 0]
        drawn = exam.exam_of(g, active, split.test, near, index.rows, 0)
        assert set(drawn.rows.tolist()) <= set(split.test.tolist())
        np.testing.assert_allclose(drawn.truth, full[drawn.rows, g])
        assert len(set(drawn.rows.tolist())) == len(drawn.rows)
        negative = drawn.rows[~drawn.positive]
        assert len(negative) == exam.EACH
        hard = negative[: drawn.hard]
        assert all((full[row][index.nearest.which[g][:5]] > 0).any() for row in hard)
        assert drawn.hard == exam.EACH // 2
        for i, row in enumerate(drawn.rows.tolist()):
            window = index.rows.window[row]
            around = [
                r if 0 <= r < index.tokens and index.rows.window[r] == window else -1
                for r in range(row - 8, row + 9)
            ]
            assert drawn.around[i].tolist() == around
            assert drawn.active[i].tolist() == [r >= 0 and full[r, g] > 0 for r in around]
            other = int(drawn.other[i])
            assert other == -1 or (drawn.truth[i] > 0 and other in around and full[other, g] == 0)
    places = drawn.other[drawn.other >= 0] - drawn.rows[drawn.other >= 0]
    assert len(set(places.tolist())) > 5  # a marked token that is wrong stands anywhere

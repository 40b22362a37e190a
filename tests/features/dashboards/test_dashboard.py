"""The page of all features: it holds what the index holds; whatever a token or a label says is shown, and never run."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from featuresets import LENGTH, along, topk  # type: ignore[import-not-found]
from hypothesis import given, settings
from hypothesis import strategies as st

import cutaway
from cutaway.errors import BadInput, SaveFailed, Stopped, UnknownOption
from cutaway.features.dashboards import FeatureDashboard, dashboard
from cutaway.features.dashboards.assembling import STEPS, visible
from cutaway.features.index import FeatureIndex, index_features
from cutaway.features.labels import FeatureLabels
from cutaway.features.sets import FeatureSet, heads, neurons
from cutaway.figures import show_token
from cutaway.network import Network
from cutaway.reports import Catalogue, render_catalogue
from cutaway.results import Work


class Elements(HTMLParser):
    """What a browser makes of a page: its elements in order, and the text of its scripts."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: dict[str, str] = {}
        self.inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        said = dict(attrs)
        self.tags.append((tag, said))
        self.inside = (said.get("id") or "run") if tag == "script" else ""

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside:
            self.scripts[self.inside] = self.scripts.get(self.inside, "") + data


def blocks(page: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The data of a page, read back: all at once, and each feature from its own line."""
    found = Elements(page).scripts
    records = json.loads(found["records"])
    lines = found["records"].strip().split("\n")[1:-1]
    assert [json.loads(line.removesuffix(",")) for line in lines] == records
    return json.loads(found["head"]), records


@pytest.fixture(scope="module")
def made(tales: Network, index: FeatureIndex, labels: FeatureLabels) -> FeatureDashboard:
    more: dict[str, Any] = {"siblings": [topk(tales, 48, seed=1)], "measures": {"size": list(range(48))}}
    return dashboard(tales, index, labels=labels, k=6, quantiles=3, each=2, context=5, **more)


@pytest.fixture(scope="module")
def data(made: FeatureDashboard) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    return blocks(made.html())


def test_the_list_is_that_of_the_index(data: Any, index: FeatureIndex, labels: FeatureLabels) -> None:
    head, records = data
    assert head["names"] == list(index.names)
    assert head["counts"] == index.counts.tolist()
    assert head["tokens"] == index.tokens
    np.testing.assert_allclose(head["maxima"], index.maxima, rtol=1e-3)
    assert len(records) == len(index)
    said = {label.number: label for label in labels.labels}
    for i in range(len(index)):
        label = said.get(i)
        assert head["labels"][i] == ("" if label is None else visible(label.text))
        assert head["verdicts"][i] == ("" if label is None else label.verdict)
        scored = label is not None and label.scores is not None
        assert (head["scores"][i] is not None) == scored
    assert {c["name"] for c in head["columns"]} == {"size", "stability over seeds"}
    assert next(c for c in head["columns"] if c["name"] == "size")["values"] == list(range(48))


def test_examples_are_those_of_the_index(data: Any, index: FeatureIndex) -> None:
    head, records = data
    for i in (0, 7, 20):
        record, scale = records[i], float(np.abs(index.entries(i)[1]).max())
        assert record["scale"] == pytest.approx(scale, rel=1e-5)
        taken, wanted = set(), []
        for row in index.strongest(i, index.tokens).tolist():  # the strongest of each window
            if (window := int(index.rows.window[row])) not in taken and len(taken) < 6:
                taken.add(window)
                wanted.append(row)
        shown = index.shown(i, wanted, 5)
        drawn = [e for part in index.quantile_examples(i, 3, 2, 5)[::-1] for e in part]
        quantiles = [e for _, _, examples in record["quantiles"] for e in examples]
        assert len(record["top"]) == len(shown)
        assert len(quantiles) == len(drawn)
        for example, true in zip([*record["top"], *quantiles], [*shown, *drawn], strict=True):
            text, position, value, at, words, active = example
            assert (text, position, at) == (true.text, true.position, true.at)
            assert value == pytest.approx(true.activation, rel=1e-3)
            assert [head["words"][w] for w in words] == [show_token(t, escape=False) for t in true.tokens]
            read = np.zeros(len(words))
            read[active[::2]] = np.array(active[1::2]) / STEPS * scale
            np.testing.assert_allclose(read, true.activations, atol=scale / STEPS / 2 * 1.001)


def test_the_rest_is_that_of_the_index(data: Any, index: FeatureIndex) -> None:
    _, records = data
    for i in (3, 31):
        low, high, bars = records[i]["histogram"]
        counts, ends = index.histogram(i)
        assert bars == counts.tolist()
        np.testing.assert_allclose([low, high], [ends[0], ends[-1]], rtol=1e-3)
        near = index.neighbours(i)
        assert [index.names[j] for j, *_ in records[i]["together"]] == near["feature"].tolist()
        np.testing.assert_allclose(
            [r for _, r, _, _ in records[i]["together"]], near["correlation"], rtol=1e-2
        )
        assert [n for *_, n in records[i]["together"]] == near["together"].tolist()
        assert records[i]["mean"] == pytest.approx(float(index.entries(i)[1].mean()), rel=1e-3)


def test_a_dead_feature_is_there_and_says_nothing(data: Any, index: FeatureIndex) -> None:
    head, records = data
    i = index.number(index.dead[0])
    assert head["counts"][i] == 0
    assert (records[i]["top"], records[i]["quantiles"], records[i]["together"]) == ([], [], [])
    assert records[i]["mean"] is None
    assert sum(records[i]["histogram"][2]) == 0


def test_a_label_stands_beside_its_controls(data: Any, labels: FeatureLabels) -> None:
    for label in labels.labels:
        said = data[1][label.number]["label"]
        assert (said["text"], said["verdict"], said["standing"]) == (
            visible(label.text),
            label.verdict,
            label.standing,
        )
        rows = {name: (value, between, says) for name, value, between, says in said["rows"]}
        if label.scores is not None and label.shuffled is not None:
            assert rows["balanced accuracy"][0] == f"{label.scores.balanced_accuracy.value:.2f}"
            assert rows["the same label for another feature"] == (
                f"{label.shuffled.value:.2f}", "{:.2f} to {:.2f}".format(*label.shuffled.ends()), label.shuffled_feature,
            )  # fmt: skip


def test_features_are_found_by_the_tokens_at_which_they_are_strongest(data: Any, index: FeatureIndex) -> None:
    head, _ = data
    for i in (1, 12):
        (word,) = index.words(index.rows.ids[index.rows.counted[index.strongest(i, 1)]])
        assert show_token(word, escape=False) in [head["words"][w] for w in head["peaks"][i]]


def test_the_page_needs_nothing_and_runs_its_own_script_only(made: FeatureDashboard) -> None:
    page = made.html()
    found = Elements(page)
    assert not re.search(r"(?:src|href|url)\s*[=(]\s*[\"']?(?:https?:)?//", page)
    assert not {"link", "img", "iframe", "object", "embed", "base"} & {tag for tag, _ in found.tags}
    policy = next(a["content"] for t, a in found.tags if a.get("http-equiv") == "Content-Security-Policy")
    digest = base64.b64encode(hashlib.sha256(found.scripts["run"].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in (policy or "")
    assert "default-src 'none'" in (policy or "")
    kinds = [a.get("type") for t, a in found.tags if t == "script"]
    assert kinds == ["application/json", "application/json", None]
    for unsafe in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "Function("):
        assert unsafe not in found.scripts["run"]


HOSTILE = [
    "</script><script>alert(1)</script>", "<!--<script>", '" onmouseover="x', "'", "&lt;b&gt;", "]]>", "👩\u200d🔬",
    "\u200b", "\u202eltr", "\u2028", "\x00", "\x85", " ", "\ud800",
]  # fmt: skip


def test_hostile_tokens_names_and_labels_are_data(
    tales: Network, index: FeatureIndex, labels: FeatureLabels, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Elements(dashboard(tales, index, labels=labels).html())
    names = tuple(HOSTILE[i % len(HOSTILE)] + str(i) for i in range(len(index)))
    renamed = tuple(
        replace(x, feature=names[x.number], text=HOSTILE[x.number % len(HOSTILE)]) for x in labels.labels
    )
    monkeypatch.setattr(
        Network, "token_strings", lambda _, ids: [HOSTILE[int(i) % len(HOSTILE)] for i in ids]
    )
    page = dashboard(
        tales, replace(index, names=names, name=HOSTILE[0]), labels=replace(labels, labels=renamed)
    ).html()
    found = Elements(page)
    assert [tag for tag, _ in found.tags] == [tag for tag, _ in plain.tags]
    head, records = blocks(page)
    assert head["names"] == [show_token(n, escape=False, strip=False) for n in names]
    assert set(head["words"]) == {show_token(w, escape=False) for w in HOSTILE}
    shown = {r["label"]["text"] for r in records if "label" in r}
    assert shown <= {visible(h) for h in HOSTILE}
    assert not re.search("[\u200b\u202e\u2028\x00\x85]", page)
    page.encode("utf-8")


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=40), st.text(max_size=40))
def test_any_text_in_the_data_of_a_page_comes_back(name: str, word: str) -> None:
    name, word = visible(name), visible(word)
    record = json.dumps({"top": [word]}, ensure_ascii=False)
    page = render_catalogue(
        Catalogue("k", name, word, [word], [(name, word)], {"names": [name], "words": [word]}, [record])
    )
    head, records = blocks(page)
    assert head == {"names": [name], "words": [word]}
    assert records == [{"top": [word]}]
    assert [t for t, _ in Elements(page).tags].count("script") == 3


def test_neurons_and_heads_and_directions_have_a_page(tales: Network, texts: list[str]) -> None:
    for of in (neurons(tales, 2), heads(tales, 1), along(tales)):
        index = index_features(tales, of, texts[:12], length=LENGTH)
        head, records = blocks(dashboard(tales, index, k=2, each=1).html())
        assert len(records) == len(of) == len(head["names"])
        assert ("raised" in records[0]) == (of.kind == "neurons")
        assert ("alike" in records[0]) == (of.kind != "heads")
        assert "neurons" not in records[0]


def test_correlations_with_features_beside_are_shown(tales: Network, texts: list[str]) -> None:
    index = index_features(tales, topk(tales, 48), texts[:8], length=LENGTH, beside=along(tales))
    _, records = blocks(dashboard(tales, index).html())
    for i in (0, 9):
        true = index.correlated(i)
        assert [name for name, _ in records[i]["beside"]] == true["feature"].tolist()
        np.testing.assert_allclose([r for _, r in records[i]["beside"]], true["correlation"], rtol=1e-2)


def test_one_feature_alone_has_a_page(tales: Network, texts: list[str]) -> None:
    one = topk(tales, 1, 1)
    index = index_features(tales, one, texts[:4], length=LENGTH)
    head, records = blocks(dashboard(tales, index).html())
    assert (len(records), head["counts"], records[0]["together"]) == (1, [0], [])


def test_a_page_of_an_index_that_was_loaded_says_what_is_missing(
    tales: Network, index: FeatureIndex, features: FeatureSet, tmp_path: Path
) -> None:
    again = FeatureIndex.load(index.save(tmp_path / "index"))
    bare = dashboard(tales, again)
    assert "raised" not in bare.record(0)
    assert any("without its set" in note for note in bare.page.notes)
    whole = dashboard(tales, again, of=features)
    assert whole.page.records == dashboard(tales, index).page.records


def test_three_thousand_features_fit(tales: Network, texts: list[str], tmp_path: Path) -> None:
    index = index_features(tales, topk(tales, 3000, 8), texts[:30], length=LENGTH, neighbours=4)
    path = dashboard(tales, index).save(tmp_path / "page.html")
    assert path.stat().st_size / 3000 < 20_000
    head, records = blocks(path.read_text(encoding="utf-8"))
    assert len(records) == len(head["names"]) == 3000
    assert max(len(json.dumps(r)) for r in records) < 100_000


def test_the_same_question_gives_the_same_page(tales: Network, index: FeatureIndex) -> None:
    first, second = (dashboard(tales, index, seed=3) for _ in range(2))
    assert first.page.records == second.page.records
    assert first.page.records != dashboard(tales, index, seed=4).page.records


def test_what_does_not_belong_together_is_refused(
    tales: Network, index: FeatureIndex, labels: FeatureLabels, texts: list[str]
) -> None:
    other = cutaway.open("zoo:induction")
    elsewhere = index_features(tales, topk(tales, 48), texts[:5], length=LENGTH)
    for call, said in (
        (lambda: dashboard(other, index), "other weights"),
        (lambda: dashboard(tales, index, of=topk(tales, 48, seed=5)), "not the one that was indexed"),
        (lambda: dashboard(tales, elsewhere, labels=labels), "other features or texts"),
        (lambda: dashboard(tales, index, measures={"short": [1.0]}), "1 figures for 48"),
        (lambda: dashboard(tales, index, siblings=[]), "nothing to hold"),
        (lambda: dashboard(tales, index, siblings=[heads(tales, 1)]), "cannot be held"),
        (lambda: dashboard(tales, index, k=0), "k=0"),
        (lambda: dashboard(tales, torch.zeros(1)), "no index"),  # type: ignore[arg-type]
    ):
        with pytest.raises(BadInput, match=said):
            call()
    with pytest.raises(UnknownOption, match="quantiles"):
        dashboard(tales, index, quantile=3)  # type: ignore[call-arg]


def test_figures_that_are_no_numbers_are_shown_as_missing(tales: Network, index: FeatureIndex) -> None:
    values = [float("nan"), float("inf"), *range(46)]
    head, _ = blocks(dashboard(tales, index, measures={"odd": values}).html())
    assert head["columns"][0]["values"][:3] == [None, None, 0.0]


def test_it_stops_where_it_is_told_to_and_the_disk_refuses_in_a_sentence(
    tales: Network, index: FeatureIndex, made: FeatureDashboard, tmp_path: Path
) -> None:
    work = Work()
    work.stop()
    with pytest.raises(Stopped):
        dashboard(tales, index, work=work)
    (tmp_path / "file").write_text("")
    with pytest.raises(SaveFailed):
        made.save(tmp_path / "file" / "page.html")
    assert made.headline in made._repr_html_() or "&" in made._repr_html_()
    assert len(repr(made)) < 2000

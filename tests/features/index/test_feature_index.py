"""The index of features against brute force: every statistic, every file, every refusal."""

from __future__ import annotations

import gc
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from featuresets import LENGTH, along, by_hand, topk

import cutaway
from cutaway.errors import BadAddress, BadFormat, BadInput, CorruptFile, NotFinite, SaveFailed, Stopped
from cutaway.features.index import FeatureIndex, index_features, reading
from cutaway.features.sets import FeatureSet
from cutaway.network import Network
from cutaway.results import Progress, Work


@pytest.fixture(scope="module")
def dense(tales: Network, texts: list[str]) -> np.ndarray:
    return by_hand(tales, topk(tales), texts)[0]


@pytest.fixture(scope="module")
def index(tales: Network, texts: list[str]) -> FeatureIndex:
    return index_features(tales, topk(tales), texts, length=LENGTH, beside=along(tales))


def test_every_entry_is_there_and_none_besides(index: FeatureIndex, dense: np.ndarray) -> None:
    assert index.tokens == len(dense)
    assert np.array_equal(index.matrix().toarray() != 0, dense > 0)
    np.testing.assert_allclose(index.matrix().toarray(), np.maximum(dense, 0), rtol=2e-4, atol=2e-3)
    for i in (0, 17, 95):
        rows, values = index.entries(i)
        assert rows.tolist() == np.nonzero(dense[:, i] > 0)[0].tolist()
        np.testing.assert_allclose(values, dense[rows, i], rtol=2e-4, atol=2e-3)


def test_rows_are_the_tokens_that_count(index: FeatureIndex, tales: Network, texts: list[str]) -> None:
    where = by_hand(tales, topk(tales), texts)[1]
    rows = index.rows
    assert (
        list(zip(rows.texts.tolist(), rows.positions.tolist(), rows.token_ids.tolist(), strict=True)) == where
    )
    before, after = rows.beside(-1), rows.beside(1)
    ids = {(t, p): token for t, p, token in where}
    for n, (text, position, _) in enumerate(where):
        if (text, position + 1) in ids and (position + 1) % LENGTH:
            assert after[n] == ids[text, position + 1]
        if (text, position - 1) in ids and position % LENGTH > 1:
            assert before[n] == ids[text, position - 1]
    assert (before[rows.column == 0] == -1).all()


def test_statistics_are_those_of_all_activations(index: FeatureIndex) -> None:
    full = index.matrix().toarray().astype(np.float64)
    assert index.counts.tolist() == (full > 0).sum(0).tolist()
    np.testing.assert_allclose(index.density, (full > 0).mean(0))
    np.testing.assert_allclose(index.maxima, full.max(0))
    np.testing.assert_allclose(index.sums.mean, full.mean(0))
    np.testing.assert_allclose(index.sums.spread, full.std(0), rtol=1e-6)
    assert index.dead == ("f2.95",)
    assert index.size == int((full > 0).sum())


def test_the_strongest_quantiles_and_histogram_are_exact(index: FeatureIndex) -> None:
    full = index.matrix().toarray()
    for i in range(0, 96, 7):
        ranked = np.argsort(-full[:, i], kind="stable")[: min(12, int(index.counts[i]))]
        assert index.strongest(i, 12).tolist() == ranked.tolist()
        active = full[full[:, i] > 0, i].astype(np.float64)
        np.testing.assert_allclose(index.quantiles(i, 4), np.quantile(active, [0, 0.25, 0.5, 0.75, 1]))
        counts, ends = index.histogram(i, 10)
        assert counts.sum() == len(active)
        assert ends[0] == 0
        assert ends[-1] == pytest.approx(active.max())
        assert counts[-1] == (active >= ends[-2]).sum()


def test_what_goes_together_is_exact_for_all_pairs(index: FeatureIndex) -> None:
    full = index.matrix().toarray().astype(np.float64)
    on = (full > 0).astype(int)
    both = on.T @ on
    with np.errstate(invalid="ignore"):
        r = np.nan_to_num(np.corrcoef(full.T))
    for i in (0, 40, 95):
        assert index.together(i).tolist() == both[i].tolist()
        union = on.sum(0)[i] + on.sum(0) - both[i]
        np.testing.assert_allclose(index.jaccard(i), np.where(union > 0, both[i] / np.maximum(union, 1), 0))
        np.testing.assert_allclose(index.correlations(i), r[i], atol=1e-9)
    near = index.nearest
    for i in range(96):
        others = [j for j in range(96) if j != i and both[i, j] > 0]
        best = sorted(r[i, others], reverse=True)[:10]
        there = near.which[i] >= 0
        np.testing.assert_allclose(near.correlation[i][there], best, atol=1e-9)
        np.testing.assert_allclose(near.correlation[i][there], r[i, near.which[i][there]], atol=1e-9)
        assert near.both[i][there].tolist() == both[i, near.which[i][there]].tolist()
    assert (near.which[95] == -1).all()
    assert len(index.neighbours("f2.0")) == (near.which[0] >= 0).sum()


def test_correlations_with_other_features_are_exact(
    index: FeatureIndex, tales: Network, texts: list[str]
) -> None:
    full = index.matrix().toarray().astype(np.float64)
    other = by_hand(tales, along(tales), texts)[0].astype(np.float64)
    for i in (0, 50):
        r = np.array([np.corrcoef(full[:, i], other[:, j])[0, 1] for j in range(7)])
        table = index.correlated(i)
        found = dict(zip(table["feature"], table["correlation"], strict=True))
        np.testing.assert_allclose([found[f"direction {j}"] for j in range(7)], r, atol=1e-5)
        assert table["correlation"].abs().is_monotonic_decreasing


def test_examples_show_the_token_with_its_neighbours(
    index: FeatureIndex, tales: Network, texts: list[str]
) -> None:
    full = index.matrix().toarray()
    strongest = index.examples("f2.3", 3, 4)
    for example, row in zip(strongest, index.strongest(3, 3), strict=True):
        ids = tales.tokens_of([texts[example.text]])[0]
        begin = max(example.position // LENGTH * LENGTH, example.position - 4)
        end = min((example.position // LENGTH + 1) * LENGTH, example.position + 5)
        assert list(example.tokens) == tales.token_strings(ids[begin:end])
        assert example.tokens[example.at] == tales.token_strings([ids[example.position]])[0]
        assert example.activation == full[row, 3] == example.activations[example.at]
        places = {
            p: n
            for n, (t, p) in enumerate(zip(index.rows.texts, index.rows.positions, strict=True))
            if t == example.text
        }
        wanted = [float(full[places[p], 3]) if p in places else 0.0 for p in range(begin, end)]
        assert list(example.activations) == wanted
    alone = index.examples("f2.3", 20, one_per_text=True)
    assert len({e.text for e in alone}) == len(alone)
    assert alone[0] == index.examples("f2.3", 1)[0]


def test_quantile_examples_are_drawn_within_their_share(index: FeatureIndex) -> None:
    ends = index.quantiles(3, 5)
    groups = index.quantile_examples(3, 5, 4)
    assert [len(group) for group in groups] == [4] * 5
    for group, low, high in zip(groups, ends[:-1], ends[1:], strict=True):
        assert all(low - 1e-3 <= e.activation <= high + 1e-3 for e in group)
    assert groups == index.quantile_examples(3, 5, 4)
    assert groups != index.quantile_examples(3, 5, 4, seed=1)
    assert index.quantile_examples("f2.95") == ((),) * 5


def test_signed_features_keep_all_above_a_floor_of_their_own(tales: Network, texts: list[str]) -> None:
    found = index_features(tales, along(tales), texts, length=LENGTH, share=0.2)
    dense = by_hand(tales, along(tales), texts)[0]
    full = found.matrix().toarray()
    assert 0.15 < found.density.mean() < 0.25
    for i in range(7):
        kept = full[:, i] != 0
        assert np.abs(dense[kept, i]).min() >= found.floors[i] - 1e-4
        assert np.abs(dense[~kept, i]).max() <= found.floors[i] + 1e-4
        assert found.strongest(i, 1)[0] == dense[:, i].argmax()
    np.testing.assert_allclose(full[full != 0], dense[full != 0], rtol=2e-4, atol=2e-3)


def test_half_precision_takes_six_bytes_an_entry(
    tales: Network, texts: list[str], index: FeatureIndex
) -> None:
    half = index_features(tales, topk(tales), texts, length=LENGTH, dtype="float16", neighbours=0)
    np.testing.assert_allclose(half.matrix().toarray(), index.matrix().toarray(), rtol=1e-3)
    sizes = {
        name: sum((i.folder / f.file).stat().st_size for f in i.files)
        for name, i in (("h", half), ("f", index))
    }
    assert sizes["h"] <= 6 * half.size + 4096
    assert sizes["f"] <= 8 * index.size + 4096
    assert half.nearest.which.shape == (96, 0)
    loud = replace(topk(tales), read=lambda v: topk(tales).read(v) * 1e6)
    with pytest.raises(BadInput, match="half precision"):
        index_features(tales, loud, texts, dtype="float16")


def test_small_parts_and_small_files_give_the_same(
    tales: Network, texts: list[str], index: FeatureIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cutaway.features.index import merging

    monkeypatch.setattr(reading, "_LARGEST", 500)
    monkeypatch.setattr(merging.merge, "__defaults__", (700,))
    cut = index_features(tales, topk(tales), texts, length=LENGTH, beside=along(tales))
    assert len(cut.files) > 5
    assert np.array_equal(cut.matrix().toarray() > 0, index.matrix().toarray() > 0)
    np.testing.assert_allclose(cut.matrix().toarray(), index.matrix().toarray(), rtol=2e-4, atol=2e-3)
    np.testing.assert_allclose(cut.nearest.correlation, index.nearest.correlation, atol=1e-5)
    np.testing.assert_allclose(cut.correlations(5), index.correlations(5), atol=1e-5)
    picked = cut.matrix([90, 3, 40])
    assert np.array_equal(picked.toarray(), cut.matrix().toarray()[:, [90, 3, 40]])
    assert cut.matrix([]).shape == (cut.tokens, 0)


def test_saved_and_loaded_it_is_the_same(index: FeatureIndex, tmp_path: Path) -> None:
    index.save(tmp_path / "kept")
    again = cutaway.load(tmp_path / "kept")
    assert isinstance(again, FeatureIndex)
    assert again.headline == index.headline
    assert again.to_pandas().equals(index.to_pandas())
    assert again.examples(3, 4) == index.examples(3, 4)
    assert again.source is None
    assert again.save(tmp_path / "kept") == tmp_path / "kept"
    assert len(again.page().sections) == 6
    assert json.dumps(again.to_dict())
    with pytest.raises(SaveFailed, match="exists"):
        index.save(tmp_path)


def test_a_changed_file_is_told_when_it_is_read(index: FeatureIndex, tmp_path: Path) -> None:
    place = index.save(tmp_path / "kept")
    file = place / index.files[0].file
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)
    broken = FeatureIndex.load(place)
    with pytest.raises(CorruptFile, match="not as it was saved"):
        broken.entries(0)
    file.unlink()
    with pytest.raises(CorruptFile, match="missing"):
        FeatureIndex.load(place).strongest(0)
    with pytest.raises(BadFormat):
        FeatureIndex.load(tmp_path)


def test_a_temporary_folder_goes_with_the_result(tales: Network, texts: list[str]) -> None:
    found = index_features(tales, topk(tales), texts[:4], neighbours=0)
    place, other = found.folder, replace(found, source=None)
    del found
    gc.collect()
    assert other.entries(3)[0].size
    del other
    gc.collect()
    assert not place.exists()


def test_what_was_stopped_goes_on_where_it_was(
    tales: Network, texts: list[str], index: FeatureIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "_LARGEST", 500)
    work = Work()

    def hear(progress: Progress) -> None:
        if progress.label == "reading texts" and progress.price is None and progress.done >= 20:
            work.stop()

    monkeypatch.setattr("cutaway.features.texts.batch_size", lambda *_: 6)
    object.__setattr__(work, "listener", hear)
    part = index_features(tales, topk(tales), texts, length=LENGTH, folder=tmp_path / "i", work=work)
    assert not part.complete
    assert 0 < part.tokens < index.tokens
    ran = []
    before = tales.run

    def counted(*given: object, **options: object) -> object:
        ran.append(1)
        return before(*given, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(type(tales), "run", lambda _self, *given, **options: counted(*given, **options))
    whole = index_features(tales, topk(tales), texts, length=LENGTH, folder=tmp_path / "i")
    first = len(ran)
    assert whole.complete
    assert np.array_equal(whole.matrix().toarray() > 0, index.matrix().toarray() > 0)
    assert (whole.texts, whole.empty) == (index.texts, index.empty) == (42, 1)
    assert not list((tmp_path / "i").glob("part-*"))
    again = index_features(tales, topk(tales), texts, length=LENGTH, folder=tmp_path / "i")
    assert len(ran) == first < 12
    assert again.headline == whole.headline
    assert again.source is not None
    for changed, said in (({"skip": 2}, "skip"), ({"dtype": "float16"}, "dtype")):
        with pytest.raises(SaveFailed, match=said):
            index_features(
                tales, topk(tales), texts, **{"length": LENGTH, "folder": tmp_path / "i", **changed}
            )
    with pytest.raises(SaveFailed, match="other texts"):
        index_features(tales, topk(tales), texts[:-1], length=LENGTH, folder=tmp_path / "i")
    with pytest.raises(SaveFailed, match="features"):
        index_features(tales, topk(tales, seed=5), texts, length=LENGTH, folder=tmp_path / "i")


def test_what_died_while_it_was_put_together_goes_on_without_a_run(
    tales: Network, texts: list[str], index: FeatureIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def dies(*_: object, **__: object) -> None:
        raise RuntimeError("gone")

    with monkeypatch.context() as patched:
        patched.setattr("cutaway.features.index.merging.write_entries", dies)
        with pytest.raises(RuntimeError, match="gone"):
            index_features(tales, topk(tales), texts, length=LENGTH, folder=tmp_path / "i")
    with monkeypatch.context() as patched:
        patched.setattr(type(tales), "run", dies)
        found = index_features(tales, topk(tales), texts, length=LENGTH, folder=tmp_path / "i")
    assert found.complete
    assert (found.texts, found.empty) == (index.texts, index.empty)
    assert np.array_equal(found.matrix().toarray() > 0, index.matrix().toarray() > 0)


def test_the_beginning_of_another_index_is_refused(tales: Network, texts: list[str], tmp_path: Path) -> None:
    work = Work()

    def stop(progress: Progress) -> None:
        if progress.done:
            work.stop()

    object.__setattr__(work, "listener", stop)
    index_features(tales, topk(tales), texts, length=LENGTH, folder=tmp_path / "i", work=work)
    with pytest.raises(BadInput, match="skip differ"):
        index_features(tales, topk(tales), texts, length=LENGTH, folder=tmp_path / "i", skip=0)
    with pytest.raises(BadInput, match="other texts"):
        index_features(tales, topk(tales), ["John was sad"] * 9, length=LENGTH, folder=tmp_path / "i")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.txt").write_text("mine")
    with pytest.raises(SaveFailed, match="something else"):
        index_features(tales, topk(tales), texts, folder=tmp_path / "other")
    assert (tmp_path / "other" / "mine.txt").read_text() == "mine"


def test_nan_activations_are_named(tales: Network, texts: list[str]) -> None:
    good = topk(tales)

    def broken(values: list[torch.Tensor]) -> torch.Tensor:
        found = good.read(values).clone()
        found[-1, 7] = float("nan")
        return found

    with pytest.raises(NotFinite, match="f2.7 is NaN or infinite in text"):
        index_features(tales, replace(good, read=broken), texts)


def test_what_is_asked_wrongly_is_told(tales: Network, texts: list[str], index: FeatureIndex) -> None:
    features = topk(tales)
    for options, said in (
        ({"dtype": "float61"}, "none of an index"), ({"share": 0.0}, "no share"), ({"skip": -1}, "skip"),
        ({"neighbours": -1}, "neighbours"), ({"length": 0}, "length"),
    ):  # fmt: skip
        with pytest.raises(BadInput, match=said):
            index_features(tales, features, texts, **options)
    with pytest.raises(BadInput, match="no set of features"):
        index_features(tales, features.source, texts)
    with pytest.raises(BadInput, match="No token of these texts counts"):
        index_features(tales, features, ["Mary"], skip=5)
    for wrong in (96, -1, "f2.96", True, 1.5):
        with pytest.raises(BadAddress, match="There is no feature"):
            index.entries(wrong)
    with pytest.raises(BadAddress, match="no row"):
        index.shown(3, [index.tokens])
    with pytest.raises(BadInput, match="number of examples"):
        index.strongest(3, 0)
    bare = index_features(tales, features, texts[:4])
    with pytest.raises(BadInput, match="beside"):
        bare.correlated(0)


def test_stopped_before_anything_is_read_nothing_is_kept(
    tales: Network, texts: list[str], tmp_path: Path
) -> None:
    work = Work()
    work.stop()
    with pytest.raises(Stopped):
        index_features(tales, topk(tales), texts, folder=tmp_path / "i", work=work)


def test_a_full_disk_is_told(
    tales: Network, texts: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise SaveFailed("The disk is full.", "Make room.")

    monkeypatch.setattr("cutaway.features.index.store.atomic_write", full)
    with pytest.raises(SaveFailed, match="full"):
        index_features(tales, topk(tales), texts, folder=tmp_path / "i")


def test_features_of_any_kind_are_indexed(tales: Network, texts: list[str]) -> None:
    site = tales.resolve("head_out.1")[0]
    heads = FeatureSet(
        "heads",
        "heads",
        (site,),
        tuple(f"a1.h{i}" for i in range(tales.heads(1) or 0)),
        lambda v: v[0].float().norm(dim=-1),
    )
    found = index_features(tales, heads, texts[:6], length=LENGTH)
    np.testing.assert_allclose(
        found.matrix().toarray(), by_hand(tales, heads, texts[:6])[0], rtol=1e-3, atol=1e-3
    )
    assert (found.density == 1).all()

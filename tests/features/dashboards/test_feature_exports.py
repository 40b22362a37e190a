"""Files for other programs, read back as these read them, against the index."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from featuresets import LENGTH, along  # type: ignore[import-not-found]
from safetensors.numpy import load_file

from cutaway.errors import BadInput, SaveFailed, UnknownOption
from cutaway.features.dashboards import export_delphi, export_neuronpedia
from cutaway.features.dashboards.views import BINS
from cutaway.features.index import FeatureIndex, index_features
from cutaway.features.labels import FeatureLabels
from cutaway.features.sets import FeatureSet
from cutaway.network import Network

#: The fields of one feature, as sae-dashboard 0.8.0 writes them.
FIELDS = [
    "feature_index", "neuron_alignment_indices", "neuron_alignment_values", "neuron_alignment_l1",
    "correlated_neurons_indices", "correlated_neurons_l1", "correlated_neurons_pearson", "correlated_features_indices",
    "correlated_features_l1", "correlated_features_pearson", "neg_str", "neg_values", "pos_str", "pos_values",
    "frac_nonzero", "freq_hist_data_bar_values", "freq_hist_data_bar_heights", "logits_hist_data_bar_heights",
    "logits_hist_data_bar_values",
    "n_prompts_total", "n_tokens_in_prompt", "dataset", "decoder_weights_dist", "activations", "vector",
]  # fmt: skip


def test_a_cache_for_delphi_holds_every_entry(index: FeatureIndex, tmp_path: Path) -> None:
    where = export_delphi(index, tmp_path / "latents", splits=5)
    (module,) = where.iterdir()
    assert module.name == "resid_post.2"
    said = json.loads((module / "config.json").read_text())
    files = sorted(module.glob("*.safetensors"), key=lambda f: int(f.stem.split("_")[0]))
    ranges = [tuple(map(int, f.stem.split("_"))) for f in files]
    assert ranges[0][0] == 0
    assert ranges[-1][1] == len(index) - 1
    assert all(b[0] == a[1] + 1 for a, b in zip(ranges, ranges[1:], strict=False))
    seen = 0
    for file, (first, last) in zip(files, ranges, strict=True):
        arrays = load_file(file)
        tokens, locations = arrays["tokens"], arrays["locations"].astype(np.int64)
        assert arrays["activations"].dtype == np.float16
        assert arrays["locations"].dtype == np.uint16
        assert tokens.dtype == np.int64
        assert tokens.shape == (len(index.rows.starts) - 1, said["cache_ctx_len"])
        assert said["cache_ctx_len"] % 32 == 0
        assert (locations[:, 2] <= last - first).all()
        for i in range(first, last + 1):
            mine = locations[:, 2] == i - first
            rows, values = index.entries(i)
            assert locations[mine, 0].tolist() == index.rows.window[rows].tolist()
            assert locations[mine, 1].tolist() == index.rows.column[rows].tolist()
            assert (
                tokens[locations[mine, 0], locations[mine, 1]].tolist() == index.rows.token_ids[rows].tolist()
            )
            np.testing.assert_allclose(arrays["activations"][mine].astype(np.float32), values, rtol=1e-3)
            seen += len(rows)
    assert seen == index.size
    assert said["model_name"] == index.provenance.network
    assert said["n_splits"] == len(files)


def test_more_splits_than_features_are_as_many_files(index: FeatureIndex, tmp_path: Path) -> None:
    where = export_delphi(index, tmp_path / "many", splits=1000, module="layers.2")
    assert len(list((where / "layers.2").glob("*.safetensors"))) == len(index)


def test_delphi_is_refused_what_it_cannot_hold(
    index: FeatureIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("a/b", "..", "/x"):
        with pytest.raises(BadInput, match="folder"):
            export_delphi(index, tmp_path / "new", module=module)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine").write_text("mine")
    with pytest.raises(SaveFailed, match="something else"):
        export_delphi(index, tmp_path / "taken")
    assert [f.name for f in (tmp_path / "taken").iterdir()] == ["mine"]
    with pytest.raises(UnknownOption, match="splits"):
        export_delphi(index, tmp_path / "new", split=3)  # type: ignore[call-arg]
    large = replace(index.sums, maxima=index.sums.maxima + 1e6)
    monkeypatch.setattr(FeatureIndex, "sums", property(lambda _: large))
    with pytest.raises(BadInput, match="half precision"):
        export_delphi(index, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_batches_for_neuronpedia_have_its_fields_and_the_index_values(
    tales: Network, index: FeatureIndex, labels: FeatureLabels, tmp_path: Path
) -> None:
    where = export_neuronpedia(
        tales, index, tmp_path / "np", labels=labels, name="set", dataset="tales", batch=20
    )
    batches = [json.loads((where / f"batch-{n}.json").read_text(encoding="utf-8")) for n in range(3)]
    assert not (where / "batch-3.json").exists()
    features = [f for batch in batches for f in batch["features"]]
    assert [f["feature_index"] for f in features] == list(range(len(index)))
    assert batches[0].keys() == {"model_id", "layer", "sae_set", "sae_id_suffix", "features"}
    assert (batches[0]["layer"], batches[0]["sae_set"]) == (2, "set")
    for i, said in enumerate(features):
        assert sorted(said) == sorted(FIELDS)
        _, values = index.entries(i)
        assert said["frac_nonzero"] == pytest.approx(index.density[i])
        assert sum(said["freq_hist_data_bar_heights"]) == len(values)
        alive = len(values) > 0
        for kind in ("freq", "logits"):
            both = said[f"{kind}_hist_data_bar_values"], said[f"{kind}_hist_data_bar_heights"]
            assert len(both[0]) == len(both[1]) == (BINS if alive or kind == "logits" else 0)
        if alive:
            strongest = said["activations"][0]
            assert (strongest["bin_min"], strongest["bin_contains"]) == (-1, -1)
            assert strongest["bin_max"] == pytest.approx(float(values.max()), abs=1e-3)
            (true,) = index.examples(i, 1, 32)
            assert tuple(strongest["tokens"]) == true.tokens
            np.testing.assert_allclose(strongest["values"], true.activations, atol=6e-4)
            assert strongest["qualifying_token_index"] == true.at
            quantiles = [a for a in said["activations"] if a["bin_contains"] >= 0]
            shares = {(a["bin_min"], a["bin_max"]): a["bin_contains"] for a in quantiles}
            assert sum(shares.values()) == pytest.approx(1.0, abs=1e-3) or len(shares) < 5
            near = index.neighbours(i)
            assert [index.names[j] for j in said["correlated_features_indices"]] == near["feature"].tolist()[
                :3
            ]
            np.testing.assert_allclose(
                said["correlated_features_pearson"], near["correlation"][:3], atol=6e-4
            )


def test_cosines_of_activations_and_alignment_with_the_basis_are_exact(
    tales: Network, index: FeatureIndex, features: FeatureSet, tmp_path: Path
) -> None:
    where = export_neuronpedia(tales, index, tmp_path / "np")
    said = json.loads((where / "batch-0.json").read_text(encoding="utf-8"))["features"]
    full = index.matrix().toarray().astype(np.float64)
    for i in (2, 11):
        for j, cosine in zip(
            said[i]["correlated_features_indices"], said[i]["correlated_features_l1"], strict=True
        ):
            true = full[:, i] @ full[:, j] / np.linalg.norm(full[:, i]) / np.linalg.norm(full[:, j])
            assert cosine == pytest.approx(true, abs=6e-4)
        row = features.writes[0][1][i].double().numpy()
        order = np.argsort(-row)[:3]
        assert said[i]["neuron_alignment_indices"] == order.tolist()
        np.testing.assert_allclose(said[i]["neuron_alignment_values"], row[order], atol=6e-4)
        np.testing.assert_allclose(
            said[i]["neuron_alignment_l1"], np.abs(row[order]) / np.abs(row).sum(), atol=6e-4
        )


def test_labels_go_to_a_file_of_explanations(
    tales: Network, index: FeatureIndex, labels: FeatureLabels, tmp_path: Path
) -> None:
    where = export_neuronpedia(tales, index, tmp_path / "np", labels=labels)
    lines = [json.loads(x) for x in (where / "explanations.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {x["index"]: x["description"] for x in lines} == {
        str(x.number): x.text for x in labels.labels if x.text
    }
    assert {x["standing"] for x in lines} <= {"correlational", "causal"}
    assert all(x["verdict"] in ("supported", "refuted", "inconclusive") for x in lines)


def test_features_that_write_nothing_are_exported_too(
    tales: Network, texts: list[str], tmp_path: Path
) -> None:
    index = index_features(tales, along(tales), texts[:6], length=LENGTH)
    where = export_neuronpedia(tales, index, tmp_path / "np")
    said = json.loads((where / "batch-0.json").read_text(encoding="utf-8"))["features"]
    assert len(said) == 7
    assert said[0]["pos_str"] == said[0]["logits_hist_data_bar_heights"] == []
    assert min(v for a in said[0]["activations"] for v in a["values"]) < 0
    assert export_delphi(index, tmp_path / "latents").is_dir()
    with pytest.raises(SaveFailed, match="something else"):
        export_neuronpedia(tales, index, where)

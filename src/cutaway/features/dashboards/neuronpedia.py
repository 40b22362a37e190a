"""An index as the batches of JSON that Neuronpedia takes in (as `sae-dashboard` writes them), and labels beside them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cutaway.errors import BadInput
from cutaway.features.dashboards.assembling import DirectionFacts
from cutaway.features.dashboards.dashboard import source_of
from cutaway.features.dashboards.delphi import only_new
from cutaway.features.dashboards.directions import own_directions
from cutaway.features.dashboards.views import BINS, FeatureView, FeatureViews, ViewSizes
from cutaway.features.index import FeatureIndex
from cutaway.features.labels import FeatureLabels
from cutaway.features.sets import FeatureSet
from cutaway.results import Work, atomic_folder, atomic_write, strict, working

if TYPE_CHECKING:
    from cutaway.network import Network

#: Rows of its tables; decimals of its numbers.
_ROWS, _DECIMALS = 3, 3
#: Says of a group of examples that it is of the strongest.
_TOP = -1


@strict
def export_neuronpedia(
    net: Network,
    index: FeatureIndex,
    folder: str | os.PathLike[str],
    *,
    labels: FeatureLabels | None = None,
    of: FeatureSet | None = None,
    name: str = "",
    dataset: str = "",
    batch: int = 128,
    seed: int = 0,
    work: Work | None = None,
) -> Path:
    """Write an index as Neuronpedia's batches: `batch-0.json`, ... with one entry of its fields for each feature.

    Effects on logits are relative to the mean of all tokens, with the final norm frozen. What the index does not hold is an
    empty list: correlated neurons, weights by head, vectors. Labels go to `explanations.jsonl`.

    Args:
        net: the network.
        index: of its features.
        folder: new or empty.
        labels: of `label_features`.
        of: the set itself, for logits, where the index was loaded from disk.
        name: of the set of features; default the index's.
        dataset: what the texts are called.
        batch: features of one file.
        seed: of the examples that are drawn.
        work: hears of progress, and may stop it.

    Raises:
        BadInput: for an index of another network, or labels or a set of other features.
        SaveFailed: where something lies there already, or the disk refuses.
    """
    work = working(work)
    source = source_of(net, index, labels, of)
    if isinstance(batch, bool) or batch < 1:
        raise BadInput(f"batch={batch!r} is no number of features.", "Give 1 or more.")
    made = _Batches(net, index, source, dataset, seed)
    layers = [int(s.rsplit(".", 1)[1]) for s in index.sites if s.rsplit(".", 1)[-1].isdigit()]
    about = {
        "model_id": index.provenance.network,
        "layer": max(layers, default=0),
        "sae_set": name or index.name,
    }
    with atomic_folder(folder, only_new) as place:
        for n, first in enumerate(range(0, len(index), batch)):
            some = [made.feature(i) for i in range(first, min(first + batch, len(index)))]
            said = about | {"sae_id_suffix": None, "features": some}
            atomic_write(place / f"batch-{n}.json", json.dumps(said, ensure_ascii=False, allow_nan=False))
            work.step("features written", min(first + batch, len(index)), len(index))
            work.check()
        if labels is not None:
            lines = [json.dumps(_explained(x, about), ensure_ascii=False) for x in labels.labels if x.text]
            atomic_write(place / "explanations.jsonl", "\n".join(lines) + "\n")
    return Path(folder)


def _explained(label: Any, about: dict[str, Any]) -> dict[str, Any]:
    score = None if label.scores is None else _plain([label.scores.balanced_accuracy.value])[0]
    return {
        "modelId": about["model_id"], "layer": f"{about['layer']}-{about['sae_set']}", "index": str(label.number),
        "description": label.text, "explanationModelName": f"cutaway-{label.form}", "score": score,
        "verdict": label.verdict, "standing": label.standing,
    }  # fmt: skip


def _plain(values: Any) -> list[float]:
    return [round(v, _DECIMALS) + 0.0 if np.isfinite(v) else 0.0 for v in map(float, values)]


class _Batches:
    """The entries of features, one after the other."""

    def __init__(
        self, net: Network, index: FeatureIndex, source: FeatureSet | None, dataset: str, seed: int
    ) -> None:
        self.net, self.index, self.dataset = net, index, dataset
        self.facts = DirectionFacts.of(net, index, source, seed, BINS)
        own = None if source is None else own_directions(source)
        self.rows = None if own is None else own[0]
        self.views = FeatureViews(index, ViewSizes(k=20, quantiles=5, each=5, context=32, seed=seed))
        self.near, self.sums = index.nearest, index.sums
        self.norms = np.sqrt(self.sums.squares)

    def feature(self, i: int) -> dict[str, Any]:
        """All fields of one feature."""
        view, index = self.views(i), self.index
        low, high = (float(view.values.min()), float(view.values.max())) if len(view.values) else (0.0, 0.0)
        bars, ends = np.histogram(view.values, BINS, (low, high if high > low else low + 1))
        alive = bool(len(view.values))
        return {
            "feature_index": i, **self._tables(i), **self._logits(i),
            "frac_nonzero": float(index.density[i]) if alive else 0.0,
            "freq_hist_data_bar_values": _plain((ends[:-1] + ends[1:]) / 2) if alive else [],
            "freq_hist_data_bar_heights": bars.tolist() if alive else [],
            "n_prompts_total": len(index.rows.starts) - 1, "n_tokens_in_prompt": int(index.asked["length"]),
            "dataset": self.dataset, "decoder_weights_dist": [], "activations": self._activations(view), "vector": [],
        }  # fmt: skip

    def _tables(self, i: int) -> dict[str, Any]:
        found: dict[str, Any] = {name: [] for name in _TABLES}
        if self.rows is not None:
            row = self.rows[i].double()
            best = row.topk(min(_ROWS, len(row)))
            found["neuron_alignment_indices"] = best.indices.tolist()
            found["neuron_alignment_values"] = _plain(best.values)
            found["neuron_alignment_l1"] = _plain(best.values.abs() / row.abs().sum().clamp(min=1e-30))
        which = self.near.which[i][:_ROWS] if self.near.which.shape[1] else np.zeros(0, np.int64)
        r = self.near.correlation[i][: len(which)][which >= 0]
        which = which[which >= 0]
        found["correlated_features_indices"] = which.tolist()
        found["correlated_features_pearson"] = _plain(r)
        found["correlated_features_l1"] = _plain(self._cosines(i, which, r))
        return found

    def _cosines(self, i: int, which: NDArray[np.int64], r: NDArray[np.float64]) -> NDArray[np.float64]:
        """Cosines of activations over all tokens, from their correlations."""
        mean, spread = self.sums.mean, self.sums.spread
        products = (r * spread[i] * spread[which] + mean[i] * mean[which]) * self.sums.rows
        return products / np.maximum(self.norms[i] * self.norms[which], 1e-300)

    def _logits(self, i: int) -> dict[str, Any]:
        found: dict[str, Any] = {name: [] for name in _LOGITS}
        if self.facts.logits is None:
            return found
        for sign, ranked in (("pos", self.facts.logits.raised), ("neg", self.facts.logits.lowered)):
            pairs = ranked.of(i)
            found[f"{sign}_str"] = self.net.token_strings([token for token, _ in pairs])
            found[f"{sign}_values"] = _plain([v for _, v in pairs])
        low, high = self.facts.logits.ends[i]
        edges = np.linspace(low, high, BINS + 1)
        found["logits_hist_data_bar_values"] = _plain((edges[:-1] + edges[1:]) / 2)
        found["logits_hist_data_bar_heights"] = self.facts.logits.bars[i].tolist()
        return found

    def _activations(self, view: FeatureView) -> list[dict[str, Any]]:
        most = float(view.values.max(initial=0.0))
        groups = [(_TOP, most, _TOP, view.top)]
        groups += [(low, high, n / len(view.rows), rows) for low, high, n, rows in view.shares]
        found = []
        for low, high, share, rows in groups if len(view.rows) else []:
            around = self.views.around(view, rows)
            for ids, values in zip(around.ids, around.values, strict=True):
                inside = np.nonzero(ids >= 0)[0]
                found.append({
                    "bin_min": round(float(low), _DECIMALS), "bin_max": round(float(high), _DECIMALS),
                    "bin_contains": round(float(share), 5), "tokens": self.index.words(ids[inside]),
                    "values": _plain(values[inside]),
                    "qualifying_token_index": int(self.views.sizes.context - inside[0]),
                })  # fmt: skip
        return found


_TABLES = (
    "neuron_alignment_indices", "neuron_alignment_values", "neuron_alignment_l1", "correlated_neurons_indices",
    "correlated_neurons_l1", "correlated_neurons_pearson", "correlated_features_indices", "correlated_features_l1",
    "correlated_features_pearson",
)  # fmt: skip
_LOGITS = (
    "neg_str", "neg_values", "pos_str", "pos_values", "logits_hist_data_bar_heights", "logits_hist_data_bar_values",
)  # fmt: skip

"""The dictionary of raw values does what was trained on centred and scaled rows."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.features.training.test_steps import ACTIVATIONS, KINDS, recipe_of, rows_of
from torch import Tensor

from cutaway.errors import BadInput
from cutaway.features.dictionaries import GroupMax, JumpReLU, TopK
from cutaway.features.training import Trainee


def trained(activation: str, kind: str, dtype: torch.dtype = torch.float64) -> Trainee:
    trainee = Trainee(recipe_of(activation, kind, (5, 12, 24)), KINDS[kind][2], KINDS[kind][3], dtype)
    for number in range(8):
        trainee.step(*rows_of(kind, number, dtype), 0.5)
    return trainee


def statistics(
    kind: str, seed: int, dtype: torch.dtype
) -> tuple[list[Tensor], list[float], list[Tensor], list[float]]:
    """Another mean and scale for each place; what is read and written are the same where the places are."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(widths: tuple[int, ...]) -> tuple[list[Tensor], list[float]]:
        means = [3 * torch.randn(w, generator=generator, dtype=torch.float64).to(dtype) for w in widths]
        return means, [float(torch.rand((), generator=generator)) * 3 + 0.1 for _ in widths]

    into = drawn(KINDS[kind][2])
    out = into if kind in ("autoencoder", "crosscoder") else drawn(KINDS[kind][3])
    return (*into, *out)


def normalised(trainee: Trainee, reads: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Activations of each source and reconstruction of each target, as written down in words."""
    p = {n: v.detach() for n, v in trainee.parameters.items()}
    wiring, recipe, acts = trainee.wiring, trainee.recipe, []
    for s, places in enumerate(wiring.reads):
        x = torch.cat([reads[i] for i in places], 1)
        pre = x @ p[f"encoders.{s}.weight"].T + p[f"encoders.{s}.bias"]
        match recipe.activation:
            case "topk":
                kept = pre.topk(recipe.k, dim=1)
                act = torch.zeros_like(pre).scatter(1, kept.indices, kept.values.relu())
            case "groupmax":
                act = GroupMax(recipe.k)(pre)
            case "batchtopk":
                act = torch.where(pre > trainee.thresholds()[s], pre, 0.0)
            case "jumprelu":
                act = torch.where(pre > p[f"encoders.{s}.threshold"], pre, 0.0)
            case "gated":
                product = x @ p[f"encoders.{s}.weight"].T
                size = product * p[f"encoders.{s}.scale"].exp() + p[f"encoders.{s}.magnitude"]
                act = (pre > 0) * size.relu()
            case _:
                act = pre.relu()
        acts.append(act)
    outs = []
    for t, width in enumerate(wiring.widths_out):
        total = p[f"biases.{t}"].expand(len(reads[0]), width)
        for s, act in enumerate(acts):
            if t in wiring.writes[s]:
                start = sum(wiring.widths_out[u] for u in wiring.writes[s][: wiring.writes[s].index(t)])
                total = total + act @ p[f"decoders.{s}.weight"][:, start : start + width]
        if recipe.skip:
            total = total + reads[t] @ p[f"skips.{t}"].T
        outs.append(total)
    return acts, outs


@pytest.mark.parametrize(("activation", "kind"), list(itertools.product(ACTIVATIONS, KINDS)))
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
def test_raw_rows_give_what_normalised_rows_give(
    activation: str, kind: str, dtype: torch.dtype, tolerance: float
) -> None:
    trainee = trained(activation, kind, dtype)

    @given(st.integers(0, 10**6))
    @settings(max_examples=5)
    def check(seed: int) -> None:
        means_in, scales_in, means_out, scales_out = statistics(kind, seed, dtype)
        dictionary = trainee.dictionary(means_in, scales_in, means_out, scales_out, dtype)
        reads, _ = rows_of(kind, seed + 50, dtype)
        raw = [x / s + m for x, m, s in zip(reads, means_in, scales_in, strict=True)]
        acts, outs = normalised(trainee, reads)
        latents = []
        for s, places in enumerate(trainee.wiring.reads):
            found = dictionary.encode([raw[i] for i in places], s)
            latents.append(found)
            unit = scales_out[trainee.wiring.writes[s][0]]
            near = (found * unit - acts[s]).abs() > 10 * tolerance
            if dtype == torch.float32:  # rounding may decide at a threshold
                assert float(near.double().mean()) < 0.01
            else:
                assert not bool(near.any())
                assert torch.equal(found != 0, acts[s] != 0)
        given_acts = [a / scales_out[w[0]] for a, w in zip(acts, trainee.wiring.writes, strict=True)]
        for t, out in enumerate(outs):
            values = [raw[i] for i in trainee.wiring.reads[min(t, len(trainee.wiring.reads) - 1)]]
            back = dictionary.decode(given_acts, values, target=t)
            raw_out = out / scales_out[t] + means_out[t]
            size = max(1.0, float(raw_out.abs().max()))
            assert float((back - raw_out).abs().max()) < 10 * tolerance * size

    check()


def test_activations_are_in_units_of_what_they_write_and_decoders_keep_their_length() -> None:
    trainee = trained("topk", "autoencoder")
    mean, scale = torch.arange(6, dtype=torch.float64), 0.2
    dictionary = trainee.dictionary([mean], [scale], [mean], [scale], torch.float64)
    trained_lengths = trainee.parameters["decoders.0.weight"].detach().norm(dim=1)
    assert torch.allclose(dictionary.directions().norm(dim=1), trained_lengths)
    other = trainee.dictionary([mean], [1.0], [mean], [1.0], torch.float64)
    rows = rows_of("autoencoder", 3)[0][0]
    a, b = dictionary.encode(rows / scale + mean), other.encode(rows + mean)
    assert torch.equal(a > 0, b > 0)  # the scale does not decide who fires
    assert torch.allclose(a * scale, b)


@pytest.mark.parametrize("activation", ["batchtopk", "jumprelu"])
def test_thresholds_are_scaled_with_what_they_are_compared_with(activation: str) -> None:
    trainee = trained(activation, "transcoder")
    means, scale = ([torch.zeros(6, dtype=torch.float64)], [torch.zeros(5, dtype=torch.float64)]), 0.25
    found = trainee.dictionary(means[0], [7.0], means[1], [scale], torch.float64).encoders[0].activation
    assert isinstance(found, JumpReLU)
    normal = (
        trainee.thresholds()[0] if activation == "batchtopk" else trainee.parameters["encoders.0.threshold"]
    )
    assert torch.allclose(found.threshold * scale, torch.as_tensor(normal, dtype=torch.float64).detach())
    assert float(found.threshold.min()) > 0


def test_the_threshold_of_a_batch_is_the_running_mean_of_the_smallest_it_kept() -> None:
    trainee = Trainee(recipe_of("batchtopk", "autoencoder"), (6,), (6,), torch.float64)
    mean, weight = 0.0, 0.0
    for number in range(5):
        reads, writes = rows_of("autoencoder", number)
        values = trainee.run(reads).fired[0].values.detach()
        mean, weight = 0.99 * mean + 0.01 * float(values.min()), 0.99 * weight + 0.01
        trainee.step(reads, writes, 0.5)
    assert trainee.thresholds() == pytest.approx([mean / weight], rel=1e-12)


def test_a_threshold_that_was_never_set_is_said() -> None:
    trainee = Trainee(recipe_of("batchtopk", "autoencoder"), (6,), (6,))
    mean = [torch.zeros(6)]
    with pytest.raises(BadInput, match="never set"):
        trainee.dictionary(mean, [1.0], mean, [1.0])
    fresh = Trainee(recipe_of("topk", "autoencoder"), (6,), (6,)).dictionary(mean, [1.0], mean, [1.0])
    assert isinstance(fresh.encoders[0].activation, TopK)


def test_statistics_that_do_not_fit_are_refused() -> None:
    trainee = trained("topk", "transcoder")
    a, b = [torch.zeros(6)], [torch.zeros(5)]
    for bad in ((b, [1.0], b, [1.0]), (a, [1.0], a, [1.0]), (a, [1.0, 2.0], b, [1.0]), (a, [0.0], b, [1.0]),
                (a, [1.0], b, [float("nan")])):  # fmt: skip
        with pytest.raises(BadInput):
            trainee.dictionary(*bad)


def test_places_and_kind_are_those_of_the_recipe() -> None:
    dictionary = trained("relu", "cross-layer transcoder").dictionary(
        *statistics("cross-layer transcoder", 1, torch.float64)
    )
    assert dictionary.kind == "cross-layer transcoder"
    assert [p.site for places in dictionary.reads for p in places] == ["a", "b", "c"]
    assert [p.site for p in dictionary.writes] == ["d", "e", "f"]
    assert {(d.source, d.target) for d in dictionary.decoders} == {
        (0, 0),
        (0, 1),
        (0, 2),
        (1, 1),
        (1, 2),
        (2, 2),
    }
    assert {t.dtype for t in dictionary.tensors().values()} == {torch.float32}

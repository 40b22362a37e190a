"""The one form of dictionaries against loops over rows and latents, in double precision."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cutaway.errors import BadInput, NotFinite
from cutaway.features.dictionaries import (
    AbsTopK,
    Decoder,
    Dictionary,
    Encoder,
    Gated,
    GroupMax,
    JumpReLU,
    Place,
    ReLU,
    TopK,
)

D, F, N = 6, 12, 5


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def autoencoder(encoder: Encoder, decoder: Tensor, bias: Tensor | None = None) -> Dictionary:
    place = Place("blocks.0.hook_resid_post", "resid_post.0", encoder.width)
    return Dictionary("autoencoder", (encoder,), (Decoder(0, 0, decoder),), (bias,), ((place,),), (place,))


def by_hand(name: str, pre: list[float], made: dict[str, Tensor]) -> list[float]:
    order = sorted(range(F), key=lambda i: -pre[i])
    match name:
        case "relu":
            return [max(0.0, x) for x in pre]
        case "jumprelu":
            return [x if x > made["threshold"][i] else 0.0 for i, x in enumerate(pre)]
        case "topk":
            return [max(0.0, x) if i in order[:3] else 0.0 for i, x in enumerate(pre)]
        case "abstopk":
            best = sorted(range(F), key=lambda i: -abs(pre[i]))[:3]
            return [x if i in best else 0.0 for i, x in enumerate(pre)]
        case "groupmax":
            size, out = F // 3, [0.0] * F
            for g in range(3):
                best = max(range(g * size, (g + 1) * size), key=lambda i: pre[i])
                out[best] = max(0.0, pre[best])
            return out
    gate, scale, magnitude = (made[n] for n in ("gate", "scale", "magnitude"))
    return [
        max(0.0, float(scale[i]) * x + float(magnitude[i])) if x + gate[i] > 0 else 0.0
        for i, x in enumerate(pre)
    ]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), name=st.sampled_from(["relu", "jumprelu", "topk", "abstopk", "groupmax", "gated"]),
       norm=st.sampled_from(["none", "layer-norm", "constant-norm"]), dressed=st.booleans())  # fmt: skip
def test_a_dictionary_is_what_loops_over_rows_make_of_it(
    seed: int, name: str, norm: str, dressed: bool
) -> None:
    made = {n: drawn(seed + i, F) for i, n in enumerate(("threshold", "gate", "scale", "magnitude"))}
    activation = {
        "relu": ReLU(), "jumprelu": JumpReLU(made["threshold"].abs()), "topk": TopK(3), "abstopk": AbsTopK(3),
        "groupmax": GroupMax(3), "gated": Gated(made["gate"], made["scale"], made["magnitude"]),
    }[name]  # fmt: skip
    made["threshold"] = made["threshold"].abs()
    weight, decoder, bias = drawn(seed + 9, D, F), drawn(seed + 10, F, D), drawn(seed + 11, D)
    extra = (
        {"centre": bias, "gain": drawn(seed + 12, F).abs(), "bias": drawn(seed + 13, F)}
        if dressed
        else {"bias": None}
    )
    encoder = Encoder(weight, activation=activation, norm=norm, **extra)  # type: ignore[arg-type]
    dictionary = autoencoder(encoder, decoder, bias)
    rows = drawn(seed + 14, N, D)
    latents, back = dictionary.encode(rows), dictionary.reconstruct(rows)
    for row, found, rebuilt in zip(rows.tolist(), latents.tolist(), back.tolist(), strict=True):
        mean, spread = 0.0, 1.0
        if norm == "layer-norm":
            mean = sum(row) / D
            spread = math.sqrt(sum((x - mean) ** 2 for x in row) / (D - 1))
        elif norm == "constant-norm":
            spread = math.sqrt(sum(x * x for x in row) / D)
        divided = spread + (1e-5 if norm == "layer-norm" else 0.0)
        inner = [(x - mean) / divided - (float(bias[i]) if dressed else 0.0) for i, x in enumerate(row)]
        pre = []
        for j in range(F):
            value = sum(inner[i] * float(weight[i, j]) for i in range(D))
            if dressed:
                value = (value + float(extra["bias"][j])) * float(extra["gain"][j])
            pre.append(value)
        wanted = by_hand(name, pre, made)
        assert found == pytest.approx(wanted, abs=1e-12)
        summed = [sum(wanted[j] * float(decoder[j, i]) for j in range(F)) + float(bias[i]) for i in range(D)]
        assert rebuilt == pytest.approx([x * spread + mean for x in summed], abs=1e-11)


def test_at_its_threshold_a_latent_is_silent() -> None:
    one = JumpReLU(torch.tensor([1.0, 1.0, 1.0]))
    assert one(torch.tensor([1.0, 1.0000001, 0.5])).tolist() == [0.0, pytest.approx(1.0000001), 0.0]


def cross_layer(seed: int, layers: int = 3) -> Dictionary:
    places = tuple(Place(f"l{i}", f"mlp_in.{i}", D) for i in range(layers))
    encoders = tuple(Encoder(drawn(seed + i, D, F), drawn(seed + 50 + i, F), ReLU()) for i in range(layers))
    decoders = tuple(
        Decoder(i, j, drawn(seed + 100 + 10 * i + j, F, D)) for i in range(layers) for j in range(i, layers)
    )
    skips = tuple(drawn(seed + 300 + i, D, D) for i in range(layers))
    biases = tuple(drawn(seed + 200 + i, D) for i in range(layers))
    reads = tuple((place,) for place in places)
    return Dictionary("cross-layer transcoder", encoders, decoders, biases, reads, places, skips)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_each_target_takes_what_its_own_and_earlier_sources_write(seed: int) -> None:
    clt = cross_layer(seed)
    rows = [drawn(seed + 400 + i, N, D) for i in range(3)]
    latents = [clt.encode(r, i) for i, r in enumerate(rows)]
    for target in range(3):
        wanted = clt.biases[target] + rows[target] @ clt.skips[target].T  # type: ignore[union-attr]
        for source in range(target + 1):
            weight = next(d.weight for d in clt.decoders if (d.source, d.target) == (source, target))
            wanted = (
                wanted
                + (rows[source] @ clt.encoders[source].weight + clt.encoders[source].bias).relu() @ weight
            )
        assert torch.allclose(clt.decode(latents, rows[target], target), wanted, atol=1e-10)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), norm=st.sampled_from(["none", "layer-norm", "constant-norm"]))
def test_what_a_change_writes_is_the_difference_of_two_reconstructions(seed: int, norm: str) -> None:
    encoder = Encoder(drawn(seed, D, F), drawn(seed + 1, F), ReLU(), norm=norm)  # type: ignore[arg-type]
    dictionary = autoencoder(encoder, drawn(seed + 2, F, D), drawn(seed + 3, D))
    rows, change = drawn(seed + 4, N, D), drawn(seed + 5, N, F)
    latents = dictionary.encode(rows)
    difference = dictionary.decode(latents + change, rows) - dictionary.decode(latents, rows)
    assert torch.allclose(dictionary.written(change, rows, 0, 0), difference, atol=1e-10)


def test_a_crosscoder_reads_its_sites_side_by_side() -> None:
    places = (Place("a", "resid_post.0", D), Place("b", "resid_post.1", D))
    encoder = Encoder(drawn(1, 2 * D, F), None, ReLU())
    made = Dictionary(
        "crosscoder", (encoder,), (Decoder(0, 0, drawn(2, F, D)), Decoder(0, 1, drawn(3, F, D))), (None, None),
        (places,), places,
    )  # fmt: skip
    first, second = drawn(4, N, D), drawn(5, N, D)
    latents = made.encode([first, second])
    assert torch.allclose(
        latents, (first @ encoder.weight[:D] + second @ encoder.weight[D:]).relu(), atol=1e-12
    )
    assert torch.allclose(made.decode(latents, target=1), latents @ made.directions(0, 1), atol=1e-12)


def test_every_number_is_part_of_the_hash() -> None:
    made = cross_layer(7)
    seen = {made.hash}
    for name, tensor in made.tensors().items():
        flat = tensor.view(-1)
        before = flat[0].item()
        flat[0] = before + 1e-9
        made.__dict__.pop("hash")
        assert made.hash not in seen, name
        seen.add(made.hash)
        flat[0] = before
    assert len(seen) == len(made.tensors()) + 1


def test_types_change_all_numbers_and_nothing_else() -> None:
    made = autoencoder(
        Encoder(drawn(1, D, F), drawn(2, F), JumpReLU(drawn(3, F).abs())),
        drawn(4, F, D),
        drawn(5, D),
    )
    single = made.to(torch.float32)
    assert {t.dtype for t in single.tensors().values()} == {torch.float32}
    assert torch.allclose(
        single.reconstruct(drawn(6, N, D).float()).double(), made.reconstruct(drawn(6, N, D)), atol=1e-4
    )


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Encoder(drawn(1, D), None, ReLU()), "no matrix"),
        (lambda: Encoder(drawn(1, D, F), drawn(2, D), ReLU()), "bias of shape (6,)"),
        (lambda: Encoder(drawn(1, D, F), None, JumpReLU(drawn(2, D))), "threshold of shape"),
        (lambda: Encoder(drawn(1, D, F), None, ReLU(), norm="other"), "norm='other'"),  # type: ignore[arg-type]
        (lambda: Encoder(drawn(1, D, F), None, ReLU(), gate=drawn(2, F, D)), "A gate of shape"),
        (lambda: TopK(0), "k=0"),
        (lambda: TopK(True), "k=True"),
        (lambda: GroupMax(5)(drawn(1, N, F)), "equal groups"),
        (lambda: autoencoder(Encoder(drawn(1, D, F), None, ReLU()), drawn(2, D, F)), "decoder of shape (6, 12)"),
        (lambda: autoencoder(Encoder(drawn(1, D, F), None, ReLU()), drawn(2, F, D), drawn(2, F)), "bias of shape (12,)"),
        (lambda: autoencoder(Encoder(drawn(1, D, F), None, ReLU()), drawn(2, F, D)).encode(drawn(1, N, F)), "Rows of 12"),
        (lambda: cross_layer(1).decode([drawn(i, N, F) for i in range(3)]), "depends on the row"),
        (lambda: cross_layer(1).directions(2, 0), "writes nothing to target 0"),
    ],
)  # fmt: skip
def test_what_does_not_go_together_is_refused_with_its_shape(make: object, words: str) -> None:
    with pytest.raises(BadInput, match=words.replace("(", r"\(").replace(")", r"\)")):
        make()  # type: ignore[operator]


def test_numbers_that_are_none_are_named() -> None:
    weight = drawn(1, D, F)
    weight[0, 0] = math.nan
    made = autoencoder(Encoder(weight, None, ReLU()), drawn(2, F, D))
    with pytest.raises(NotFinite, match=r"encoders\.0\.weight"):
        made.checked()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), k=st.integers(1, F))
def test_a_top_k_ranks_by_lengths_and_keeps_values_as_they_are(seed: int, k: int) -> None:
    pre, by = drawn(seed, N, F), drawn(seed + 1, F).abs() + 0.01
    for row, found in zip(pre.tolist(), TopK(k, by=by)(pre).tolist(), strict=True):
        order = sorted(range(F), key=lambda i: -row[i] * float(by[i]))[:k]
        assert found == [max(0.0, x) if i in order else 0.0 for i, x in enumerate(row)]
    made = autoencoder(Encoder(drawn(seed, D, F), None, TopK(k, by=by)), drawn(seed + 2, F, D))
    assert made.to(torch.float32).tensors()["encoders.0.activation.by"].dtype == torch.float32
    plain = autoencoder(Encoder(drawn(seed, D, F), None, TopK(k)), drawn(seed + 2, F, D))
    assert made.hash != plain.hash


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10**6), biased=st.booleans())
def test_a_gated_linear_unit_multiplies_with_a_sigmoid(seed: int, biased: bool) -> None:
    weight, gate, bias = drawn(seed, D, F), drawn(seed + 1, D, F), drawn(seed + 2, F)
    encoder = Encoder(weight, bias, ReLU(), gate=gate, gate_bias=drawn(seed + 3, F) if biased else None)
    rows = drawn(seed + 4, N, D)
    for row, found in zip(rows.tolist(), encoder(rows).tolist(), strict=True):
        for j in range(F):
            first = sum(x * float(weight[i, j]) for i, x in enumerate(row)) + float(bias[j])
            second = sum(x * float(gate[i, j]) for i, x in enumerate(row))
            second += float(encoder.gate_bias[j]) if encoder.gate_bias is not None else 0.0
            assert found[j] == pytest.approx(max(0.0, first / (1 + math.exp(-second))), abs=1e-12)


def test_ranks_of_another_size_are_refused() -> None:
    with pytest.raises(BadInput, match=r"by of shape \(6,\)"):
        Encoder(drawn(1, D, F), None, TopK(2, by=drawn(2, D)))

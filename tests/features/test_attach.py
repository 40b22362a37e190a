"""A dictionary's latents as sites: what a run reads and writes there, against the same done by hand at plain sites."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import cutaway
from cutaway import Ablate, Add, Apply, Patch, Scale
from cutaway.errors import BadInput, SiteUnavailable
from cutaway.features.attach import with_dictionary
from cutaway.features.dictionaries import Decoder, Dictionary, Encoder, Place, ReLU, TopK
from cutaway.network import Network
from cutaway.sweeps import Rules

F = 40
TEXT = ["The dog and the cat were sad because", "She gave the book to"]


@pytest.fixture(scope="module")
def net() -> Network:
    return cutaway.open("zoo:tales")


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) / shape[0] ** 0.5


def made(
    site: str, width: int, seed: int = 0, kind: str = "autoencoder", to: str = "", norm: str = "none"
) -> Dictionary:
    here, there = Place("", site, width), Place("", to or site, width)
    encoder = Encoder(drawn(seed, width, F), drawn(seed + 1, F), ReLU(), norm=norm)  # type: ignore[arg-type]
    decoder = Decoder(0, 0, drawn(seed + 2, F, width))
    return Dictionary(kind, (encoder,), (decoder,), (drawn(seed + 3, width),), ((here,),), (there,))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "site", ["resid_post.1", "resid_pre.2", "z.1", "mlp_act.2", "mlp_write.1", "attn_in.3", "head_out.1"]
)
def test_latents_are_read_off_the_site_and_nothing_else_changes(net: Network, site: str) -> None:
    bare = net.run(TEXT, keep=[site])
    value = bare[site].flatten(2)
    dictionary = made(site, value.shape[-1])
    layer = site.rpartition(".")[2]
    seen = with_dictionary(net, dictionary).run(
        TEXT, keep=[f"features.{layer}", f"feature_error.{layer}", site]
    )
    assert torch.equal(seen.logits, bare.logits)
    assert torch.equal(seen[f"features.{layer}"], dictionary.encode(value))
    assert torch.allclose(seen[f"feature_error.{layer}"], value - dictionary.reconstruct(value), atol=1e-5)


@pytest.mark.parametrize("site", ["resid_post.1", "z.1", "mlp_act.2", "mlp_write.1"])
@pytest.mark.parametrize("norm", ["none", "layer-norm"])
def test_a_change_of_latents_is_added_along_their_directions(net: Network, site: str, norm: str) -> None:
    width = net.run(TEXT, keep=[site])[site].flatten(2).shape[-1]
    dictionary, layer = made(site, width, 5, norm=norm), site.rpartition(".")[2]
    bound = with_dictionary(net, dictionary)

    def by_hand(value: Tensor) -> Tensor:
        flat = value.flatten(2)
        change = torch.zeros(*flat.shape[:2], F)
        change[:, :, 7] = dictionary.encode(flat)[:, :, 7]
        return value + dictionary.written(change, flat, 0, 0).reshape(value.shape)

    doubled = bound.run(TEXT, edits=[Scale(f"features.{layer}", 2.0, neuron=7)])
    wanted = net.run(TEXT, edits=[Apply(site, by_hand)])
    assert torch.allclose(doubled.logits, wanted.logits, atol=1e-4)
    assert not torch.allclose(doubled.logits, net.run(TEXT).logits, atol=1e-3)


def test_without_its_error_the_reconstruction_stands_in_the_place_of_the_value(net: Network) -> None:
    dictionary = made("resid_post.1", 128, 3)
    bound = with_dictionary(net, dictionary)
    spliced = bound.run(TEXT, edits=[Ablate("feature_error.1", "zero")])
    wanted = net.run(TEXT, edits=[Apply("resid_post.1", dictionary.reconstruct)])
    assert torch.allclose(spliced.logits, wanted.logits, atol=1e-4)
    both = bound.run(TEXT, edits=[Ablate("feature_error.1", "zero"), Ablate("features.1", "zero")])
    bias = net.run(TEXT, edits=[Apply("resid_post.1", lambda v: dictionary.biases[0].expand_as(v))])
    assert torch.allclose(both.logits, bias.logits, atol=1e-3)


def test_a_transcoder_reads_at_one_site_and_writes_at_another(net: Network) -> None:
    dictionary = made("mlp_in.2", 128, 4, "transcoder", "mlp_write.2")
    bound = with_dictionary(net, dictionary)
    bare = net.run(TEXT, keep=["mlp_in.2", "mlp_write.2"])
    read = bound.run(TEXT, keep=["features.2", "feature_error.2"])
    assert torch.equal(read.logits, bare.logits)
    assert torch.equal(read["features.2"], dictionary.encode(bare["mlp_in.2"]))
    assert torch.allclose(
        read["feature_error.2"], bare["mlp_write.2"] - dictionary.reconstruct(bare["mlp_in.2"]), atol=1e-5
    )
    replaced = bound.run(TEXT, edits=[Ablate("feature_error.2", "zero")])
    rebuilt = dictionary.reconstruct(bare["mlp_in.2"])
    wanted = net.run(TEXT, edits=[Apply("mlp_write.2", lambda _: rebuilt)])
    assert torch.allclose(replaced.logits, wanted.logits, atol=1e-4)


def cross_layer() -> Dictionary:
    encoders = tuple(Encoder(drawn(60 + i, 128, F), drawn(70 + i, F), ReLU()) for i in range(4))
    decoders = tuple(Decoder(i, j, drawn(80 + 10 * i + j, F, 128)) for i in range(4) for j in range(i, 4))
    reads = tuple((Place("", f"mlp_in.{i}", 128),) for i in range(4))
    writes = tuple(Place("", f"mlp_write.{i}", 128) for i in range(4))
    return Dictionary(
        "cross-layer transcoder",
        encoders,
        decoders,
        tuple(drawn(120 + i, 128) for i in range(4)),
        reads,
        writes,
    )


def test_a_cross_layer_transcoder_writes_to_later_layers_too(net: Network) -> None:
    dictionary = cross_layer()
    bound = with_dictionary(net, dictionary, name="clt")
    bare = net.run(TEXT, keep=["mlp_in", "mlp_write"])
    errors = bound.run(TEXT, keep=["clt.features", "clt.feature_error"])
    latents = [dictionary.encode(bare[f"mlp_in.{i}"], i) for i in range(4)]
    for i in range(4):
        assert torch.equal(errors[f"clt.features.{i}"], latents[i])
        rest = bare[f"mlp_write.{i}"] - dictionary.decode(latents, bare[f"mlp_in.{i}"], i)
        assert torch.allclose(errors[f"clt.feature_error.{i}"], rest, atol=1e-4)
    change = torch.zeros(F)
    change[3] = 2.0
    pushed = bound.run(TEXT, edits=[Add("clt.features.1", change)])
    by_hand = [Add(f"mlp_write.{j}", 2.0 * dictionary.directions(1, j)[3]) for j in (1, 2, 3)]
    assert torch.allclose(pushed.logits, net.run(TEXT, edits=by_hand).logits, atol=1e-4)


def test_all_errors_of_a_cross_layer_transcoder_at_zero_make_the_replacement_model(net: Network) -> None:
    dictionary = cross_layer()
    bound = with_dictionary(net, dictionary)
    replaced = bound.run(TEXT, edits=[Ablate("feature_error", "zero")])
    latents: list[Tensor] = []

    def reading(value: Tensor) -> Tensor:
        latents.append(dictionary.encode(value, len(latents)))
        return value

    def writing(value: Tensor) -> Tensor:
        return dictionary.decode(latents + [None] * (4 - len(latents)), None, len(latents) - 1).reshape(
            value.shape
        )  # type: ignore[list-item]

    edits = [e for i in range(4) for e in (Apply(f"mlp_in.{i}", reading), Apply(f"mlp_write.{i}", writing))]
    assert torch.allclose(replaced.logits, net.run(TEXT, edits=edits).logits, atol=1e-4)


def test_a_crosscoder_over_layers_is_there_once_it_has_read_the_last(net: Network) -> None:
    places = (Place("", "resid_post.0", 128), Place("", "resid_post.2", 128))
    encoder = Encoder(drawn(1, 256, F), None, TopK(6))
    decoders = (Decoder(0, 0, drawn(2, F, 128)), Decoder(0, 1, drawn(3, F, 128)))
    dictionary = Dictionary("crosscoder", (encoder,), decoders, (None, None), (places,), places)
    bare = net.run(TEXT, keep=["resid_post"])
    bound = with_dictionary(net, dictionary)
    assert torch.equal(
        bound.run(TEXT, keep=["features.2"])["features.2"],
        dictionary.encode([bare["resid_post.0"], bare["resid_post.2"]]),
    )


def test_gradients_at_latents_are_those_of_adding_to_them(net: Network) -> None:
    bound = with_dictionary(net, made("resid_post.1", 128, 8))
    run = bound.run(TEXT[:1], keep=["features.1"], grad=True)
    gradient = torch.autograd.grad(run.logits[0, -1, 5], run["features.1"])[0][0, -1]
    with torch.no_grad():
        for i in gradient.abs().topk(3).indices.tolist():
            step = torch.zeros(F)
            step[i] = 1e-2
            ends = [
                bound.run(TEXT[:1], edits=[Add("features.1", sign * step, pos=-1)]).logits[0, -1, 5].double()
                for sign in (1, -1)
            ]
            assert float(ends[0] - ends[1]) / 2e-2 == pytest.approx(float(gradient[i]), rel=0.03, abs=1e-3)


def test_generation_carries_edits_of_latents(net: Network) -> None:
    dictionary = made("resid_post.1", 128, 9)
    push = torch.zeros(F)
    push[4] = 30.0
    bound = with_dictionary(net, dictionary)
    ours = bound.generate(TEXT[0], 6, edits=[Add("features.1", push)])
    theirs = net.generate(TEXT[0], 6, edits=[Add("resid_post.1", 30.0 * dictionary.directions()[4])])
    assert ours.ids.tolist() == theirs.ids.tolist()
    assert ours.ids.tolist() != net.generate(TEXT[0], 6).ids.tolist()


def test_latents_are_patched_from_another_run(net: Network) -> None:
    bound = with_dictionary(net, made("resid_post.1", 128, 2))
    other = bound.run([TEXT[0].replace("sad", "happy")], keep=["features.1", "feature_error.1"])
    both = [Patch("features.1", other), Patch("feature_error.1", other)]
    assert torch.allclose(bound.run(TEXT[:1], edits=both).logits, other.logits, atol=1e-4)


def test_two_dictionaries_stand_beside_each_other_under_names(net: Network) -> None:
    first, second = made("resid_post.1", 128, 2), made("mlp_in.1", 128, 3, "transcoder", "mlp_write.1")
    bound = with_dictionary(with_dictionary(net, first, name="sae"), second, name="tc")
    run = bound.run(TEXT, keep=["sae.features.1", "tc.features.1"])
    assert torch.equal(run.logits, net.run(TEXT).logits)
    assert torch.equal(
        run["sae.features.1"], first.encode(net.run(TEXT, keep=["resid_post.1"])["resid_post.1"])
    )
    hashes = {net.hash, bound.hash, with_dictionary(net, first).hash, with_dictionary(net, second).hash}
    assert len(hashes) == 4
    assert cutaway.Part.parse("sae.f1.12").site == cutaway.Site("features", 1, "sae")


@pytest.mark.parametrize("kind", ["features.1", "feature_error.1"])
def test_sweeps_over_latents_give_what_single_runs_give(net: Network, kind: str) -> None:
    bound = with_dictionary(net, made("resid_post.1", 128, 6))
    pairs = cutaway.behaviour("pronoun", bound, n=6, force=True)
    swept = cutaway.patch(bound, pairs, at=kind.partition(".")[0], by=["layer", "position"], layers=[1])
    plain = cutaway.patch(
        bound, pairs, at=kind.partition(".")[0], by=["layer", "position"], layers=[1], rules=Rules.none()
    )
    assert swept.data["metric"].shape == plain.data["metric"].shape
    assert abs(swept.data["metric"] - plain.data["metric"]).max() < 1e-3


def test_what_cannot_be_attached_is_refused(net: Network) -> None:
    dictionary = made("resid_post.1", 128)
    with pytest.raises(BadInput, match="A token has 128 numbers"):
        with_dictionary(net, made("resid_post.1", 64))
    with pytest.raises(SiteUnavailable, match="which site of"):
        with_dictionary(net, made("", 128))
    with pytest.raises(BadInput, match="without a name is there"):
        with_dictionary(with_dictionary(net, dictionary), dictionary)
    with pytest.raises(BadInput, match="'a b' cannot be a name"):
        with_dictionary(net, dictionary, name="a b")
    with pytest.raises(BadInput, match="no value for each token"):
        with_dictionary(net, dictionary, reads="pattern.1")
    with pytest.raises(BadInput, match="2 sites are to be read"):
        with_dictionary(net, dictionary, reads=["resid_post.1", "resid_post.2"])

"""What libraries get wrong about files with several layers, each a test of its own name."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from tests.features.formats.layers import FORMATS, case, opened
from tests.features.formats.packing import unpacked
from torch import Tensor

from cutaway.errors import BadFormat
from cutaway.features.dictionaries import JumpReLU, TopK
from cutaway.features.formats import DictionaryFiles, recognised

D, F, L = 4, 10, 3


def rewritten(folder: Path, file: str, change: Callable[[dict[str, Tensor]], Any]) -> None:
    """Change the tensors of a file in place."""
    held = {key: value.clone() for key, value in load_file(folder / file).items()}
    change(held)
    save_file(held, folder / file)


def configured(folder: Path, file: str, **changes: Any) -> None:
    """Change a JSON configuration in place."""
    said = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(said | changes))


def refused(folder: Path, match: str) -> None:
    """Reading a folder raises `BadFormat` with these words, whatever format knows it."""
    source = DictionaryFiles.of(folder)
    with pytest.raises(BadFormat, match=match):
        recognised(source, FORMATS).read(source)


# which decoder is whose ----------------------------------------------------------------------------------------------


def planted(kind: str, folder: Path) -> None:
    """One number 7 in the decoder from layer 0 to layer 2, at latent 3 and place 1; all other decoders zero."""
    if kind == "circuit_tracer":
        for i in range(4):
            rewritten(folder, f"W_dec_{i}.safetensors", lambda h, i=i: h[f"W_dec_{i}"].zero_())
        rewritten(folder, "W_dec_0.safetensors", lambda h: h["W_dec_0"].index_put_(
            (torch.tensor(3), torch.tensor(2), torch.tensor(1)), torch.tensor(7.0)))  # fmt: skip
    elif kind == "gemma_clt":
        for i in range(L):
            rewritten(folder, f"params_layer_{i}.safetensors", lambda h: h["w_dec"].zero_())
        rewritten(folder, "params_layer_0.safetensors", lambda h: h["w_dec"].__setitem__((3, 2, 1), 7.0))
    elif kind == "llamascopium":

        def change(h: dict[str, Tensor]) -> None:
            for j in range(L):
                h[f"W_D.{j}"].zero_()
            h["W_D.2"][0, 3, 1] = 7

        rewritten(folder, "sae_weights.safetensors", change)
    elif kind == "clt_forge":

        def change(h: dict[str, Tensor]) -> None:
            h["W_dec"].zero_()
            h["W_dec"][2, 3, 1] = 7  # pairs 0-0, 0-1, 0-2, 1-1, ...

        rewritten(folder, "clt_weights.safetensors", change)
    elif kind == "crosslayer_transcoder":

        def change(h: dict[str, Tensor]) -> None:
            for j in range(L):
                h[f"decoder.W_{j}"].zero_()
            h["decoder.W_2"][0, 3, 1] = 7

        rewritten(folder, "checkpoint.safetensors", change)
    else:

        def change(h: dict[str, Tensor]) -> None:
            for key in [key for key in h if "decoders." in key and key.endswith("weight")]:
                h[key].zero_()
            h["decoder_module.decoders.0->2.weight"][1, 3] = 7

        rewritten(folder, "clt.safetensors", change)


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("circuit_tracer", "clt-relu-4-mid-f32"),
        ("gemma_clt", "gemma-f32"),
        ("llamascopium", "clt-relu-inference-f32"),
        ("clt_forge", "forge-clt-f32"),
        ("crosslayer_transcoder", "relu-clt-f32"),
        ("crosslayer_coding", "none-relu-f32"),
    ],
)
def test_a_decoder_from_layer_0_to_layer_2_is_that_one_in_every_grouping(
    family: str, name: str, tmp_path: Path
) -> None:
    folder, _ = unpacked(family, name, tmp_path)
    planted(family, folder)
    made = opened(folder)
    for decoder in made.decoders:
        wanted = torch.zeros(F, D)
        if (decoder.source, decoder.target) == (0, 2):
            wanted[3, 1] = 7
        assert torch.equal(decoder.weight, wanted), (decoder.source, decoder.target)


def test_no_transposition_is_guessed_from_square_weights(tmp_path: Path) -> None:
    weight = torch.arange(16.0).reshape(4, 4)
    tensors = {"W_enc": weight, "W_dec": weight * 10, "b_enc": torch.zeros(4), "b_dec": torch.zeros(4)}
    save_file(tensors, tmp_path / "layer_0.safetensors")
    made = opened(tmp_path)
    assert torch.equal(made.encoders[0].weight, weight.T)
    assert torch.equal(made.directions(), weight * 10)


def test_a_sets_skip_is_transposed_and_gemmas_affine_connection_is_not(tmp_path: Path) -> None:
    folder, _ = unpacked("circuit_tracer", "set-relu-skip-mid-f32", tmp_path)
    stored = load_file(folder / "layer_1.safetensors")["W_skip"]
    assert torch.equal(opened(folder).skips[1], stored)  # x @ W_skip.T
    folder, _ = unpacked("gemma_clt", "gemma-affine-f32", tmp_path)
    stored = load_file(folder / "params_layer_1.safetensors")["affine_skip_connection"]
    assert torch.equal(opened(folder).skips[1], stored.T)  # x @ affine_skip_connection


# layers that are there, and that are not -------------------------------------------------------------------------------


def test_the_last_layer_of_gemmas_cross_layer_transcoder_is_not_dropped(tmp_path: Path) -> None:
    made, expected, _ = case("gemma_clt", "gemma-f32", tmp_path)
    assert len(made.encoders) == len(made.writes) == L
    assert bool(made.encode(expected["x.2"], 2).any())


@pytest.mark.parametrize("gone", [0, 2, 3])
def test_a_layer_of_a_cross_layer_transcoder_alone_is_refused(gone: int, tmp_path: Path) -> None:
    folder, _ = unpacked("circuit_tracer", "clt-relu-4-mid-f32", tmp_path)
    for part in ("W_enc", "W_dec"):
        (folder / f"{part}_{gone}.safetensors").unlink()
    refused(folder, f"layers {gone} are missing")


def test_one_layer_is_never_read_as_a_transcoder_with_decoders_summed_over_targets(tmp_path: Path) -> None:
    folder, _ = unpacked("circuit_tracer", "clt-relu-4-mid-f32", tmp_path)
    refused(folder / "W_enc_1.safetensors", "part of a cross-layer transcoder")
    refused(folder / "W_dec_1.safetensors", "part of a cross-layer transcoder")
    for path in folder.iterdir():
        if "_1." not in path.name:
            path.unlink()
    with pytest.raises(BadFormat, match="missing") as caught:
        opened(folder)
    assert "must not be summed into one" in str(caught.value)
    folder, _ = unpacked("gemma_clt", "gemma-f32", tmp_path)
    refused(folder / "params_layer_1.safetensors", "part of a cross-layer transcoder")


def test_layers_of_a_set_may_be_few_and_keep_their_numbers(tmp_path: Path) -> None:
    folder, _ = unpacked("circuit_tracer", "set-relu-mid-f32", tmp_path)
    (folder / "layer_0.safetensors").unlink()
    made = opened(folder)
    assert [str(places[0]) for places in made.reads] == ["resid_mid.1", "resid_mid.2"]
    assert any("no file for layers 0" in note for note in made.notes)
    one = opened(folder / "layer_2.safetensors")
    assert str(one.reads[0][0]) == "resid_mid.2"
    assert one.single


def test_a_rank_that_is_missing_is_refused(tmp_path: Path) -> None:
    folder, _ = unpacked("clt_forge", "forge-clt-ranks-f32", tmp_path)
    (folder / "rank0_clt_weights.safetensors").unlink()
    refused(folder, "not all from 0")
    folder, _ = unpacked("clt_forge", "forge-clt-ranks-f64", tmp_path)
    (folder / "rank1_clt_weights.safetensors").unlink()
    refused(folder, "d_latent 10, and the weights have 5")


@pytest.mark.parametrize(
    ("name", "read", "written"),
    [
        ("set-relu-mid-f32", "resid_mid.1", "mlp_write.1"),
        ("set-relu-normed-f32", "mlp_normed.1", "mlp_write.1"),
        ("set-inner-f32", "mlp_in.1", "mlp_out.1"),
        ("mwhanna-relu-wanb-f32", "mlp_in.1", "mlp_out.1"),
        ("clt-relu-4-normed-f32", "mlp_normed.1", "mlp_write.1"),
    ],
)
def test_the_four_inputs_of_an_mlp_are_four_sites(name: str, read: str, written: str, tmp_path: Path) -> None:
    made, _, _ = case("circuit_tracer", name, tmp_path)
    assert made.reads[1][0].site == read
    assert made.writes[1].site == written


def test_a_trainers_pickled_state_beside_the_weights_hinders_nothing(tmp_path: Path) -> None:
    for family, name in (("llamascopium", "sae-relu-inference-f32"), ("clt_forge", "forge-clt-f32"),
                         ("crosslayer_coding", "none-relu-f32"), ("crosscoders", "kissane-3-f32"),
                         ("crosslayer_transcoder", "relu-clt-f32")):  # fmt: skip
        folder, _ = unpacked(family, name, tmp_path)
        torch.save({"config": Path("x")}, folder / "a_trainer_state.pt")
        assert opened(folder).encoders


# scales and thresholds --------------------------------------------------------------------------------------------------


def test_clt_forges_encoder_bias_is_not_scaled_and_decoder_biases_are_summed_by_target(
    tmp_path: Path,
) -> None:
    made, expected, folder = case("clt_forge", "forge-clt-scaled-f64", tmp_path)
    held = load_file(folder / "clt_weights.safetensors")
    pre = made.encoders[1].pre(torch.zeros(1, D, dtype=torch.float64))
    assert torch.allclose(pre[0], held["b_enc"][1], atol=1e-14)
    out = held["estimated_norm_scaling_factor_out"]
    bias = made.biases[2]
    assert bias is not None
    assert torch.allclose(bias, (held["b_dec"][2] + held["b_dec"][4] + held["b_dec"][5]) / out[2], atol=1e-14)
    assert len(expected) == 3 * L


@pytest.mark.parametrize(
    ("family", "name", "file", "key"),
    [
        ("clt_forge", "forge-clt-f32", "clt_weights.safetensors", "log_threshold"),
        ("llamascopium", "clt-jumprelu-inference-f32", "sae_weights.safetensors",
         "activation_function.log_jumprelu_threshold"),
        ("crosslayer_coding", "none-jumprelu-f32", "clt.safetensors", "theta_manager.log_threshold"),
    ],
)  # fmt: skip
def test_a_logarithm_of_a_threshold_is_not_the_threshold(
    family: str, name: str, file: str, key: str, tmp_path: Path
) -> None:
    made, _, folder = case(family, name, tmp_path)
    act = made.encoders[1].activation
    assert isinstance(act, JumpReLU)
    assert torch.allclose(act.threshold, load_file(folder / file)[key][1].exp(), rtol=1e-6)


def test_what_is_at_its_threshold_is_silent_but_for_crosslayer_coding(tmp_path: Path) -> None:
    folder, _ = unpacked("circuit_tracer", "set-jump-mid-f32", tmp_path)
    made = opened(folder)
    threshold = load_file(folder / "layer_0.safetensors")["activation_function.threshold"]
    assert not made.encoders[0].activation(threshold).any()
    made, _, folder = case("crosslayer_coding", "none-jumprelu-f32", tmp_path)
    threshold = load_file(folder / "clt.safetensors")["theta_manager.log_threshold"][0].double().exp().float()
    assert bool(made.encoders[0].activation(threshold).all())
    below = torch.nextafter(threshold, torch.zeros(F))
    assert not made.encoders[0].activation(below).any()


@pytest.mark.parametrize(
    ("family", "name"), [("gemma_clt", "gemma-negative-f32"), ("crosslayer_transcoder", "jumprelu-clt-f32")]
)
def test_a_threshold_below_zero_lets_nothing_negative_through(family: str, name: str, tmp_path: Path) -> None:
    made, _, _ = case(family, name, tmp_path)
    assert all(float(e(torch.randn(200, D) * 3).min()) == 0 for e in made.encoders)


def test_lengths_of_decoders_decide_which_latents_are_there(tmp_path: Path) -> None:
    for act in ("jumprelu", "topk"):
        made, expected, folder = case("llamascopium", f"sae-{act}-inference-weighted-f32", tmp_path)
        configured(folder, "config.json", sparsity_include_decoder_norm=False)
        x = torch.randn(300, D, generator=torch.Generator().manual_seed(1)) * 3
        assert not torch.equal(made.encode(x) != 0, opened(folder).encode(x) != 0)
        assert len(expected) == 3


def test_a_scale_that_is_folded_twice_or_lost_changes_activations(tmp_path: Path) -> None:
    made, expected, folder = case("llamascopium", "sae-jumprelu-dataset-wise-f32", tmp_path)
    configured(folder, "config.json", norm_activation="inference")
    lost = opened(folder)
    assert not torch.allclose(lost.encode(expected["x.0"]), expected["z.0"], rtol=1e-2)
    assert any("thresholds were left" in note for note in lost.notes)
    assert any("gains" in note for note in made.notes)


def test_an_average_length_that_was_never_measured_is_not_used(tmp_path: Path) -> None:
    folder, expected = unpacked("llamascopium", "sae-relu-inference-f32", tmp_path)
    key = "dataset_average_activation_norm.blocks.1.hook_resid_post"
    rewritten(folder, "sae_weights.safetensors", lambda h: h[key].fill_(float("nan")))
    assert torch.equal(opened(folder).encode(expected["x.0"]) != 0, expected["z.0"] != 0)
    configured(folder, "config.json", norm_activation="dataset-wise")
    refused(folder, "average length")
    rewritten(folder, "sae_weights.safetensors", lambda h: h.pop(key))
    refused(folder, "average length")


def test_a_threshold_of_minus_one_was_never_set_and_each_row_keeps_its_k(tmp_path: Path) -> None:
    made, _, _ = case("crosscoders_learned", "learned-crosscoder-unset-f32", tmp_path)
    act = made.encoders[0].activation
    assert isinstance(act, TopK)
    assert act.k == 4
    assert any("never set" in note for note in made.notes)


def test_kissanes_factors_are_not_in_the_file_and_the_note_says_so(tmp_path: Path) -> None:
    made, _, _ = case("crosscoders", "kissane-cc_weights-f32", tmp_path)
    assert any("no file records" in note for note in made.notes)
    assert [place.model for place in made.writes] == [0, 1]
    assert {str(place) for place in made.writes} == {"resid_pre.14"}


def test_weakly_causal_layers_that_write_backwards_are_kept(tmp_path: Path) -> None:
    made, _, _ = case("gemma_clt", "gemma-backward-f32", tmp_path)
    assert {(d.source, d.target) for d in made.decoders} == {(i, j) for i in range(L) for j in range(L)}
    made, _, _ = case("gemma_clt", "gemma-f32", tmp_path)
    assert {(d.source, d.target) for d in made.decoders} == {(i, j) for i in range(L) for j in range(i, L)}


# what one row cannot answer ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "changes", "match"),
    [
        ("clt-topk-inference-f32", {"act_fn": "layertopk"}, "all layers together"),
        ("clt-topk-inference-f32", {"act_fn": "batchlayertopk"}, "all layers together"),
        ("sae-relu-inference-f32", {"norm_activation": "batch-wise"}, "length of their batch"),
        ("transcoder-relu-inference-weighted-f64", {"norm_activation": "token-wise"}, "its own length"),
        ("clt-relu-inference-f32", {"norm_activation": "token-wise"}, "its own length"),
        ("crosscoder-relu-inference-f32", {"norm_activation": "token-wise"}, "its own length"),
        ("sae-relu-inference-f32", {"act_fn": "jumprelu"}, "holds no threshold"),
        ("sae-jumprelu-inference-f32", {"act_fn": "relu"}, "holds a threshold"),
        ("sae-relu-inference-f32", {"act_fn": "swish"}, "not known"),
        ("sae-relu-inference-f32", {"sae_type": "molt"}, "not known"),
        ("sae-topk-inference-f32", {"top_k": 0}, "no number of things"),
        ("clt-relu-inference-f32", {"hook_points_in": ["blocks.0.hook_resid_mid"]}, "each of 3 places"),
    ],
)
def test_llamascopium_refuses_what_a_row_alone_cannot_tell(
    name: str, changes: dict[str, Any], match: str, tmp_path: Path
) -> None:
    folder, _ = unpacked("llamascopium", name, tmp_path)
    configured(folder, "config.json", **changes)
    refused(folder, match)


def goreg(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    said = yaml.safe_load((folder / "config.yaml").read_text())
    change(said["model"]["init_args"])
    (folder / "config.yaml").write_text(yaml.safe_dump(said))


@pytest.mark.parametrize("k", [3, 2.5])
def test_a_top_k_of_all_layers_together_is_refused(k: float, tmp_path: Path) -> None:
    folder, _ = unpacked("crosslayer_transcoder", "perlayertopk-clt-f32", tmp_path)
    part = {"class_path": "crosslayer_transcoder.model.topk.LayerTopK", "init_args": {"k": k}}
    goreg(folder, lambda init: init.update(nonlinearity=part))
    refused(folder, "all layers together")


def test_a_standardiser_of_single_rows_is_refused(tmp_path: Path) -> None:
    folder, _ = unpacked("crosslayer_transcoder", "relu-clt-f32", tmp_path)
    part = {
        "class_path": "crosslayer_transcoder.model.standardize.SamplewiseInputStandardizer",
        "init_args": {},
    }
    goreg(folder, lambda init: init.update(input_standardizer=part))
    refused(folder, "each row by itself")
    (folder / "config.yaml").unlink()
    refused(folder, "No config.yaml")


def test_a_batch_top_k_whose_threshold_was_never_set_is_refused(tmp_path: Path) -> None:
    folder, _ = unpacked("crosslayer_transcoder", "batchtopk-clt-f32", tmp_path)
    rewritten(folder, "checkpoint.safetensors", lambda h: h["nonlinearity.threshold"].zero_())
    refused(folder, "never set")


def test_crosslayer_coding_refuses_what_its_files_do_not_determine(tmp_path: Path) -> None:
    folder, _ = unpacked("crosslayer_coding", "none-relu-standard-f32", tmp_path)
    (folder / "norm_stats.json").write_text('{"0": {"inputs": {"mean": [1], "std": [1]}}}')
    refused(folder, "1 numbers for inputs of layer 0")
    (folder / "norm_stats.json").unlink()
    refused(folder, "no norm_stats.json")
    configured(folder, "cfg.json", normalization_method="sqrt_d_model")
    refused(folder, "sqrt_d_model")
    configured(folder, "cfg.json", normalization_method="none", activation_fn="batchtopk", batchtopk_k=3)
    refused(folder, "mean over the batch")
    folder, _ = unpacked("crosslayer_coding", "persource-relu-f32", tmp_path)
    rewritten(folder, "clt.safetensors", lambda h: h["decoder_module.feature_offset.1"].fill_(0.1))
    refused(folder, "not linear in activations")
    folder, _ = unpacked("crosslayer_coding", "none-relu-f32", tmp_path)
    rewritten(folder, "clt.safetensors", lambda h: h["decoder_module.skip_weights.0->2"].fill_(0.1))
    refused(folder, "earlier layers too")


def test_lorsa_is_refused_with_its_reason(tmp_path: Path) -> None:
    tensors = {name: torch.zeros(2, D, 3) for name in ("W_Q", "W_K")}
    tensors |= {name: torch.zeros(F, D) for name in ("W_V", "W_O")} | {"b_V": torch.zeros(F)}
    save_file(tensors, tmp_path / "sae_weights.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"sae_type": "lorsa", "d_model": D}))
    row = recognised(DictionaryFiles.of(tmp_path), FORMATS)
    assert row.name == "lorsa"
    assert re.search("attention layer", row.refuses)
    refused(tmp_path, "attention layer")


def test_standardised_crosscoders_and_unknown_lengths_are_refused(tmp_path: Path) -> None:
    folder, _ = unpacked("crosscoders_learned", "learned-sae-f32", tmp_path)
    file = next(p.name for p in folder.iterdir() if p.suffix == ".safetensors")
    rewritten(folder, file, lambda h: h["code_normalization_id"].fill_(9))
    refused(folder, "not known")
    rewritten(folder, file, lambda h: h.update(activation_mean=torch.zeros(D)))
    refused(folder, "activation_mean")

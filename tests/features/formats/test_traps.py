"""What readers of these files are known to get wrong, each as a test of its own."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from cutaway.errors import BadFormat, BadInput, CutawayError
from cutaway.features.dictionaries import (
    Decoder,
    Dictionary,
    Encoder,
    JumpReLU,
    Place,
    ReLU,
    TopK,
)
from cutaway.features.formats import (
    DictionaryFiles,
    dictionary_learning,
    gemma_scope,
    llama_scope,
    saelens,
    sparsify,
    torch_files,
)
from cutaway.features.formats.writing import inverse_exp

D, F = 5, 9


@pytest.fixture
def fresh(request: pytest.FixtureRequest) -> torch.Generator:
    """Other numbers each time, from a seed that a failure prints."""
    seed = int(torch.seed() % 2**31)
    print("seed", seed)
    return torch.Generator().manual_seed(seed)


def drawn(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=generator)


def saelens_files(
    place: Path, generator: torch.Generator, architecture: str = "standard", **config: Any
) -> dict[str, Tensor]:
    tensors = {"W_enc": drawn(generator, D, F), "b_enc": drawn(generator, F), "W_dec": drawn(generator, F, D),
               "b_dec": drawn(generator, D)}  # fmt: skip
    place.mkdir(parents=True, exist_ok=True)
    save_file(tensors, place / "sae_weights.safetensors")
    about = {"hook_name": "blocks.1.hook_resid_post", "sae_lens_version": "6.54.12"}
    whole = {"architecture": architecture, "d_in": D, "d_sae": F, "metadata": about, **config}
    (place / "cfg.json").write_text(json.dumps(whole))
    return tensors


def read(row: Any, place: Path, **given: Any) -> Dictionary:
    source = DictionaryFiles.of(place)
    assert row.known(source)
    return row.opened(source, **given)


SIX, OLD = saelens.FORMATS


# SAELens ---------------------------------------------------------------------------------------------------------------


def test_rows_are_brought_back_by_their_deviation_alone(tmp_path: Path, fresh: torch.Generator) -> None:
    """They are divided by it plus 1e-5: of rows as small as these, readers that reuse it differ by a hundredth."""
    tensors = saelens_files(tmp_path, fresh, normalize_activations="layer_norm")
    rows = (drawn(fresh, 4, D) * 1e-3).double()
    found = read(SIX, tmp_path).to(torch.float64)
    std = rows.std(-1, keepdim=True)
    mean = rows.mean(-1, keepdim=True)
    w = {k: v.double() for k, v in tensors.items()}
    latents = (((rows - mean) / (std + 1e-5) - w["b_dec"]) @ w["W_enc"] + w["b_enc"]).relu()
    assert torch.allclose(found.encode(rows), latents, rtol=1e-12, atol=1e-12)
    wanted = (latents @ w["W_dec"] + w["b_dec"]) * std + mean
    assert torch.allclose(found.reconstruct(rows), wanted, rtol=0, atol=1e-13)
    assert not torch.allclose(
        wanted, (latents @ w["W_dec"] + w["b_dec"]) * (std + 1e-5) + mean, rtol=0, atol=1e-13
    )


def test_a_scale_is_folded_into_the_output_bias_too(tmp_path: Path, fresh: torch.Generator) -> None:
    tensors = saelens_files(tmp_path, fresh, normalize_activations="expected_average_only_in")
    rows, scale = drawn(fresh, 4, D), 2.5
    latents = ((rows * scale - tensors["b_dec"]) @ tensors["W_enc"] + tensors["b_enc"]).relu()
    found = read(SIX, tmp_path, scale=scale)
    assert torch.allclose(found.encode(rows), latents, atol=1e-4)
    assert torch.allclose(
        found.reconstruct(rows), (latents @ tensors["W_dec"] + tensors["b_dec"]) / scale, atol=1e-4
    )


def test_a_scale_that_the_folder_lacks_is_asked_for(tmp_path: Path, fresh: torch.Generator) -> None:
    saelens_files(tmp_path, fresh, normalize_activations="expected_average_only_in")
    with pytest.raises(BadFormat, match="Give scale="):
        read(SIX, tmp_path)
    with pytest.raises(BadInput, match="scale=-1 is no factor"):
        read(SIX, tmp_path, scale=-1)
    saelens_files(tmp_path / "other", fresh)
    with pytest.raises(BadFormat, match="scale= is not needed"):
        read(SIX, tmp_path / "other", scale=2.0)


def test_a_topk_of_version_five_is_no_relu(tmp_path: Path, fresh: torch.Generator) -> None:
    saelens_files(tmp_path, fresh)
    config = {"d_in": D, "d_sae": F, "hook_name": "blocks.1.hook_resid_post", "architecture": "standard",
              "activation_fn_str": "topk", "activation_fn_kwargs": {"k": 2}}  # fmt: skip
    (tmp_path / "cfg.json").write_text(json.dumps(config))
    found = read(OLD, tmp_path)
    assert found.encoders[0].activation == TopK(2)
    assert int((found.encode(drawn(fresh, 50, D)) > 0).sum(-1).max()) <= 2


def test_a_threshold_below_zero_lets_nothing_negative_through(tmp_path: Path, fresh: torch.Generator) -> None:
    tensors = saelens_files(tmp_path, fresh, "jumprelu")
    save_file({**tensors, "threshold": torch.full((F,), -3.0)}, tmp_path / "sae_weights.safetensors")
    latents = read(SIX, tmp_path).encode(drawn(fresh, 50, D))
    assert float(latents.min()) == 0.0
    assert float(latents.max()) > 0


def test_thresholds_that_are_logarithms_are_raised(tmp_path: Path, fresh: torch.Generator) -> None:
    tensors = saelens_files(tmp_path, fresh, "jumprelu")
    logs = drawn(fresh, F)
    save_file({**tensors, "log_threshold": logs}, tmp_path / "sae_weights.safetensors")
    activation = read(SIX, tmp_path).encoders[0].activation
    assert isinstance(activation, JumpReLU)
    assert torch.equal(activation.threshold, logs.exp())


def test_an_old_finetuned_scale_is_folded_or_refused(tmp_path: Path, fresh: torch.Generator) -> None:
    tensors = saelens_files(tmp_path, fresh)
    factor = drawn(fresh, F).abs() + 0.5
    save_file({**tensors, "scaling_factor": factor}, tmp_path / "sae_weights.safetensors")
    config = {
        "d_in": D,
        "d_sae": F,
        "hook_point": "blocks.1.hook_resid_post",
        "finetuning_scaling_factor": True,
    }
    (tmp_path / "cfg.json").write_text(json.dumps(config))
    rows = drawn(fresh, 3, D)
    found = read(OLD, tmp_path)
    wanted = found.encode(rows) * factor @ tensors["W_dec"] + tensors["b_dec"]
    assert torch.allclose(found.reconstruct(rows), wanted, atol=1e-4)
    (tmp_path / "cfg.json").write_text(json.dumps({**config, "finetuning_scaling_factor": False}))
    with pytest.raises(BadFormat, match="scaling_factor that is not one"):
        read(OLD, tmp_path)


@pytest.mark.parametrize("name", ["temporal", "matching_pursuit", "standrad"])
def test_an_architecture_that_no_row_can_be_encoded_by_is_refused(
    name: str, tmp_path: Path, fresh: torch.Generator
) -> None:
    saelens_files(tmp_path, fresh, name)
    with pytest.raises(BadFormat, match=name):
        read(SIX, tmp_path)


@pytest.mark.parametrize(
    "wrong", [{"normalize_activations": "batch"}, {"reshape_activations": "hook_q"}, {"d_sae": F + 1}]
)
def test_a_setting_that_is_not_understood_is_refused(
    wrong: dict[str, Any], tmp_path: Path, fresh: torch.Generator
) -> None:
    saelens_files(tmp_path, fresh, **wrong)
    with pytest.raises(BadFormat, match=next(iter(wrong))):
        read(SIX, tmp_path)


def test_a_setting_that_says_nothing_about_use_is_named(tmp_path: Path, fresh: torch.Generator) -> None:
    saelens_files(tmp_path, fresh, lp_norm=1.0)
    assert any("lp_norm" in note for note in read(SIX, tmp_path).notes)


def test_what_the_file_records_is_kept(tmp_path: Path, fresh: torch.Generator) -> None:
    saelens_files(tmp_path, fresh, dtype="float32", metadata={
        "hook_name": "blocks.1.ln2.hook_normalized", "model_name": "gpt2", "context_size": 64, "prepend_bos": False,
        "dataset_path": "text"})  # fmt: skip
    save_file({"sparsity": torch.full((F,), -1.0)}, tmp_path / "sparsity.safetensors")
    found = read(SIX, tmp_path)
    assert found.reads[0][0].site == "mlp_normed.1"
    assert found.said["l0"] == pytest.approx(F / 10)
    assert {k: found.said[k] for k in ("model", "context_size", "prepend_bos", "dataset", "dtype")} == {
        "model": "gpt2", "context_size": 64, "prepend_bos": False, "dataset": "text", "dtype": "float32"}  # fmt: skip


# sparsify --------------------------------------------------------------------------------------------------------------


def test_sparsify_keeps_its_decoder_by_latent_even_where_it_is_square(
    tmp_path: Path, fresh: torch.Generator
) -> None:
    """Another reader transposes W_dec, which a square one hides."""
    place = tmp_path / "layers.2.mlp"
    place.mkdir()
    tensors = {"encoder.weight": drawn(fresh, D, D), "encoder.bias": drawn(fresh, D), "W_dec": drawn(fresh, D, D),
               "b_dec": drawn(fresh, D)}  # fmt: skip
    save_file(tensors, place / "sae.safetensors")
    (place / "cfg.json").write_text(json.dumps({"expansion_factor": 1, "num_latents": D, "k": D, "d_in": D}))
    found = read(sparsify.FORMATS[0], place)
    assert torch.equal(found.directions(), tensors["W_dec"])
    assert torch.equal(found.encoders[0].weight, tensors["encoder.weight"].T)
    assert found.reads[0][0].said == "layers.2.mlp"  # not the residual stream of layer 2


def test_sparsify_takes_its_bias_from_rows_only_where_it_does_not_transcode(
    tmp_path: Path, fresh: torch.Generator
) -> None:
    for transcodes in (False, True):
        place = tmp_path / f"layers.{int(transcodes)}"
        place.mkdir()
        save_file({"encoder.weight": drawn(fresh, F, D), "encoder.bias": drawn(fresh, F), "W_dec": drawn(fresh, F, D),
                   "b_dec": drawn(fresh, D)}, place / "sae.safetensors")  # fmt: skip
        config = {"expansion_factor": 1, "num_latents": F, "k": 2, "d_in": D, "transcode": transcodes}
        (place / "cfg.json").write_text(json.dumps(config))
        found = read(sparsify.FORMATS[0], place)
        assert (found.encoders[0].centre is None) == transcodes
        assert [p.said for p in (*found.reads[0], *found.writes)] == (
            ["layers.1:in", "layers.1"] if transcodes else ["layers.0", "layers.0"]
        )


def test_sparsify_takes_what_its_run_says_from_the_folder_above(
    tmp_path: Path, fresh: torch.Generator
) -> None:
    place = tmp_path / "layers.5" / "seed2"
    place.mkdir(parents=True)
    save_file(
        {
            "encoder.weight": drawn(fresh, F, D),
            "encoder.bias": drawn(fresh, F),
            "W_dec": drawn(fresh, F, D),
            "b_dec": drawn(fresh, D),
        },
        place / "sae.safetensors",
    )
    (place / "cfg.json").write_text(json.dumps({"num_latents": F, "k": 2, "d_in": D}))
    (tmp_path / "config.json").write_text(json.dumps({"sae": {}, "model": "pythia", "ctx_len": 64}))
    found = read(sparsify.FORMATS[0], place)
    assert (found.said["model"], found.said["context_size"], found.said["hook"]) == ("pythia", 64, "layers.5")


# dictionary_learning ---------------------------------------------------------------------------------------------------

LEARNED = dictionary_learning.FORMATS[0]


def learned(place: Path, name: str | None, values: dict[str, Any]) -> Path:
    place.mkdir(parents=True, exist_ok=True)
    torch.save(values, place / "ae.pt")
    if name:
        (place / "config.json").write_text(
            json.dumps({"trainer": {"dict_class": name, "submodule_name": "resid_post", "layer": 3}})
        )
    return place


def topk(generator: torch.Generator, threshold: float) -> dict[str, Any]:
    return {"k": torch.tensor(2, dtype=torch.int), "threshold": torch.tensor(threshold), "b_dec": drawn(generator, D),
            "encoder.weight": drawn(generator, F, D), "encoder.bias": drawn(generator, F),
            "decoder.weight": drawn(generator, D, F)}  # fmt: skip


def test_a_threshold_of_minus_one_falls_back_to_topk(tmp_path: Path, fresh: torch.Generator) -> None:
    found = read(LEARNED, learned(tmp_path, "BatchTopKSAE", topk(fresh, -1.0)))
    assert found.encoders[0].activation == TopK(2)
    assert any("never set" in note for note in found.notes)
    other = read(LEARNED, learned(tmp_path, "BatchTopKSAE", topk(fresh, 0.3)))
    assert isinstance(other.encoders[0].activation, JumpReLU)


def test_a_topk_file_without_its_configuration_is_asked_about(tmp_path: Path, fresh: torch.Generator) -> None:
    place = learned(tmp_path, None, topk(fresh, 0.3))
    with pytest.raises(BadFormat, match="AutoEncoderTopK or BatchTopKSAE"):
        read(LEARNED, place)
    assert read(LEARNED, place, dict_class="AutoEncoderTopK").encoders[0].activation == TopK(2)
    with pytest.raises(BadFormat, match="said to be a GatedAutoEncoder"):
        read(LEARNED, place, dict_class="GatedAutoEncoder")
    with pytest.raises(BadFormat, match="no class"):
        read(LEARNED, place, dict_class="AutoEncoderTopk")


def test_a_backup_under_the_name_of_the_final_file_is_brought_back_to_raw_rows(
    tmp_path: Path, fresh: torch.Generator
) -> None:
    values, factor = topk(fresh, 0.3), 7.0
    backup = {"step": 10, "ae": values, "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}, "groups": [{"lr": 0.1}]},
              "config": {"k": 2}, "norm_factor": factor}  # fmt: skip
    found = read(LEARNED, learned(tmp_path, "BatchTopKSAE", backup))
    rows = drawn(fresh, 20, D) * 5
    pre = (rows / factor - values["b_dec"]) @ values["encoder.weight"].T + values["encoder.bias"]
    latents = pre.relu() * (pre > 0.3)
    assert torch.allclose(found.encode(rows) / factor, latents, atol=1e-5)
    assert torch.allclose(
        found.reconstruct(rows) / factor, latents @ values["decoder.weight"].T + values["b_dec"], atol=1e-5
    )


def test_an_autoencoder_has_its_decoder_normed_when_it_is_read(
    tmp_path: Path, fresh: torch.Generator
) -> None:
    values = {"bias": drawn(fresh, D), "encoder.weight": drawn(fresh, F, D), "encoder.bias": drawn(fresh, F),
              "decoder.weight": drawn(fresh, D, F)}  # fmt: skip
    found = read(LEARNED, learned(tmp_path, "AutoEncoder", values))
    rows = drawn(fresh, 6, D)
    raw = ((rows - values["bias"]) @ values["encoder.weight"].T + values["encoder.bias"]).relu()
    assert torch.allclose(found.directions().norm(dim=1), torch.ones(F), atol=1e-6)
    assert torch.allclose(found.encode(rows), raw * values["decoder.weight"].norm(dim=0), atol=1e-4)
    assert torch.allclose(
        found.reconstruct(rows), raw @ values["decoder.weight"].T + values["bias"], atol=1e-4
    )


def test_a_checkpoint_is_read_with_the_configuration_of_its_run(
    tmp_path: Path, fresh: torch.Generator
) -> None:
    place = learned(tmp_path / "trainer_0", "BatchTopKSAE", topk(fresh, 0.3))
    (place / "checkpoints").mkdir()
    (place / "ae.pt").rename(place / "checkpoints" / "ae_500.pt")
    found = read(LEARNED, place / "checkpoints" / "ae_500.pt")
    assert isinstance(found.encoders[0].activation, JumpReLU)
    assert found.reads[0][0].site == "resid_post.3"


def test_one_k_in_the_file_and_another_in_its_configuration_are_refused(
    tmp_path: Path, fresh: torch.Generator
) -> None:
    learned(tmp_path, "AutoEncoderTopK", topk(fresh, 0.3))
    (tmp_path / "config.json").write_text(json.dumps({"trainer": {"dict_class": "AutoEncoderTopK", "k": 4}}))
    with pytest.raises(BadFormat, match="keeps 2 latents"):
        read(LEARNED, tmp_path)


# Gemma Scope, Llama Scope, Qwen Scope ------------------------------------------------------------------------------------


def gemma(place: Path, generator: torch.Generator) -> dict[str, Tensor]:
    values = {"W_enc": drawn(generator, D, F), "W_dec": drawn(generator, F, D), "b_enc": drawn(generator, F),
              "b_dec": drawn(generator, D), "threshold": drawn(generator, F).abs()}  # fmt: skip
    place.mkdir(parents=True)
    np.savez(place / "params.npz", **{k: v.numpy() for k, v in values.items()})
    return values


def test_gemmas_embedding_is_the_root_of_d_as_long_in_the_stream(
    tmp_path: Path, fresh: torch.Generator
) -> None:
    place = tmp_path / "embedding" / "width_4k" / "average_l0_6"
    gemma(place, fresh)
    plain = tmp_path / "layer_0" / "width_4k" / "average_l0_6"
    plain.mkdir(parents=True)
    (plain / "params.npz").write_bytes((place / "params.npz").read_bytes())
    first, table = read(gemma_scope.FORMATS[0], place), read(gemma_scope.FORMATS[0], plain)
    rows = drawn(fresh, 4, D)
    assert first.reads[0][0].site == "embed"
    assert torch.allclose(first.encode(rows * D**0.5), table.encode(rows), atol=1e-5)
    assert torch.allclose(first.reconstruct(rows * D**0.5), table.reconstruct(rows) * D**0.5, atol=1e-4)
    assert torch.equal(read(gemma_scope.FORMATS[0], plain, embedding=True).encode(rows), first.encode(rows))


def test_gemmas_second_release_transposes_its_skip_and_names_modules(
    tmp_path: Path, fresh: torch.Generator
) -> None:
    skip = drawn(fresh, D, 3)
    save_file(
        {
            "w_enc": drawn(fresh, D, F),
            "w_dec": drawn(fresh, F, 3),
            "b_enc": drawn(fresh, F),
            "b_dec": drawn(fresh, 3),
            "threshold": drawn(fresh, F).abs(),
            "affine_skip_connection": skip,
        },
        tmp_path / "params.safetensors",
    )
    (tmp_path / "config.json").write_text(
        json.dumps(
            {
                "architecture": "jump_relu",
                "hf_hook_point_in": "model.layers.4.pre_feedforward_layernorm.output",
                "hf_hook_point_out": "model.layers.4.post_feedforward_layernorm.output",
                "model_name": "gemma-3-270m-it",
            }
        )
    )
    found = read(gemma_scope.FORMATS[2], tmp_path)
    assert found.skips[0] is not None
    assert torch.equal(found.skips[0], skip.T)
    assert (found.reads[0][0].site, found.writes[0].site) == ("mlp_in.4", "mlp_write.4")
    assert any("first four positions" in note for note in found.notes)


def llama(place: Path, generator: torch.Generator, **config: Any) -> dict[str, Tensor]:
    values = {"encoder.weight": drawn(generator, F, D), "encoder.bias": drawn(generator, F),
              "decoder.weight": drawn(generator, D, F), "decoder.bias": drawn(generator, D)}  # fmt: skip
    (place / "checkpoints").mkdir(parents=True)
    save_file(values, place / "checkpoints" / "final.safetensors")
    stream = "blocks.2.hook_resid_post"
    whole = {"d_model": D, "d_sae": F, "hook_point_in": stream, "hook_point_out": stream, "act_fn": "jumprelu",
             "jump_relu_threshold": 0.4, "norm_activation": "dataset-wise",
             "dataset_average_activation_norm": {"in": 3.0, "out": 3.0}, **config}  # fmt: skip
    (place / "hyperparams.json").write_text(json.dumps(whole))
    return values


def test_llama_scopes_threshold_is_scaled_as_its_rows_are(tmp_path: Path, fresh: torch.Generator) -> None:
    llama(tmp_path, fresh)
    activation = read(llama_scope.FORMATS[0], tmp_path).encoders[0].activation
    assert isinstance(activation, JumpReLU)
    assert activation.threshold.shape == ()
    assert float(activation.threshold) == pytest.approx(0.4 * math.sqrt(D) / 3.0)


def test_llama_scopes_transcoder_scales_its_outputs_by_their_own_norm(
    tmp_path: Path, fresh: torch.Generator
) -> None:
    values = llama(tmp_path, fresh, hook_point_in="blocks.2.ln2.hook_normalized", hook_point_out="blocks.2.hook_mlp_out",
                   dataset_average_activation_norm={"in": 3.0, "out": 0.5})  # fmt: skip
    found, rows = read(llama_scope.FORMATS[0], tmp_path), drawn(fresh, 5, D)
    into, back = math.sqrt(D) / 3.0, math.sqrt(D) / 0.5
    pre = rows * into @ values["encoder.weight"].T + values["encoder.bias"]
    latents = pre.relu() * (pre > 0.4 * into)
    wanted = (latents @ values["decoder.weight"].T + values["decoder.bias"]) / back
    assert torch.allclose(found.reconstruct(rows), wanted, atol=1e-5)
    assert found.kind == "transcoder"
    assert found.reads[0][0].site == "mlp_normed.2"


def test_llama_scope_of_r1_raises_its_logarithms(tmp_path: Path, fresh: torch.Generator) -> None:
    values, logs = llama(tmp_path, fresh), drawn(fresh, F)
    save_file({**values, "log_jumprelu_threshold": logs}, tmp_path / "checkpoints" / "final.safetensors")
    assert not llama_scope.FORMATS[0].known(DictionaryFiles.of(tmp_path))
    activation = read(llama_scope.FORMATS[1], tmp_path).encoders[0].activation
    assert isinstance(activation, JumpReLU)
    assert torch.equal(activation.threshold, logs.exp())


@pytest.mark.parametrize("config", [{"act_fn": "gelu"}, {"norm_activation": "batch-wise"}, {"use_glu_encoder": True},
                                    {"dataset_average_activation_norm": {}}, {"jump_relu_threshold": None}])  # fmt: skip
def test_llama_scope_refuses_what_it_does_not_understand(
    config: dict[str, Any], tmp_path: Path, fresh: torch.Generator
) -> None:
    llama(tmp_path, fresh, **config)
    with pytest.raises(BadFormat):
        read(llama_scope.FORMATS[0], tmp_path)


def test_qwen_scope_asks_for_the_k_of_its_repositorys_name(tmp_path: Path, fresh: torch.Generator) -> None:
    for layer in (3, 12):
        values = {"W_enc": drawn(fresh, F, D), "W_dec": drawn(fresh, D, F), "b_enc": drawn(fresh, F)}
        torch.save({**values, "b_dec": drawn(fresh, D)}, tmp_path / f"layer{layer}.sae.pt")
    with pytest.raises(BadFormat, match="2 dictionaries"):
        read(torch_files.FORMATS[0], tmp_path, k=2)
    with pytest.raises(BadFormat, match="Give k="):
        read(torch_files.FORMATS[0], tmp_path / "layer12.sae.pt")
    found = read(torch_files.FORMATS[0], tmp_path / "layer12.sae.pt", k=2)
    assert (found.reads[0][0].site, found.encoders[0].k) == ("resid_post.12", 2)
    with pytest.raises(CutawayError, match="whole number"):
        read(torch_files.FORMATS[0], tmp_path / "layer12.sae.pt", k=0)


# writing ---------------------------------------------------------------------------------------------------------------


def made(encoder: Encoder, bias: Tensor | None, **more: Any) -> Dictionary:
    place = Place("blocks.0.hook_resid_post", "resid_post.0", D)
    return Dictionary(
        "autoencoder", (encoder,), (Decoder(0, 0, torch.randn(F, D)),), (bias,), ((place,),), (place,), **more
    )


@pytest.mark.parametrize(
    "row", [SIX, LEARNED, sparsify.FORMATS[0], gemma_scope.FORMATS[0]], ids=lambda row: row.name
)
def test_a_writer_refuses_what_its_format_does_not_hold(row: Any, tmp_path: Path) -> None:
    weight = torch.randn(D, F)
    for encoder, bias in (
        (Encoder(weight, None, ReLU(), torch.randn(D)), torch.randn(D)),
        (Encoder(weight, None, JumpReLU(torch.full((F,), -1.0))), None),
        (Encoder(weight, None, ReLU(), gate=torch.randn(D, F)), None),
        (Encoder(weight, None, ReLU(), norm="layer-norm", restores=False), None),
    ):
        with pytest.raises(BadInput, match="does not hold"):
            row.write(made(encoder, bias), tmp_path / "there")
    assert not (tmp_path / "there").exists()


def test_writing_replaces_its_own_files_and_nothing_else(tmp_path: Path) -> None:
    from cutaway.errors import SaveFailed

    dictionary = made(Encoder(torch.randn(D, F), torch.randn(F), ReLU()), torch.randn(D))
    for _ in range(2):
        saelens.write(dictionary, tmp_path / "one")
    (tmp_path / "one" / "notes.txt").write_text("mine")
    saelens.write(dictionary, tmp_path / "one")
    assert (tmp_path / "one" / "notes.txt").read_text() == "mine"
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "config.json").write_text("of a model")
    with pytest.raises(SaveFailed, match="in the way"):
        dictionary_learning.write(dictionary, tmp_path / "two")
    assert [p.name for p in (tmp_path / "two").iterdir()] == ["config.json"]
    assert (tmp_path / "two" / "config.json").read_text() == "of a model"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_logarithm_is_found_whose_exponential_is_the_number(
    dtype: torch.dtype, fresh: torch.Generator
) -> None:
    scales = (drawn(fresh, 20_000) * 2).to(dtype).exp()
    assert torch.equal(inverse_exp(scales).exp(), scales)


def test_weights_are_views_of_what_is_mapped(tmp_path: Path, fresh: torch.Generator) -> None:
    saelens_files(tmp_path, fresh)
    stored = load_file(tmp_path / "sae_weights.safetensors")
    source = DictionaryFiles.of(tmp_path)
    found = SIX.opened(source)
    assert torch.equal(found.encoders[0].weight, stored["W_enc"])
    assert found.biases[0] is found.encoders[0].centre

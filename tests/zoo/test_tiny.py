"""Tiny random networks of transformers' architectures build, run, and hold no accidental identities."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from cutaway.errors import BadInput, NotFound
from cutaway.zoo.tiny import causal_lm_types, example_input, special_ids, tiny, tiny_config
from cutaway.zoo.tiny_tables import CANNOT, OVERRIDES

FAMILIES = [
    *(
        "gpt2",
        "gpt_neox",
        "llama",
        "gemma2",
        "gemma3_text",
        "qwen3",
        "mixtral",
        "jamba",
        "bamba",
        "lfm2",
        "falcon_h1",
    ),
    *(
        "opt",
        "bloom",
        "gptj",
        "falcon",
        "phi",
        "cohere",
        "olmo2",
        "granite",
        "gpt_oss",
        "mamba",
        "deepseek_v3",
        "bert",
    ),
]
OTHERS = [
    *(
        ("t5", "seq2seq"),
        ("bart", "seq2seq"),
        ("whisper", "speech"),
        ("bert", "masked-lm"),
        ("roberta", "masked-lm"),
    ),
    *(("distilbert", None), ("albert", None), ("vit", None), ("dinov2", None), ("clip_vision_model", None)),
    *(("clip_text_model", None), ("clip", None), ("resnet", None)),
]


def _forward(model: nn.Module, **changes: object) -> torch.Tensor:
    with torch.no_grad():
        return model(**{**example_input(model), **changes})[0]


@pytest.mark.parametrize("model_type", FAMILIES)
def test_a_causal_family_builds_small_and_runs(model_type: str) -> None:
    model = tiny(model_type)
    out = _forward(model)
    assert out.shape == (2, 7, 128)
    assert torch.isfinite(out).all()
    assert out.std() > 0.02
    assert sum(p.numel() for p in model.parameters()) < 500_000
    assert not model.training
    assert {p.dtype for p in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("model_type", FAMILIES)
def test_a_causal_family_does_not_look_ahead(model_type: str) -> None:
    model = tiny(model_type)
    ids = example_input(model)["input_ids"]
    changed = ids.clone()
    changed[:, -1] = ids[:, 0]
    before, after = _forward(model), _forward(model, input_ids=changed)
    torch.testing.assert_close(before[:, :-1], after[:, :-1], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(before[:, -1], after[:, -1])


@pytest.mark.parametrize(("model_type", "task"), OTHERS)
def test_encoders_and_encoder_decoders_build_and_run(model_type: str, task: str | None) -> None:
    model = tiny(model_type, task=task)
    assert torch.isfinite(_forward(model)).all()


def test_the_same_seed_gives_the_same_weights_and_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first = tiny("llama", seed=1)
    assert torch.equal(torch.rand(3), expected)
    again, other = tiny("llama", seed=1), tiny("llama", seed=2)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), again.parameters(), strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("model_type", ["gpt2", "gemma2", "opt", "bert"])
def test_no_weight_is_zero_or_one_by_accident(model_type: str) -> None:
    for name, parameter in tiny(model_type).named_parameters():
        assert not (parameter == 0).any(), name
        assert not (parameter == 1).any(), name


def test_queries_are_grouped_where_the_architecture_has_it() -> None:
    assert tiny_config("llama").num_key_value_heads < tiny_config("llama").num_attention_heads
    assert tiny("gpt2").config.n_head == 4


def test_every_kind_of_layer_is_kept() -> None:
    assert set(tiny_config("gemma3_text").layer_types) == {"sliding_attention", "full_attention"}
    assert set(tiny_config("qwen3_next").layer_types) == {"linear_attention", "full_attention"}


def test_example_input_avoids_special_tokens_and_repeats() -> None:
    model = tiny("bart", task="seq2seq")
    inputs = example_input(model)
    assert inputs["input_ids"].shape == (2, 7)
    assert inputs["decoder_input_ids"].shape == (2, 5)
    assert not set(inputs["input_ids"].flatten().tolist()) & special_ids(model.config)
    assert torch.equal(inputs["input_ids"], example_input(model)["input_ids"])


def test_overrides_reach_nested_configurations() -> None:
    config = tiny_config("gemma3", text_config={"hidden_size": 16})
    assert config.text_config.hidden_size == 16
    assert (
        tiny("llama", num_hidden_layers=1, attn_implementation="eager").config._attn_implementation == "eager"
    )


def test_an_unknown_type_names_the_nearest_and_a_wrong_task_is_refused() -> None:
    with pytest.raises(NotFound, match="gpt_neox"):
        tiny("gpt_neoxx")
    with pytest.raises(BadInput, match="masked-lm"):
        tiny("llama", task="masked-lm")
    with pytest.raises(BadInput, match="seq2seq"):
        tiny("llama", task="translate")


def test_the_tables_name_real_types_and_give_reasons() -> None:
    import transformers

    known = set(transformers.CONFIG_MAPPING.keys())
    for name, (_, reason) in OVERRIDES.items():
        assert name.split(":")[0] in known, name
        assert reason
    assert set(CANNOT) <= set(causal_lm_types())

"""Fixtures that every room's tests share: the real inputs, the GPT-2 tokenizer, a tiny random network."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings
from transformers import GPT2Config, GPT2LMHeadModel, GPT2TokenizerFast

settings.register_profile(
    "cutaway", deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.load_profile("cutaway")

os.environ["CUTAWAY_CACHE"] = "off"  # what one test opened is not to be known to another

if "PYTEST_XDIST_WORKER" in os.environ:  # one thread for each worker, or they fight over the cores
    torch.set_num_threads(1)


def shared_folder() -> Path | None:
    """The folder of real inputs: `CUTAWAY_SHARED`, or `shared` beside the repository; None where there is
    none.
    """
    named = os.environ.get("CUTAWAY_SHARED")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared"
    return folder if (folder / "data").is_dir() else None


@pytest.fixture(scope="session")
def shared() -> Path:
    folder = shared_folder()
    if folder is None:
        pytest.skip("the folder of real inputs (CUTAWAY_SHARED, or shared/ beside the repository) is absent")
    return folder


@pytest.fixture(scope="session")
def gpt2_tokenizer(shared: Path) -> GPT2TokenizerFast:
    folder = shared / "data" / "gpt2_tokenizer"
    tokenizer = GPT2TokenizerFast(vocab=str(folder / "vocab.json"), merges=str(folder / "merges.txt"))
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


@pytest.fixture
def tiny_gpt2() -> GPT2LMHeadModel:
    """GPT-2's architecture, 3 layers of width 32 with 4 heads, 97 tokens, random weights: always the same."""
    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=3, n_embd=32, n_head=4, vocab_size=97, n_positions=64, bos_token_id=0, eos_token_id=0
    )
    return GPT2LMHeadModel(config).eval()


@pytest.fixture(scope="session")
def gpt2_shaped(gpt2_tokenizer: GPT2TokenizerFast) -> GPT2LMHeadModel:
    """GPT-2's vocabulary on 2 random layers of width 32: for what needs real tokens but no knowledge."""
    torch.manual_seed(0)
    return GPT2LMHeadModel(
        GPT2Config(n_layer=2, n_embd=32, n_head=4, bos_token_id=50256, eos_token_id=50256)
    ).eval()


@pytest.fixture(autouse=True)
def _gpu(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("there is no accelerator here")


@pytest.fixture(scope="session")
def shows_itself() -> Callable[[Any], None]:
    """Asserts that an object shows itself in a few lines, in a console and in a notebook, and offline."""

    def check(thing: Any) -> None:
        assert len(repr(thing)) <= 2000, type(thing)
        shown = thing._repr_html_() if hasattr(thing, "_repr_html_") else ""
        assert len(shown) <= 20_000, type(thing)
        assert not re.search(r"(src|href)\s*=\s*(?!['\"]?(data:|#))", shown), type(thing)
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|@import|<script|<link", shown), type(thing)

    return check

"""Networks with three real tokenizers; GPT-2's has random weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import GPT2LMHeadModel, GPT2TokenizerFast

import cutaway
from cutaway.network import Network


@pytest.fixture(scope="session")
def gpt2_net(gpt2_shaped: GPT2LMHeadModel, gpt2_tokenizer: GPT2TokenizerFast) -> Network:
    return cutaway.open(gpt2_shaped, gpt2_tokenizer)


@pytest.fixture(scope="session")
def stories(shared: Path) -> Network:
    folder = shared / "models" / "stories260K"
    if not folder.is_dir():
        pytest.skip("the story model (models/stories260K of the folder of real inputs) is absent")
    return cutaway.open(folder)


@pytest.fixture(scope="session")
def tales_net() -> Network:
    return cutaway.open("zoo:tales")


@pytest.fixture(scope="session")
def net_of(request: pytest.FixtureRequest) -> Callable[[str], Network]:
    """A network by the name of its tokenizer; skips where the real inputs that it needs are absent."""
    fixtures = {"gpt2": "gpt2_net", "stories": "stories", "tales": "tales_net"}
    return lambda name: request.getfixturevalue(fixtures[name])


@pytest.fixture
def wordless(tiny_gpt2: GPT2LMHeadModel) -> Network:
    """A network without a tokenizer: 97 tokens, 64 positions."""
    return cutaway.open(tiny_gpt2)

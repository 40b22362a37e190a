"""A random GPT-2 and pairs of token ids: enough to compare every cell with a loop over bare hooks."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from transformers import GPT2LMHeadModel

import cutaway
from cutaway.behaviours import Behaviour
from cutaway.network import Network

sys.path.insert(0, str(Path(__file__).parent))
from loops import id_behaviour


@pytest.fixture
def pairs() -> Behaviour:
    return id_behaviour()


@pytest.fixture
def net(tiny_gpt2: GPT2LMHeadModel) -> Network:
    return cutaway.open(tiny_gpt2)

"""FactMemo about a network: kept while it stays as it is, and no longer."""

import copy
import itertools
import pickle

import pytest
import torch
from torch import nn

import cutaway
from cutaway.network.identity import weights_hash
from cutaway.network.locks import lock_of
from cutaway.zoo.tiny import tiny


@pytest.fixture
def net():
    return cutaway.open(tiny("llama"))


@pytest.fixture
def asked(net):
    """Asks for one fact; each answer that was made anew is a new number."""
    numbers = itertools.count()
    return lambda: net.fact("answer", lambda: next(numbers))


def test_a_fact_is_found_once(asked):
    assert asked() == asked() == 0


def test_standing_edits_neither_read_nor_keep_facts(net, asked):
    assert asked() == 0
    with net.edit(cutaway.Ablate("mlp_write.0", "zero")):
        assert asked() == 1
        assert asked() == 2
    assert asked() == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda net: net.forget(),
        lambda net: net.to(torch.float64),
        lambda net: net.model.to(torch.float64),
        lambda net: net.model.half(),
        lambda net: nn.init.zeros_(net.model.model.layers[0].mlp.down_proj.weight),
        lambda net: setattr(net.model.model.norm, "weight", nn.Parameter(torch.ones(net.d_model))),
        lambda net: net.model.load_state_dict(tiny("llama", seed=1).state_dict()),
    ],
)
def test_facts_are_forgotten_when_the_network_changes(net, asked, change):
    assert asked() == 0
    change(net)
    assert asked() == asked() == 1


def test_running_leaves_facts_alone(net, asked):
    asked()
    net.run([[5, 6, 7]], keep="*", edits=cutaway.Ablate("mlp_write.0", "zero"))
    net.generate([[5, 6, 7]], 2)
    assert asked() == 0


def test_the_hash_follows_the_weights(net):
    first = net.hash
    optimiser = torch.optim.AdamW(net.model.parameters(), lr=1e-2)
    net.model(input_ids=torch.tensor([[5, 6, 7]])).logits.sum().backward()
    optimiser.step()
    assert net.hash == weights_hash(net.model) != first
    with net.edit(cutaway.Ablate("mlp_write.0", "zero")):
        assert net.hash == weights_hash(net.model)


def test_a_copy_finds_its_own_facts(net, asked):
    asked()
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert other.fact("answer", lambda: "its own") == "its own"
        assert other.hash == net.hash


def test_two_networks_over_one_model_take_turns(net):
    other = cutaway.open(net.model)
    assert other.core.lock is net.core.lock is lock_of(net.model)
    assert cutaway.open(tiny("llama")).core.lock is not net.core.lock

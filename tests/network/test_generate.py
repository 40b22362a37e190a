"""Generation under edits equals a full forward pass under the same edits, token by token."""

import pytest
import torch

import cutaway
from cutaway.errors import BadInput, TooLong
from cutaway.interventions import Ablate, Add, Patch, Scale
from cutaway.zoo.tiny import tiny

IDS = torch.tensor([[5, 6, 7, 8, 9, 11], [10, 11, 12, 13, 14, 3]])


@pytest.fixture(scope="module", params=["llama", "gpt2", "gemma2", "bloom", "qwen3"])
def net(request):
    return cutaway.open(tiny(request.param))


def greedy(net, ids, steps, edits_at):
    """The slow way: a whole forward per token, without a cache."""
    for _ in range(steps):
        logits = net.run(ids, edits=edits_at(ids), logits="last").logits[:, 0]
        ids = torch.cat([ids, logits.argmax(-1, keepdim=True)], 1)
    return ids[:, IDS.shape[1] :]


def test_no_edits_is_the_models_own_generation(net):
    own = net.model.generate(input_ids=IDS, max_new_tokens=5, do_sample=False, pad_token_id=0)
    assert torch.equal(net.generate(IDS, 5).ids, own)


@pytest.mark.parametrize(
    "edit",
    [
        lambda net: Scale("mlp_write", 0.2, layer=1),
        lambda net: Ablate("z", layer=0, head=1),
        lambda net: Ablate("v", layer=1, head=0, pos=[1, 2]),
        lambda net: Scale("k", 3.0, layer=1),
        lambda net: Add("resid_pre.1", torch.linspace(-1, 1, net.d_model)),
        lambda net: Ablate("pattern", layer=0, head=0),
        lambda net: Patch("resid_post.0", torch.linspace(-2, 2, net.d_model), pos=2),
    ],
)
def test_edits_everywhere_equal_whole_forwards(net, edit):
    change = edit(net)
    new = net.generate(IDS, 5, edits=[change]).new
    assert torch.equal(new, greedy(net, IDS, 5, lambda ids: [change]))


def test_edits_on_the_prompt_and_on_new_tokens(net):
    whole = {"layer": 1}
    prompt = net.generate(IDS, 5, edits=[Scale("mlp_write", 0.1, **whole)], on="prompt").new
    assert torch.equal(
        prompt, greedy(net, IDS, 5, lambda ids: [Scale("mlp_write", 0.1, pos=slice(0, 6), **whole)])
    )
    new = net.generate(IDS, 5, edits=[Scale("mlp_write", 0.1, **whole)], on="new").new

    def later(ids):
        return [Scale("mlp_write", 0.1, pos=slice(6, None), **whole)] if ids.shape[1] > 6 else []

    assert torch.equal(new, greedy(net, IDS, 5, later))


def test_prompts_of_unequal_length(net):
    if net.certificate.pads_left is False:
        pytest.skip("left padding is not neutral here")
    rows = [[5, 6, 7, 8], [9, 10]]
    edits = [Add("resid_pre.1", torch.linspace(-1, 1, net.d_model), pos=-1)]
    together = net.generate(rows, 4, edits=edits).new
    for i, row in enumerate(rows):
        assert torch.equal(together[i], net.generate([row], 4, edits=edits).new[0])


def test_refusals(net):
    if net.n_ctx is not None:
        with pytest.raises(TooLong, match="exceed"):
            net.generate(IDS, 10**5)
    with pytest.raises(BadInput, match="not known"):
        net.generate(IDS, 2, on="sometimes")
    with pytest.raises(BadInput, match="num_beams above 1"):
        net.generate(IDS, 2, num_beams=2)
    with pytest.raises(BadInput, match="cannot generate"):
        cutaway.open(tiny("vit")).generate(torch.randn(1, 3, 8, 8), 2)

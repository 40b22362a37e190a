"""Interventions: what each does, against the same thing written out with plain tensors."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

import cutaway
from cutaway.errors import BadAddress, BadInput, NotFound
from cutaway.interventions import (
    Ablate,
    Add,
    Apply,
    Clamp,
    Freeze,
    Interchange,
    Patch,
    Project,
    Scale,
    Source,
)  # fmt: skip
from cutaway.network import pack
from cutaway.zoo.tiny import tiny


@pytest.fixture(scope="module")
def net():
    return cutaway.open(tiny("qwen3"))


IDS = torch.tensor([[5, 6, 7, 8, 9], [10, 11, 12, 13, 14]])
OTHER = torch.tensor([[20, 21, 22, 23, 24], [30, 31, 32, 33, 34]])


def value(net, edit, site="resid_post.1", ids=IDS):
    """A site's value under an edit of it."""
    return net.run(ids, keep=[site], edits=[edit])[site]


def test_each_kind_does_what_it_says(net):
    plain = net.run(IDS, keep=["resid_post.1"])["resid_post.1"]
    other = net.run(OTHER, keep=["resid_post.1"])
    v = torch.randn(net.d_model)
    basis = torch.randn(2, net.d_model)
    q, _ = torch.linalg.qr(basis.T)
    at = "resid_post.1"
    cases = [
        (Ablate(at), torch.zeros_like(plain)),
        (Ablate(at, "mean"), plain.mean((0, 1), keepdim=True).expand_as(plain)),
        (Ablate(at, "mean", by_position=True), plain.mean(0, keepdim=True).expand_as(plain)),
        (Ablate(at, "mean", source=other), other[at].mean((0, 1), keepdim=True).expand_as(plain)),
        (Ablate(at, "resample"), plain.flip(0)),
        (Patch(at, other), other[at]),
        (Freeze(at, other), other[at]),
        (Patch(at, other[at]), other[at]),
        (Patch(at, 2.5), torch.full_like(plain, 2.5)),
        (Add(at, v, scale=2.0), plain + 2 * v),
        (Scale(at, 0.5), plain * 0.5),
        (Project(at, v), plain - (plain @ v)[..., None] * v / v.dot(v)),
        (Project(at, basis, keep=True), plain @ q @ q.T),
        (Interchange(at, other, basis), plain + (other[at] - plain) @ q @ q.T),
        (Clamp(at, low=-0.1, high=0.2), plain.clamp(-0.1, 0.2)),
        (Apply(at, lambda x: x.flip(-1)), plain.flip(-1)),
        (Apply(at, lambda x, here: x * here.site.layer), plain * 1),
    ]
    for edit, wanted in cases:
        assert torch.allclose(value(net, edit), wanted, atol=1e-5), edit


@settings(max_examples=30, deadline=None)
@given(
    head=st.one_of(st.none(), st.integers(-4, 3), st.lists(st.integers(0, 3), min_size=1, max_size=3)),
    pos=st.one_of(
        st.none(),
        st.integers(-5, 4),
        st.lists(st.integers(-5, 4), min_size=1, max_size=3),
        st.just(slice(1, 3)),
    ),
    neuron=st.one_of(st.none(), st.integers(0, 7)),
    row=st.one_of(st.none(), st.integers(0, 1)),
)
def test_an_address_is_plain_indexing(head, pos, neuron, row):
    net = _opened()
    plain = net.run(IDS, keep=["z.1"])["z.1"]
    wanted = plain.clone()

    def axis(index, size):
        if index is None:
            return torch.arange(size)
        if isinstance(index, slice):
            return torch.arange(size)[index]
        return torch.as_tensor([index] if isinstance(index, int) else index) % size

    rows, columns, heads, units = axis(row, 2), axis(pos, 5), axis(head, 4), axis(neuron, plain.shape[-1])
    wanted[rows[:, None, None, None], columns[:, None, None], heads[:, None], units] = 0
    edit = Ablate("z", layer=1, head=head, pos=pos, neuron=neuron, row=row)
    assert torch.equal(net.run(IDS, keep=["z.1"], edits=[edit])["z.1"], wanted)


_NET = []


def _opened():
    if not _NET:
        _NET.append(cutaway.open(tiny("qwen3")))
    return _NET[0]


def test_sources_are_matched_by_position_whatever_the_padding(net):
    rows, others = [[5, 6, 7], [8, 9, 10, 11, 12]], [[20, 21, 22], [30, 31, 32, 33, 34]]
    source = net.run(pack(others, 0, "left", columns=8), keep=["resid_pre.1"])
    patched = net.run(rows, edits=[Patch("resid_pre.1", source)], logits="last").logits
    alone = [
        net.run([r], edits=[Patch("resid_pre.1", net.run([o], keep=["resid_pre.1"]))], logits="last").logits[
            0
        ]
        for r, o in zip(rows, others, strict=True)
    ]
    assert torch.allclose(patched, torch.stack(alone), atol=1e-4)


def test_a_mean_does_not_see_padding(net):
    rows = [[5, 6, 7], [8, 9, 10, 11, 12]]
    wide = pack(rows, 0, columns=9)
    plain = net.run(wide, keep=["z.0"])["z.0"]
    mean = plain[wide.mask].mean(0)
    assert torch.allclose(
        net.run(wide, keep=["z.0"], edits=[Ablate("z.0", "mean")])["z.0"][0, 0], mean, atol=1e-6
    )


def test_edits_compose_in_order(net):
    at = "resid_post.1"
    one = value(net, Ablate(at))
    both = net.run(IDS, keep=[at], edits=[Ablate(at), Add(at, torch.ones(net.d_model))])[at]
    reverse = net.run(IDS, keep=[at], edits=[Add(at, torch.ones(net.d_model)), Ablate(at)])[at]
    assert torch.equal(both, one + 1)
    assert torch.equal(reverse, one)
    # across sites the network's order holds, not that of the list
    first = net.run(IDS, edits=[Scale("resid_pre.2", 2.0), Ablate("mlp_write.0")]).logits
    second = net.run(IDS, edits=[Ablate("mlp_write.0"), Scale("resid_pre.2", 2.0)]).logits
    assert torch.equal(first, second)


def test_the_other_rows_of_a_batch_are_untouched(net):
    edited = net.run(IDS, edits=[Ablate("resid_pre.0", row=1)]).logits
    plain = net.run(IDS).logits
    assert torch.allclose(edited[0], plain[0], atol=1e-6)
    assert not torch.allclose(edited[1], plain[1])


def test_pattern_sources_and_destinations(net):
    plain = net.run(IDS, keep=["pattern.1"])["pattern.1"]
    edit = Patch("pattern.1", 0.25, head=2, pos=3, src=[0, 1])
    wanted = plain.clone()
    wanted[:, 2, 3, :2] = 0.25
    assert torch.equal(net.run(IDS, keep=["pattern.1"], edits=[edit])["pattern.1"], wanted)


@pytest.mark.parametrize(
    ("edit", "error", "words"),
    [
        (Ablate("z", layer=1, head=4), BadAddress, "has 4"),
        (Ablate("z", layer=3), BadAddress, "has 3"),
        (Ablate("k", layer=1, head=2), BadAddress, "has 2"),
        (Ablate("z.1", layer=2), BadAddress, "Give the layer once"),
        (Ablate("resid_pre", head=1), BadAddress, "no axis of heads"),
        (Ablate("resid_pre", neuron=10**6), BadAddress, "out of range"),
        (Ablate("mlp_act", neuron=10**6), BadAddress, "out of range"),
        (Ablate("final_norm", layer=1), BadAddress, "no layers"),
        (Ablate("z.1", pos=5), BadAddress, "outside row 0"),
        (Ablate("z.1", row=2), BadAddress, "out of range"),
        (Ablate("z.1", src=1), BadAddress, "no source positions"),
        (Ablate("z", "medium"), BadInput, "not known"),
        (Clamp("z"), BadInput, "neither"),
        (Clamp("z", low=2, high=1), BadInput, "above"),
        (Add("resid_post.1", torch.ones(3)), BadInput, "does not fit"),
        (Patch("z.1", torch.ones(3, 5, 4, 8)), BadInput, "3 rows"),
        (Patch("z.1", "words"), BadInput, "not a source"),
        (Project("resid_pre.1", torch.ones(2, 3)), BadAddress, "do not fit"),
        (Apply("z.1", lambda v: v[:1, :1]), BadInput, "not a tensor of shape"),
        (Ablate("resid_pots"), NotFound, "Did you mean"),
    ],
)
def test_what_makes_no_sense_is_refused(net, edit, error, words):
    with pytest.raises(error, match=words):
        net.run(IDS, edits=[edit])


def test_refusals_come_before_anything_runs(net):
    called = []
    handle = net.model.register_forward_pre_hook(lambda *a: called.append(1))
    try:
        for edit in (Ablate("z", layer=1, head=4), Ablate("z", "medium"), Patch("z.1", "words")):
            with pytest.raises(cutaway.errors.CutawayError):
                net.run(IDS, edits=[edit])
    finally:
        handle.remove()
    assert not called


def test_a_source_that_did_not_keep_the_site(net):
    with pytest.raises(NotFound, match="did not keep"):
        net.run(IDS, edits=[Patch("z.1", net.run(OTHER))])


def test_resampling_one_row_is_refused(net):
    with pytest.raises(BadInput, match="one row"):
        net.run(IDS[:1], edits=[Ablate("z.1", "resample")])


def test_directions_of_no_length_do_not_count(net):
    plain = net.run(IDS, keep=["resid_post.1"])["resid_post.1"]
    assert torch.equal(value(net, Project("resid_post.1", torch.zeros(net.d_model))), plain)


def test_an_intervention_prints_itself(net):
    text = repr(Ablate("z", layer=9, head=6, how="mean"))
    assert text == "Ablate(layer=9, head=6, z, how=mean, by_position=False, seed=0)" or "how=mean" in text
    assert "tensor[4]" in repr(Add("z", torch.ones(4)))
    assert "run" in repr(Patch("z", Source()))

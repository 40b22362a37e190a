"""Patterns of all heads, two prompts side by side, induction heads: against the bare model and by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

import cutaway
from cutaway.errors import (
    BadAddress,
    BadInput,
    CutawayError,
    OutOfMemory,
    SiteUnavailable,
    UnknownOption,
)
from cutaway.figures.attention import MOST_CELLS, attention_map, small_patterns
from cutaway.network import Network
from cutaway.results import Budget, Work
from cutaway.stream.attention_scores import repeated_tokens
from cutaway.stream.patterns import read_patterns
from cutaway.stream.side_by_side import aligned

TEXT, OTHER = "Mary was sad because", "John was sad because"


@pytest.fixture(scope="module")
def bert() -> Network:
    torch.manual_seed(0)
    small = BertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, vocab_size=50
    )
    return cutaway.open(BertModel(small).eval())


# patterns --------------------------------------------------------------------------------------------------------


def test_all_patterns_are_those_of_the_bare_model(tales: Network) -> None:
    found = cutaway.patterns(tales, TEXT, weighted=True)
    tales.model.set_attn_implementation("eager")
    try:
        bare = tales.model(tales.encode(TEXT).ids, output_attentions=True).attentions
    finally:
        tales.model.set_attn_implementation("sdpa")
    wanted = torch.cat([layer[0] for layer in bare]).detach().numpy()
    assert found.pattern.shape == (16, 5, 5)
    assert np.allclose(found.pattern, wanted, atol=1e-5)
    one = read_patterns(tales, TEXT, layer=2)
    assert np.allclose(found.weighted[8:12], one.weighted, atol=1e-5)
    assert list(map(str, found.heads[8:12])) == list(map(str, one.heads))


def test_some_heads_alone(tales: Network) -> None:
    whole = cutaway.patterns(tales, TEXT)
    some = cutaway.patterns(tales, TEXT, heads=["head 1.2", "a3.h0"])
    assert list(map(str, some.heads)) == ["a1.h2", "a3.h0"]
    assert np.array_equal(some.pattern, whole.pattern[[6, 12]])
    last = cutaway.patterns(tales, TEXT, layers=[-1])
    assert np.array_equal(last.pattern, whole.pattern[12:])
    assert whole.weighted is None
    table = whole.to_pandas("a1.h2")
    assert np.array_equal(table.to_numpy(), whole.pattern[6])
    assert len(whole.to_pandas()) == 16 * 15


def test_the_small_pictures_hold_every_head_on_a_scale_from_0_to_1(tales: Network) -> None:
    found = cutaway.patterns(tales, TEXT)
    (trace,) = found.plot().data
    assert (trace.zmin, trace.zmax) == (0, 255)
    mosaic = np.asarray(trace.z)
    assert mosaic.shape == (4 * 6 - 1, 4 * 6 - 1)
    for index, head in enumerate(found.heads):
        top, left = 6 * (head.layer or 0), 6 * (head.index or 0)
        cell = mosaic[top : top + 5, left : left + 5][::-1].astype(float)
        assert not cell[~np.tri(5, dtype=bool)].any()
        shown = (cell[np.tri(5, dtype=bool)] - 1) / 254
        assert np.allclose(shown, found.pattern[index][np.tri(5, dtype=bool)], atol=1 / 254)
    (full,) = found.plot("a1.h2").data
    assert (full.zmin, full.zmax) == (0, 1)
    assert np.allclose(np.tril(np.nan_to_num(np.asarray(full.z, float)[::-1])), found.pattern[6])


def test_long_texts_are_drawn_in_blocks_as_dark_as_their_darkest_cell() -> None:
    tables = np.random.default_rng(0).random((2, 70, 70))
    mosaic = np.asarray(small_patterns(tables, [0, 1], [0, 0]).data[0].z)
    side = -(-70 // 3)
    assert side <= MOST_CELLS
    assert mosaic.shape == (2 * (side + 1) - 1, side)
    wanted = tables[0, :3, :3].max()
    assert (mosaic[side - 1, 0] - 1) / 254 == pytest.approx(wanted, abs=1 / 254)
    assert attention_map(tables[0], ["a"] * 70, ["b"] * 70).data


def test_patterns_of_a_network_that_looks_ahead(bert: Network) -> None:
    found = cutaway.patterns(bert, [5, 6, 7])
    assert found.seen.all()
    assert len(found.to_pandas()) == 4 * 9


def test_patterns_are_kept_and_shown(tales: Network, tmp_path: Path) -> None:
    found = cutaway.patterns(tales, TEXT)
    again = cutaway.load(found.save(tmp_path / "patterns"))
    assert np.array_equal(again.pattern, found.pattern)
    assert again.weighted is None
    assert len(again.page().sections) >= 9
    assert "Of 16 heads, head " in found._repr_html_()
    assert len(found._repr_html_()) < 6000


@pytest.mark.parametrize(
    ("options", "error", "said"),
    [
        ({"heads": ["a9.h0"]}, BadAddress, "9"),
        ({"heads": ["n1.2"]}, BadAddress, "no attention head"),
        ({"heads": ["a1"]}, CutawayError, "a1|attention"),
        ({"heads": []}, BadInput, "no list"),
        ({"heads": "a1.h0"}, BadInput, "list of texts"),
        ({"layers": [7]}, BadAddress, "layer 7"),
        ({"layers": [0], "heads": ["a1.h0"]}, BadInput, "None of these heads"),
        ({"layer": 1}, UnknownOption, "layers"),
        ({"work": Work(budget=Budget(memory=100))}, OutOfMemory, "Name layers"),
    ],
)
def test_what_is_no_pattern(tales: Network, options: Any, error: type[CutawayError], said: str) -> None:
    with pytest.raises(error, match=said):
        cutaway.patterns(tales, TEXT, **options)


def test_patterns_of_nothing(tales: Network) -> None:
    with pytest.raises(BadInput, match="empty"):
        cutaway.patterns(tales, "")
    with pytest.raises(BadInput, match="not weighted"):
        cutaway.patterns(tales, TEXT).plot(0, weighted=True)
    with pytest.raises(BadInput, match="One text"):
        cutaway.patterns(tales, tales.encode([TEXT, OTHER]))


# side by side ----------------------------------------------------------------------------------------------------


def test_two_prompts_are_compared_as_by_hand(tales: Network) -> None:
    found = cutaway.side_by_side(tales, TEXT, OTHER)
    out = [tales.model(tales.encode(t).ids, output_hidden_states=True) for t in (TEXT, OTHER)]
    for layer in range(4):
        a, b = (o.hidden_states[layer][0].detach() for o in out)
        assert np.allclose(found.length[layer], a.norm(dim=-1).numpy(), rtol=1e-4)
        assert np.allclose(found.cosine[layer], torch.cosine_similarity(a, b, -1).numpy(), atol=1e-4)
        distance = (a - b).norm(dim=-1) / ((a.norm(dim=-1) + b.norm(dim=-1)) / 2)
        assert np.allclose(found.distance[layer], distance.numpy(), atol=1e-4)
    p, q = (o.logits[0, -1].double().softmax(-1).detach() for o in out)
    assert found.said.kl == pytest.approx(float((p * (p / q).log()).sum()), rel=1e-4)
    assert found.said.kl_back == pytest.approx(float((q * (q / p).log()).sum()), rel=1e-4)
    best = tales.token_strings([int(p.argmax())])[0]
    assert found.said.text[found.said.tokens.index(best)] == pytest.approx(float(p.max()), rel=1e-4)
    assert found.differ == (1,)
    assert found.notes == ()
    moved = np.abs(found.patterns[0].pattern - found.patterns[1].pattern).sum(-1) / 2
    assert np.allclose(found.moved, moved, atol=1e-6)


def test_what_is_written_adds_up_to_the_difference_of_logits(tales: Network) -> None:
    found = cutaway.side_by_side(tales, TEXT, OTHER, target=" she", foil=" he")
    she, he = (tales.to_single_token(w) for w in (" she", " he"))
    for text, values in ((TEXT, found.written.text), (OTHER, found.written.other)):
        logits = tales.model(tales.encode(text).ids).logits[0, -1].detach()
        assert values.sum() == pytest.approx(float(logits[she] - logits[he]), abs=1e-3)
    assert found.written.of == "the logit of ' she' over ' he'"


@pytest.mark.parametrize(
    ("first", "second", "wanted"),
    [
        ([1, 2, 3], [1, 5, 3], [(0, 0), (1, 1), (2, 2)]),
        ([1, 2, 3, 9], [1, 5, 9], [(0, 0), (3, 2)]),
        ([1, 2], [1, 2, 2], [(0, 0), (1, 1), (1, 2)]),
        ([7, 8, 9], [1, 2], [(2, 1)]),
        ([1, 1, 1], [1, 1], [(0, 0), (1, 1), (2, 1)]),
    ],
)
def test_prompts_are_aligned_where_they_are_alike(first: list[int], second: list[int], wanted: Any) -> None:
    pairs, note = aligned(first, second)
    assert [tuple(p) for p in pairs.tolist()] == wanted
    assert bool(note) == (len(first) != len(second))


def test_prompts_of_unequal_length(tales: Network, tmp_path: Path) -> None:
    found = cutaway.side_by_side(tales, TEXT, "Mary and John was sad because")
    assert found.pairs.tolist() == [[0, 0], [1, 1], [2, 4], [3, 5], [4, 6]]
    assert "5 and 7 tokens" in found.notes[0]
    one, two = (t.pattern for t in found.patterns)
    head, k = 3, 4
    shared = np.abs(one[head, 4, [0, 1, 2, 3, 4]] - two[head, 6, [0, 1, 4, 5, 6]]).sum()
    rest = abs(0 - two[head, 6, [2, 3]].sum())
    assert found.moved[head, k] == pytest.approx((shared + rest) / 2, abs=1e-6)
    again = cutaway.load(found.save(tmp_path / "both"))
    assert again.to_pandas().equals(found.to_pandas())
    from cutaway.reports import render

    page = render(again.page())
    assert "5 and 7 tokens" in page
    assert "What comes next" in page
    assert "goes on with" in found._repr_html_()
    assert np.allclose(again.moved, found.moved)


def test_without_a_head_there_is_still_a_stream(bert: Network) -> None:
    found = cutaway.side_by_side(bert, [5, 6, 7], [5, 9, 7])
    assert found.said is None
    assert found.written is None
    assert found.lenses is None
    assert any("lens" in note for note in found.notes)
    assert found.moved.shape == (4, 3)
    assert len(found.top()) == 4
    assert found.page().sections


@pytest.mark.parametrize(
    ("texts", "options", "said"),
    [
        ((TEXT, TEXT), {}, "equal"),
        ((TEXT, ""), {}, "empty"),
        (("", TEXT), {}, "empty"),
        ((TEXT, OTHER), {"target": " she was"}, "2 tokens"),
        ((TEXT, OTHER), {"top": 0}, "top"),
        ((TEXT, OTHER), {"traget": " she"}, "target"),
    ],
)
def test_what_are_no_two_prompts(tales: Network, texts: Any, options: Any, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        cutaway.side_by_side(tales, *texts, **options)


# induction heads -------------------------------------------------------------------------------------------------


def test_the_constructed_induction_head_is_found_and_matters() -> None:
    net = cutaway.open("zoo:induction-gpt2")
    found = cutaway.induction_heads(net, length=6, n=12)
    table = found.scores
    assert found.heads == (table.best("induction"),)
    assert found.gain.above(0)
    assert found.ablated.mean() > found.intact.mean() + 1
    assert found.ablated.mean() > np.quantile(found.random.mean(1), 0.25)
    rows, start = repeated_tokens(net, length=6, n=12)
    patterns = net.run(rows, keep=["pattern"])["pattern", found.heads[0].layer][:, found.heads[0].index]
    second = torch.arange(start + 6, rows.shape[1])
    assert table.values["induction"].mean(0).max() == pytest.approx(
        float(patterns[:, second, second - 5].mean()), rel=1e-4
    )


def test_losses_without_heads_are_those_of_the_bare_model_with_a_hook(tales: Network) -> None:
    found = cutaway.induction_heads(tales, n=12, length=8, random_sets=2, top=1)
    head = found.heads[0]
    rows, start = repeated_tokens(tales, n=12, length=8)
    module: Any = tales.model.model.layers[head.layer].self_attn.o_proj
    seen: list[torch.Tensor] = []
    with torch.no_grad():
        handle = module.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
        logits = tales.model(rows).logits
        handle.remove()
        at = slice(32 * (head.index or 0), 32 * (head.index or 0) + 32)
        mean = seen[0][..., at].mean((0, 1))

        def replace(_module: Any, args: Any) -> Any:
            value = args[0].clone()
            value[..., at] = mean
            return (value,)

        handle = module.register_forward_pre_hook(replace)
        without = tales.model(rows).logits
        handle.remove()

    def loss(x: torch.Tensor, part: slice) -> np.ndarray:
        each = torch.nn.functional.cross_entropy(x[:, :-1].transpose(1, 2), rows[:, 1:], reduction="none")
        return each[:, part].mean(1).numpy()

    second = slice(start + 7, None)
    assert np.allclose(found.intact, loss(logits, second), atol=1e-4)
    assert np.allclose(found.ablated, loss(without, second), atol=1e-4)
    assert np.allclose(found.first, loss(logits, slice(max(0, start - 1), start + 7)), atol=1e-4)
    assert all(len(chosen) == 1 and head not in chosen for chosen in found.random_heads)


def test_induction_heads_are_kept_and_shown(tales: Network, tmp_path: Path) -> None:
    found = cutaway.induction_heads(tales, n=12, length=8, random_sets=2)
    again = cutaway.load(found.save(tmp_path / "heads"))
    assert again.to_pandas().equals(found.to_pandas())
    assert again.heads == found.heads
    assert again.page().sections
    assert found.top(3)["induction"].is_monotonic_decreasing
    assert "half" in found._repr_html_()


def test_a_network_without_induction_is_said_to_have_none(tiny_gpt2: Any) -> None:
    found = cutaway.induction_heads(cutaway.open(tiny_gpt2), n=12, length=8)
    assert found.heads == ()
    assert found.random.shape == (0, 12)
    assert np.array_equal(found.ablated, found.intact)
    assert "No head is an induction head" in found.headline
    assert found.page().sections


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"top": 0}, "top"),
        ({"random_sets": 0}, "random_sets"),
        ({"n": 11}, "n=11"),
        ({"length": 2}, "length"),
        ({"length": 10**6}, "context"),
        ({"at_least": 2.0}, "at_least"),
    ],
)
def test_what_is_no_search_for_induction(tales: Network, options: Any, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        cutaway.induction_heads(tales, **options)


def test_induction_asks_for_a_network_that_predicts(bert: Network) -> None:
    with pytest.raises(SiteUnavailable, match="predicts the next token"):
        cutaway.induction_heads(bert)

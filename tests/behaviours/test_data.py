from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cutaway.behaviours import Behaviour
from cutaway.behaviours.data import assign_split, listed
from cutaway.behaviours.generators import induction
from cutaway.errors import BadBehaviour, BadInput, TooLong
from cutaway.network import Network

Pair = tuple[tuple[int, ...], tuple[int, ...]]


def plain(pairs: list[Pair], **more: object) -> Behaviour:
    n = len(pairs)
    columns: dict[str, object] = {
        "clean": tuple(" ".join(map(str, c)) for c, _ in pairs),
        "corrupted": tuple(" ".join(map(str, d)) for _, d in pairs),
        "clean_ids": tuple(c for c, _ in pairs),
        "corrupted_ids": tuple(d for _, d in pairs),
        "right": ((1,),) * n,
        "wrong": ((2,),) * n,
    }
    return Behaviour("plain", **(columns | more))  # pyright: ignore[reportArgumentType]


def different(n: int) -> list[Pair]:
    return [((i, i + 1, 3), (i, i + 1, 4)) for i in range(10, 10 + n)]


def test_what_is_refused() -> None:
    one: list[Pair] = [((5, 6), (5, 7))]
    with pytest.raises(BadBehaviour, match="no examples"):
        plain([])
    with pytest.raises(BadBehaviour, match="equal clean and corrupted"):
        plain([((5, 6), (5, 6))])
    with pytest.raises(BadBehaviour, match="empty prompt"):
        plain([((), (5,))])
    with pytest.raises(BadBehaviour, match="no right answer"):
        plain(one, right=((),))
    with pytest.raises(BadBehaviour, match="share token 2"):
        plain(one, right=((1, 2),))
    with pytest.raises(BadBehaviour, match="answer position 2 lies outside"):
        plain(one, answer_pos=(2,))
    with pytest.raises(BadBehaviour, match="span 'x' 1:3 lies outside"):
        plain(one, spans={"x": ((1, 3),)})
    with pytest.raises(BadBehaviour, match="2 entries of right"):
        plain(one, right=((1,), (1,)))
    with pytest.raises(BadBehaviour, match="1 entries of held"):
        plain(different(2), held=(True,))


@given(
    st.lists(
        st.tuples(st.integers(0, 6), st.integers(0, 6)).filter(lambda p: p[0] != p[1]),
        min_size=2,
        max_size=30,
    ),
    st.integers(0, 9),
    st.sampled_from(["example", "template"]),
    st.floats(0.1, 0.9),
)
def test_no_prompt_is_ever_in_both_halves(
    prompts: list[tuple[int, int]], seed: int, by: str, share: float
) -> None:
    pairs: list[Pair] = [((9, a), (9, b)) for a, b in prompts]
    b = plain(pairs, template=tuple(str(i % 3) for i in range(len(pairs))), held=(False,) * len(pairs))
    held, said = assign_split(b, seed, by, share)  # pyright: ignore[reportArgumentType]
    assert said == by
    assert not all(held)
    sides = [set(), set()]
    templates = [set(), set()]
    for i, h in enumerate(held):
        sides[h] |= {b.clean_ids[i], b.corrupted_ids[i]}
        templates[h].add(b.template[i])
    assert not sides[0] & sides[1]
    if by == "template":
        assert not templates[0] & templates[1]


def test_four_templates_are_split_by_template_and_three_by_example() -> None:
    four = plain(different(40), template=tuple("abcd"[i % 4] for i in range(40)))
    three = plain(different(40), template=tuple("abc"[i % 3] for i in range(40)))
    assert (four.split_by, sum(four.held), four.clusters is None) == ("template", 20, False)
    assert (three.split_by, sum(three.held), three.clusters) == ("example", 20, None)
    assert set(four.discovery.template) | set(four.held_out.template) == set("abcd")
    again = three.split("template", 0.4, seed=3)
    assert again.split_by == "template"
    assert sum(again.held) in (13, 14)


def test_halves_of_halves() -> None:
    b = plain(different(10))
    assert b.discovery.discovery is not b
    assert b.discovery.part == "discovery"
    with pytest.raises(BadBehaviour, match="no held-out examples"):
        _ = b.discovery.held_out
    with pytest.raises(BadBehaviour, match="no held-out examples"):
        _ = plain(different(1)).held_out
    with pytest.raises(BadInput, match="share"):
        b.split("example", 1.5)
    with pytest.raises(BadBehaviour, match="one template"):
        b.split("template")


def test_unequal_pairs_are_found_named_and_dropped() -> None:
    b = plain([((5, 6), (5, 7)), ((5, 6), (5, 7, 8))])
    assert not b.aligned
    with pytest.raises(
        BadBehaviour, match="Patching needs pairs of equal length, but example 1 .* 2 clean and 3"
    ):
        b.require_aligned("Patching")
    kept = b.only_aligned()
    assert kept.n == 1
    assert "1 of 2 pairs were dropped" in kept.notes[0]
    kept.require_aligned("Patching")
    assert kept.only_aligned() is kept
    with pytest.raises(BadBehaviour, match="no examples"):
        b[1:].only_aligned()


def test_hash_tells_what_matters_apart() -> None:
    b = plain(different(12))
    assert b.hash == plain(different(12)).hash
    assert replace(b, notes=("x",)).hash == b.hash
    others = [
        b[:3],
        b.with_metric("prob_diff"),
        replace(b, right=((8,),) * 12),
        b.split("example", seed=7),
        b.discovery,
    ]
    assert len({b.hash, *(o.hash for o in others)}) == 6


def test_slicing_and_showing() -> None:
    b = plain(different(6), spans={"x": tuple((0, 1) for _ in range(6))}, notes=("a note",))
    assert b[2].clean == b[[2]].clean == b[2:3].clean
    assert len(b) == 6
    assert b[1:3].spans["x"] == ((0, 1), (0, 1))
    assert "note: a note" in str(b)
    assert "<table>" in b._repr_html_()
    assert listed([]) == "(none)"
    assert listed([" a", " b", " c", " d"]) == "' a' ... ' d' (4 of them)"


def test_what_does_not_fit_the_network(wordless: Network) -> None:
    b = induction(wordless, n=4, length=8)
    assert b.clean_tokens(wordless).n == 4
    with pytest.raises(TooLong, match="70 tokens; the network reads 64"):
        plain([(tuple(range(70)), tuple(range(1, 71)))]).clean_tokens(wordless)
    with pytest.raises(BadBehaviour, match="uses token 500, and the network's vocabulary ends at 96"):
        plain([((500, 1), (3, 1))]).clean_tokens(wordless)

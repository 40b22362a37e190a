"""What earlier runs of a verb took corrects what the next announces: learnt, kept, bounded, and nothing where it is off."""

from __future__ import annotations

import time

import pytest

import cutaway
from cutaway.network import Network, learnt
from cutaway.network.cache import recall, remember
from cutaway.network.learnt import LEAST, MOST, corrected, correction
from cutaway.network.pricing import announce, announce_price
from cutaway.results import Price, Progress, Work
from cutaway.results.meter import metered, spend
from cutaway.zoo.tiny import tiny


@pytest.fixture
def net(tiny_gpt2, tmp_path, monkeypatch) -> Network:
    monkeypatch.setenv("CUTAWAY_CACHE", str(tmp_path / "cache"))
    return cutaway.open(tiny_gpt2)


def burn(seconds: float) -> None:
    """Take so much processor time."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def verb(
    net: Network, work: Work, announced: float, used: float, forwards: float = 100.0, ran: float = 100.0
) -> None:
    """Announce so many seconds, and take so many."""
    with work.account.verb(), metered(work.meter):
        price = corrected(net, "testing", Price(forwards, announced, announced))
        announce_price(net, work, "testing", price)
        spend(ran)
        burn(used)


def failing(net: Network) -> None:
    """Take longer than announced, and fail."""
    work = Work()
    with work.account.verb():
        announce_price(net, work, "testing", Price(100.0, 0.2, 0.2))
        burn(0.3)
        raise ValueError("wrong")


@pytest.mark.parametrize("slower", [0.5, 3.0])
def test_the_second_run_is_announced_with_what_the_first_took(net: Network, slower: float) -> None:
    assert correction(net, "testing", 100) == 1.0
    verb(net, Work(), 0.2, 0.2 * slower)
    assert correction(net, "testing", 100) == pytest.approx(slower, rel=0.15)
    verb(net, Work(), 0.2, 0.2 * slower)  # what is announced is now right, and stays so
    assert correction(net, "testing", 100) == pytest.approx(slower, rel=0.15)
    assert correction(net, "another", 100) == 1.0
    assert corrected(net, "testing", Price(100, 2.0, 4.0)).processor == pytest.approx(4.0 * slower, rel=0.15)


def test_runs_of_about_the_same_size_count_most(net: Network) -> None:
    learnt._learn(net, "testing", 10.0, 4.0)
    learnt._learn(net, "testing", 10_000.0, 1.0)
    few, between, many = (correction(net, "testing", size) for size in (10, 316, 10_000))
    assert few == pytest.approx(4.0, rel=0.01)
    assert many == pytest.approx(1.0, rel=0.01)
    assert between == pytest.approx(2.0, rel=0.01)


def test_what_says_nothing_is_not_learnt(net: Network) -> None:
    verb(net, Work(), 0.2, 0.4, ran=40.0)  # the rest was remembered, or resumed
    verb(net, Work(), 0.2, 0.02)  # over too soon
    stopped = Work()
    stopped.stop()
    verb(net, stopped, 0.2, 0.4)
    with pytest.raises(ValueError, match="wrong"):
        failing(net)
    assert correction(net, "testing", 100) == 1.0


@pytest.mark.parametrize(("announced", "bound"), [(0.001, MOST), (1000.0, LEAST)])
def test_a_correction_is_bounded(net: Network, announced: float, bound: float) -> None:
    verb(net, Work(), announced, 0.15)
    assert correction(net, "testing", 100) == pytest.approx(bound)


def test_damaged_memories_are_passed_over_and_off_is_off(
    net: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = learnt._key(net)
    for wrong in ([1], {"testing": 3}, {"testing": [["a", "b"]]}, {"testing": [[0, 0]]}, {"testing": [[1]]}):
        assert remember(learnt.KIND, key, wrong)
        assert correction(net, "testing", 100) == 1.0
    verb(net, Work(), 0.1, 0.3)
    assert len(recall(learnt.KIND, key)["testing"]) == 1
    monkeypatch.setenv("CUTAWAY_CACHE", "off")
    assert correction(net, "testing", 100) == 1.0
    verb(net, Work(), 0.1, 0.3)
    assert correction(net, "testing", 100) == 1.0


def test_only_the_newest_runs_are_kept(net: Network) -> None:
    for factor in (9.0, *[2.0] * 8):
        learnt._learn(net, "testing", 100.0, factor)
    assert correction(net, "testing", 100) == pytest.approx(2.0)


def test_a_network_of_another_form_learns_for_itself(net: Network) -> None:
    verb(net, Work(), 0.1, 0.3)
    assert correction(cutaway.open(tiny("llama")), "testing", 100) == 1.0


def test_what_is_announced_twice_speaks_of_passes_and_gradients(net: Network) -> None:
    heard: list[Progress] = []

    def price(**more: float) -> Price:
        work = Work(heard.append)
        with work.account.verb(), metered(work.meter):
            announce(net, [[1, 2, 3, 4]] * 8, work, "testing", 1000.0, **more)
        assert heard[-1].price is not None
        return heard[-1].price

    plain, few, slopes = price(passes=4.0), price(passes=1000.0), price(passes=4.0, gradients=1.0)
    assert plain.seconds is not None
    assert few.seconds is not None
    assert slopes.seconds is not None
    assert few.seconds > 3 * plain.seconds  # a tiny network: it is the passes that take time
    assert slopes.seconds != plain.seconds
    assert (plain.processor or 0) > 0

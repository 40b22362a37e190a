"""Too few pairs to tell is told from not doing it, with about how many would tell."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from cutaway.behaviours import Behaviour, behaviour, performance, refusal, require_performed
from cutaway.behaviours.checks import Performance, performed
from cutaway.behaviours.telling import needed, not_above, pairs_for
from cutaway.errors import NotPerformed
from cutaway.network import Network
from cutaway.statistics import mean_of, proportion
from cutaway.trials.trial import performs


@pytest.fixture(scope="module")
def pronouns(tales_net: Network) -> Behaviour:
    return behaviour("pronoun", tales_net, n=64)


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_all_right_on_few_pairs_is_not_called_not_doing_it(
    tales_net: Network, pronouns: Behaviour, n: int
) -> None:
    few = pronouns.take(list(range(n)))
    found = performance(tales_net, few)
    assert found.accuracy.value == 1
    assert not found.does_it
    assert found.passed is None
    assert found.needed is not None
    assert n < found.needed <= 12
    assert "does not do" not in found.sentence
    assert "too few to tell whether it does the behaviour" in found.sentence
    assert "are not answered otherwise" not in found.sentence  # all of them are
    assert performs(found).passed is None
    with pytest.raises(
        NotPerformed, match=r"too few to tell .*(Give about \d+ pairs|it can be told from \d+ on)"
    ) as error:
        require_performed(tales_net, few)
    assert "Choose another" not in str(error.value)
    assert Performance.from_dict(found.to_dict()) == found


def test_as_many_pairs_as_are_said_to_be_needed_tell(tales_net: Network, pronouns: Behaviour) -> None:
    few = performance(tales_net, pronouns.take([0, 1, 2, 3]))
    assert few.needed is not None
    assert performance(tales_net, pronouns.take(list(range(few.needed)))).does_it
    open_still = performance(tales_net, pronouns.take(list(range(10))))
    assert open_still.does_it
    assert open_still.doubts == ("its accuracy may be below 0.75 (about 12 pairs like these would tell)",)
    assert proportion(12, 12).ends()[0] > 0.75 >= proportion(11, 11).ends()[0]
    assert performance(tales_net, pronouns).passed is True


def test_a_network_that_is_wrong_does_not_do_it(tales_net: Network, pronouns: Behaviour) -> None:
    clean, corrupted = (
        tales_net.run(list(pronouns.clean)).logits,
        tales_net.run(list(pronouns.corrupted)).logits,
    )
    assert clean is not None
    assert corrupted is not None
    wrong = performed("turned round", pronouns, corrupted[:, -1], clean[:, -1])
    assert wrong.passed is False
    assert wrong.needed is None
    assert "It does not do the behaviour: its accuracy is below 0.75" in wrong.sentence
    net = SimpleNamespace(name="turned round")
    assert "Choose another behaviour" in refusal(net, pronouns, wrong).remedy  # type: ignore[arg-type]
    # so few that even all right could not tell: nothing is said of a single wrong answer either
    one = performed("turned round", pronouns.take([0]), corrupted[:1, -1], clean[:1, -1])
    assert one.passed is None


def test_how_many_pairs_would_tell() -> None:
    words = ("it is not", "it may not be")
    few = mean_of([1.0, 3.0, -0.5, 2.5])
    assert few.above(0.0) is None
    miss = not_above(few, 0.0, words, 4)
    assert miss is not None
    assert miss.why == "it may not be"
    assert miss.needed is not None
    again = mean_of([1.0, 3.0, -0.5, 2.5] * -(-miss.needed // 4))  # the same scatter
    assert again.above(0.0) is True
    assert not_above(few, 2.0, words, 4) == type(miss)("it is not")
    faint = mean_of([1.0, -0.99] * 4)  # hundreds of pairs: these say no
    assert not_above(faint, 0.0, words, 8) == type(miss)("it is not")
    assert not_above(mean_of([1.0, 1.1, 0.9]), 0.0, words, 3) is None
    assert pairs_for(1.0, 0.75, 4) == 12
    assert pairs_for(0.7, 0.75, 4) is None
    assert needed([], 3, 4) is None
    assert needed([type(miss)("a"), type(miss)("b", 9)], 5, 4) is None
    assert needed([type(miss)("a"), type(miss)("b", 9)], 3, 4) == 9

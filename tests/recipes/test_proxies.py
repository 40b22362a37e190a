"""Networks that were trained where a proxy does as well as the goal: what the prompts are, and whom each network follows."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import cutaway
from cutaway import zoo
from cutaway.algorithms import algorithms_of
from cutaway.behaviours.cases import cases_of
from cutaway.calibration import verify
from cutaway.errors import NotFound
from cutaway.recipes.natural.catalogue import PROXIES
from cutaway.recipes.natural.proxies import AGREE, APART, MIXED, SHIFTED, SHIFTED_APART, WIDE, ProxyTask
from cutaway.recipes.natural.proxy_course import ProxyCourse

NAMES = [f"{course.task.name}-{course.architecture}" for course in PROXIES]
TASKS = [course.task for course in PROXIES]


def _drawn(task: ProxyTask, kind: str, n: int = 300) -> list[tuple[tuple[int, ...], dict[str, str]]]:
    rng = np.random.default_rng()
    made = (task.prompt(*task.drawn(rng, kind), kind) for _ in range(n))
    return [(ids, values) for ids, _, values in made]


def _by_hand(words: list[str]) -> tuple[str, str]:
    """Goal's and proxy's answers, from the words of a prompt alone."""
    if words[-1] == "to":
        named = [word for word in words if word[0].isupper()]
        return next(name for name in named[:2] if name != named[-1]), named[0]
    nouns = [
        w
        for i, w in enumerate(words)
        if "the" in words[max(0, i - 2) : i] and w not in ("old", "red", "small", "the")
    ]
    nouns = [w for w in nouns if w not in ("near", "behind", "beside", "under")]
    past = bool({"once", "then", "yesterday"} & set(words))
    forms = {True: ("were", "was"), False: ("are", "is")}[past]
    return forms[not nouns[0].endswith("s")], forms[not nouns[-1].endswith("s")]


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_goal_and_proxy_are_what_the_words_say(task: ProxyTask) -> None:
    for kind in task.cases:
        for ids, values in _drawn(task, kind):
            assert ids[0] == 0
            goal, proxy = _by_hand([task.words[i] for i in ids[1:]])
            assert (values["goal"], values["proxy"]) == (goal, proxy)
            assert kind not in (AGREE, SHIFTED) or goal == proxy
            assert kind not in (APART, SHIFTED_APART) or goal != proxy
    both = {values["goal"] == values["proxy"] for _, values in _drawn(task, MIXED)}
    assert both == {True, False}


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_shifted_frames_and_words_are_in_no_training(task: ProxyTask) -> None:
    trained = {frame for kind in (AGREE, WIDE) for frame in task.cases[kind].frames}
    assert not trained & set(task.cases[SHIFTED].frames)
    slot = "subject" if task.name.endswith("agreement") else "second"
    seen = {values[slot].removesuffix("s") for _, values in _drawn(task, AGREE)}
    assert not seen & {values[slot].removesuffix("s") for _, values in _drawn(task, SHIFTED_APART)}
    assert len({len(ids) for ids, _ in _drawn(task, AGREE)}) > 1


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_pairs_are_prompts_of_the_training_with_other_answers(task: ProxyTask) -> None:
    rng = np.random.default_rng()
    for _ in range(100):
        pair = task.pair(rng)
        assert len(pair.clean) == len(pair.corrupted)
        for ids, answer in ((pair.clean, pair.right), (pair.corrupted, pair.wrong)):
            goal, proxy = _by_hand([task.words[i] for i in ids[1:]])
            assert goal == proxy == task.words[answer[0]]
        assert pair.right != pair.wrong


@pytest.mark.parametrize("course", PROXIES, ids=NAMES)
def test_the_card_says_whom_the_network_follows(course: ProxyCourse) -> None:
    name = f"{course.task.name}-{course.architecture}"
    card = zoo.card(name)["accuracy"]
    assert course.followed(zoo.load(name)[0]) == {
        kind: card[kind] for kind in (AGREE, APART, SHIFTED, SHIFTED_APART)
    }
    assert card[AGREE]["goal"][0] == card[AGREE]["proxy"][0] >= 0.99
    assert card[APART]["proxy"][1] > 0.9
    assert card["twins"]["goal"][APART]["goal"][1] > 0.9
    assert card["twins"]["goal"][AGREE]["goal"][1] > 0.9
    with pytest.raises(NotFound):
        course.twin("goal")


@pytest.mark.parametrize("name", NAMES)
def test_the_twin_that_follows_the_goal_fails_only_there(name: str) -> None:
    found = verify(None, f"{name}~goal", n=48, checks=["behaviour", "follows"])
    assert {evidence.name for evidence in found.failures} == {"follows: proxy"}
    assert verify(None, name, n=48, checks=["follows"]).holds


@pytest.mark.parametrize("name", NAMES)
def test_exchanging_words_refutes_the_goal(name: str) -> None:
    """On prompts that agree both give the right answers; with one word exchanged only the proxy's answer comes."""
    net = cutaway.open(f"zoo:{name}")
    cases = cases_of(f"zoo:{name}", net, 256)
    (proxy, proxy_at), (goal, goal_at) = algorithms_of(f"zoo:{name}").values()
    assert cutaway.test_algorithm(net, cases, goal, goal_at, n=100, controls=False).verdict == "refuted"
    found = cutaway.test_algorithm(net, cases, proxy, proxy_at, n=100, controls=False)
    assert found.verdict != "refuted"
    assert min(v.accuracy.value for v in found.variables) >= 0.95


def test_a_step_of_training_is_the_mean_over_its_prompts() -> None:
    course = ProxyCourse(PROXIES[0].task, 5, 5, rows=16)
    model, _ = zoo.load(NAMES[0])
    loss = float(course._loss(model, 3, "").detach())
    rng = np.random.default_rng([course.seed, 3])
    each = []
    for _ in range(16):
        ids, right, _ = course.task.prompt(*course.task.drawn(rng))
        with torch.no_grad():
            each.append(-float(model(input_ids=torch.tensor([ids])).logits[0, -1].log_softmax(-1)[right]))
    assert loss == pytest.approx(float(np.mean(each)), rel=1e-3, abs=1e-6)

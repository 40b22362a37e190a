"""Steering: the difference of means and what is written under it, against hooks on the bare model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import cutaway
from cutaway.cli.main import app
from cutaway.control import SteeringVector
from cutaway.errors import BadAddress, BadInput, NotFound

HAPPY = ["Mary was happy", "Tom was happy", "Anna was glad", "Ben was glad", "Sue was happy", "Sam was glad"]
SAD = ["Mary was sad", "Tom was sad", "Anna was angry", "Ben was angry", "Sue was sad", "Sam was angry"]
PROMPTS = ["Mary was", "Tom ran to the"]


@pytest.fixture(scope="module")
def net() -> cutaway.Network:
    return cutaway.open("zoo:tales")


@pytest.fixture(scope="module")
def direction(net: cutaway.Network) -> SteeringVector:
    return cutaway.difference_of_means(net, HAPPY, SAD, at="resid_post.1")


def block(net: cutaway.Network, layer: int) -> Any:
    return net.modules[next(p for p in net.modules if p.endswith(f".{layer}"))]


def outputs(net: cutaway.Network, text: str, layer: int) -> torch.Tensor:
    """What a layer gives to the stream, by a bare hook: [p d]."""
    seen: list[torch.Tensor] = []

    def keep(_m: Any, _args: Any, out: Any) -> None:
        seen.append(out[0] if isinstance(out, tuple) else out)

    handle = block(net, layer).register_forward_hook(keep)
    with torch.no_grad():
        net.model(net.encode(text).ids)
    handle.remove()
    return seen[0].reshape(-1, seen[0].shape[-1])


def pushed(net: cutaway.Network, layer: int, vector: torch.Tensor) -> Any:
    """A bare hook that adds a vector to what a layer gives."""

    def hook(_m: Any, _args: Any, out: Any) -> Any:
        return (out[0] + vector, *out[1:]) if isinstance(out, tuple) else out + vector

    return block(net, layer).register_forward_hook(hook)


def test_it_is_the_difference_of_means_by_hand(net: cutaway.Network, direction: SteeringVector) -> None:
    means = [torch.stack([outputs(net, text, 1)[-1] for text in texts]).mean(0) for texts in (HAPPY, SAD)]
    assert direction.vector == pytest.approx((means[0] - means[1]).numpy(), abs=1e-4)
    assert direction.norm == pytest.approx(float((means[0] - means[1]).norm()), rel=1e-4)
    assert (direction.norm_positive, direction.norm_negative) == pytest.approx(
        [float(m.norm()) for m in means], rel=1e-4
    )
    whole = cutaway.difference_of_means(net, HAPPY, SAD, at="resid_post.1", pos=None)
    means = [torch.stack([outputs(net, text, 1).mean(0) for text in texts]).mean(0) for texts in (HAPPY, SAD)]
    assert whole.vector == pytest.approx((means[0] - means[1]).numpy(), abs=1e-4)


def test_held_out_texts_are_put_along_the_direction_of_the_others(net: cutaway.Network) -> None:
    found = cutaway.difference_of_means(net, HAPPY[:2], SAD[:2], at="resid_post.1", folds=2)
    values = [[outputs(net, text, 1)[-1].double().numpy() for text in texts[:2]] for texts in (HAPPY, SAD)]
    for i in range(2):  # two folds of one pair each: a text is put along the other pair's difference
        along = values[0][1 - i] - values[1][1 - i]
        middle = (values[0][1 - i] + values[1][1 - i]) / 2
        assert found.positive[i] == pytest.approx((values[0][i] - middle) @ along / (along @ along), abs=1e-5)
        assert found.negative[i] == pytest.approx((values[1][i] - middle) @ along / (along @ along), abs=1e-5)


def test_separation_of_held_out_texts(net: cutaway.Network, direction: SteeringVector) -> None:
    told = direction.separation
    assert told is not None
    assert told.value > 0.9
    assert told.interval is not None
    same = [f"{name} was sad" for name in ("Lily", "Sue", "Tim", "Max", "Ella", "Jack")]
    other = [f"{name} was sad" for name in ("Kate", "Emma", "Peter", "Paul", "Jane", "Nora")]
    chance = cutaway.difference_of_means(net, same, other, at="resid_post.1", pos=-1).separation
    assert chance is not None
    assert chance.interval is not None
    assert 0.5 in chance.interval or chance.value < 0.5
    assert cutaway.difference_of_means(net, HAPPY[:1], SAD, at="resid_post.1").separation is None


@pytest.mark.parametrize("on", ["all", "prompt", "new"])
def test_losses_and_texts_are_those_of_hooks_by_hand(
    net: cutaway.Network, direction: SteeringVector, on: str
) -> None:
    found = cutaway.steer(net, PROMPTS, direction, strengths=[1.5], max_new_tokens=5, on=on)  # type: ignore[arg-type]
    assert found.strengths == (0.0, 1.5)
    vector = torch.from_numpy(direction.vector) * 1.5
    for n, prompt in enumerate(PROMPTS):
        ids = net.encode(prompt).ids
        start = ids.shape[1]
        with torch.no_grad():
            plain = net.model.generate(ids, max_new_tokens=5, do_sample=False)[0, start:].tolist()  # type: ignore[operator]
        assert found.unsteered[n] == net.decode(plain)
        whole = torch.tensor([[*ids[0].tolist(), *plain]])
        mask = torch.zeros(whole.shape[1], 1)
        mask[{"all": slice(None), "prompt": slice(0, start), "new": slice(start, None)}[on]] = 1.0
        handle = pushed(net, 1, mask * vector)
        with torch.no_grad():
            logits = net.model(whole).logits[0, start - 1 : -1]
        handle.remove()
        assert found.own[1, n] == pytest.approx(
            float(torch.nn.functional.cross_entropy(logits, whole[0, start:])), abs=1e-4
        )
        if on == "all":
            handle = pushed(net, 1, vector)
            with torch.no_grad():
                steered = net.model.generate(ids, max_new_tokens=5, do_sample=False)[0, start:].tolist()  # type: ignore[operator]
            handle.remove()
            assert found.texts[1][n] == net.decode(steered)
            with torch.no_grad():
                logits = net.model(torch.tensor([[*ids[0].tolist(), *steered]])).logits[0, start - 1 : -1]
            wanted = float(torch.nn.functional.cross_entropy(logits, torch.tensor(steered)))
            assert found.fluency[1, n] == pytest.approx(wanted, abs=1e-4)
    assert found.own[0] == pytest.approx(found.fluency[0])


def test_the_random_direction_is_as_long_and_seeded(net: cutaway.Network, direction: SteeringVector) -> None:
    drawn = direction.random(3)
    assert drawn.norm == pytest.approx(direction.norm, rel=1e-5)
    assert (drawn.vector == direction.random(3).vector).all()
    assert not np.allclose(drawn.vector, direction.random(4).vector)
    found = cutaway.steer(net, PROMPTS[:1], direction, strengths=[2.0], max_new_tokens=4, seed=3)
    alone = cutaway.steer(net, PROMPTS[:1], drawn, strengths=[2.0], max_new_tokens=4, control=False)
    assert found.random_texts == alone.texts
    assert found.random_own == pytest.approx(alone.own)
    assert alone.random_texts == ()
    assert set(found.to_pandas()["direction"]) == {"direction", "random"}


def test_a_direction_is_an_intervention(net: cutaway.Network, direction: SteeringVector) -> None:
    handle = pushed(net, 1, 2 * torch.from_numpy(direction.vector))
    with torch.no_grad():
        wanted = net.model(net.encode("Mary was").ids).logits
    handle.remove()
    assert torch.allclose(net.run("Mary was", edits=[direction.add(2.0)]).logits, wanted, atol=1e-4)  # type: ignore[arg-type]
    heads = cutaway.difference_of_means(net, HAPPY, SAD, at="z.1")
    assert heads.vector.ndim == 2
    assert net.run("Mary was", edits=[heads.add()]).logits is not None


def test_both_results_show_and_save(net: cutaway.Network, direction: SteeringVector, tmp_path: Path) -> None:
    found = cutaway.steer(net, PROMPTS, direction, strengths=(-1, 1), max_new_tokens=3)
    for result in (direction, found):
        result.save(tmp_path / result.kind)
        again = cutaway.load(tmp_path / result.kind)
        assert again.headline == result.headline
        assert result.page().sections
        assert result._repr_html_()
        assert result.to_dict()["kind"] == result.kind
    assert len(found.plot().data) == 4
    assert (cutaway.load(tmp_path / "direction").vector == direction.vector).all()


def test_bad_input(net: cutaway.Network, direction: SteeringVector) -> None:
    means = cutaway.difference_of_means
    swapped = [text.replace("was", "was not") for text in HAPPY]
    for positive, negative, more, said in (
        (HAPPY, [], {}, "no text"), (HAPPY, HAPPY, {}, "both sets"), (HAPPY, SAD, {"at": "resid_post"}, "names no layer"),
        (HAPPY, SAD, {"at": "resid*"}, "pattern"), (HAPPY, SAD, {"at": "pattern.1"}, "each token"),
        (HAPPY, "Mary", {}, "no set"),
        (HAPPY, SAD, {"folds": 1}, "held out"), (["Mary was happy"], ["Mary was sad"], {"pos": 0}, "is zero"),
    ):  # fmt: skip
        with pytest.raises(BadInput, match=said):
            means(net, positive, negative, **({"at": "resid_post.1"} | more))
    with pytest.raises(BadAddress):
        means(net, HAPPY, swapped, at="resid_post.1", pos=9)
    with pytest.raises(NotFound):
        means(net, HAPPY, SAD, at="resid_pst.1")
    zero = replace(direction, vector=0 * direction.vector)
    for wrong, said in (
        ({"direction": zero}, "is zero"), ({"strengths": []}, "no strengths"), ({"prompts": ""}, "empty"),
        ({"max_new_tokens": 0}, "generates nothing"), ({"prompts": []}, "no text"), ({"on": "never"}, "not known"),
    ):  # fmt: skip
        with pytest.raises(BadInput, match=said):
            cutaway.steer(net, **({"prompts": PROMPTS, "direction": direction, "max_new_tokens": 2} | wrong))


def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("happy.txt").write_text("\n".join(HAPPY))
    Path("sad.txt").write_text("\n".join(SAD))
    words = ["steer", "zoo:tales", "Mary was", "--tokens", "3", "--strengths=-1,1", "-o"]
    told = ["--positive", "happy.txt", "--negative", "sad.txt", "--at", "resid_post.1"]
    done = CliRunner().invoke(app, [*words, "out", *told])
    assert done.exit_code == 0, done.output
    first = cutaway.load("out")
    done = CliRunner().invoke(
        app, [*words, "again", "--direction", "out/direction", "--set", "control=false"]
    )
    assert done.exit_code == 0, done.output
    assert cutaway.load("again").texts == first.texts
    both = [*told, "--direction", "out/direction"]
    for wrong in ([], told[:4], both, [*told, "--strengths", "a"], [*told, "--set", "postion=1"]):
        assert CliRunner().invoke(app, [*words, "bad", *wrong]).exit_code == 2


def test_texts_that_were_looked_at_are_not_held_out() -> None:
    """Equal texts are in one fold: where all are equal, nothing is held out, however often they are given."""
    net = cutaway.open("zoo:tales")
    once = cutaway.difference_of_means(net, ["Mary was sad"], ["Tom was sad"], at="resid_post.1")
    often = cutaway.difference_of_means(net, ["Mary was sad"] * 5, ["Tom was sad"] * 5, at="resid_post.1")
    assert not len(once.positive)
    assert not len(often.positive)
    assert "Too few different texts" in str(often)

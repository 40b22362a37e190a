"""Image networks through the same verbs: a residual network's maps, a vision transformer's patches."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import ViTConfig, ViTForImageClassification

import cutaway
from cutaway.behaviours import ImagePairs
from cutaway.errors import BadBehaviour, BadInput, SiteUnavailable
from cutaway.explanations import SearchLimits, identify
from cutaway.explanations.grain import grain_of, operations
from cutaway.explanations.localise import DIRECTIONS
from cutaway.network.items import maps_of
from cutaway.network.listing import listing
from cutaway.network.parts import Part, parts_of
from cutaway.reports.render import render
from cutaway.results import Work


def module_of(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("resnet20", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def resnet(shared: Path) -> tuple[ModuleType, cutaway.Network, cutaway.Behaviour]:
    module = module_of(shared / "models" / "resnet20_cifar" / "model.py")
    data = np.load(shared / "data" / "cifar10" / "images.npz")
    images = module.normalised(torch.from_numpy(data["images"]).permute(0, 3, 1, 2).float() / 255)
    cats, dogs = (np.flatnonzero(data["labels"] == module.CLASSES.index(c)) for c in ("cat", "dog"))
    pairs = [(a, b, "cat", "dog") for a, b in zip(cats[:20], dogs[:20], strict=True)]
    pairs += [(b, a, "dog", "cat") for a, b in zip(cats[20:40], dogs[20:40], strict=True)]
    clean, corrupted, right, wrong = zip(*pairs, strict=True)
    net = cutaway.open(module.load(), example={"x": images[:2]})
    source = ImagePairs(
        images[list(clean)], images[list(corrupted)], right, wrong, module.CLASSES, "cat or dog"
    )
    return module, net, cutaway.behaviour(source, net, n=24)


def test_maps_and_channels_of_a_residual_network_are_patched_as_by_hand(
    resnet: tuple[ModuleType, cutaway.Network, cutaway.Behaviour],
) -> None:
    module, net, pairs = resnet
    by_map = cutaway.patch(net, pairs, at="map", by=["map"])
    assert by_map.dims == ("map",)
    assert len(by_map.mean) == 19
    assert float(by_map.sel(map="conv1").mean) == pytest.approx(1.0, abs=1e-5)
    few = pairs[:6]
    effects = cutaway.patch(net, few, at="map", by=["map", "channel"], direction="corrupt")
    model, items = module.load(), few.items
    assert items is not None
    with torch.no_grad():
        for path, channel in (("layer2.0.conv1", 5), ("layer3.2.conv2", 20), ("conv1", 15)):
            hand = by_hand(model, path, channel, items.clean, items.corrupted, few)
            assert float(effects.sel(map=path, channel=channel).mean) == pytest.approx(hand, abs=1e-5)
    assert not np.isfinite(effects.sel(map="conv1", channel=40).mean.values)  # there is no such channel


def by_hand(
    model: torch.nn.Module,
    path: str,
    channel: int,
    clean: Tensor,
    corrupted: Tensor,
    pairs: cutaway.Behaviour,
) -> float:
    """The mean effect of one channel's corrupted values in the clean run, by hooks in the bare model."""
    kept: dict[str, Tensor] = {}
    place = model.get_submodule(path)
    handle = place.register_forward_hook(lambda _m, _a, out: kept.update(value=out.clone()))
    low = metric(model(corrupted), pairs)
    handle.remove()
    high = metric(model(clean), pairs)

    def write(_m: object, _a: object, out: Tensor) -> Tensor:
        out = out.clone()
        out[:, channel] = kept["value"][:, channel]
        return out

    handle = place.register_forward_hook(write)
    edited = metric(model(clean), pairs)
    handle.remove()
    return float((edited - high).mean() / (high - low).mean())


def metric(logits: Tensor, pairs: cutaway.Behaviour) -> Tensor:
    rows = torch.arange(len(logits))
    return logits[rows, [r[0] for r in pairs.right]] - logits[rows, [w[0] for w in pairs.wrong]]


def test_parts_and_refusals_of_a_residual_network(
    resnet: tuple[ModuleType, cutaway.Network, cutaway.Behaviour],
) -> None:
    _, net, pairs = resnet
    parts = parts_of(net)
    assert len(parts) == 19
    assert Part.parse("[layer1.0.conv2]") in parts
    assert Part.parse("[layer1.0.conv2].c5").words == "channel 5 of layer1.0.conv2"
    channels = parts_of(net, channels=True)
    assert len(channels) == 688
    assert listing(channels).startswith("688 channels of 19 maps, most of them 64 of layer3.0.conv1")
    with pytest.raises(BadInput, match="at='map'"):
        cutaway.patch(net, pairs, at="resid_pre", by=["map"])
    with pytest.raises(SiteUnavailable, match="no maps"):
        cutaway.patch(cutaway.open("zoo:induction-gpt2"), "zoo:induction-gpt2", at="map", by=["map"])


@pytest.fixture(scope="module")
def seeing() -> tuple[cutaway.Network, cutaway.Behaviour]:
    """A vision transformer of two layers that tells on which side a bright square is, and pairs that ask it."""
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, image_size=16, patch_size=4,
        num_channels=1, num_labels=2,
    )  # fmt: skip
    model, generator = ViTForImageClassification(config), torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(150):
        images, sides = squares(64, generator)
        loss = torch.nn.functional.cross_entropy(model(pixel_values=images).logits, sides)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    net = cutaway.open(model.eval())
    images, sides = squares(400, generator)
    left, right = images[sides == 0], images[sides == 1]
    source = ImagePairs(
        torch.cat([left[:16], right[16:32]]), torch.cat([right[:16], left[16:32]]),
        ["left"] * 16 + ["right"] * 16, ["right"] * 16 + ["left"] * 16, ["left", "right"], "side",
    )  # fmt: skip
    return net, cutaway.behaviour(source, net, n=32)


def squares(n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Noise [n 1 16 16] with one bright square, and on which side it is [n]."""
    images = 0.3 * torch.randn(n, 1, 16, 16, generator=generator)
    sides = torch.randint(2, (n,), generator=generator)
    columns = torch.randint(2, (n,), generator=generator) + 2 * sides
    rows = torch.randint(4, (n,), generator=generator)
    for i in range(n):
        images[i, 0, 4 * rows[i] : 4 * rows[i] + 4, 4 * columns[i] : 4 * columns[i] + 4] += 2
    return images, sides


def test_patches_and_heads_of_a_vision_transformer(seeing: tuple[cutaway.Network, cutaway.Behaviour]) -> None:
    net, pairs = seeing
    stream = cutaway.patch(net, pairs, at="resid_pre", by=["layer", "position"])
    assert stream.data.sizes["position"] == 17
    assert [str(t) for t in stream.data["token"].values[:3]] == ["token 0", "patch 0,0", "patch 0,1"]
    heads = cutaway.patch(net, pairs, at="z", by=["layer", "head"])
    layer, head = 1, 2
    assert pairs.items is not None
    clean = net.run(pairs.items.clean, keep=["z"])
    low = net.run(pairs.items.corrupted)
    edited = net.run(pairs.items.corrupted, edits=cutaway.Patch("z", clean, layer=layer, head=head))
    ends = [metric(run.logits, pairs) for run in (clean, low, edited)]  # type: ignore[arg-type]
    hand = float((ends[2] - ends[1]).mean() / (ends[0] - ends[1]).mean())
    assert float(heads.sel(layer=layer, head=head).mean) == pytest.approx(hand, abs=1e-5)


class Maps(torch.nn.Module):
    """Three convolutions with a shortcut around the second; classes by the mean of the last map."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(1, 8, 3, 2, 1)
        self.second = torch.nn.Conv2d(8, 8, 3, 1, 1)
        self.third = torch.nn.Conv2d(8, 12, 3, 2, 1)
        self.classes = torch.nn.Linear(12 * 16, 2)

    def forward(self, image: Tensor) -> Tensor:
        first = self.first(image).relu()
        last = self.third((first + self.second(first)).relu()).relu()
        return self.classes(last.flatten(1))


@pytest.fixture(scope="module")
def convolving() -> tuple[cutaway.Network, cutaway.Behaviour]:
    """A convolutional network that tells on which side a bright square is, and pairs that ask it."""
    torch.manual_seed(0)
    model, generator = Maps(), torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(150):
        images, sides = squares(64, generator)
        loss = torch.nn.functional.cross_entropy(model(images), sides)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    images, sides = squares(400, generator)
    net = cutaway.open(model.eval(), example={"image": images[:2]})
    left, right = images[sides == 0], images[sides == 1]
    source = ImagePairs(
        torch.cat([left[:16], right[16:32]]), torch.cat([right[:16], left[16:32]]),
        ["left"] * 16 + ["right"] * 16, ["right"] * 16 + ["left"] * 16, ["left", "right"], "side",
    )  # fmt: skip
    return net, cutaway.behaviour(source, net, n=32)


def kept_by_hand(net: cutaway.Network, pairs: cutaway.Behaviour, members: Iterable[Part]) -> float:
    """The share that a set of channels keeps alone, by hooks in the bare model that write all others."""
    assert pairs.items is not None
    inside, corrupted, handles = set(members), {}, []
    model = net.model

    def keep(path: str) -> Callable[..., None]:
        return lambda _m, _a, out: corrupted.update({path: out.clone()})

    def write(path: str) -> Callable[..., Tensor]:
        def others(_m: object, _a: object, out: Tensor) -> Tensor:
            channels = range(out.shape[1])
            stays = torch.tensor([Part("channel", None, c, path) in inside for c in channels])
            return torch.where(stays[:, None, None], out, corrupted[path])

        return others

    ends = []
    for images, hook in (
        (pairs.items.corrupted, keep),
        (pairs.items.clean, write),
        (pairs.items.clean, None),
    ):
        if hook is not None:
            handles = [model.get_submodule(path).register_forward_hook(hook(path)) for path in maps_of(net)]
        with torch.no_grad():
            ends.append(float(metric(model(images), pairs).mean()))
        for handle in handles:
            handle.remove()
    nothing, kept, everything = ends
    return (kept - nothing) / (everything - nothing)


def test_channels_are_searched_where_there_is_no_stream(
    convolving: tuple[cutaway.Network, cutaway.Behaviour],
) -> None:
    net, pairs = convolving
    heard: list[str] = []
    explanation = cutaway.explain(net, pairs, work=Work(lambda progress: heard.append(progress.label)))
    assert any("28 channels of 3 maps were searched on all 16 discovery pairs" in label for label in heard)
    mechanism, trial = explanation.mechanism, explanation.trial
    assert mechanism is not None
    assert trial is not None
    assert mechanism.total == 28
    assert set(explanation.maps) == {f"{name}, {way}" for name in ("map", "channel") for way in DIRECTIONS}
    assert mechanism.kept == pytest.approx(kept_by_hand(net, pairs.discovery, mechanism.members), abs=1e-4)
    assert trial.kept.value == pytest.approx(kept_by_hand(net, pairs.held_out, mechanism.members), abs=1e-4)
    target = explanation.limits.target
    for member in mechanism.core:
        rest = [m for m in mechanism.core if m != member]
        assert abs(1 - kept_by_hand(net, pairs.discovery, rest)) > 1 - target - 1e-4
    rng, candidate = np.random.default_rng(0), mechanism.candidate(parts_of(net, channels=True))
    sizes = Counter(member.place for member in mechanism.members)
    alike = candidate.like_it(rng, 10)
    assert alike
    assert all(Counter(member.place for member in other.members) == sizes for other in alike)
    report = render(explanation.page())
    assert "Each of these maps alone" in report
    assert 'class="picture"' in report
    assert explanation.pairs[0].right in ("left", "right")
    assert "says 'left'" in explanation.pairs[0].clean_says + explanation.pairs[0].corrupted_says
    wired = dict(explanation.unexplained)["How the parts are wired."]
    assert wired.startswith("Which member reads which was not drawn edge by edge: Edges are told apart")
    assert explanation.to_pandas()["restore_mean"].notna().all()


def test_no_more_channels_are_swept_than_are_affordable(
    convolving: tuple[cutaway.Network, cutaway.Behaviour],
) -> None:
    net, pairs = convolving
    half = pairs.discovery
    each = 28 * operations(net, half)
    some = grain_of(net, half, SearchLimits(operations=10.5 * each))
    assert some.pairs.n == 10
    assert set(some.pairs.clean) <= set(half.clean)
    assert len(some.parts) == 28
    assert "10 of 16 discovery pairs" in some.words
    few = SearchLimits(operations=7.5 * each)
    assert [str(part) for part in grain_of(net, half, few).parts] == ["[first]", "[second]", "[third]"]
    explanation = cutaway.explain(net, pairs, limits=few, controls=False)
    assert explanation.mechanism is not None
    assert explanation.mechanism.total == 3
    assert "Whole maps were searched" in explanation.behaviour["searched"]
    assert explanation.to_pandas()["restore_mean"].notna().all()


def test_large_sets_are_searched_as_small_ones_are(
    convolving: tuple[cutaway.Network, cutaway.Behaviour], monkeypatch: pytest.MonkeyPatch
) -> None:
    net, pairs = convolving
    monkeypatch.setattr(identify, "_WEIGHED", 4)
    found = cutaway.explain(net, pairs, controls=False).mechanism
    assert found is not None
    assert abs(1 - kept_by_hand(net, pairs.discovery, found.core)) <= 0.15 + 1e-4
    for member in found.core:
        rest = [m for m in found.core if m != member]
        assert abs(1 - kept_by_hand(net, pairs.discovery, rest)) > 0.15 - 1e-4


def test_classes_are_named_by_the_configuration() -> None:
    config = ViTConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=4, intermediate_size=64, image_size=16, patch_size=4,
        num_channels=1, id2label={0: "cat", 1: "dog"},
    )  # fmt: skip
    net = cutaway.open(ViTForImageClassification(config).eval())
    images = torch.randn(8, 1, 16, 16)
    pairs = cutaway.behaviour(ImagePairs(images, images.flip(-1), [0] * 8, ["dog"] * 8), net, n=8, force=True)
    assert pairs.right_text == (("cat",),) * 8
    assert pairs.wrong_text == (("dog",),) * 8
    with pytest.raises(BadBehaviour, match="no class 'cow'"):
        cutaway.behaviour(ImagePairs(images, images.flip(-1), [0] * 8, ["cow"] * 8), net, force=True)


def test_explanations_of_image_networks(
    seeing: tuple[cutaway.Network, cutaway.Behaviour],
    resnet: tuple[ModuleType, cutaway.Network, cutaway.Behaviour],
    tmp_path: Path,
) -> None:
    maps_only = SearchLimits(operations=1e6)  # by channels it takes minutes
    for net, pairs in (seeing, resnet[1:]):
        explanation = cutaway.explain(net, pairs, limits=maps_only)
        assert explanation.complete
        assert explanation.verdict in ("supported", "inconclusive", "refuted")
        assert {c.name for c in explanation.claim.controls} == {
            "Sham edit",
            "Random weights",
            "Contrast beside random weights",
            "Shuffled answers",
        }
        assert explanation.trial is not None
        assert explanation.trial.kept.value > 0.7
        assert cutaway.load(explanation.save(tmp_path / net.name)).verdict == explanation.verdict


def test_bad_images_are_refused() -> None:
    good = torch.rand(4, 1, 8, 8)
    for source, error, said in (
        (ImagePairs(good, torch.rand(4, 1, 9, 9), [0] * 4, [1] * 4), BadBehaviour, "one size"),
        (ImagePairs(good, good + 1, [0] * 3, [1] * 4), BadBehaviour, "3 right"),
        (
            ImagePairs(good, good + 1, ["cat"] * 4, ["cow"] * 4, ["cat", "dog"]),
            BadBehaviour,
            "no class 'cow'",
        ),
        (ImagePairs(good, good, [0] * 4, [1] * 4), BadBehaviour, "equal"),
        (ImagePairs(good.long(), good.long(), [0] * 4, [1] * 4), BadInput, "floating-point"),
        (ImagePairs(good, torch.full_like(good, float("nan")), [0] * 4, [1] * 4), BadInput, "NaN"),
    ):
        with pytest.raises(error, match=said):
            source.behaviour()

"""A dictionary is bound where it fits, and refused with the reading that would fit, on dictionaries trained here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from itertools import islice

import pytest
import torch

import cutaway
from cutaway.errors import BadInput, NotFinite, SiteUnavailable
from cutaway.features.binding import Binding, bind
from cutaway.features.dictionaries import (
    Decoder,
    Dictionary,
    Encoder,
    JumpReLU,
    Place,
    ReLU,
    TopK,
)
from cutaway.features.readings import scaled
from cutaway.network import Network
from cutaway.recipes.tales.scenes import stories
from cutaway.reports import render

WIDTH, F = 128, 256


@cache
def net() -> Network:
    return cutaway.open("zoo:tales")


@cache
def texts(seed: int = 0) -> tuple[str, ...]:
    return tuple(story.text for story in islice(stories(f"binding {seed}"), 120))


@cache
def trained(reads: str, writes: str, how: str) -> Dictionary:
    """A dictionary by plain gradient descent: half a minute of Adam is enough for it to fit."""
    sites = list(dict.fromkeys([reads, writes]))
    run = net().run(list(texts(1)), keep=sites, logits=False)
    mask = run.tokens.mask.clone()
    mask[:, 0] = False
    rows, wanted = (run[s][mask].flatten(1) for s in (reads, writes))
    torch.manual_seed(0)
    d, out = rows.shape[1], wanted.shape[1]
    decoder = torch.nn.functional.normalize(torch.randn(F, out), dim=1).requires_grad_()
    encoder = (torch.randn(d, F) / d**0.5 if reads != writes else decoder.detach().T.clone()).requires_grad_()
    bias, centre = torch.zeros(F, requires_grad=True), wanted.mean(0).clone().requires_grad_()
    inner = centre if reads == writes else None
    optimiser = torch.optim.Adam([decoder, encoder, bias, centre], lr=3e-3)
    scale = float(rows.norm(dim=1).mean()) / d**0.5 if how == "scaled" else 1.0
    for step in range(400):
        at = torch.randint(len(rows), (256,), generator=torch.Generator().manual_seed(step))
        x = rows[at] / scale
        pre = (x - inner if inner is not None else x) @ encoder + bias
        latents = TopK(16)(pre)
        loss = (latents @ decoder + centre - wanted[at] / scale).square().sum(1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    places = Place("", reads, d), Place("", writes, out)
    made = Encoder(
        encoder.detach(), bias.detach(), TopK(16), None if inner is None else centre.detach().clone()
    )
    if how == "threshold":
        with torch.no_grad():
            level = TopK(16)(((rows - centre) if inner is not None else rows) @ encoder + bias)
            made = replace(
                made, activation=JumpReLU(torch.full((F,), float(level[level > 0].quantile(0.05))))
            )
    kind = "autoencoder" if reads == writes else "transcoder"
    result = Dictionary(
        kind, (made,), (Decoder(0, 0, decoder.detach()),), (centre.detach(),), ((places[0],),), (places[1],),
        said={"l0": 16.0},
    )  # type: ignore[arg-type]  # fmt: skip
    return scaled(result, 1 / scale) if how == "scaled" else result


CASES = [("resid_post.1", "resid_post.1", "topk"), ("resid_post.2", "resid_post.2", "threshold"),
         ("mlp_write.1", "mlp_write.1", "scaled"), ("z.2", "z.2", "topk"),
         ("mlp_in.2", "mlp_write.2", "topk"), ("mlp_normed.2", "mlp_write.2", "topk")]  # fmt: skip


@pytest.mark.parametrize(("meant", "said"), [("mlp_normed.2", "mlp_in.2"), ("mlp_in.2", "mlp_normed.2")])
def test_before_and_behind_the_gain_are_told_apart(meant: str, said: str) -> None:
    found = bind(
        net(), trained(meant, "mlp_write.2", "topk"), list(texts()), reads=said, writes="mlp_write.2"
    )
    assert found.claim.verdict == "refuted"
    assert found.better[0].reads == meant


@pytest.mark.parametrize(("reads", "writes", "how"), CASES)
def test_what_fits_is_bound(reads: str, writes: str, how: str) -> None:
    found = bind(net(), trained(reads, writes, how), list(texts()))
    assert found.claim.verdict == "supported", found.to_pandas()
    assert found.better == ()
    assert (found.reads, found.writes) == ((reads,), (writes,))
    assert found.stated.fvu.value < 0.6


def _moved(layers: int) -> Callable[[Dictionary], Dictionary]:
    def changed(made: Dictionary) -> Dictionary:
        def moved(place: Place) -> Place:
            name, _, layer = place.site.rpartition(".")
            return replace(place, site=f"{name}.{int(layer) + layers}")

        return replace(made, reads=((moved(made.reads[0][0]),),), writes=(moved(made.writes[0]),))

    return changed


def _encoder(**changes: object) -> Callable[[Dictionary], Dictionary]:
    return lambda made: replace(made, encoders=(replace(made.encoders[0], **changes),))  # type: ignore[arg-type]


def _threshold(made: Dictionary) -> Dictionary:
    level = made.encoders[0].activation.threshold  # type: ignore[attr-defined]
    return replace(made, encoders=(replace(made.encoders[0], activation=JumpReLU(level.log())),))


#: What may go wrong with a file, and words of the reading that mends it ("" where no other reading can).
CORRUPTIONS: dict[str, tuple[Callable[[Dictionary], Dictionary], str, tuple[str, str, str]]] = {
    "bias flag": (_encoder(centre=None), "taken from the rows first", CASES[0]),
    "log threshold": (_threshold, "logarithms", CASES[1]),
    "lost scale": (lambda made: scaled(made, float(trained_scale())), "", CASES[2]),
    "top-k as relu": (_encoder(activation=ReLU()), "only so many latents", CASES[0]),
    "layer off by one": (_moved(1), "resid_post.1", CASES[0]),
    "sublayer's output for z": (lambda made: _at(made, "attn_write.2"), "z.2", CASES[3]),
    "stream for what the sublayer reads": (lambda made: _reading(made, "resid_mid.2"), "mlp_in.2", CASES[4]),
}


def trained_scale() -> float:
    rows = net().run(list(texts(1)), keep=["mlp_write.1"], logits=False)["mlp_write.1"]
    return float(rows.flatten(0, 1).norm(dim=1).mean()) / WIDTH**0.5


def _at(made: Dictionary, site: str) -> Dictionary:
    place = Place("", site, WIDTH)
    return replace(made, reads=((place,),), writes=(place,))


def _reading(made: Dictionary, site: str) -> Dictionary:
    return replace(made, reads=((Place("", site, WIDTH),),))


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_what_was_misread_is_refused_or_named(name: str) -> None:
    corrupt, words, case = CORRUPTIONS[name]
    found = bind(net(), corrupt(trained(*case)), list(texts()))
    assert not found.claim.supported, found.to_pandas()
    named = [f"{fit.reading} {fit.reads}" for fit in (*found.better, *found.as_sparse, *found.alike)]
    assert not words or any(words in said for said in named[:3]), (named, found.to_pandas())


def test_a_dictionary_of_noise_explains_nothing_anywhere() -> None:
    torch.manual_seed(3)
    place = Place("", "resid_post.1", WIDTH)
    noise = Dictionary(
        "autoencoder", (Encoder(torch.randn(WIDTH, F), None, TopK(16)),), (Decoder(0, 0, torch.randn(F, WIDTH)),),
        (None,), ((place,),), (place,),
    )  # fmt: skip
    found = bind(net(), noise, list(texts()))
    assert found.claim.verdict == "refuted"


def test_it_comes_back_from_its_folder(tmp_path: object) -> None:
    found = bind(net(), trained(*CASES[0]), list(texts())[:20])
    again = Binding.load(found.save(tmp_path / "bound"))  # type: ignore[operator]
    assert again.to_pandas().equals(found.to_pandas())
    assert again.claim == found.claim
    assert "resid_post.1" in render(found.page())


def test_a_module_path_means_the_site_at_its_output() -> None:
    made = trained(*CASES[0])
    place = Place("layers.1", "", WIDTH)
    said = replace(made, reads=((place,),), writes=(place,))
    assert bind(net(), said, list(texts())[:20]).reads == ("resid_post.1",)


def test_what_cannot_be_measured_is_refused() -> None:
    made = trained(*CASES[0])
    with pytest.raises(BadInput, match="Several texts|one"):
        bind(net(), made, [texts()[0]])
    with pytest.raises(SiteUnavailable, match="which site of"):
        bind(net(), _at(made, ""), list(texts()))
    with pytest.raises(BadInput, match="numbers at mlp_act"):
        bind(net(), made, list(texts()), reads="mlp_act.1")
    broken = replace(made, biases=(torch.full((WIDTH,), float("nan")),))
    with pytest.raises(NotFinite, match="biases"):
        bind(net(), broken, list(texts()))

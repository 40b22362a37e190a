"""Two prompts of one's own in place of a behaviour."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import cutaway
from cutaway.behaviours import two_prompts
from cutaway.cli.main import app
from cutaway.errors import BadBehaviour, BadInput

MARY, TOM = "Mary was sad because", "Tom was sad because"
TWO: dict[str, Any] = {"clean": MARY, "corrupted": TOM, "answers": (" she", " he")}


@pytest.fixture(scope="module")
def tales() -> cutaway.Network:
    return cutaway.open("zoo:tales")


def test_a_cell_is_what_a_hook_on_the_bare_model_gives(tales: cutaway.Network) -> None:
    found = cutaway.patch(tales, **TWO)
    she, he = (tales.to_single_token(word) for word in (" she", " he"))
    rows = [tales.encode(text).ids for text in (MARY, TOM)]
    block = tales.modules[f"{next(p for p in tales.modules if p.endswith('.1'))}"]

    def run(ids: torch.Tensor, new: torch.Tensor | None = None) -> tuple[float, torch.Tensor]:
        seen = []

        def hook(_m: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            value = (args[0] if args else kwargs["hidden_states"]).clone()
            if new is not None:
                value[:, 1] = new[:, 1]
            seen.append(value)
            return ((value, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": value})

        handle = block.register_forward_pre_hook(hook, with_kwargs=True)
        with torch.no_grad():
            logits = tales.model(ids).logits[0, -1]
        handle.remove()
        return float(logits[she] - logits[he]), seen[0]

    clean, kept = run(rows[0])
    corrupted, _ = run(rows[1])
    patched, _ = run(rows[1], kept)
    assert float(found.mean.sel(layer=1, position=1)) == pytest.approx(
        (patched - corrupted) / (clean - corrupted), abs=1e-4
    )


def test_the_picture_names_both_tokens_where_they_differ(tales: cutaway.Network) -> None:
    found = cutaway.patch(tales, **TWO)
    assert found.data["token"].values.tolist()[1:3] == ["Mary / Tom", " was"]
    assert found.grid().columns[1] == "Mary / Tom"
    assert np.isnan(found.low.values).all()
    assert "Mary / Tom" in found._repr_html_()


def test_every_verb_of_effects_takes_them(tales: cutaway.Network) -> None:
    same = two_prompts(tales, *TWO.values())
    for verb in (
        cutaway.patch,
        cutaway.ablate,
        cutaway.attribution_patch,
        cutaway.path_patch,
        cutaway.pair_effects,
    ):
        given, made = verb(tales, **TWO), verb(tales, same)
        assert given.mean.values == pytest.approx(made.mean.values, nan_ok=True)
        assert given.provenance.behaviour_hash == same.hash
    assert cutaway.plan(tales, **TWO).cost.cells == 20


def test_several_pairs_and_token_ids(tales: cutaway.Network) -> None:
    lists: dict[str, Any] = {
        "clean": [MARY, "Anna was sad because"],
        "corrupted": [TOM, "Ben was sad because"],
    }
    pairs = two_prompts(tales, **lists, answers=(" she", " he"))
    assert (pairs.n, pairs.name) == (2, "she or he")
    each = two_prompts(tales, **lists, answers=[(" she", " he"), (" she", " he")])
    assert each.hash == pairs.hash
    ids = [tales.encode(text).row_ids(0) for text in (MARY, TOM)]
    answers = [tales.to_single_token(word) for word in (" she", " he")]
    assert two_prompts(tales, *ids, answers).clean_ids == two_prompts(tales, *TWO.values()).clean_ids
    assert two_prompts(tales, torch.tensor(ids[0]), torch.tensor(ids[1]), answers).right == ((answers[0],),)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"corrupted": MARY}, "are the same"),
        ({"answers": ("she", " he")}, "Did you mean ' she', with its space"),
        ({"answers": (" she", "he")}, "Did you mean ' he', with its space"),
        ({"answers": (" she", " she")}, "the same"),
        ({"answers": (" she",)}, "There is 1 answer"),
        ({"answers": (" she", " he", " it")}, "There are 3 answers"),
        ({"answers": " she"}, "Give the right and the wrong one"),
        ({"answers": (" she", "")}, "is empty"),
        ({"answers": (" shenanigans", " he")}, "is 6 tokens"),
        ({"answers": (10**9, 5)}, "no token"),
        ({"clean": ""}, "empty"),
        ({"clean": []}, "clean prompt"),
        ({"clean": [MARY, 3]}, "takes text or a list"),
        ({"clean": [MARY, MARY]}, "2 clean and 1 corrupted"),
        ({"answers": None}, "without answers"),
        ({"clean": None, "answers": None}, "without clean and answers"),
    ],
)  # fmt: skip
def test_bad_prompts_are_refused_with_a_remedy(
    tales: cutaway.Network, change: dict[str, Any], said: str
) -> None:
    with pytest.raises((BadBehaviour, BadInput), match=said):
        cutaway.patch(tales, **(TWO | change))


def test_neither_both_or_too_much(tales: cutaway.Network) -> None:
    with pytest.raises(BadInput, match="needs a behaviour, or two prompts"):
        cutaway.patch(tales)
    with pytest.raises(BadInput, match="a behaviour, and clean beside it"):
        cutaway.patch(tales, "pronoun", clean=MARY)
    for verb in (cutaway.explain, cutaway.trace):
        with pytest.raises(BadInput, match="takes a behaviour of many pairs"):
            verb(tales, **TWO)


def test_prompts_of_unequal_length(tales: cutaway.Network) -> None:
    longer: dict[str, Any] = TWO | {"corrupted": f"{TOM} of that"}
    with pytest.raises(BadBehaviour, match="5 clean and 7 corrupted.*by='layer'"):
        cutaway.patch(tales, **longer)
    found = cutaway.patch(tales, **longer, by="layer")
    assert "answer position only" in str(found.data.attrs["where"])


def test_a_word_without_its_space_is_recognised(tales: cutaway.Network) -> None:
    with pytest.raises(BadInput, match="Did you mean ' because', with its space"):
        tales.to_single_token("because")
    with pytest.raises(BadInput, match="Did you mean ' because', with its space"):
        cutaway.logit_attribution(tales, MARY, target="because")
    with pytest.raises(BadInput, match="tokens here") as told:
        tales.to_single_token(" shenanigans")
    assert "Did you mean" not in str(told.value)


def test_the_command_line(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    prompts = ["--clean", MARY, "--corrupted", TOM, "--answers", " she", " he"]
    for command, more in (
        ("patch", []),
        ("ablate", []),
        ("attribution", ["--at", "z", "--by", "layer,head"]),
        ("paths", []),
    ):
        done = CliRunner().invoke(app, [command, "zoo:tales", *prompts, *more, "-o", command])
        assert done.exit_code == 0, done.output
        assert cutaway.load(command).data.attrs["behaviour"] == "she or he"
    for words, said in (
        (["-b", "pronoun", *prompts], "given at once"), ([], "neither a behaviour nor two prompts"),
        (prompts[:4], "without answers"), ([*prompts[:4], "--answers", "she", " he"], "with its space"),
    ):  # fmt: skip
        done = CliRunner().invoke(app, ["patch", "zoo:tales", *words])
        assert done.exit_code == 2, done.output
        assert said in " ".join(done.stderr.split())

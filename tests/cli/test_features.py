"""`cutaway features`: what a file is, whether it belongs to a network, and the same in another format."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import cutaway
from cutaway import features
from cutaway.cli.main import app
from cutaway.features.dictionaries import Decoder, Dictionary, Encoder, ReLU
from cutaway.features.formats.places import hook_place

runner = CliRunner()
TEXTS = ["Mary was sad because she", "John and Mary saw a dog", "the dog saw Mary and the dog saw John"] * 4


def axes(layer: int, of: str = "resid_post") -> Dictionary:
    """A latent for each direction of each axis of the stream: it leaves nothing unexplained."""
    place = hook_place(f"blocks.{layer}.hook_{of}", 128)
    both = torch.cat([torch.eye(128), -torch.eye(128)])
    encoder, decoder = Encoder(both.T, torch.zeros(256), ReLU()), Decoder(0, 0, both)
    return Dictionary("autoencoder", (encoder,), (decoder,), (torch.zeros(128),), ((place,),), (place,))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS) + "\n")
    features.write(axes(2), tmp_path / "sae")
    return tmp_path


def test_what_fits_is_bound_and_saved_with_its_page(place: Path) -> None:
    words = ["features", "open", "zoo:tales", "sae", "--file", "texts.txt", "--out", "bound", "--json"]
    done = runner.invoke(app, words)
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said["claim"]["verdict"] == "supported"
    assert said["reads"] == ["resid_post.2"]
    assert (place / "bound" / "report.html").stat().st_size > 10_000


def test_what_does_not_fit_is_said_to(place: Path) -> None:
    made = axes(2)
    broken = replace(made, decoders=(Decoder(0, 0, made.decoders[0].weight.roll(3, 1)),))
    features.write(broken, place / "broken")
    done = runner.invoke(app, ["features", "open", "zoo:tales", "broken", "--file", "texts.txt"])
    assert done.exit_code == 0, done.output
    assert "refuted" in done.output


def test_a_dictionary_is_measured_beside_what_is_named(place: Path) -> None:
    features.write(axes(2), place / "other")
    words = ["features", "measure", "zoo:tales", "sae", "--file", "texts.txt", "--sibling", "again=sae",
             "--sibling", "other", "--beside", "that=other", "--tokens", "400", "--out", "measured", "--json"]  # fmt: skip
    done = runner.invoke(app, words)
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert [row["name"] for row in said["measured"]][3:] == ["that"]
    assert [row["sibling"] for row in said["stability"]] == ["again", "other"]
    assert (place / "measured" / "report.html").stat().st_size > 10_000
    for wrong, why in (
        (["--sibling", "x=sae", "--sibling", "x=other"], "one name"),
        (["--beside", "x=nowhere"], "nowhere"),
    ):
        refused = runner.invoke(
            app, ["features", "measure", "zoo:tales", "sae", "--file", "texts.txt", *wrong]
        )
        assert refused.exit_code == 2
        assert why in " ".join(refused.output.split())


def test_latents_are_indexed_and_labelled(place: Path) -> None:
    words = [
        "features",
        "index",
        "zoo:tales",
        "sae",
        "--file",
        "texts.txt",
        "--out",
        "index",
        "--json",
        "--half",
    ]
    done = runner.invoke(app, words)
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert (said["texts"], said["complete"], len(said["table"])) == (12, True, 256)
    assert (place / "index" / "report.html").stat().st_size > 10_000
    net = cutaway.open("zoo:tales")
    marks = {
        "upper": [[token[:1].isupper() for token in net.token_strings(net.tokens_of([t])[0])] for t in TEXTS]
    }
    (place / "marks.json").write_text(json.dumps(marks))
    words = [
        "features",
        "label",
        "zoo:tales",
        "index",
        "--of",
        "sae",
        "--n",
        "8",
        "--marks",
        "marks.json",
        "--json",
    ]
    done = runner.invoke(app, [*words, "--set", "clausal=2"])
    assert done.exit_code == 2
    done = runner.invoke(app, [*words, "--control", "index", "--out", "labels", "--set", "causal=2"])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert len(said["labels"]) == 8
    assert said["overlap"] == 0
    assert all(label["control_feature"] == label["feature"] for label in said["labels"])
    assert (place / "labels" / "report.html").exists()


def test_an_index_goes_on_where_it_was_stopped(place: Path) -> None:
    words = ["features", "index", "zoo:tales", "sae", "--file", "texts.txt"]
    assert runner.invoke(app, [*words, "--out", "index"]).exit_code == 0
    again = runner.invoke(app, [*words, "--resume", "index"])
    assert again.exit_code == 0, again.output
    (place / "more.txt").write_text("John was sad\n")
    other = runner.invoke(
        app, ["features", "index", "zoo:tales", "sae", "--file", "more.txt", "--resume", "index"]
    )
    assert other.exit_code == 2
    assert "other texts" in " ".join(other.output.split())


def test_formats_are_listed_with_those_that_are_written() -> None:
    done = runner.invoke(app, ["features", "formats", "--json"])
    rows = {row["name"]: row for row in json.loads(done.stdout)["formats"]}
    assert sum(not row["refused"] for row in rows.values()) >= 24
    assert sum(row["written"] for row in rows.values()) >= 7


def test_a_dictionary_is_written_in_another_format(place: Path) -> None:
    done = runner.invoke(app, ["features", "convert", "sae", "--to", "dictionary_learning", "--out", "other"])
    assert done.exit_code == 0, done.output
    rows = torch.randn(5, 128)
    assert torch.equal(features.read(place / "other").encode(rows), axes(2).encode(rows))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["open", "zoo:tales", "sae"], "no texts to measure on"),
        (["open", "zoo:tales", "nowhere", "--file", "texts.txt"], "nothing at"),
        (["open", "zoo:tales", "texts.txt", "--file", "texts.txt"], "no file of tensors"),
        (["open", "zoo:tales", "sae", "--file", "texts.txt", "--format", "saelense"], "no format"),
        (["open", "zoo:tales", "sae", "--file", "texts.txt", "--set", "k=3"], "says nothing"),
        (["open", "zoo:tales", "sae", "--file", "texts.txt", "--reads", "mlp_act.1"], "numbers at mlp_act.1"),
        (["open", "zoo:tales", "sae", "--file", "texts.txt", "--layer", "4"], "no source 4"),
        (["index", "zoo:tales", "sae"], "no texts to read"),
        (
            ["index", "zoo:tales", "sae", "--file", "texts.txt", "--reads", "mlp_act.1"],
            "do not fit an encoder",
        ),
        (["label", "zoo:tales", "sae"], "not a saved result"),
        (["label", "zoo:tales", "texts.txt"], "not a saved result"),
        (["dashboard", "zoo:tales", "sae"], "no texts to read"),
        (["dashboard", "zoo:tales", "neurons.77", "--file", "texts.txt"], "77"),
        (["dashboard", "zoo:tales", "sae", "--export", "delfi"], "Did you mean delphi"),
        (["dashboard", "zoo:tales", "sae", "--set", "quantile=3"], "Did you mean quantiles"),
        (["dashboard", "zoo:tales", "sae", "--out", "texts.txt"], "exists"),
        (["train", "zoo:tales"], "no texts to train on"),
        (["train", "zoo:tales", "--file", "texts.txt"], "No site is named"),
        (
            ["train", "zoo:tales", "--file", "texts.txt", "--at", "resid_post.2", "--tokens", "5x"],
            "no number of tokens",
        ),
        (
            ["train", "zoo:tales", "--file", "texts.txt", "--at", "resid_post.2", "--set", "sede=1"],
            "Did you mean seed",
        ),
        (["train", "zoo:tales", "--file", "texts.txt", "--at", "resid_post.2", "--out", "sae"], "exists"),
        (["train", "zoo:tales", "--file", "texts.txt", "--at", "resid_pots.2", "--out", "x"], "resid_post"),
        (["convert", "sae"], "Give --out"),
        (["convert", "sae", "--to", "temporal", "--out", "x"], "not written"),
        (["convert", "sae", "--out", "sae"], "exists"),
    ],
)
def test_what_is_asked_wrongly_is_told(place: Path, words: list[str], said: str) -> None:
    done = runner.invoke(app, ["features", *words])
    assert done.exit_code == 2, done.output
    assert said in " ".join(done.output.split())
    assert not (place / "x").exists()


TRAIN = [
    "features",
    "train",
    "zoo:tales",
    "--file",
    "texts.txt",
    "--at",
    "resid_post.2",
    "--latents",
    "64",
    "--k",
    "4",
]


def test_dictionaries_are_trained_saved_and_bound(place: Path) -> None:
    words = [
        *TRAIN,
        "--tokens",
        "0.4k",
        "--out",
        "made",
        "--set",
        "controls=frozen",
        "--set",
        "lr=0.003",
        "--json",
    ]
    done = runner.invoke(app, words)
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert [one["name"] for one in said["trained"]] == ["resid_post.2", "resid_post.2-frozen"]
    assert said["complete"]
    assert (place / "made" / "report.html").stat().st_size > 10_000
    made = features.read(place / "made" / "resid_post.2")
    assert made.reads[0][0].site == "resid_post.2"
    assert made.said["recipe"]["lr"] == 0.003
    again = runner.invoke(app, ["features", "open", "zoo:tales", "made/resid_post.2", "--file", "texts.txt"])
    assert again.exit_code == 0, again.output


def test_what_training_takes_is_said_and_nothing_is_trained(place: Path) -> None:
    done = runner.invoke(app, [*TRAIN, "--tokens", "400", "--plan", "--json"])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said["rows"] == 400
    assert len(said["dictionaries"]) == 3
    assert said["seconds"] > 0
    assert not (place / "cutaway-runs").exists()


def test_a_training_that_was_stopped_goes_on_with_resume(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cutaway.features.training.loop import Student
    from cutaway.results import Work

    works: list[Work] = []
    step, tell = Student.step, Work.step

    def told(work: Work, label: str, done: int, total: int) -> None:
        works.append(work)
        tell(work, label, done, total)

    def stopping(student: Student, *values: object) -> None:
        step(student, *values)  # type: ignore[arg-type]
        if student.steps == 3 and works:
            works[-1].stop()

    words = [*TRAIN, "--tokens", "600", "--set", "controls=none"]
    with monkeypatch.context() as patched:
        patched.setattr(Work, "step", told)
        patched.setattr(Student, "step", stopping)
        done = runner.invoke(app, [*words, "--out", "made"])
    assert done.exit_code == 130, done.output
    assert "--resume made" in " ".join(done.output.split())
    done = runner.invoke(app, [*words, "--resume", "made"])
    assert done.exit_code == 0, done.output
    done = runner.invoke(app, [*words, "--out", "whole"])
    files = [place / name / "resid_post.2" / "dictionary.safetensors" for name in ("made", "whole")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_all_features_are_put_on_one_page(place: Path) -> None:
    words = ["features", "index", "zoo:tales", "sae", "--file", "texts.txt", "--out", "index"]
    assert runner.invoke(app, words).exit_code == 0
    words = [
        "features",
        "dashboard",
        "zoo:tales",
        "index",
        "--of",
        "sae",
        "--out",
        "page.html",
        "--json",
    ]
    done = runner.invoke(app, [*words, "--set", "k=2"])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout)
    assert said["saved"] == ["page.html"]
    assert "have a label" in said["headline"]
    page = (place / "page.html").read_text(encoding="utf-8")
    assert '"raised"' in page
    assert "f2.255" in page


def test_neurons_and_exports_from_the_command_line(place: Path) -> None:
    words = ["features", "dashboard", "zoo:tales", "neurons.2", "--file", "texts.txt", "--labels", "none"]
    done = runner.invoke(app, [*words, "--out", "neurons.html"])
    assert done.exit_code == 0, done.output
    assert "n2.7" in (place / "neurons.html").read_text(encoding="utf-8")
    words = [
        "features",
        "dashboard",
        "zoo:tales",
        "sae",
        "--file",
        "texts.txt",
        "--labels",
        "none",
        "--export",
    ]
    for name, file in (("delphi", "resid_post.2/config.json"), ("neuronpedia", "batch-1.json")):
        done = runner.invoke(app, [*words, name, "--out", name])
        assert done.exit_code == 0, done.output
        assert (place / name / file).is_file()

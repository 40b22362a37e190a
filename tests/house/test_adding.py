"""One of each, added as docs/contributing.md says, in the places that it names and in no other."""

from __future__ import annotations

import sys
import types
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
import torch
from torch import Tensor

import cutaway
from cutaway import verbs
from cutaway.behaviours import METRICS, Answers, Metric
from cutaway.circuits import Scores
from cutaway.circuits import methods as circuit_methods
from cutaway.claims import Evidence
from cutaway.errors import BadFormat, UnknownOption
from cutaway.interventions import Ablate
from cutaway.network import listing, parts, sites
from cutaway.network.anatomy import Anatomy, PortTap
from cutaway.network.parts import Part
from cutaway.network.sites import SITES, Site, SiteKind
from cutaway.reports import Page, display, result_page
from cutaway.results import KINDS, Kind, Provenance, head, load, pack, read, save_folder, strict, unpack
from cutaway.sweeps import write_of
from cutaway.trials import Limits, claim_of
from cutaway.trials.candidate import Candidate


@pytest.fixture(scope="module")
def net() -> cutaway.Network:
    return cutaway.open("zoo:induction-gpt2")


@pytest.fixture(scope="module")
def pairs(net: cutaway.Network) -> cutaway.Behaviour:
    return cutaway.behaviour("zoo:induction-gpt2", net, n=12, force=True)


def test_a_site(net: cutaway.Network, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row in SITES and a tap in the anatomy: it parses, resolves, is kept, and can be edited."""
    monkeypatch.setitem(
        SITES, "doubled", SiteKind(("batch", "pos", "width"), True, "twice what the MLP gives")
    )
    monkeypatch.setattr(sites, "ORDER", {name: i for i, name in enumerate(SITES)}, raising=False)
    taps = dict(net.anatomy.taps)
    for layer in range(net.n_layers):
        tap = taps[Site("mlp_out", layer)]
        assert isinstance(tap, PortTap)
        taps[Site("doubled", layer)] = PortTap(tap.port, 2.0)
    anatomy = Anatomy(net.anatomy.stacks, taps, net.anatomy.refusals, net.anatomy.head, net.anatomy.in_place)
    other = net.with_anatomy(anatomy) if hasattr(net, "with_anatomy") else _with(net, anatomy)
    ids = torch.randint(1, net.d_vocab or 10, (2, 6), generator=torch.Generator().manual_seed(0))
    run = other.run(ids, keep=["doubled", "mlp_out"])
    assert torch.equal(run["doubled", 1], 2.0 * run["mlp_out", 1])
    with pytest.raises(cutaway.errors.NotFound, match="doubled"):
        other.run(ids, keep=["doubeld"])
    zero = other.run(ids, edits=Ablate("doubled", layer=1)).logits
    assert zero is not None
    assert torch.allclose(zero, net.run(ids, edits=Ablate("mlp_out", layer=1)).logits, atol=1e-6)  # type: ignore[arg-type]


def _with(net: cutaway.Network, anatomy: Anatomy) -> cutaway.Network:
    from cutaway.network.core import Core

    core = net.core
    return cutaway.Network(Core(core.model, net.tokenizer, anatomy, core.certificate, core.name, core.opened))


def test_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row in KINDS: it is printed, parsed, counted, ordered and replaced."""
    row = parts.PartKind("g", "gate {n}", "gates", "", "neuron", "mlp_pre", "mlp_write", "mlp_in", ("in",))
    monkeypatch.setattr(parts, "KINDS", parts.KINDS | {"gate": row})
    monkeypatch.setattr(listing, "KINDS", parts.KINDS)
    monkeypatch.setattr(parts, "_RANK", {kind: i for i, kind in enumerate(parts.KINDS)})
    gate = Part.parse("g2.17")
    assert (str(gate), gate.words, str(gate.inputs[0])) == ("g2.17", "gate 2.17", "g2.17")
    assert Part.parse("gate 2.17") == gate
    assert listing.count([gate, Part("gate", 2, 3)]) == "2 gates"
    assert sorted([Part("logits"), gate, Part("mlp", 0)])[1] == gate
    assert write_of(gate).where == Site("mlp_pre", 2)
    assert write_of(gate).neuron == 17
    with pytest.raises(BadFormat):
        Part.parse("g2")


def test_a_metric(net: cutaway.Network, pairs: cutaway.Behaviour, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row in METRICS: it measures behaviours by its name everywhere."""

    def best(logits: Tensor, answers: Answers) -> Tensor:
        return logits.gather(1, answers.right[:, :1]).squeeze(1)

    template = METRICS["logit_diff"]
    fields = (
        {"name": "right_logit", "function": best}
        if hasattr(template, "function")
        else {"name": "right_logit"}
    )
    row: Metric = replace(template, **fields)
    function = next(name for name, value in vars(template).items() if callable(value))
    row = replace(row, **{function: best})
    monkeypatch.setitem(METRICS, "right_logit", row)
    measured = pairs.with_metric("right_logit")
    effects = cutaway.patch(net, measured, at="z", by=("layer", "head"))
    assert effects.data.attrs["metric"] == "right_logit"
    assert np.isfinite(effects.mean.values).all()


def test_a_method(net: cutaway.Network, pairs: cutaway.Behaviour, monkeypatch: pytest.MonkeyPatch) -> None:
    """A function with its options and a row in METHODS: `trace` runs it and refuses options that it does not have."""
    module = types.ModuleType("cutaway.circuits.methods.constant_scores")

    @dataclass(frozen=True)
    class ConstantOptions(circuit_methods.MethodOptions):
        size: float = 1.0

    def constant(net: Any, behaviour: Any, options: ConstantOptions, work: Any = None) -> Scores:
        scores = circuit_methods.score(net, behaviour, method="random")
        return replace(
            scores, values=np.full_like(scores.values, options.size), method="constant", examples=None
        )

    module.ConstantOptions, module.constant = ConstantOptions, constant  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    row = circuit_methods.MethodRow(
        "constant_scores", "constant", "ConstantOptions", "edge", "the same everywhere", "nobody"
    )
    monkeypatch.setitem(circuit_methods.METHODS, "constant", row)
    circuit = cutaway.trace(net, pairs, method="constant", edges=5, size=2.0)
    assert circuit.scores is not None
    assert float(circuit.scores.values.max()) == 2.0
    with pytest.raises(UnknownOption, match="sise.*size"):
        cutaway.trace(net, pairs, method="constant", edges=5, sise=2.0)


@dataclass(frozen=True, eq=False)
class Loudness:
    """The length of the stream, layer by layer: a result as docs/contributing.md describes it."""

    kind: ClassVar[str] = "loudness"
    layers: tuple[int, ...]
    length: np.ndarray
    provenance: Provenance

    def to_dict(self) -> dict[str, Any]:
        return {
            "layers": list(self.layers),
            "length": self.length.tolist(),
            "provenance": self.provenance.to_dict(),
        }

    def to_pandas(self) -> pd.DataFrame:
        return pd.DataFrame({"layer": self.layers, "length": self.length})

    def plot(self) -> go.Figure:
        return go.Figure(go.Bar(x=self.layers, y=self.length))

    def page(self) -> Page:
        return result_page("Loudness", "Cutaway · loudness", "How long the stream is", [], self.provenance)

    def save(self, path: Any) -> Path:
        plain, tensors = pack(self)
        return save_folder(path, head(self.kind, self.provenance, fields=plain), tensors)

    @classmethod
    def load(cls, path: Any) -> Loudness:
        saved, _ = read(path, cls.kind)
        return unpack(cls, saved.manifest["fields"], saved.tensors)

    def _repr_html_(self) -> str:
        return display("How long the stream is", table=self.to_pandas(), provenance=self.provenance)


@strict
def loudness(net: Any, text: Any, *, layers: int = 2, seed: int = 0, work: Any = None) -> Loudness:
    """How long the stream is.

    Args:
        layers: how many layers are measured.
    """
    run = net.run(text, keep=["resid_post"], logits=False)
    lengths = np.array([float(run["resid_post", i].norm()) for i in range(layers)])
    return Loudness(tuple(range(layers)), lengths, Provenance.of(net, seed=seed))


def test_a_result(net: cutaway.Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The class and a row in KINDS: it saves, loads by `cutaway.load`, and shows itself."""
    monkeypatch.setattr(Kind, "find", lambda kind: Loudness if kind.where.endswith(":Loudness") else None)
    monkeypatch.setitem(KINDS, "loudness", Kind("tests:Loudness", "lengths of the stream"))
    result = loudness(net, [[1, 2, 3]])
    again = load(result.save(tmp_path / "result"))
    assert again.to_dict() == result.to_dict()
    assert np.array_equal(again.length, result.length)
    assert "How long" in again._repr_html_()
    assert "http" not in again._repr_html_()


def test_a_verb(net: cutaway.Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The function and a row in VERBS: the command is made from it, with its keyword, its help and its refusals."""
    import typer
    from typer.testing import CliRunner

    from cutaway.cli import commands
    from cutaway.cli.common import Group

    row = verbs.Verb(
        "loudness",
        "tests:loudness",
        "How long the stream is.",
        ("net", "text"),
        "loudness",
        ("layers",),
        command="loudness",
    )
    told = (
        verbs.Parameter("net", "Any", verbs.REQUIRED, ""),
        verbs.Parameter("text", "Any", verbs.REQUIRED, ""),
        verbs.Parameter("layers", "int", 2, "how many layers are measured."),
        verbs.Parameter("seed", "int", 0, ""),
        verbs.Parameter("work", "Any", None, ""),
    )
    known = verbs.signature
    monkeypatch.setattr(verbs, "signature", lambda where: told if where == "tests:loudness" else known(where))
    monkeypatch.setattr(verbs.Verb, "find", lambda verb: loudness)
    monkeypatch.setattr(commands, "VERBS", {"loudness": row})
    monkeypatch.setitem(KINDS, "loudness", Kind("tests:Loudness", "lengths of the stream"))
    monkeypatch.chdir(tmp_path)
    app = typer.Typer(cls=Group, pretty_exceptions_enable=False)
    app.callback()(lambda: None)
    commands.register(app)
    runner = CliRunner()
    assert "How many layers are measured" in " ".join(
        runner.invoke(app, ["loudness", "--help"]).stdout.split()
    )
    done = runner.invoke(app, ["loudness", "zoo:tales", "Mary was sad", "--layers", "3", "--out", "here"])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "here" / "report.html").is_file()
    wrong = runner.invoke(app, ["loudness", "zoo:tales", "Mary was sad", "--set", "layrs=3"])
    assert wrong.exit_code == 2
    assert "layers" in wrong.stderr


def test_an_audit(net: cutaway.Network) -> None:
    """A candidate and a claim made by the one judge."""

    @dataclass(frozen=True)
    class Suspect:
        size: int = 1
        total: int = 4
        words: str = "a direction that ought not to be there"

        def keep(self, bench: Any, alike: Any = ()) -> np.ndarray:
            return np.zeros((1 + len(alike), 3))

        def remove(self, bench: Any, alike: Any = ()) -> np.ndarray:
            return np.ones((1 + len(alike), 3))

        def like_it(self, rng: np.random.Generator, count: int) -> list[Suspect]:
            return [Suspect() for _ in range(count)]

    suspect: Candidate = Suspect()
    limits = Limits()
    share = float(suspect.remove(None).mean())
    claim = claim_of(
        f"{net.name} hides {suspect.words}.",
        [Evidence("Removed", value=share, threshold=limits.left, passed=share > limits.left)],
        caps=["Only three prompts were tried."],
    )
    assert claim.verdict == "inconclusive"
    assert "Only three prompts were tried." in claim.notes

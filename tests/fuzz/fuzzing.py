"""Random calls, files and results: whatever comes, the outcome is an answer or a `CutawayError`, within 20 seconds.

Every trial is made from its own number, so that one that went wrong can be made again alone.
"""

from __future__ import annotations

import json
import math
import random
import shutil
import signal
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pandas as pd
import torch
from transformers import GPT2Config, GPT2LMHeadModel

import cutaway
from cutaway.algorithms import AlgorithmLimits
from cutaway.algorithms.proposing import ProposalLimits
from cutaway.behaviours import formats
from cutaway.behaviours.cases import cases
from cutaway.behaviours.data import Behaviour
from cutaway.circuits.limits import CircuitLimits
from cutaway.errors import CutawayError
from cutaway.explanations.limits import SearchLimits
from cutaway.features.dictionaries import Decoder, Dictionary, Encoder, Place, ReLU
from cutaway.features.sets import latents
from cutaway.network import Network
from cutaway.probes import ProbeOptions
from cutaway.recipes.words import word_tokenizer
from cutaway.results import KINDS
from cutaway.stream.lenses import LogitLens
from cutaway.verbs import VERBS, Verb

#: No outcome may take longer.
SECONDS = 20
WORDS = ["BOS", *"a b c d e f g h the of saw met was is one two left right yes no Ann Bob Eve . ->".split()]


#: Nothing is asked of a hub, which answers late or not at all.
_OFFLINE = mock.patch("huggingface_hub.constants.HF_HUB_OFFLINE", new=True)


class TooSlow(BaseException):
    """It ran past its time."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise `TooSlow` in what is inside after so many seconds."""

    def stop(*_: Any) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@dataclass
class Tally:
    """What came of the trials.

    Attributes:
        answers, refused: how many ended so.
        wrong: what else came, by where it came from: how often, the first trial's number and what was tried.
    """

    answers: int = 0
    refused: int = 0
    wrong: dict[str, tuple[int, int, str]] = field(default_factory=dict)
    slowest: tuple[float, str] = (0.0, "")

    def add(self, number: int, what: str, work: Callable[[], Any]) -> None:
        """Try it."""
        import time

        began = time.perf_counter()
        try:
            with warnings.catch_warnings(), _OFFLINE, limited(SECONDS):
                warnings.simplefilter("ignore")
                work()
            self.answers += 1
        except CutawayError:
            self.refused += 1
        except (Exception, TooSlow) as error:
            frames = [f for f in traceback.extract_tb(error.__traceback__) if "/cutaway/" in f.filename]
            at = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "outside"
            key = f"{type(error).__name__} at {at}: {str(error)[:100]}"
            count, first, tried = self.wrong.get(key, (0, number, what))
            self.wrong[key] = (count + 1, first, tried)
        took = time.perf_counter() - began
        self.slowest = max(self.slowest, (took, what))

    def __str__(self) -> str:
        lines = [
            f"{self.answers} answers, {self.refused} refused, {sum(c for c, _, _ in self.wrong.values())} wrong"
        ]
        lines.append(f"slowest {self.slowest[0]:.1f} s: {self.slowest[1][:200]}")
        for key, (count, first, tried) in sorted(self.wrong.items(), key=lambda row: -row[1][0]):
            lines.append(f"  {count} x {key}\n      trial {first}: {tried[:300]}")
        return "\n".join(lines)


# ---------------------------------------------------------------------------------------------------------------- beds


def network() -> Network:
    """Two layers of width 16 that know 21 words."""
    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=2, n_embd=16, n_head=2, vocab_size=len(WORDS), n_positions=16, bos_token_id=0, eos_token_id=0
    )
    return cutaway.open(GPT2LMHeadModel(config).eval(), word_tokenizer(WORDS))


def rows(n: int = 12) -> list[dict[str, Any]]:
    """Rows of contrast pairs in words of that network."""
    rng = random.Random(0)
    out = []
    for i in range(n):
        x, y = rng.sample("a b c d e f g h".split(), 2)
        frame = ["the", "one", "two", "left"][i % 4]
        out.append({
            "clean": f"{frame} {x} saw {y} of", "corrupted": f"{frame} {y} saw {x} of", "right": f" {x}",
            "wrong": [f" {y}"], "template": frame, "spans": {"first": x}, "answer_pos": -1,
        })  # fmt: skip
    return out


@dataclass(frozen=True)
class Bed:
    """What calls are made with."""

    net: Network
    pairs: Behaviour
    data: Any
    lens: Any
    circuit: Any
    probing: Any
    index: Any
    folder: Path

    @classmethod
    def of(cls, folder: Path) -> Bed:
        """Small ones of each."""
        net = network()
        pairs = cutaway.behaviour(pd.DataFrame(rows()).drop(columns="spans"), net, force=True)
        labelled = [
            (f"{x} {m} {y}", "yes" if x < y else "no")
            for x in "abcdef"
            for y in "abcdef"
            for m in ("saw", "met")
        ]
        data = cutaway.probe_data(labelled)
        circuit = cutaway.trace(net, pairs, method="eap", edges=10, force=True)
        options = ProbeOptions(permutations=20, untrained=False, n_boot=20, folds=2)
        probing = cutaway.probe(net, data, at="resid_post", options=options)
        index = cutaway.index_features(net, latents(net, dictionary()), pairs.clean_ids)
        return cls(net, pairs, data, LogitLens.of(net), circuit, probing, index, folder)

    @cached_property
    def table(self) -> Any:
        """What parts carry of the variables of `known`."""
        return cutaway.carried(self.net, known(self.net), n=6, force=True, controls=False)

    def right(self, verb: Verb) -> dict[str, Any]:
        """A call of the verb that works and is quick."""
        text = "the a saw b"
        options = ProbeOptions(permutations=20, untrained=False, n_boot=20, folds=2)
        given: dict[str, Any] = {
            "net": self.net, "behaviour": self.pairs, "text": text, "data": self.data, "lens": self.lens,
            "circuit": self.circuit, "probing": self.probing, "model": self.net.model, "tokenizer": self.net.tokenizer,
            "interventions": [cutaway.Ablate("z.0")], "path": self.folder / "effects",
            "other": "b saw the a", "texts": ["the a saw b", "b saw a", "the b"],
            "dictionary": dictionary(), "features": latents(self.net, dictionary()), "index": self.index,
            "algorithm": cutaway.algorithm("first", named=lambda x: x, answer=lambda named: f" {named}"),
            "where": {"named": "a0.h0@last"},
            "cases": known(self.net),
        }  # fmt: skip
        proposal = ProposalLimits(rivals=2, tried=12, telling=4, places=3)
        if "carried" in verb.takes:
            given["carried"] = self.table
        more: dict[str, dict[str, Any]] = {
            "behaviour": {"source": pd.DataFrame(rows()).drop(columns="spans"), "force": True},
            "trace": {"method": "eap", "edges": 10, "force": True},
            "test": {"limits": CircuitLimits(random=4, subsets=1, edges=3, bootstrap=2), "controls": False},
            "explain": {"limits": SearchLimits(random=4), "controls": False, "force": True},
            "logit_attribution": {"target": " a"}, "expand_paths": {"target": " a"},
            "probe_data": {"source": [("a saw b", 1), ("b saw a", 0)]}, "probe": {"options": options},
            "use": {"answers": {"yes": " yes", "no": " no"}},
            "top_examples": {"of": "n0.1", "k": 2}, "activations": {"at": "resid_post.0", "folder": self.folder / "acts"},
            "index_features": {"folder": self.folder / "index"}, "label_features": {"features": 3},
            "train_dictionaries": {"at": "resid_post.0", "latents": 32, "k": 2, "controls": (), "tokens": 12},
            "plan_training": {"at": "resid_post.0", "latents": 32, "k": 2, "controls": (), "tokens": 12},
            "test_algorithm": {"n": 12, "limits": AlgorithmLimits(control=4, sham=1)},
            "induction_heads": {"n": 12, "length": 5, "random_sets": 1},
            "feature_effects": {"n": 2, "random": 2}, "carried": {"n": 6, "force": True, "controls": False},
            "passing": {"carried": None, "places": ["a0.h0@x", "m1@last"], "n": 6, "force": True, "controls": False},
            "backups": {"n": 6, "force": True, "controls": False},
            "shared_parts": {"one": self.pairs, "other": self.pairs, "n": 6, "force": True, "controls": False},
            "roles": {"n": 6, "controls": False},
            "computation": {"n": 6, "controls": False, "force": True, "depth": "what", "parts": ["a0.h0", "m1"]},
            "propose_algorithm": {"n": 12, "controls": False, "limits": proposal},
            "input_attribution": {"question": known(self.net), "n": 3, "steps": 2, "controls": False},
            "intended": {
                "intended": cutaway.algorithm("first", named=lambda x: x, answer=lambda named: f" {named}"),
                "feared": [cutaway.algorithm("second", named=lambda y: y, answer=lambda named: f" {named}")],
                "n": 8, "controls": False,
            },
        }  # fmt: skip
        return {name: given[name] for name in verb.takes if name in given} | more.get(verb.name, {})


def known(net: Network) -> Any:
    """Prompts of that network whose variables are known."""
    words = list("abcdefgh")
    return cases(
        net, "the {x} saw {y} of", {"x": words, "y": words}, lambda x: f" {x}", differ=("x", "y"), n=40
    )


def dictionary() -> Dictionary:
    """Latents of the first layer's stream that mean nothing."""
    place = Place("", "resid_post.0", 16)
    encoder, decoder = Encoder(torch.eye(16), None, ReLU()), Decoder(0, 0, torch.eye(16))
    return Dictionary("autoencoder", (encoder,), (decoder,), (None,), ((place,),), (place,))


# --------------------------------------------------------------------------------------------------------------- calls

ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, 3, 99, 10**12, -(10**30), 2**63, 0.5, -0.5, 1.5, math.nan, math.inf, -math.inf, 1e300,
    "", " ", "a", "z", "resid_post", "resid_pots", "resid_pre.0", "z.7", "z.-1", "head", "layer", "position", "clean",
    "heads", "corrupt", "restore", "mean", "zero", "eap", "a0.h1", "a0.h99", "m0", "m9<q>", "é\u2028\0", "x" * 5000,
    b"a", 1j, [], [0], [0, 1], [99], [-1], [0.5], ["a"], [None], [[0]], [[[]]], (), (1,), ("layer",), ("layer", "layer"),
    {}, {"a": 1}, {"layer": 0}, {1: {2: {3: 4}}}, set(), frozenset({1}), range(0), range(3), object(), int, len,
    Exception("x"), Path("/nowhere"),
    np.int64(1), np.float64(0.3), np.bool_(True), np.array([0, 1]), np.array([True, False]), np.array(3), np.zeros((2, 0)),
    np.array(["a"], dtype=object), torch.tensor([1]), torch.zeros(2, 3), torch.tensor(float("nan")), pd.DataFrame(),
    pd.DataFrame({"clean": [1]}), iter([1]), slice(0, 1), ...,
)  # fmt: skip


def _misspelt(name: str, draw: random.Random) -> str:
    at = draw.randrange(len(name))
    return draw.choice([name[:at] + name[at + 1 :], name + "s", name[:at] + "x" + name[at:], name.upper()])


def _nested(value: Any, draw: random.Random) -> Any:
    return draw.choice(
        [[value], (value, value), {"a": value}, [[value]], {value} if _hashable(value) else [value]]
    )


def _hashable(value: Any) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def call(bed: Bed, number: int) -> tuple[str, Callable[[], Any]]:
    """A random call of a random verb: what it is, in words, and the call."""
    draw = random.Random(number)
    verb = draw.choice(list(VERBS.values()))
    given = bed.right(verb)
    names = [p.name for p in verb.parameters() if not p.name.startswith("**")]
    changed = {}
    for _ in range(draw.choice((0, 1, 1, 1, 2, 3))):
        kind = draw.random()
        if kind < 0.15 and names:
            changed[_misspelt(draw.choice(names), draw)] = draw.choice(ODD)
        elif kind < 0.4 and given:
            changed[draw.choice(list(given))] = draw.choice(ODD)
        elif kind < 0.5 and given:
            name = draw.choice(list(given))
            changed[name] = _nested(given[name], draw)
        elif names:
            value = draw.choice(ODD)
            changed[draw.choice([*names, "seed"])] = _nested(value, draw) if draw.random() < 0.15 else value
    options = given | changed
    if draw.random() < 0.05 and options:
        del options[draw.choice(list(options))]
    for name in ("folder", "model", "path", "source"):  # nothing is fetched, and nothing written elsewhere
        if (
            name in options
            and isinstance(changed.get(name), str | Path)
            and not str(options[name]).startswith("zoo:")
        ):
            options[name] = f"{bed.folder}/odd/{str(options[name]).lstrip('/')}"
    what = f"{verb.name}({', '.join(f'{k}={_said(v)}' for k, v in changed.items())})"
    return what, lambda: verb.find()(**options)


def _said(value: Any) -> str:
    try:
        return repr(value)[:80]
    except Exception:
        return type(value).__name__


# --------------------------------------------------------------------------------------------------------------- files


def files(bed: Bed) -> dict[str, bytes]:
    """A good file of each of the six formats, by name."""
    place = bed.folder / "good"
    place.mkdir(exist_ok=True)
    out: dict[str, bytes] = {}
    for ending in (".jsonl", ".csv", ".json"):
        out[f"ours{ending}"] = formats.write(bed.pairs, place / f"ours{ending}").read_bytes()
    pairs = [{"clean_prefix": r["clean"], "patch_prefix": r["corrupted"], "clean_answer": r["right"],
              "patch_answer": r["wrong"][0], "case": r["template"]} for r in rows()]  # fmt: skip
    relation = {"name": "near", "prompt_templates": ["the {} saw", "one {} met"],
                "samples": [{"subject": x, "object": y} for x, y in zip("abcdef", "bcdefa", strict=True)]}  # fmt: skip
    known = [{"subject": x, "attribute": y, "prompt": f"the {x} saw", "relation_id": "P1"}
             for x, y in zip("abcdef", "bcdefa", strict=True)]  # fmt: skip
    shots = [
        {"input": x, "output": y}
        for x, y in zip([*"abcdefgh", *WORDS[9:21]], [*"bcdefgha", *WORDS[10:21], "the"], strict=True)
    ]
    names = [
        {"prompt": "Ann met Bob . Ann saw", "answer": "Bob"},
        {"prompt": "Eve met Bob . Bob saw", "answer": "Eve"},
    ]
    out["rows.jsonl"] = "\n".join(map(json.dumps, rows())).encode()
    out["pairs.jsonl"] = "\n".join(map(json.dumps, pairs)).encode()
    for name, data in (("relation", relation), ("known", known), ("shots", shots), ("names", names)):
        out[f"{name}.json"] = json.dumps(data, indent=1).encode()
    return out


_BITS = (
    b"\x00", b"\xff\xfe", b"\xc3", "\u2028".encode(), "\u2029".encode(), "\u0085".encode(), b'"', b"{", b"}", b"[", b"]",
    b",", b"\n", b"\r", b"NaN", b"-Infinity", b"1e999", b"9" * 400, b"-1", b"99", b"null", b"true", b"{}", b"[]",
    b'""', b"[[1]]",
    b"{" * 3000, b"[" * 100_000, b'"\\ud800"', b'{"a": 1}', b"|", b"span:x", b"\xef\xbb\xbf",
)  # fmt: skip


def mutated(content: bytes, draw: random.Random) -> bytes:
    """Bytes with something wrong: bits flipped, cut off, doubled, or odd pieces put in, also as values of JSON."""
    data = bytearray(content)
    for _ in range(draw.choice((1, 1, 2, 4))):
        at, kind = draw.randrange(max(1, len(data))), draw.randrange(6)
        if kind == 0 and data:
            data[at] ^= 1 << draw.randrange(8)
        elif kind == 1:
            del data[at:]
        elif kind == 2:
            data[at:at] = draw.choice(_BITS)
        elif kind == 3:
            end = min(len(data), at + draw.randrange(1, 40))
            data[at:end] = draw.choice((b"", draw.choice(_BITS), bytes(data[at:end]) * 2))
        else:
            text = bytes(data).decode("utf-8", "replace")
            data = bytearray(_revalued(text, draw).encode("utf-8", "surrogatepass"))
    return bytes(data)


_VALUES: tuple[Any, ...] = (
    None, True, -1, 0, 3, 99, 10**400, 1.5, math.nan, math.inf, "", "a", "\u2028", "\ud800", "zz", [], [1], ["a"], [[]],
    {}, {"a": 1}, [-1], [10**30], ["a", 2], {"x": [5, 1]}, {"x": ["a", 9]}, {"x": None},
)  # fmt: skip


def _revalued(text: str, draw: random.Random) -> str:
    """JSON (or the first line of it that can be read) with one value exchanged, one key gone, or one added."""
    lines = [text] if text.lstrip()[:1] in "[{" and text.count("\n{") == 0 else text.split("\n")
    at = draw.randrange(len(lines))
    try:
        value = json.loads(lines[at])
        _exchange(value, draw)
        lines[at] = json.dumps(value, ensure_ascii=draw.random() < 0.5)
    except (ValueError, RecursionError):
        pass
    return "\n".join(lines)


def _exchange(value: Any, draw: random.Random, depth: int = 0) -> None:
    if not isinstance(value, dict | list) or not value:
        return
    keys: list[Any] = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = draw.choice(keys)
    if isinstance(value[key], dict | list) and value[key] and draw.random() < 0.7 and depth < 6:
        _exchange(value[key], draw, depth + 1)
    elif draw.random() < 0.2:
        del value[key]
    elif draw.random() < 0.1 and isinstance(value, dict):
        value[draw.choice(["held", "clean_ids", "token_spans", "answer_pos", "spans", "xx"])] = draw.choice(
            _VALUES
        )
    else:
        value[key] = draw.choice(_VALUES)


def file(bed: Bed, good: dict[str, bytes], number: int) -> tuple[str, Callable[[], Any]]:
    """A damaged file of pairs or of facts, read."""
    draw = random.Random(number)
    name = draw.choice(list(good))
    content = mutated(good[name], draw)
    path = bed.folder / f"{number}{Path(name).suffix}"

    def read() -> None:
        path.write_bytes(content)
        try:
            made = cutaway.behaviour(path, bed.net, n=8, force=True)
            assert made.n >= 1
        finally:
            path.unlink()

    return f"{name}: {content[:200]!r}", read


# ------------------------------------------------------------------------------------------------------------- results


def results(bed: Bed) -> dict[str, Path]:
    """A saved result of every kind, by kind."""
    from cutaway.probes.use.alignment import align
    from cutaway.stream.attention_scores import head_scores
    from cutaway.stream.biography import biography
    from cutaway.stream.composition import composition
    from cutaway.stream.copying import copying, singular_directions
    from cutaway.stream.flow import flow, reads_of_writes
    from cutaway.stream.lenses.constant import ConstantLens
    from cutaway.stream.lenses.report import compare_lenses
    from cutaway.stream.lenses.tuned import LensTraining, train_tuned_lens
    from cutaway.stream.patterns import read_patterns
    from cutaway.stream.why_attend import why_attend

    net, text = bed.net, "the a saw b"
    sets: dict[str, Any] = {"positive": ["the a saw b", "the b"], "negative": ["the b saw a", "the a"]}
    made: list[Any] = [bed.probing, bed.probing.probe(), bed.circuit]
    used = bed.right(VERBS["use"])
    makers: list[Callable[[], Any]] = [
        lambda: cutaway.performance(net, bed.pairs),
        lambda: cutaway.patch(net, bed.pairs),
        lambda: cutaway.loss(net, text),
        lambda: cutaway.difference_of_means(net, **sets, at="resid_post.0"),
        lambda: cutaway.steer(
            net, text, cutaway.difference_of_means(net, **sets, at="resid_post.0"), max_new_tokens=2
        ),
        lambda: cutaway.use(**used),
        lambda: next(iter(cutaway.leace(net, bed.data, at="resid_post.0").values())),
        lambda: cutaway.explain(**bed.right(VERBS["explain"])),
        lambda: cutaway.test(**bed.right(VERBS["test"])),
        lambda: cutaway.logit_attribution(net, text, target=" a"),
        lambda: cutaway.expand_paths(net, text, target=" a"),
        lambda: cutaway.read_lens(net, bed.lens, text),
        lambda: composition(net),
        lambda: copying(net),
        lambda: flow(net, [[1, 2, 3, 4] * 2] * 3, length=8),
        lambda: reads_of_writes(net),
        lambda: read_patterns(net, text, layer=0),
        lambda: cutaway.side_by_side(**bed.right(VERBS["side_by_side"])),
        lambda: cutaway.induction_heads(**bed.right(VERBS["induction_heads"])),
        lambda: cutaway.top_examples(**bed.right(VERBS["top_examples"])),
        lambda: cutaway.activations(**bed.right(VERBS["activations"])),
        lambda: cutaway.bind(**bed.right(VERBS["bind"])),
        lambda: cutaway.feature_effects(**bed.right(VERBS["feature_effects"])),
        lambda: cutaway.carried(**bed.right(VERBS["carried"])),
        lambda: cutaway.computation(**bed.right(VERBS["computation"])),
        lambda: cutaway.passing(**bed.right(VERBS["passing"])),
        lambda: cutaway.backups(**bed.right(VERBS["backups"])),
        lambda: cutaway.shared_parts(**bed.right(VERBS["shared_parts"])),
        lambda: cutaway.roles(**bed.right(VERBS["roles"])),
        lambda: cutaway.propose_algorithm(**bed.right(VERBS["propose_algorithm"])),
        lambda: cutaway.input_attribution(**bed.right(VERBS["input_attribution"])),
        lambda: cutaway.intended(**bed.right(VERBS["intended"])),
        lambda: cutaway.measure(**bed.right(VERBS["measure"])),
        lambda: cutaway.test_algorithm(**bed.right(VERBS["test_algorithm"])),
        lambda: cutaway.index_features(**bed.right(VERBS["index_features"])),
        lambda: cutaway.label_features(**bed.right(VERBS["label_features"])),
        lambda: cutaway.train_dictionaries(**bed.right(VERBS["train_dictionaries"])),
        lambda: net.gradients(text, to=["embed", "z.0"]),
        lambda: why_attend(net, text, "a0.h0"),
        lambda: singular_directions(net, "a0.h0"),
        lambda: head_scores(net, length=7),
        lambda: compare_lenses(net, [bed.lens], [[1, 2, 3, 4] * 2] * 3, length=8),
        lambda: ConstantLens.of(net, [[1, 2, 3, 4] * 2] * 3, length=8),
        lambda: biography(net, text, torch.ones(16)),
        lambda: align(net, bed.probing, bed.data, answers=used["answers"], steps=2, random=2),
        lambda: train_tuned_lens(
            net, [[1, 2, 3, 4] * 2] * 6, training=LensTraining(steps=1, rows=2, length=8, ahead=1)
        ),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made += [make() for make in makers]
    out = {}
    for result in made:
        out[result.kind] = Path(result.save(bed.folder / result.kind))
    missing = set(KINDS) - set(out)
    assert not missing, f"a maker is wanted for {', '.join(sorted(missing))}"
    return out


def result(bed: Bed, saved: dict[str, Path], number: int) -> tuple[str, Callable[[], Any]]:
    """A damaged result, opened and, where its seal was not made anew by who changed it, shown.

    Half of the manifests are sealed anew, so that what is inside is read.
    """
    from cutaway.results import files as folders

    draw = random.Random(number)
    kind = draw.choice(list(saved))
    place = bed.folder / f"damaged-{number}"
    inside = sorted(p.relative_to(saved[kind]) for p in saved[kind].rglob("*") if p.is_file())
    manifests = [p for p in inside if p.name == folders.MANIFEST]
    chosen = draw.choice(manifests if draw.random() < 0.6 else inside)
    reseal = draw.random() < 0.6

    def load() -> None:
        shutil.copytree(saved[kind], place)
        try:
            target = place / chosen
            if target.name == folders.MANIFEST and reseal:
                said = json.loads(target.read_text("utf-8"))
                _exchange(said, draw)
                _seal(target, said)
            else:
                target.write_bytes(mutated(target.read_bytes(), draw))
                if reseal:
                    _relist(place, chosen)
            opened = cutaway.load(place)
            opened.to_dict()
            if not reseal:
                opened.to_pandas(), opened.page(), opened._repr_html_(), str(opened)
        finally:
            shutil.rmtree(place)

    return f"{kind}: {chosen}, {'sealed anew' if reseal else 'as it is'}", load


def _relist(place: Path, chosen: Path) -> None:
    """Make the hash of a changed file right in the manifest beside it."""
    import hashlib

    manifest = (place / chosen).parent / "manifest.json"
    if manifest.is_file() and chosen.name != "manifest.json":
        said = json.loads(manifest.read_text("utf-8"))
        if chosen.name in said.get("sha256", {}):
            said["sha256"][chosen.name] = hashlib.sha256((place / chosen).read_bytes()).hexdigest()
            _seal(manifest, said)


def _seal(manifest: Path, said: Any) -> None:
    from cutaway.results import files as folders

    if isinstance(said, dict) and isinstance(said.get("sha256"), dict):
        try:
            listing = said.pop("sha256")
            text = folders._sealed(said, listing)
        except Exception:
            text = json.dumps(said)
    else:
        text = json.dumps(said)
    manifest.write_text(text, "utf-8", "surrogatepass")


def run(folder: Path, seed: int, calls: int, of_files: int, of_results: int) -> dict[str, Tally]:
    """So many trials of each kind."""
    bed = Bed.of(folder)
    saved = results(bed) if calls or of_results else {}
    good = files(bed)
    tallies = {"calls": Tally(), "files": Tally(), "results": Tally()}
    for i in range(calls):
        tallies["calls"].add(seed + i, *call(bed, seed + i))
    for i in range(of_files):
        tallies["files"].add(seed + i, *file(bed, good, seed + i))
    for i in range(of_results):
        tallies["results"].add(seed + i, *result(bed, saved, seed + i))
    return tallies


def verbs_called(seed: int, calls: int, bed: Bed) -> Counter[str]:
    """How often each verb is called by these trials."""
    return Counter(call(bed, seed + i)[0].partition("(")[0] for i in range(calls))

"""Which causal language models of transformers open, what is certified, and whether anything is wrong unseen.

For every model type a tiny random network is built and opened. Beside the certificate that Cutaway makes for
itself, every network is checked by hand: bare PyTorch hooks, at modules that this script finds by their
names, and the model's own `output_hidden_states` and `output_attentions`, against Cutaway's reads and edits.
Nothing of Cutaway's anatomy is used for the hand's side. A network on which the hand disagrees counts as
silently wrong.

    python benchmarks/coverage.py [--only gpt2 llama ...] [--out docs/coverage.md] [--limit 60]
"""

from __future__ import annotations

import argparse
import json
import platform
import re
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

import cutaway
from by_hand import check_by_hand, hand_attention_calls, logits
from cutaway.network.certification.identities import carried_in_words
from cutaway.results import atomic_write
from cutaway.zoo.tiny import causal_lm_types, example_input, tiny
from cutaway.zoo.tiny_tables import CANNOT

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "network"))
from own_modules import STYLES, by_hand, noised, own, prompts

ATTENTION_SITES = ("q", "k", "v", "pattern", "z")


@dataclass
class Row:
    """What came of one model type."""

    kind: str
    built: bool = False
    opened: bool = False
    reason: str = ""
    registry: bool = False
    bitwise: bool | None = None
    layers: int = 0
    stream: str = ""
    attention_calls: int = 0
    attention_sites: dict[str, int] = field(default_factory=dict)
    attention: list[str] = field(default_factory=list)
    mlp: str = ""
    router: bool = False
    mixer: bool = False
    checked: list[str] = field(default_factory=list)
    written_back: int = 0
    wrong: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    opening_seconds: float = 0.0


class OutOfTime(Exception):
    """A network took longer than it was given."""


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raise OutOfTime in the block after so many seconds."""

    def ring(*_: object) -> None:
        raise OutOfTime(f"took longer than {seconds} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


# one network


def survey(kind: str, limit: int) -> Row:
    """Build, open, certify and check one model type; whatever happens is noted in the row."""
    row, start = Row(kind), time.perf_counter()
    try:
        with time_limit(limit):
            model = tiny(kind)
            inputs = example_input(model)
            inputs.pop("attention_mask", None)
            logits(model, inputs)
            row.built = True
            row.registry = _uses_registry(model)
            opening = time.perf_counter()
            net = cutaway.open(tiny(kind))
            row.opening_seconds = time.perf_counter() - opening
            row.opened = True
            row.attention_calls = hand_attention_calls(kind, inputs) if row.registry else 0
            _describe(row, net)
            trial = check_by_hand(kind, net, model, inputs)
            row.checked, row.wrong, row.bitwise = trial.checked, trial.wrong, trial.bitwise
            row.written_back = trial.written_back
    except Exception as error:
        row.reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        if row.opened:
            row.wrong.append(f"failed: {row.reason}")
    if kind in CANNOT and not row.built:
        row.reason = CANNOT[kind]
    row.seconds = time.perf_counter() - start
    return row


def survey_own(style: str) -> Row:
    """Open a transformer that is written by hand in a style, and check it against the same one computed by hand."""
    row, start = Row(f"own module: {style}", built=True), time.perf_counter()
    model, x = own(style), prompts(seed=3)
    net = cutaway.open(own(style), example={"x": prompts()})
    row.opened, row.opening_seconds, row.attention_calls = True, time.perf_counter() - start, net.n_layers
    _describe(row, net)
    row.bitwise = torch.equal(net.run({"x": x}).logits, model(x))
    plain = by_hand(style, model, x)
    names = [n for n in plain if n != "logits"]
    run = net.run({"x": x}, keep=names)
    for name, value in plain.items():
        got, real = run.logits if name == "logits" else run[name], value.isfinite()
        row.checked.append(f"read {name}")
        if not torch.allclose(got[real], value[real], atol=2e-5):
            row.wrong.append(f"{name} read")
    for name in names:
        edited = by_hand(style, model, x, {name: noised})["logits"]
        row.checked.append(f"write {name}")
        if not torch.allclose(
            net.run({"x": x}, edits=[cutaway.Apply(name, noised)]).logits, edited, atol=5e-5
        ):
            row.wrong.append(f"{name} written")
        back = net.run({"x": x}, edits=[cutaway.Patch(name, run)]).logits
        row.written_back += bool(torch.allclose(back, run.logits, atol=2e-5))
    row.seconds = time.perf_counter() - start
    return row


def _uses_registry(model: nn.Module) -> bool:
    """Whether the model's own source looks its attention function up by name."""
    source = sys.modules[type(model).__module__].__file__ or ""
    return bool(source) and "ALL_ATTENTION_FUNCTIONS" in Path(source).read_text(encoding="utf-8")


def _describe(row: Row, net: Any) -> None:
    row.layers = net.n_layers
    row.refused = {str(k): v for k, v in net.certificate.refusals.items()}
    stack = net.anatomy.stack()
    forms = {layer.form for layer in stack.layers} if stack is not None else {"unknown"}
    held = net.certificate.check("resid_post")
    certified = held is not None and held.holds and held.places >= row.layers and "unknown" not in forms
    carried = carried_in_words(stack.layers if stack is not None else [])
    row.stream = (
        ", ".join([*sorted(forms), *([f"its input {carried}"] if carried else [])]) if certified else ""
    )
    names = [site.name.removeprefix("cross_") for site in net.sites()]
    row.attention_sites = {name: names.count(name) for name in ATTENTION_SITES}
    wanted = row.attention_calls or max(row.attention_sites.values())
    row.attention = [n for n, count in row.attention_sites.items() if wanted and count >= wanted]
    row.mlp = "neurons" if net.layers_with("mlp_act") else "output" if net.layers_with("mlp_out") else ""
    row.router = bool(net.layers_with("router"))
    row.mixer = bool(net.layers_with("mixer_out"))


# the page


def page(rows: list[Row]) -> str:
    """The table, with its summary and how it was made, as Markdown."""
    built, opened = [r for r in rows if r.built], [r for r in rows if r.opened]
    pre = [r for r in opened if r.stream and "post-norm" not in r.stream]
    post = [r for r in opened if "post-norm" in r.stream]
    registry = [r for r in built if r.registry]
    whole = [r for r in registry if len(r.attention) == len(ATTENTION_SITES)]
    with_attention = [r for r in registry if r.attention_calls]
    wrong = [r for r in rows if r.wrong]
    unchecked = [r.kind for r in opened if not r.checked]
    outside = [r for r in opened if not r.registry and len(r.attention) == len(ATTENTION_SITES)]
    by_oneself = [r for r in rows if r.kind.startswith("own module")]
    figures = {
        "model types mapped to a causal language model": len(rows) - len(by_oneself),
        "transformers written by hand, in as many styles": len(by_oneself),
        "built and run": len(built),
        "opened": len(opened),
        "residual stream certified, pre-norm form (the layer's output is its input plus the writes)": len(
            pre
        ),
        "residual stream certified, post-norm form (a norm of the sum)": len(post),
        "code that uses transformers' attention registry": len(registry),
        "of these, types whose forward calls an attention function": len(with_attention),
        "of these, `q k v pattern z` readable and writable at every such call": len(whole),
        "code that does not use the registry, `q k v pattern z` all there": len(outside),
        "logits with nothing read bitwise those of the bare model": sum(bool(r.bitwise) for r in opened),
        "comparisons with bare hooks, or with what the model reports": sum(len(r.checked) for r in opened),
        "sites written back what was read there": sum(r.written_back for r in opened),
        "silently wrong (a comparison by hand disagrees)": len(wrong),
    }
    lines = [
        "# Which networks open, and what is certified on them",
        "",
        "Made by `python benchmarks/coverage.py`: a tiny random network of every causal language model that",
        "transformers maps is built, opened, certified, and then checked by hand with bare PyTorch hooks and",
        "with the model's own `output_hidden_states` and `output_attentions`. Below them stand five transformers written",
        "by hand (`tests/network/own_modules.py`), against one that is computed from their parameters.",
        "",
        f"transformers {transformers.__version__}, torch {torch.__version__},",
        f"Python {platform.python_version()}, CPU, float32.",
        "",
        "| | networks |",
        "| --- | --- |",
        *(f"| {what} | {count} |" for what, count in figures.items()),
        "",
        "Columns: *stream*, the form in which `resid_pre + writes = resid_post` is certified, with the factor by which",
        "`resid_pre` is carried on where it is not 1; *attention*, the",
        "sites that are readable and writable at every call of an attention function (counted in the model's own",
        "code), with the number of places where that is not so; *MLP*, `neurons` where `mlp_act` is offered and",
        "`output` where only `mlp_out` is; *by hand*, comparisons with bare hooks or with the model's own reports.",
        f"No module that the hand could be sure of, so no such comparison: {', '.join(unchecked) or 'none'}.",
        "",
        "| type | layers | stream | attention | MLP | router | mixer | by hand | opened in |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for r in rows:
        if not r.opened:
            lines.append(
                f"| {r.kind} | {'not opened' if r.built else 'not built'}: {_cell(r.reason)} | | | | | | | |"
            )
            continue
        partly = {n: c for n, c in r.attention_sites.items() if n not in r.attention and c}
        attention = " ".join(r.attention) + "".join(
            f" ({n} {c}/{r.attention_calls})" for n, c in partly.items()
        )
        attention = attention.strip() or ("refused" if r.attention_calls else "none")
        cells = [r.kind, r.layers, r.stream or "refused", attention, r.mlp, "yes" if r.router else ""]
        cells += ["yes" if r.mixer else "", len(r.checked), f"{r.opening_seconds:.2f} s"]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    lines += ["", "## What is refused, and why", ""]
    for r in opened:
        if _refusals(r.refused):
            lines.append(f"- **{r.kind}**: {_refusals(r.refused)}")
    if wrong:
        lines += ["", "## Where the hand disagrees", ""]
        lines += [f"- **{r.kind}**: {'; '.join(r.wrong[:6])}" for r in wrong]
    return "\n".join(lines) + "\n"


def _refusals(refused: dict[str, str]) -> str:
    """Refused sites grouped by reason, layers left out."""
    grouped: dict[str, set[str]] = {}
    for site, reason in refused.items():
        if " has no " in reason:
            continue
        text = re.sub(r"\b(layers?|at) [\w.]*\d+\b", r"\1 …", reason)
        text = re.sub(r"relative error [\d.e+\-inf]+", "relative error …", text)
        grouped.setdefault(text, set()).add(re.sub(r"\.\d+$", "", site))
    return " ".join(f"`{'` `'.join(sorted(sites))}`: {_cell(reason)}" for reason, sites in grouped.items())


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def main() -> None:
    """Run the survey and write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument(
        "--only", nargs="+", metavar="TYPE", help="these model types only; prints, writes no page"
    )
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).resolve().parents[1] / "docs" / "coverage.md"
    )
    parser.add_argument("--limit", type=int, default=60, help="seconds for one network")
    parser.add_argument("--json", type=Path, help="write the rows as JSON too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    kinds = options.only or causal_lm_types()
    rows = []
    for number, kind in enumerate(kinds, 1):
        row = survey(kind, options.limit)
        rows.append(row)
        state = (
            "wrong" if row.wrong else "opened" if row.opened else "not opened" if row.built else "not built"
        )
        detail = (
            "; ".join(row.wrong[:3])
            or row.reason
            or f"{row.stream or 'stream refused'}; {' '.join(row.attention)}"
        )
        print(f"[{number:3d}/{len(kinds)}] {kind:28s} {state:10s} {row.seconds:5.1f} s  {detail}", flush=True)
    for style in () if options.only else STYLES:
        rows.append(survey_own(style))
        print(
            f"{rows[-1].kind:38s} {'wrong' if rows[-1].wrong else 'opened'}  {' '.join(rows[-1].attention)}",
            flush=True,
        )
    if options.json:
        atomic_write(options.json, json.dumps([vars(r) for r in rows], indent=1))
    text = page(rows)
    if options.only:
        print(text)
    else:
        atomic_write(options.out, text)
        print(f"Wrote {options.out}")
    sys.exit(1 if any(r.wrong for r in rows) else 0)


if __name__ == "__main__":
    main()

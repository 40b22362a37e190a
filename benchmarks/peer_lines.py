"""Do the lines run that the documentation shows for TransformerLens and nnsight?

python benchmarks/peer_lines.py --peers PYTHON --model FOLDER [--out docs/benchmarks/peer_lines.md]

PYTHON is an interpreter of an environment of its own that has transformer_lens, nnsight, circuitsvis and plotly; Cutaway
does not need them and is not imported there. FOLDER holds the network that the lines name (SmolLM2-135M-Instruct), and is
put in the place of its name, so that nothing is fetched. Each page is run by a process of its own, its lines one after the
other in one namespace, as a reader would type them; figures are made and not opened.
"""

from __future__ import annotations

import argparse
import ast
import json
import linecache
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
#: Page, the package whose lines stand there.
PAGES = (
    ("daily.md", "TransformerLens"),
    ("from-transformerlens.md", "TransformerLens"),
    ("from-nnsight.md", "nnsight"),
)
PACKAGES = {"TransformerLens": "transformer-lens", "nnsight": "nnsight"}
_BLOCK = re.compile(r"^```python(?P<mark>[^\n]*)\n(?P<code>.*?)^```\s*$", re.DOTALL | re.MULTILINE)
_ROW = re.compile(r"^\| (?P<theirs>.*?) \| `[^|]*` \|$", re.MULTILINE)
_CODE = re.compile(r"`([^`]+)`")
#: A row that only names what stands in a block of its own.
_BELOW = "(below)"


@dataclass(frozen=True)
class Piece:
    """Lines that belong together.

    Attributes:
        title: the heading above them, or the row they stand in.
        code: the lines.
    """

    title: str
    code: str


def pieces(page: str, package: str) -> Iterator[Piece]:
    """What a page shows for a package, in order: its imports, the rows of its table, its blocks."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    blocks = [(m.start(), m["mark"].strip(), m["code"]) for m in _BLOCK.finditer(text)]
    found = [
        (at, Piece("imports", code)) for at, mark, code in blocks if mark == f"no-run: imports of {package}"
    ]
    for at, mark, code in blocks:
        if mark == "no-run: " + package:
            heading = re.findall(r"^## (.*)$", text[:at], re.MULTILINE)
            found.append((at, Piece(heading[-1] if heading else code.splitlines()[0], code)))
    for row in _ROW.finditer(text):
        code = "\n".join(_CODE.findall(row["theirs"]))
        if code and _BELOW not in row["theirs"]:
            found.append(
                (row.start(), Piece(row["theirs"], in_trace(code) if package == "nnsight" else code))
            )
    yield from (piece for _, piece in sorted(found, key=lambda each: each[0]))


def in_trace(code: str) -> str:
    """A line of nnsight on its own line; inside of a trace where it reads or writes a value and has no `with` of its own."""
    code = ast.unparse(ast.parse(code))
    inside = re.search(r"\.(output|input)\b", code) and not re.search(r"^with ", code, re.MULTILINE)
    return (
        "\n".join(["with model.trace(text):", *("    " + line for line in code.splitlines())])
        if inside
        else code
    )


def run(page: str, package: str, folder: str) -> None:
    """Run a page's lines here, in the peer's interpreter, and print as JSON how each ended."""
    from importlib.metadata import version

    names: dict[str, Any] = {"__name__": "__main__"}
    own = {"text": "Mary was sad because", "other": "Tom was sad because"}
    own["texts"] = [f"{name} was sad because she was tired." for name in ("Mary", "Anna", "Ella", "Lucy")] * 3  # type: ignore[assignment]
    own["theirs"] = [f"{name} was sad because he was tired." for name in ("Tom", "Ben", "Max", "Sam")] * 3  # type: ignore[assignment]
    names |= own if page == "daily.md" else {}
    names |= {"torch": __import__("torch")}
    _without_windows()
    ends = []
    for number, piece in enumerate(pieces(page, package)):
        code, where = piece.code.replace(NAME, folder), f"<{page} {number}>"
        if "TransformersModel(" in code:  # a folder does not say which tokenizer it has: nnsight asks the Hub
            from transformers import AutoTokenizer

            names["_tokenizer"] = AutoTokenizer.from_pretrained(folder)
            code = code.replace("task=", "tokenizer=_tokenizer, task=")
        linecache.cache[where] = (len(code), None, code.splitlines(keepends=True), where)
        try:
            exec(compile(code, where, "exec"), names)
            ends.append([piece.title, ""])
        except Exception as error:
            ends.append([piece.title, f"{type(error).__name__}: {error}"[:300]])
        if package == "TransformerLens" and "model" in names:
            names["model"].reset_hooks()
    said = f"{package} {version(PACKAGES[package])}, transformers {version('transformers')}, torch {version('torch')}"
    print("\n" + json.dumps({"versions": said, "ends": ends}))


def _without_windows() -> None:
    """Figures do not open a browser."""
    try:
        import plotly.graph_objects as go
    except ImportError:
        return
    go.Figure.show = lambda self, *_, **__: self.to_json()  # type: ignore[method-assign]


def page_of(outcomes: dict[str, dict[str, Any]], folder: str) -> str:
    """The page as Markdown."""
    lines = [
        "# Do the lines of other tools run?",
        "",
        "Made by `python benchmarks/peer_lines.py --peers PYTHON --model FOLDER`: the lines that these pages show for "
        f"other tools, each page's one after the other, on {folder} on the processor, without a connection to the Hub.",
        "",
        "| page | with | pieces | ran |",
        "| --- | --- | --- | --- |",
    ]
    for page, outcome in outcomes.items():
        ran = sum(not why for _, why in outcome["ends"])
        lines.append(f"| [{page}](../{page}) | {outcome['versions']} | {len(outcome['ends'])} | {ran} |")
    for page, outcome in outcomes.items():
        failed = [(title, why) for title, why in outcome["ends"] if why]
        lines += ["", f"## {page}", ""]
        lines += [
            f"- did not run: {title}: `{' '.join(why.replace('`', chr(39)).split())}`"
            for title, why in failed
        ]
        lines += ([""] if failed else []) + ["Ran:", ""]
        lines += [f"- {title}" for title, why in outcome["ends"] if not why]
    return "\n".join(lines) + "\n"


def main() -> int:
    """The command; exit code 1 where a line did not run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers", required=True, help="an interpreter that has transformer_lens and nnsight")
    parser.add_argument("--model", type=Path, required=True, help="the folder of SmolLM2-135M-Instruct")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks" / "peer_lines.md")
    asked = parser.parse_args()
    alone = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    outcomes = {}
    for page, package in PAGES:
        with tempfile.TemporaryDirectory() as empty:
            done = subprocess.run(
                [asked.peers, __file__, "--inside", page, package, str(asked.model.resolve())],
                cwd=empty, env=os.environ | alone, capture_output=True, text=True, timeout=1200,
            )  # fmt: skip
        if done.returncode:
            print(done.stderr[-3000:], file=sys.stderr)
            return 1
        outcomes[page] = json.loads(done.stdout.strip().splitlines()[-1])
        for title, why in outcomes[page]["ends"]:
            print("failed" if why else "ran   ", page, "|", title, "|", why, flush=True)
    asked.out.write_text(page_of(outcomes, NAME.split("/")[1]), encoding="utf-8")
    return int(any(why for outcome in outcomes.values() for _, why in outcome["ends"]))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--inside"]:
        run(*sys.argv[2:5])
    else:
        sys.exit(main())

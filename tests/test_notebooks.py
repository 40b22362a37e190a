"""The notebooks run from their first cell to their last, and what they show is small and needs nothing from elsewhere."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1] / "docs" / "notebooks"
NOTEBOOKS = sorted(ROOT.glob("*.ipynb"))
#: What a cell may show, in characters.
SHOWN = 120_000


def cells(notebook: Path) -> list[str]:
    """The code cells, in order."""
    read = json.loads(notebook.read_text(encoding="utf-8"))
    return ["".join(cell["source"]) for cell in read["cells"] if cell["cell_type"] == "code"]


def run(code: str, names: dict[str, Any], where: str) -> Any:
    """What a cell shows: the value of its last line where that is an expression."""
    tree = ast.parse(code, where)
    last = tree.body[-1] if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    before = ast.Module(tree.body[:-1] if last else tree.body, [])
    exec(compile(before, where, "exec"), names)
    return eval(compile(ast.Expression(last.value), where, "eval"), names) if last else None


def html_of(value: Any) -> str:
    """What a notebook would draw."""
    bundle = getattr(value, "_repr_mimebundle_", None)
    made = bundle() if callable(bundle) else None
    made = made[0] if isinstance(made, tuple) else made
    if made:
        return "".join(map(str, made.values()))
    show = getattr(value, "_repr_html_", None)
    return (show() if callable(show) else None) or repr(value)


def test_there_are_three() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["circuit", "probes", "two-prompts"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda p: p.stem)
def test_it_runs(notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "__notebook__"}
    for number, code in enumerate(cells(notebook)):
        value = run(code, names, f"{notebook.name}, cell {number}")
        if value is not None:
            shown = html_of(value)
            assert 0 < len(shown) < SHOWN, f"{notebook.name}, cell {number} shows {len(shown)} characters"
            assert "https://cdn" not in shown
            assert "<script src" not in shown


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda p: p.stem)
def test_it_holds_no_output_and_names_no_machine(notebook: Path) -> None:
    read = json.loads(notebook.read_text(encoding="utf-8"))
    assert all(not cell.get("outputs") for cell in read["cells"])
    assert "/home/" not in notebook.read_text(encoding="utf-8")

"""`import cutaway` is quick, and reaches everything that is public."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import cutaway

ROOT = Path(cutaway.__file__).parent
ROOMS = sorted(
    p.stem
    for p in ROOT.iterdir()
    if not p.name.startswith(("_", "."))
    and p.stem != "cli"
    and (p.suffix == ".py" or (p / "__init__.py").is_file())
)


@pytest.mark.parametrize("room", ROOMS)
def test_a_public_module_is_reached_without_an_import_of_its_own(room: str) -> None:
    assert getattr(cutaway, room).__name__ == f"cutaway.{room}"
    assert room in dir(cutaway)
    assert f" {room} as {room}\n" in (ROOT / "__init__.py").read_text(), "the type checker does not know it"


def test_importing_loads_nothing_heavy_and_a_module_is_loaded_when_it_is_reached() -> None:
    code = """
import sys, cutaway
dir(cutaway)
heavy = [m for m in ("torch", "transformers", "plotly", "pandas", "numpy", "typer") if m in sys.modules]
rooms = [m for m in sys.modules if m.startswith("cutaway.")]
assert cutaway.errors.BadInput.__mro__[1] is cutaway.errors.CutawayError
assert "torch" not in sys.modules
assert cutaway.statistics.mean_of
print(heavy, sorted(rooms))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] ['cutaway.errors', 'cutaway.verbs']"


def test_everything_that_is_listed_is_there_and_a_wrong_name_gets_the_nearest() -> None:
    assert [name for name in dir(cutaway) if not hasattr(cutaway, name)] == []
    assert set(cutaway.__all__) <= set(dir(cutaway))
    assert "cli" not in ROOMS
    with pytest.raises(AttributeError, match="Did you mean 'behaviours'"):
        cutaway.behavours  # noqa: B018
    with pytest.raises(AttributeError):
        cutaway._private  # noqa: B018

"""The house as it stands: floors without circles, no private names across modules, one name for one thing, one judge."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2] / "src" / "cutaway"
FILES = sorted(ROOT.rglob("*.py"))
TREES = {file: ast.parse(file.read_text(encoding="utf-8")) for file in FILES}
VERDICTS = ("supported", "refuted", "inconclusive")


def name_of(file: Path) -> str:
    dotted = ".".join(("cutaway", *file.relative_to(ROOT).with_suffix("").parts))
    return dotted.removesuffix(".__init__")


MODULES = {name_of(file): file for file in FILES}


def imports(file: Path) -> Iterator[tuple[str, str]]:
    """(module, name) of everything that a file imports from the project, for the type checker too, relative imports made
    absolute.
    """
    package = name_of(file) if file.name == "__init__.py" else name_of(file).rpartition(".")[0]
    for node in ast.walk(TREES[file]):
        if isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                up = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*up, *([node.module] if node.module else [])])
            for alias in node.names:
                yield base, alias.name


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Sets of modules that reach each other."""

    def reach(start: str) -> set[str]:
        seen, waiting = set(), [start]
        while waiting:
            for target in graph[waiting.pop()]:
                if target not in seen:
                    seen.add(target)
                    waiting.append(target)
        return seen

    reached = {module: reach(module) for module in graph}
    inside = {frozenset(b for b in reached[a] if a in reached[b]) for a in graph if a in reached[a]}
    return sorted(sorted(circle) for circle in inside)


def test_no_two_modules_import_each_other_not_even_for_the_type_checker() -> None:
    graph: dict[str, set[str]] = {module: set() for module in MODULES}
    for module, file in MODULES.items():
        if file.name == "__init__.py":
            continue
        for base, name in imports(file):
            target = f"{base}.{name}" if f"{base}.{name}" in MODULES else base
            if target in MODULES and target != module:
                graph[module].add(target)
    assert circles(graph) == []


def test_no_module_takes_a_private_name_of_another() -> None:
    taken = [
        f"{name_of(file)} takes {base}.{name}"
        for file in FILES
        for base, name in imports(file)
        if base.startswith("cutaway") and name.startswith("_") and not name.startswith("__")
    ]
    objects = {"net", "network", "behaviour", "circuit", "plan", "run", "work", "bench", "core"}
    for file, tree in TREES.items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Attribute) or not isinstance(node.value, ast.Name):
                continue
            private = node.attr.startswith("_") and not node.attr.startswith("__")
            if node.value.id in objects and private:
                taken.append(f"{name_of(file)}:{node.lineno} {node.value.id}.{node.attr}")
    assert taken == []


def test_nothing_is_kept_in_another_objects_dictionary() -> None:
    kept = [
        f"{name_of(file)}:{node.lineno}"
        for file, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Subscript)
        and isinstance(node.value, ast.Attribute)
        and node.value.attr == "__dict__"
        and isinstance(node.ctx, ast.Store)
    ]
    assert kept == []
    assert not [name_of(f) for f in FILES if "sys._getframe" in f.read_text(encoding="utf-8")]


def test_a_class_name_means_one_thing() -> None:
    places: dict[str, list[str]] = defaultdict(list)
    for file, tree in TREES.items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef):
                places[node.name].append(name_of(file))
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def test_one_place_decides_between_supported_refuted_and_inconclusive() -> None:
    """Only trials/judging says one of the three words; whoever makes a claim asks it."""
    allowed = {"cutaway.trials.judging", "cutaway.claims"}
    deciding = []
    for file, tree in TREES.items():
        if name_of(file) in allowed:
            continue
        for node in ast.walk(tree):
            values: list[ast.expr | None] = []
            if isinstance(node, ast.Return | ast.Assign | ast.AnnAssign):
                values = [node.value]
            if isinstance(node, ast.Call):
                values = [*node.args, *(k.value for k in node.keywords)]
                if getattr(node.func, "id", "") not in ("Claim", "claim_of"):
                    values = []
            for value in values:
                branches = [value.body, value.orelse] if isinstance(value, ast.IfExp) else [value]
                for branch in branches:
                    if isinstance(branch, ast.Constant) and branch.value in VERDICTS:
                        deciding.append(f"{name_of(file)}:{node.lineno} says {branch.value}")
    assert deciding == []


def test_nobody_raises_or_catches_keyboard_interrupt_but_the_ground_and_the_command_line() -> None:
    allowed = {"cutaway.results.work", "cutaway.cli.common"}
    places = []
    for file, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and node.id == "KeyboardInterrupt" and name_of(file) not in allowed:
                places.append(f"{name_of(file)}:{node.lineno}")
    assert places == []


def test_files_functions_and_parameters_stay_within_what_a_reader_holds() -> None:
    large = [
        f"{name_of(f)}: {n} lines" for f in FILES if (n := f.read_text(encoding="utf-8").count("\n")) > 470
    ]
    for file, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno
                if length > 95:
                    large.append(f"{name_of(file)}:{node.lineno} {node.name}: {length} lines")
    assert large == []


@pytest.mark.parametrize("name", ["Part", "Bench", "Limits", "Work", "Budget", "Provenance", "Page"])
def test_the_shared_nouns_exist_once(name: str) -> None:
    places = [
        name_of(f)
        for f, tree in TREES.items()
        for n in tree.body
        if isinstance(n, ast.ClassDef) and n.name == name
    ]
    assert len(places) == 1


def test_every_public_dataclass_tells_its_fields_one_a_line() -> None:
    """Under `Attributes:`, those that belong together (`low, high:`) on one line."""
    untold = []
    for file, tree in TREES.items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.ClassDef) or node.name.startswith("_"):
                continue
            if not any("dataclass" in ast.unparse(decorator) for decorator in node.decorator_list):
                continue
            told = re.findall(
                r"^    (\w+(?:, \w+)*): ", attributes(ast.get_docstring(node) or ""), re.MULTILINE
            )
            names = {name for line in told for name in line.split(", ")}
            untold += [f"{name_of(file)}.{node.name}.{name}" for name in fields_of(node) if name not in names]
    assert untold == []


def attributes(docstring: str) -> str:
    """The section of a docstring that tells the fields."""
    section = docstring.partition("Attributes:\n")[2]
    return re.split(r"^\S", section, maxsplit=1, flags=re.MULTILINE)[0]


def fields_of(node: ast.ClassDef) -> list[str]:
    """The public fields that a dataclass declares itself."""
    declared = [n for n in node.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)]
    names = [n.target.id for n in declared if "ClassVar" not in ast.unparse(n.annotation)]  # type: ignore[union-attr]
    return [name for name in names if not name.startswith("_")]

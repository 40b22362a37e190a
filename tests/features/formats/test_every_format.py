"""All formats at once: every file of every family is recognised by one of them, and by no other."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.features.formats import cases, layers
from tests.features.formats.packing import unpacked

from cutaway.features.formats import DictionaryFiles, Format, formats

#: What must be asked for by name, because its files are those of another.
_ASKED = {"gemma-scope-transcoder": "gemma-scope"}


def fitting(source: DictionaryFiles) -> list[str]:
    return [name for name, row in formats().items() if row.known(source)]


def test_the_table_holds_every_row_of_every_family() -> None:
    both: dict[str, Format] = {**cases.FORMATS, **layers.FORMATS}
    assert formats().keys() == both.keys()
    assert sum(not row.refuses for row in formats().values()) >= 24
    assert sum(row.write is not None for row in formats().values()) >= 7


@pytest.mark.parametrize("name", cases.CASES)
def test_files_of_one_source_are_of_one_format(name: str) -> None:
    case = cases.CASES[name]
    wanted = str(case.about["format"])
    assert fitting(case.source()) == [_ASKED.get(wanted, wanted)]


@pytest.mark.parametrize(("family", "name"), layers.CASES)
def test_files_of_several_layers_are_of_one_format(family: str, name: str, tmp_path: Path) -> None:
    folder, _ = unpacked(family, name, tmp_path)
    found = fitting(DictionaryFiles.of(folder))
    assert len(found) == 1
    assert found[0] in layers.FORMATS

"""Cases that the original packages wrote, as tests look at them, and the formats that read them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from cutaway.features.dictionaries import Dictionary
from cutaway.features.formats import (
    DictionaryFiles,
    Format,
    dictionary_learning,
    gemma_scope,
    llama_scope,
    openai,
    own,
    prisma,
    saelens,
    sparsify,
    temporal,
    torch_files,
    transcoder_circuits,
)

MODULES = (own, saelens, dictionary_learning, sparsify, gemma_scope, llama_scope, openai, torch_files, prisma,
           transcoder_circuits, temporal)  # fmt: skip
FORMATS: dict[str, Format] = {row.name: row for module in MODULES for row in module.FORMATS}
HERE = Path(__file__).parent / "fixtures"
FAMILIES = ("saelens", "dictionary_learning", "sparsify", "releases", "torch_files")


@dataclass(frozen=True)
class Case:
    folder: Path
    about: dict[str, Any]

    def source(self) -> DictionaryFiles:
        return DictionaryFiles.of(self.folder / self.about["path"])

    def read(self) -> Dictionary:
        return FORMATS[self.about["format"]].opened(self.source(), **self.about.get("given", {}))

    @property
    def expected(self) -> dict[str, Tensor]:
        return load_file(self.folder / "expected.safetensors")


CASES = {
    f"{family}/{file.parent.name}": Case(file.parent, json.loads(file.read_text()))
    for family in FAMILIES
    for file in sorted((HERE / family).glob("*/case.json"))
}

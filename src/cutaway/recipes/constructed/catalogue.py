"""Every constructed specimen: each mechanism in each architecture."""

from __future__ import annotations

from cutaway.recipes.constructed.design import Construction, Design
from cutaway.recipes.constructed.known import known_of
from cutaway.recipes.constructed.mechanisms.brackets import BRACKETS
from cutaway.recipes.constructed.mechanisms.counted import COUNTED
from cutaway.recipes.constructed.mechanisms.duplicate import DUPLICATE
from cutaway.recipes.constructed.mechanisms.induction import INDUCTION
from cutaway.recipes.constructed.mechanisms.lookup import LOOKUP
from cutaway.recipes.constructed.mechanisms.modular import MODULAR
from cutaway.recipes.constructed.mechanisms.redundant import BACKUP, REDUNDANT
from cutaway.recipes.constructed.mechanisms.superposition import SUPERPOSITION
from cutaway.recipes.constructed.mechanisms.suppression import SUPPRESSION
from cutaway.recipes.constructed.mechanisms.table import TABLE
from cutaway.recipes.constructed.mechanisms.unread import UNREAD
from cutaway.zoo.specimens import RANDOM, Specimen, Twin

DESIGNS: tuple[Design, ...] = (
    INDUCTION, DUPLICATE, COUNTED, SUPPRESSION, BRACKETS, MODULAR, TABLE, LOOKUP, SUPERPOSITION, UNREAD, REDUNDANT, BACKUP,
)  # fmt: skip
CLASSES = {
    "gpt2": "GPT2LMHeadModel: sequential blocks, learned positions, LayerNorm",
    "llama": "LlamaForCausalLM: sequential blocks, rotary positions, gated MLP, 4 heads on 2 keys and values, RMSNorm",
    "neox": "GPTNeoXForCausalLM: parallel blocks, rotary positions on a quarter of each head, LayerNorm",
}
SHUFFLED = Twin(
    "shuffled", "The same construction with its readout permuted: every answer is the wrong one.", "built"
)


def specimens() -> tuple[Specimen, ...]:
    """One specimen for each mechanism and architecture."""
    return tuple(_specimen(design, arch) for design in DESIGNS for arch in CLASSES)


def _specimen(design: Design, arch: str) -> Specimen:
    lacking = tuple(Twin(kind, says, "built") for kind, (says, _) in design.lacks.items())
    return Specimen(
        f"{design.name}-{arch}", "constructed", design.says, CLASSES[arch], design.task, Construction(design, arch),
        (RANDOM, SHUFFLED, *lacking), minutes=0.1, sources=design.sources, mechanism=design.mechanism,
        known=known_of(design, arch),
    )  # fmt: skip

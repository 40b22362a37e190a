"""Every constructed specimen: each mechanism in each architecture."""

from __future__ import annotations

from cutaway.zoo.constructed.design import Construction, Design
from cutaway.zoo.constructed.mechanisms.brackets import BRACKETS
from cutaway.zoo.constructed.mechanisms.duplicate import DUPLICATE
from cutaway.zoo.constructed.mechanisms.induction import INDUCTION
from cutaway.zoo.constructed.mechanisms.lookup import LOOKUP
from cutaway.zoo.constructed.mechanisms.modular import MODULAR
from cutaway.zoo.constructed.mechanisms.redundant import BACKUP, REDUNDANT
from cutaway.zoo.constructed.mechanisms.superposition import SUPERPOSITION
from cutaway.zoo.constructed.mechanisms.suppression import SUPPRESSION
from cutaway.zoo.constructed.mechanisms.unread import UNREAD
from cutaway.zoo.specimens import RANDOM, Specimen, Twin

DESIGNS: tuple[Design, ...] = (
    INDUCTION, DUPLICATE, SUPPRESSION, BRACKETS, MODULAR, LOOKUP, SUPERPOSITION, UNREAD, REDUNDANT, BACKUP,
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
        f"{design.name}-{arch}",
        "constructed",
        design.says,
        CLASSES[arch],
        design.task,
        Construction(design, arch),
        (RANDOM, SHUFFLED, *lacking),
        minutes=0.1,
        sources=design.sources,
        mechanism=design.mechanism,
    )

"""Twins that need no file: drawn from a seed, or built by the recipe in a moment."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from cutaway.errors import NotFound
from cutaway.zoo.registry import all_specimens, specimen
from cutaway.zoo.specimens import RANDOM, Twin
from cutaway.zoo.tiny import redraw_

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def twin_model(folder: Path, name: str, kind: str) -> PreTrainedModel:
    """The twin of a specimen whose folder is given. NotFound for a kind that it does not have."""
    twin = specimen(name).twin(kind) if name in all_specimens() else _only_random(name, kind)
    if twin.how == "stored":
        raise NotFound(
            f"The twin {kind!r} of {name} is not in {folder}.", f"Make it: cutaway zoo make {name}."
        )
    return drawn(folder, twin.seed) if twin.how == "drawn" else specimen(name).recipe.twin(kind)


def _only_random(name: str, kind: str) -> Twin:
    if kind != RANDOM.kind:
        raise NotFound(f"{name} has no twin {kind!r}.", f"Its only twin is {RANDOM.kind}.")
    return RANDOM


def drawn(folder: Path, seed: int) -> PreTrainedModel:
    """The same shape with random weights; nothing is zero, and no norm is exactly one.

    It is not `Network.randomized`: that is a control for a network in hand, which keeps the spread of its matrices and the
    entries of its norms. A twin comes from the configuration alone, without the specimen's weights.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder), dtype=torch.float32)
    redraw_(model, seed)
    return model.eval()

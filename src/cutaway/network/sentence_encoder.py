"""Sentence encoders as classifiers: how near a text's embedding lies to those of the texts that it is compared with.

A sentence encoder (MiniLM) has no scores of answers. Held against some texts it has: the cosine between the embedding of
what it is given and the embedding of each of them. `sentences:FOLDER|an animal|a vehicle` opens it so. The texts are its
classes, and all that can be asked of a classifier of texts (patching, ablation, explaining) can be asked of it.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cutaway.errors import BadInput
from cutaway.network.loading import load_model, load_tokenizer
from cutaway.network.opened import Opened

#: What stands between the folder and the texts.
BAR = "|"


class SentenceClassifier(nn.Module):
    """An encoder whose logits are the cosines of its pooled embedding with those of some texts.

    Attributes:
        encoder: the network itself.
        config: its configuration, with the texts as classes.
        pooling: "mean" over the tokens, or "cls", the first one's.
        embeddings: of the texts, each of length one [texts d].
    """

    embeddings: Tensor

    def __init__(self, encoder: nn.Module, texts: Sequence[str], embeddings: Tensor, pooling: str) -> None:
        super().__init__()
        self.encoder, self.pooling = encoder, pooling
        self.config: Any = copy.deepcopy(encoder.config)
        self.config.id2label = dict(enumerate(texts))
        self.config.label2id = {text: number for number, text in enumerate(texts)}
        self.register_buffer("embeddings", embeddings)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> dict[str, Tensor]:
        """The cosines [b texts] of a batch [b p], as `logits`."""
        stream = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        pooled = pool(stream, attention_mask, self.pooling)
        return {"logits": pooled @ self.embeddings.T.to(pooled)}


def pool(stream: Tensor, mask: Tensor | None, pooling: str) -> Tensor:
    """Embeddings of length one [b d] of a stream [b p d]."""
    if pooling == "cls":
        value = stream[:, 0]
    elif mask is None:
        value = stream.mean(1)
    else:
        weights = mask.to(stream)[..., None]
        value = (stream * weights).sum(1) / weights.sum(1)
    return nn.functional.normalize(value, dim=-1)


def load(name: str) -> tuple[nn.Module, Any]:
    """Model and tokenizer of `sentences:FOLDER|text|text|...`.

    Raises `BadInput` for fewer than two texts, equal or empty ones, and a network that gives no stream; what `load_model`
    raises, too.
    """
    folder, *texts = name.partition(":")[2].split(BAR)
    texts = [text.strip() for text in texts]
    if len(set(texts)) < 2 or len(set(texts)) < len(texts) or not all(texts):
        raise BadInput(
            f"{name!r} does not name two or more texts that a sentence is held against.",
            'Write "sentences:FOLDER|about an animal|about a vehicle".',
        )
    place = str(Path(folder).expanduser())
    encoder, tokenizer = load_model(place, Opened(place)), load_tokenizer(place)
    if tokenizer is None:
        raise BadInput(
            f"{folder} has no tokenizer, so no text can be embedded.", "Put its files beside the weights."
        )
    pooling = _pooling(Path(place))
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask")}
    with torch.no_grad():
        stream = getattr(encoder(**inputs), "last_hidden_state", None)
    if stream is None:
        raise BadInput(
            f"{type(encoder).__name__} gives no stream of its last layer to make an embedding of.",
            "Open an encoder without a head.",
        )
    return SentenceClassifier(
        encoder, texts, pool(stream, inputs["attention_mask"], pooling), pooling
    ).eval(), tokenizer


def _pooling(folder: Path) -> str:
    """How the folder of a sentence encoder says that tokens are pooled; the mean where it says nothing."""
    try:
        told = json.loads((folder / "1_Pooling" / "config.json").read_text())
    except (OSError, ValueError):
        return "mean"
    if told.get("pooling_mode_cls_token"):
        return "cls"
    if told.get("pooling_mode_mean_tokens"):
        return "mean"
    raise BadInput(
        f"{folder} pools its tokens neither by their mean nor by the first one.",
        "Only these two are known here.",
    )

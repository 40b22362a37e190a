"""The verb `loss`: what `net.loss` does, with the network first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from cutaway.results import Work, strict

if TYPE_CHECKING:
    from cutaway.network.edits import Edit
    from cutaway.network.loss import Loss
    from cutaway.network.network import Network


@strict
def loss(
    net: Network,
    texts: Any,
    *,
    edits: Sequence[Edit] | Edit = (),
    column: str = "text",
    work: Work | None = None,
) -> Loss:
    """Next-token cross-entropy of a network on texts: for each token, each text and all, with perplexity.

    Args:
        net: the network.
        texts: a text, several, rows of token ids, a file (`pathlib.Path`: .txt, one text a line; .csv, .json, .jsonl), a
            pandas frame or a dataset.
        edits: interventions that the runs carry, beside those of `net.edit`; the loss without any edit is then measured,
            too, and the difference has an interval over texts.
        column: of a table, the one that holds the texts.
        work: hears of progress, and may end it.

    Raises:
        SiteUnavailable: the network predicts no next token (no head, a masked model, an encoder-decoder).
        BadInput: an empty set, an empty text or one of a single token.
        TooLong: a text beyond the context.
        NotFinite: a loss is NaN or infinite.
    """
    return net.loss(texts, edits=edits, column=column, work=work)

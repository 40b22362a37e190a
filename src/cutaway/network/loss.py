"""The loss of a network on texts: how surprised it is by each next token, and what edits change about that."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cutaway.errors import BadInput, NotFinite, SiteUnavailable
from cutaway.network.core import Core
from cutaway.network.edits import Bound, Edit
from cutaway.network.execution.running import RunOptions, is_causal, prepare, run
from cutaway.network.memory import rows_at_once
from cutaway.network.sites import Site
from cutaway.network.textsets import batches, digest, rows_in
from cutaway.results import Provenance, Work, described, load_fields, save_fields
from cutaway.statistics import Estimate, ratio_of

if TYPE_CHECKING:
    from cutaway.reports import Page

#: So many texts are drawn on a page.
_DRAWN = 3
_ROWS = 30


@dataclass(frozen=True, eq=False)
class Loss:
    """Next-token cross-entropy, in nats, of every token of some texts but each text's first.

    A mean is over tokens; its interval is over texts, and there is none for a single one.

    Attributes:
        tokens: each text's tokens.
        values: [n p], -log p(token | those before it); NaN at a text's first token and beyond its end.
        unedited: [n p], the same without any edit; None where there was none.
        edits: what was changed, in words.
        provenance: what is needed to repeat it.
    """

    kind: ClassVar[str] = "loss"

    tokens: tuple[tuple[str, ...], ...]
    values: np.ndarray
    unedited: np.ndarray | None
    edits: tuple[str, ...]
    provenance: Provenance

    @property
    def n_tokens(self) -> int:
        """How many tokens were predicted."""
        return int(np.isfinite(self.values).sum())

    @property
    def per_text(self) -> np.ndarray:
        """Mean loss of each text: [n]."""
        return np.nanmean(self.values, 1)

    @property
    def mean(self) -> Estimate:
        """Mean loss over all tokens, with an interval over texts (of which none is below zero, as no loss is)."""
        found = _over_texts(self.values)
        if found.interval is None:
            return found
        return replace(found, interval=replace(found.interval, low=max(0.0, found.interval.low)))

    @property
    def perplexity(self) -> float:
        """exp of the mean loss."""
        return math.exp(min(self.mean.value, 700.0))

    @property
    def change(self) -> Estimate | None:
        """Mean loss with the edits less that without, text against itself; None where there were no edits."""
        return None if self.unedited is None else _over_texts(self.values - self.unedited)

    @property
    def headline(self) -> str:
        """Mean loss and perplexity, and what the edits add, where that is told from nothing."""
        texts = f"{len(self.tokens)} text{'s' * (len(self.tokens) > 1)}, {self.n_tokens} tokens"
        mean = self.mean if len(self.tokens) > 1 else f"{self.mean.value:.3f}"
        said = f"loss {mean} nats a token, perplexity {self.perplexity:.4g} ({texts})"
        change = self.change
        if change is None:
            return f"L{said[1:]}"
        figure = f"{change.value:+.3f}{_ends(change)} nats a token"
        if change.interval is None:
            return f"The edits change the loss of this one text by {figure}; {said}"
        if change.above(0.0) is None:
            return f"The edits are not told to change the loss ({figure}); {said}"
        return f"The edits {'raise' if change.value > 0 else 'lower'} the loss by {figure}; {said}"

    def to_pandas(self) -> pd.DataFrame:
        """One row for each predicted token: text, position, token, loss; with edits also unedited, change."""
        text, position = np.nonzero(np.isfinite(self.values))
        columns: dict[str, Any] = {"text": text, "position": position}
        columns["token"] = [self.tokens[t][p] for t, p in zip(text, position, strict=True)]
        columns["loss"] = self.values[text, position]
        if self.unedited is not None:
            columns["unedited"] = self.unedited[text, position]
            columns["change"] = columns["loss"] - columns["unedited"]
        return pd.DataFrame(columns)

    def top(self, n: int = 10) -> pd.DataFrame:
        """The n tokens with the largest loss; with edits, those that change most."""
        frame = self.to_pandas()
        by = frame["loss"] if self.unedited is None else frame["change"].abs()
        return frame.iloc[np.argsort(-by.to_numpy(), kind="stable")[:n]].reset_index(drop=True)

    def plot(self, text: int = 0) -> Any:
        """Loss along one text, token by token, with and without the edits.

        Raises `BadInput` for a text that there is not.
        """
        from cutaway.figures import along_text

        if not -len(self.tokens) <= text < len(self.tokens):
            raise BadInput(f"There is no text {text}.", f"There are {len(self.tokens)}, counted from 0.")
        tokens = self.tokens[text]
        edited = self.unedited is not None
        lines = {"with the edits" if edited else "loss": self.values[text, : len(tokens)].tolist()}
        if self.unedited is not None:
            lines["without"] = self.unedited[text, : len(tokens)].tolist()
        return along_text(tokens, lines, "loss (nats)")

    def page(self) -> Page:
        """The loss along the texts where it is largest (or changes most), and each text's mean."""
        from cutaway.reports import Figure, Section, Table, page_of

        order = self._order()
        figures = [Figure(self.plot(int(i)), f"Text {i}: {self._told(int(i))}.") for i in order[:_DRAWN]]
        head = ("text", "tokens", "loss", *(() if self.unedited is None else ("unedited", "change")))
        rows = tuple(self._row(int(i)) for i in order[:_ROWS])
        rest = f" The {_ROWS} of {len(order)} with the largest." if len(order) > _ROWS else ""
        table = Table(
            head, rows, f"Means over each text's tokens, in nats.{rest}", frozenset(range(1, len(head)))
        )
        what = "" if not self.edits else f"Edits: {'; '.join(self.edits)}."
        sections = [Section("texts", "Along the text", figures), Section("means", "Text by text", [table])]
        title = f"How improbable {self.provenance.network} finds each token, given those before it."
        return page_of(self, "Cutaway · loss", title, sections, lead=what)

    def _order(self) -> np.ndarray:
        """The texts, those with the largest loss, or change, first."""
        by = self.per_text if self.unedited is None else np.abs(np.nanmean(self.values - self.unedited, 1))
        return np.argsort(-by, kind="stable")

    def _told(self, text: int) -> str:
        mean = self.per_text[text]
        return f"{mean:.3f} nats a token, perplexity {math.exp(min(mean, 700.0)):.4g}"

    def _row(self, text: int) -> tuple[str, ...]:
        count = int(np.isfinite(self.values[text]).sum())
        figures = [self.per_text[text]]
        if self.unedited is not None:
            plain = float(np.nanmean(self.unedited[text]))
            figures += [plain, figures[0] - plain]
        said = "".join(self.tokens[text]).strip()
        return (
            said if len(said) <= 80 else f"{said[:77]}...",
            str(count),
            *(f"{figure:.3f}" for figure in figures),
        )

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        content = {"mean": self.mean, "perplexity": self.perplexity, "change": self.change}
        return described(
            self, "kind", "tokens", "values", "unedited", "edits", "n_tokens", "per_text", **content
        )

    save = save_fields
    load = classmethod(load_fields)

    def __str__(self) -> str:
        lines = [f"text {i}: {self._told(int(i))}" for i in self._order()[:_DRAWN]]
        return "\n".join([self.headline, *lines])

    def __repr__(self) -> str:
        return f"Loss({self.headline})"

    def _repr_html_(self) -> str:
        from cutaway.reports import display_result

        return display_result(self, self.edits, self.top(12))


def _ends(change: Estimate) -> str:
    return "" if change.interval is None else f" [{change.interval.low:+.3f}, {change.interval.high:+.3f}]"


def _over_texts(values: np.ndarray) -> Estimate:
    """Mean over all finite entries of [n p], with Fieller's interval over rows."""
    return ratio_of(np.nansum(values, 1), np.isfinite(values).sum(1).astype(float))


def loss_on(
    net: Core, texts: Sequence[Any], edits: Sequence[Edit], bound: Sequence[Bound], work: Work
) -> Loss:
    """The loss of a network on texts, under edits and, where there are any, without them; see `scoring.loss`."""
    began = time.monotonic()
    rows = rows_in(net, texts)
    require_next_tokens(net, rows)
    size = rows_at_once(net, max(map(len, rows)), work, read=2 * max(map(len, rows)))  # type: ignore[arg-type]
    cut = batches(net, rows, size)
    if len(cut) == 1:
        cut = [list(range(len(rows)))]
    else:
        require_row_by_row(edits)
    values = np.full((len(rows), max(map(len, rows))), np.nan)
    plain = values.copy() if edits else None
    for done, batch in enumerate(cut):
        work.step("loss", done, len(cut))
        part = [rows[i] for i in batch]
        for table, carried, changes in ((values, edits, bound), (plain, (), ())):
            if table is None:
                continue

            def made(part: Any = part, changes: Any = changes) -> dict[str, np.ndarray]:
                return {str(number): found for number, found in enumerate(_losses(net, part, changes))}

            of = [net.hash, list(map(list, part)), len(carried)]
            kept = work.once("losses", made, dict, dict, lambda of=of: of)
            for number, i in enumerate(batch):
                found = kept[str(number)]
                table[i, 1 : 1 + len(found)] = found
    origin = Provenance.of(net, digest(texts), 0, time.monotonic() - began)
    tokens = tuple(tuple(net.texts.token_strings(row)) for row in rows)
    return Loss(tokens, values, plain, tuple(map(repr, edits)), origin)


def require_next_tokens(net: Core, rows: Sequence[Sequence[int]]) -> None:
    """Raise `SiteUnavailable` where a network gives no next token, `BadInput` for a text of one token."""
    name = type(net.model).__name__
    remedy = "Open a model with a language-modelling head, such as one for causal language modelling."
    if net.interface.encoder_decoder:
        raise SiteUnavailable(
            f"{name} is an encoder-decoder, whose loss needs a text and its target.", remedy
        )
    if net.d_vocab is None or Site("logits") not in net.anatomy.taps:
        raise SiteUnavailable(f"{name} has no head that predicts tokens, so there is no loss.", remedy)
    last = Site("resid_post", net.n_layers - 1)
    if (
        net.n_layers
        and last in net.anatomy.taps
        and not net.fact_of_weights("is causal", lambda: is_causal(net))
    ):
        raise SiteUnavailable(
            f"{name} sees later tokens (a masked model), so it predicts no next token.", remedy
        )
    for number, row in enumerate(rows, 1):
        if len(row) < 2:
            raise BadInput(
                f"Text {number} has one token, and nothing comes before it.",
                "Give texts of two tokens or more.",
            )


def require_row_by_row(edits: Sequence[Edit]) -> None:
    """Raise `BadInput` for edits that speak of a batch's rows, where texts are run in several batches."""
    for edit in edits:
        pos, source = getattr(edit, "pos", None), getattr(edit, "source", None)
        many = getattr(getattr(source, "tokens", None), "n", 1) > 1
        nested = (
            torch.is_tensor(pos)
            and pos.ndim > 1
            or isinstance(pos, list | tuple)
            and any(isinstance(p, list | tuple) for p in pos)
        )
        of_batch = (
            getattr(edit, "how", "zero") != "zero" and source is None and getattr(edit, "over", None) is None
        )
        if getattr(edit, "row", None) is not None or nested or many or of_batch:
            raise BadInput(
                f"{edit!r:.80} speaks of the rows of one batch, and these texts are run in several.",
                "Give fewer texts at a time; for a mean, the texts that it is over: Ablate(..., how='mean', over=texts).",
            )


def _losses(net: Core, rows: Sequence[Sequence[int]], bound: Sequence[Bound]) -> list[np.ndarray]:
    """-log p of every token but the first of each row."""
    tokens = net.texts.encode([list(row) for row in rows])
    logits = run(net, prepare(net, tokens), [], list(bound), RunOptions()).logits
    if logits is None or logits.shape[:2] != tokens.ids.shape:
        got = "none" if logits is None else f"logits {tuple(logits.shape)}"
        raise SiteUnavailable(
            f"{type(net.model).__name__} gives {got} where one for each token is needed.",
            "Open a language model.",
        )
    found = []
    for i, row in enumerate(rows):
        first = int(tokens.first[i])
        found.append(_cross_entropy(logits[i, first : first + len(row) - 1], row[1:]))
        if not np.isfinite(found[-1]).all():
            raise NotFinite(
                f"The loss of text {i + 1} of a batch is NaN or infinite.",
                "Use a wider dtype, such as float32.",
            )
    return found


def _cross_entropy(logits: Tensor, targets: Sequence[int]) -> np.ndarray:
    picked = (
        logits.float().log_softmax(-1).gather(1, torch.tensor(list(targets), device=logits.device)[:, None])
    )
    return -picked[:, 0].double().cpu().numpy()

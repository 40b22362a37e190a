"""The result: what each input token adds, by every method, summed up by spans and held against exchanges."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pandas as pd

from cutaway.algorithms.inputs.agreeing import CORRELATION, mean_at, rank_correlations, shares_at
from cutaway.algorithms.inputs.telling import RankEstimates, percent_of, verdict_sentence
from cutaway.claims import Claim
from cutaway.effects.inputs import METHODS
from cutaway.errors import BadInput, did_you_mean
from cutaway.figures import Bar, groups_of_bars, show_token
from cutaway.reports import Block, ClaimTests, Figure, Page, Section, Table, Text, display_result, result_page
from cutaway.results import Provenance, described, load_fields, save_fields
from cutaway.statistics import Estimate
from cutaway.trials import percent

_EFFECT = "exchanging it"


@dataclass(frozen=True)
class InputAgreement:
    """One method beside exchanging variables.

    Attributes:
        method: its name.
        ranks: how far both have the same order, beside the controls.
        shares: the share of the attribution at the tokens that each variable's exchange changes; those that change the same
            ones stand together.
        misled: variables about which it says the contrary, and how.
        claim: does it tell on which variables the answer rests?
    """

    method: str
    ranks: RankEstimates
    shares: dict[str, Estimate | None]
    misled: dict[str, str]
    claim: Claim

    @property
    def sentence(self) -> str:
        """What came out, without a full stop."""
        return verdict_sentence(METHODS[self.method].words, self.ranks, self.misled)


@dataclass(frozen=True, eq=False)
class InputAttribution:
    """Which input tokens an answer rests on, from `input_attribution`. Arrays of tokens end in NaN behind a prompt's last.

    Attributes:
        asked: the name of the prompts.
        metric: what is attributed.
        baseline: what stands in the place of a token, of integrated gradients and occlusion.
        steps: of the integral.
        window: tokens that are occluded together.
        tokens: of each prompt.
        methods: names of those that were run.
        values: by method what each token adds [n t], in units of the metric; of rollout shares that add up to one.
        metric_values: the metric of each prompt [n].
        missed: by how much integrated gradients fail to add up to the metric less that of the baseline, as a share [n].
        templates: of each prompt; intervals are over these where there are four.
        span_at: by name the tokens of each span [n 2], half-open.
        spans: by method and span its mean share of the absolute attribution.
        variables: those that were exchanged.
        changed: which tokens the exchange of each variable changes: bool [v n t].
        changes: by how much it changes the metric [v n], NaN where there is no exchange.
        effects: what exchanging each does, as mean absolute change of the metric in shares of the largest; variables that
            change the same tokens stand together ("gender and who"), with the larger change of each prompt.
        agreements: each method beside the exchanges; empty where no variable is known.
        limits: by which they were judged.
        notes: what the reader should know.
        complete: was all of it run?
        provenance: what is needed to repeat it.
    """

    kind: ClassVar[str] = "input-attribution"

    asked: str
    metric: str
    baseline: str
    steps: int
    window: int
    tokens: tuple[tuple[str, ...], ...]
    methods: tuple[str, ...]
    values: dict[str, np.ndarray]
    metric_values: np.ndarray
    missed: np.ndarray
    templates: tuple[str, ...]
    span_at: dict[str, np.ndarray]
    spans: dict[str, dict[str, Estimate | None]]
    variables: tuple[str, ...]
    changed: np.ndarray
    changes: np.ndarray
    effects: dict[str, Estimate | None]
    agreements: tuple[InputAgreement, ...]
    limits: dict[str, float]
    notes: tuple[str, ...]
    complete: bool
    provenance: Provenance

    def __getitem__(self, method: str) -> InputAgreement:
        """A method beside the exchanges. Raises `BadInput` for one that was not held against them."""
        known = {one.method: one for one in self.agreements}
        if method not in known:
            raise BadInput(f"{method!r:.60} was not held against exchanges.", did_you_mean(method, known))
        return known[method]

    @property
    def claims(self) -> tuple[Claim, ...]:
        """One for each method that was held against exchanges."""
        return tuple(one.claim for one in self.agreements)

    @property
    def clusters(self) -> tuple[str, ...] | None:
        """What intervals draw together; None for single prompts."""
        return self.templates if len(set(self.templates)) >= 4 else None

    def strongest(self, method: str | None = None) -> list[str]:
        """Spans (where there are none, variables; else tokens of the first prompt), those with the largest shares first."""
        chosen = self._method(method)
        named = self.spans[chosen] or next((a.shares for a in self.agreements if a.method == chosen), {})
        if named:
            return sorted(named, key=lambda name: -_value(named[name]))
        first = np.nan_to_num(np.abs(self.values[chosen][0]))[: len(self.tokens[0])]
        return [self.tokens[0][int(i)] for i in np.argsort(-first, kind="stable")]

    def agreement(self, figures: Mapping[str, float], method: str | None = None) -> Estimate | None:
        """Spearman's correlation between shares and other figures, over spans and variables: its mean over prompts.

        figures: by span or variable a plain number, e.g. the largest share of a part there by `carried`. None where no
        prompt has three of them. Raises `BadInput` for a name that is neither.
        """
        masks = self._masks()
        for name in figures:
            if name not in masks:
                raise BadInput(f"{name!r:.60} is no span and no variable here.", did_you_mean(name, masks))
        shares = shares_at(self.values[self._method(method)], np.stack([masks[name] for name in figures]))
        numbers = np.array(list(figures.values()), float)[:, None].repeat(shares.shape[1], 1)
        return mean_at(rank_correlations(shares, numbers), self.clusters, within=CORRELATION)

    def _masks(self) -> dict[str, np.ndarray]:
        width = np.arange(max(map(len, self.tokens)))
        found = {name: (width >= at[:, :1]) & (width < at[:, 1:]) for name, at in self.span_at.items()}
        return found | {name: self.changed[v] for v, name in enumerate(self.variables)}

    def _method(self, method: str | None) -> str:
        chosen = self.methods[0] if method is None else method
        if chosen not in self.methods:
            raise BadInput(f"{method!r:.60} was not run.", did_you_mean(method, self.methods))
        return chosen

    @property
    def headline(self) -> str:
        """What came out, in a sentence."""
        chosen = self.methods[0]
        words = METHODS[chosen].words
        partial = "" if self.complete else "Partial, stopped before the end: "
        if not self.agreements:
            named = self.strongest(chosen)
            return (
                f"{partial}By {words} the answer rests most on {_quoted(named[0], bool(self.spans[chosen]))}"
            )
        of = self[chosen]
        most = max(of.shares, key=lambda name: _value(of.shares[name]))
        return (
            f"{partial}By {words} the answer rests most on {most} ({percent_of(of.shares[most])} of the attribution). "
            f"{of.sentence}"
        )

    def to_pandas(self) -> pd.DataFrame:
        """One row for each method, prompt and token: what it adds."""
        rows = [
            (method, number, place, token, float(self.values[method][number, place]))
            for method in self.methods
            for number, tokens in enumerate(self.tokens)
            for place, token in enumerate(tokens)
        ]
        return pd.DataFrame(rows, columns=["method", "prompt", "position", "token", "value"])

    def summary(self) -> pd.DataFrame:
        """One row for each method and span or variable: its share, with the interval; of variables what exchanging does."""
        rows: list[tuple[Any, ...]] = []
        for method in self.methods:
            rows += [
                (method, "span", name, *_figures(share), *_figures(None))
                for name, share in self.spans[method].items()
            ]
        for one in self.agreements:
            rows += [
                (one.method, "variable", name, *_figures(share), *_figures(self.effects[name]))
                for name, share in one.shares.items()
            ]
        names = ["share", "low", "high", "effect", "effect_low", "effect_high"]
        return pd.DataFrame(rows, columns=["method", "of", "name", *names])

    def plot(self, prompt: int | None = None) -> Any:
        """Shares of the spans by every method, or of the variables beside what exchanging does; with `prompt` its tokens.

        Raises `BadInput` for a prompt that is not there.
        """
        if prompt is not None or not (self.agreements or any(self.spans.values())):
            return self._tokens_drawn(0 if prompt is None else prompt)
        if not self.agreements:
            return self._drawn({METHODS[m].words: self.spans[m] for m in self.methods})
        groups: dict[str, Mapping[str, Estimate | None]] = {
            METHODS[a.method].words: a.shares for a in self.agreements
        }
        return self._drawn(groups | {_EFFECT: self.effects})

    def _drawn(self, groups: Mapping[str, Mapping[str, Estimate | None]]) -> Any:
        bars = {
            name: [
                Bar.of(html.escape(label), 0.0 if share is None else share) for label, share in shares.items()
            ]
            for name, shares in groups.items()
        }
        return groups_of_bars(
            bars, unit="share of the attribution, and of the largest effect", colours=_COLOURS[: len(bars)]
        )

    def _tokens_drawn(self, prompt: int) -> Any:
        if isinstance(prompt, bool) or not isinstance(prompt, int) or not 0 <= prompt < len(self.tokens):
            raise BadInput(
                f"There is no prompt {prompt!r}.", f"There are {len(self.tokens)}, counted from 0."
            )
        tokens = self.tokens[prompt]
        groups = {}
        for method in self.methods:
            line = self.values[method][prompt][: len(tokens)]
            size = np.abs(line).sum() or 1.0
            groups[METHODS[method].words] = [
                Bar.of(f"{i} {show_token(token)}", float(value / size))
                for i, (token, value) in enumerate(zip(tokens, line, strict=True))
            ]
        return groups_of_bars(groups, unit="share of the attribution", colours=_COLOURS[: len(groups)])

    def page(self) -> Page:
        """Shares beside exchanges, the first prompt token by token, and the claims."""
        caption = (
            "The share of the absolute attribution at the tokens that exchanging a variable changes, beside what that "
            "exchange does to the metric as a share of the largest."
            if self.agreements
            else "The share of the absolute attribution at each span."
        )
        blocks: list[Block | Section] = []
        if self.agreements or any(self.spans.values()):
            blocks.append(
                Section("shares", "On what the answer rests", [Figure(self.plot(), caption), self._table()])
            )
        if self.agreements:
            tests: list[Block] = [ClaimTests(claim) for claim in self.claims]
            blocks.append(Section("agreement", "Beside exchanging what stands there", tests))
        first = Figure(
            self.plot(0), "The first prompt, token by token: signed, as a share of all absolute values."
        )
        blocks.append(Section("prompt", "One prompt", [first]))
        if self.notes:
            blocks.append(Section("notes", "What the reader should know", [Text(self.notes)]))
        about = f"{len(self.tokens)} prompts of “{self.asked}”, {self.metric}, in {self.provenance.network}."
        return result_page(
            about,
            "Cutaway · input attribution",
            f"{self.headline}.",
            blocks,
            self.provenance,
            claims=self.claims,
        )

    def _table(self) -> Table:
        named: Sequence[str] = list(self.effects) if self.agreements else list(self.spans[self.methods[0]])
        columns: Mapping[str, Mapping[str, Estimate | None]] = (
            {METHODS[a.method].words: a.shares for a in self.agreements} | {_EFFECT: self.effects}
            if self.agreements
            else {METHODS[m].words: self.spans[m] for m in self.methods}
        )
        rows = tuple((name, *(percent_of(of.get(name)) for of in columns.values())) for name in named)
        head = ("variable" if self.agreements else "span", *columns)
        return Table(head, rows, "The same as numbers, with 95 % intervals.", frozenset(range(1, len(head))))

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        return described(self, *(name for name in self.__dataclass_fields__ if name != "provenance"))

    save = save_fields
    load = classmethod(load_fields)

    def __repr__(self) -> str:
        lines = [f"InputAttribution({self.headline})"]
        for method in self.methods:
            shares = next((a.shares for a in self.agreements if a.method == method), self.spans[method])
            told = ", ".join(f"{name} {percent(_value(share))}" for name, share in list(shares.items())[:8])
            lines.append(f"  {METHODS[method].words}: {told or 'by token'}")
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes[:6])])[:1900]

    def _repr_html_(self) -> str:
        lines = [*(f"{claim.verdict}: {claim.statement}." for claim in self.claims), *self.notes[:3]]
        return display_result(self, lines, self.summary() if len(self.summary()) else self.to_pandas())


_COLOURS = ("#d55e00", "#0072b2", "#009e73", "#555555")


def _value(share: Estimate | None) -> float:
    return 0.0 if share is None or np.isnan(share.value) else share.value


def _figures(share: Estimate | None) -> tuple[float, float, float]:
    return (np.nan, np.nan, np.nan) if share is None else (share.value, *share.ends())


def _quoted(name: str, span: bool) -> str:
    return name if span else repr(name)

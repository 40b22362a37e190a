"""A found set of components beside random sets of the same size."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import plotly.graph_objects as go

from cutaway.figures import theme
from cutaway.figures.showing import Picture


@dataclass(frozen=True)
class Comparison:
    """One test of a set of components beside random sets.

    Attributes:
        label: what is tested.
        value: the set's figure.
        low, high: the ends of its interval.
        random: the random sets' figures.
        threshold: what the figure had to pass; None where there is no threshold.
        pass_above: whether the test is passed above the threshold, or below it.
    """

    label: str
    value: float
    low: float
    high: float
    random: Sequence[float]
    threshold: float | None
    pass_above: bool


def against_random(
    comparisons: Sequence[Comparison],
    title: str = "",
    unit: str = "share of the gap",
    names: tuple[str, str] = ("random sets", "the set that was found"),
) -> Picture:
    """Each test on its own line: grey dots are random sets, the diamond is the found set, the bracket the threshold.

    The dots are spread vertically by rank order only so that they can be told apart.
    """
    figure, known = go.Figure(), False
    for place, test in enumerate(reversed(comparisons)):
        values = np.asarray(list(test.random), dtype=float)
        spread = np.resize([0.0, 0.13, -0.13, 0.22, -0.22], len(values))
        figure.add_scatter(
            x=values, y=place + spread, mode="markers", name=names[0], legendgroup="random", showlegend=place == 0,
            marker={"color": theme.MUTED, "size": 6, "opacity": 0.45},
            hovertemplate=f"{names[0]} %{{x:.3f}}<extra></extra>",
        )  # fmt: skip
        figure.add_scatter(
            x=[test.value], y=[place], mode="markers", name=names[1], legendgroup="found", showlegend=place == 0,
            marker={"color": theme.POSITIVE, "size": 12, "symbol": "diamond", "line": {"color": "white", "width": 1}},
            error_x=theme.whiskers([test.value], [test.low], [test.high], theme.POSITIVE, thickness=2, width=5),
            hovertemplate=f"{test.label}<br>%{{x:.3f}} ({test.low:.3f} to {test.high:.3f})<extra></extra>",
        )  # fmt: skip
        if test.threshold is not None:
            _threshold(figure, test, test.threshold, place, first=not known)
            known = True
    n = len(comparisons)
    dressed = theme.dress(figure, height=118 + 64 * n, title=title)
    figure.update_layout(margin={"t": 84 if title else 34, "r": 84}, title={"y": 0.98, "yanchor": "top"})
    figure.update_yaxes(
        tickmode="array", tickvals=list(range(n)), ticktext=[test.label for test in reversed(comparisons)],
        range=[-0.55, n - 0.45], showgrid=False, zeroline=False, ticks="",
    )  # fmt: skip
    figure.update_xaxes(
        title=theme.axis_title(unit), gridcolor=theme.GRID_LINE, zeroline=True, zerolinecolor=theme.FAINT, ticks="",
    )  # fmt: skip
    figure.update_layout(
        meta={"head": ["test", "what", "value", "low", "high"], "rows": list(_rows(comparisons, names))}
    )
    return dressed


def _rows(comparisons: Sequence[Comparison], names: tuple[str, str]) -> Iterator[list[object]]:
    """What is drawn, row by row: the set with its interval, the threshold, and each random set."""
    for test in comparisons:
        yield [test.label, names[1], test.value, test.low, test.high]
        if test.threshold is not None:
            yield [
                test.label,
                "must be above" if test.pass_above else "must be below",
                test.threshold,
                None,
                None,
            ]
        yield from ([test.label, names[0], float(value), None, None] for value in test.random)


def _threshold(figure: go.Figure, test: Comparison, threshold: float, place: int, first: bool) -> None:
    figure.add_scatter(
        x=[threshold, threshold], y=[place - 0.4, place + 0.4], mode="lines+text", cliponaxis=False,
        text=["", "must lie right →" if test.pass_above else "← must lie left"],
        textposition="top right" if test.pass_above else "top left", textfont={"size": 10, "color": theme.NEGATIVE},
        name="threshold, fixed beforehand", legendgroup="threshold", showlegend=first,
        line={"color": theme.NEGATIVE, "width": 2, "dash": "dot"}, hovertemplate=f"threshold {threshold:.2f}<extra></extra>",
    )  # fmt: skip

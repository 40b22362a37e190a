"""Probes: a map with its controls beside it, curves with bands, projections by class, a direction against the tokens."""

from __future__ import annotations

import html
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from cutaway.figures import theme
from cutaway.figures.showing import Picture
from cutaway.figures.tokens import show_token

#: From a constant guess (white) to the best score; readable in grey because it grows monotonically darker.
_SCALE = [(0.0, "#ffffff"), (0.25, "#d5e8e6"), (0.5, "#8fc1bd"), (0.75, "#3b8a85"), (1.0, "#0b4744")]
_CONTROL_INKS = ("#5f6975", "#b5470f", "#1d5fa6", "#8a6d00")
_DASHES = ("dot", "dash", "dashdot", "longdash")
_CLASSES = (theme.NEGATIVE, theme.POSITIVE, theme.ACCENT, "#8a6d00", "#6b4c9a", "#5f6975")


@dataclass(frozen=True)
class MapPanel:
    """One heat map.

    Attributes:
        values: [rows columns].
        rows, columns: their labels.
        row_title, column_title: names of the axes.
    """

    values: np.ndarray
    rows: Sequence[str]
    columns: Sequence[str]
    row_title: str
    column_title: str


def maps(panels: Mapping[str, MapPanel], chance: float, unit: str, title: str = "") -> Picture:
    """Heat maps on one common scale, from the score of a constant guess to the best: the probe's first, then its controls.

    Args:
        panels: name -> panel, all of one shape.
        chance: what a constant guess gets; drawn white.
        unit: name of the score.
        title: shown above.
    """
    names = list(panels)
    top = max(chance + 0.05, *(float(np.nanmax(p.values)) for p in panels.values()))
    ticks = [chance, (chance + top) / 2, top]
    bar = theme.colour_bar(unit, 1.02, tickvals=ticks, ticktext=[f"{v:.2f}" for v in ticks])
    across = min(3, len(names))
    down = -(-len(names) // across)
    figure = make_subplots(
        rows=down, cols=across, subplot_titles=[html.escape(n) for n in names], horizontal_spacing=0.06,
        vertical_spacing=0.34 / down,
    )  # fmt: skip
    for i, (name, panel) in enumerate(panels.items()):
        row, column = i // across + 1, i % across + 1
        wide = len(panel.columns) * across
        texts = [["" if v != v else f"{v:.2f}".removeprefix("0") for v in line] for line in panel.values]
        figure.add_heatmap(
            z=panel.values, x=list(range(len(panel.columns))), y=list(range(len(panel.rows))), zmin=chance, zmax=top,
            colorscale=_SCALE, xgap=1, ygap=1, showscale=i == 0, text=texts if wide <= 36 else None,
            texttemplate="%{text}" if wide <= 36 else None, textfont={"size": 9}, hoverongaps=False,
            customdata=_hovers(name, panel, unit), hovertemplate=theme.HOVER, colorbar=bar, row=row, col=column,
            meta={"rows": [html.escape(r) for r in panel.rows], "columns": [html.escape(c) for c in panel.columns]},
        )  # fmt: skip
        row_title = panel.row_title if column == 1 else ""
        figure.update_xaxes(**_axis(panel.columns, panel.column_title, 8), row=row, col=column)
        figure.update_yaxes(**_axis(panel.rows, row_title, 12), row=row, col=column)
    tall = len(next(iter(panels.values())).rows)
    dressed = theme.dress(
        figure, height=int(76 + down * (92 + min(22, max(6, 330 / tall)) * tall)), title=title
    )
    figure.update_layout(margin={"t": 74 if title else 40, "r": 74})
    figure.update_annotations(font={"size": 12, "color": theme.MUTED})
    figure.update_layout(plot_bgcolor=theme.ABSENT)
    return dressed


def _hovers(name: str, panel: MapPanel, unit: str) -> list[list[str]]:
    head = html.escape(name)
    return [
        [
            f"{head}<br>{panel.row_title} {html.escape(r)} · {panel.column_title} {html.escape(c)}<br>{unit} {v:.3f}"
            for c, v in zip(panel.columns, line, strict=True)
        ]
        for r, line in zip(panel.rows, panel.values, strict=True)
    ]


def _axis(labels: Sequence[str], title: str, most: int) -> dict[str, Any]:
    step = max(1, -(-len(labels) // most))
    ticks = list(range(0, len(labels), step))
    return {
        "tickmode": "array", "tickvals": ticks, "ticktext": [html.escape(labels[t]) for t in ticks], "showgrid": False,
        "zeroline": False, "range": [-0.5, len(labels) - 0.5], "tickfont": {"size": 10},
        "title": theme.axis_title(title, 11),
    }  # fmt: skip


def curves(
    places: Sequence[str], score: np.ndarray, band: tuple[np.ndarray, np.ndarray], controls: Mapping[str, np.ndarray],
    axis: str, unit: str, chance: float, title: str = "",
) -> Picture:  # fmt: skip
    """The score over places as a line with its band, and one dashed line for each control.

    Args:
        places: labels along the axis.
        score: [n]; band: low and high [n], NaN for none.
        controls: name -> [n].
        axis, unit: names of the axes.
        chance: what a constant guess gets.
        title: shown above.
    """
    x = list(range(len(places)))
    figure, known = go.Figure(), bool(np.isfinite(band[0]).all())
    if known and len(places) > 1:
        figure.add_scatter(
            x=[*x, *x[::-1]], y=[*band[1], *band[0][::-1]], fill="toself", mode="lines", fillcolor="rgba(15,110,106,0.16)",
            line={"width": 0}, name="95 % interval", hoverinfo="skip",
        )  # fmt: skip
    figure.add_scatter(
        x=x, y=score, mode="lines+markers", name="probe", line={"color": theme.ACCENT, "width": 2.5},
        marker={"size": 7}, customdata=list(places),
        meta={"low": list(map(float, band[0])), "high": list(map(float, band[1]))} if known else None,
        hovertemplate=f"{axis} %{{customdata}}<br>{unit} %{{y:.3f}}<extra></extra>",
        error_y=theme.whiskers(score, *band, theme.ACCENT) if len(places) == 1 and known else None,
    )  # fmt: skip
    for (name, values), ink, dash in zip(controls.items(), _CONTROL_INKS, _DASHES, strict=False):
        figure.add_scatter(
            x=x, y=values, mode="lines+markers", name=html.escape(name), line={"color": ink, "width": 1.6, "dash": dash},
            marker={"size": 4}, hovertemplate=f"{html.escape(name)}<br>{unit} %{{y:.3f}}<extra></extra>",
        )  # fmt: skip
    figure.add_hline(y=chance, line={"color": theme.FAINT, "width": 1})
    dressed = theme.dress(figure, height=360, title=title)
    figure.update_layout(margin={"t": 78 if title else 44}, title={"y": 0.98, "yanchor": "top"})
    figure.update_xaxes(
        tickmode="array", tickvals=x, ticktext=[html.escape(p) for p in places], title={"text": axis}, showgrid=False,
        zeroline=False,
    )  # fmt: skip
    figure.update_yaxes(title={"text": unit}, gridcolor=theme.GRID_LINE, zeroline=False)
    return dressed


def projections(groups: Mapping[str, np.ndarray], title: str = "") -> Picture:
    """Held-out outputs of a probe, one histogram for each class, on common bins.

    Args:
        groups: class -> outputs [n].
        title: shown above.
    """
    every = np.concatenate(list(groups.values()))
    low, high = float(every.min()), float(every.max())
    size = max((high - low) / 40, 1e-9)
    figure = go.Figure()
    for (name, values), ink in zip(groups.items(), itertools.cycle(_CLASSES), strict=False):
        figure.add_histogram(
            x=values, name=html.escape(name), marker={"color": ink, "line": {"width": 0}}, opacity=0.55,
            xbins={"start": low, "end": high + size, "size": size}, histnorm="percent",
            hovertemplate=f"{html.escape(name)}<br>%{{x}}: %{{y:.1f}} %<extra></extra>",
        )  # fmt: skip
    dressed = theme.dress(figure, height=320, title=title)
    figure.update_layout(
        barmode="overlay", bargap=0.02, margin={"t": 70 if title else 40}, title={"y": 0.98, "yanchor": "top"}
    )
    title_of_x = {"text": "held-out output of the probe"}
    figure.update_xaxes(title=title_of_x, showgrid=False, zeroline=True, zerolinecolor=theme.FAINT)
    figure.update_yaxes(title={"text": "% of the class"}, gridcolor=theme.GRID_LINE)
    return dressed


def against_tokens(tokens: Sequence[str], cosines: np.ndarray, title: str = "", most: int = 12) -> Picture:
    """The tokens whose embeddings lie most along a direction, and most against it.

    Args:
        tokens: one string per row of the embedding.
        cosines: [v] with the direction.
        title: shown above.
        most: how many at each end.
    """
    order = np.argsort(cosines)
    most = min(most, len(order) // 2)
    shown = [*order[::-1][:most], *order[:most][::-1]]
    places = list(range(len(shown)))[::-1]
    values = cosines[shown]
    figure = go.Figure(
        go.Bar(
            x=values, y=places, orientation="h",
            marker={"color": [theme.POSITIVE if v > 0 else theme.NEGATIVE for v in values]},
            hovertemplate="%{x:.3f}<extra></extra>",
        )
    )  # fmt: skip
    dressed = theme.dress(figure, height=90 + 17 * len(shown), title=title)
    figure.update_yaxes(
        tickmode="array", tickvals=places, ticktext=[show_token(str(tokens[int(i)])) for i in shown], showgrid=False,
        tickfont={"family": theme.MONO, "size": 11},
    )  # fmt: skip
    title_of_x = {"text": "cosine with the token's embedding"}
    figure.update_xaxes(title=title_of_x, gridcolor=theme.GRID_LINE, zerolinecolor=theme.INK)
    figure.update_layout(showlegend=False)
    return dressed

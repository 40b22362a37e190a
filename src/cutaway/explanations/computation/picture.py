"""The drawing: which part carries which variable over which word, and along which of them it moves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cutaway.algorithms.carried.telling import NOT_SHOWN
from cutaway.algorithms.passing.judging import PASSES
from cutaway.algorithms.passing.routes import ANSWER
from cutaway.algorithms.places import ALL, VariablePlace
from cutaway.figures import VariableMove, VariableStop, movement_figure

if TYPE_CHECKING:
    from cutaway.explanations.computation.claimed import ToldComputation

#: Of each variable at most so many places are drawn, those that bring most of it.
_PLACES = 8


def drawing(told: ToldComputation) -> Any:
    """The figure; where no part is known to carry a variable the words alone."""
    stops, moves = _stops(told)
    at = told.example.at["last"]
    return movement_figure(told.example.words, stops, moves, told.example.answer.strip(), at)


def drawn_parts(told: ToldComputation) -> int:
    """How many parts the figure shows."""
    return len(_stops(told)[0])


def _stops(told: ToldComputation) -> tuple[list[VariableStop], list[VariableMove]]:
    """What carries a variable where, and along which it moves."""
    carried, passing = told.results.get("carried"), told.results.get("passing")
    if carried is None:
        return [], []
    frame = carried.to_pandas()
    shown = frame.loc[~frame["verdict"].isin(("", NOT_SHOWN))].sort_values("held", ascending=False)
    stops: list[VariableStop] = []
    number: dict[tuple[str, str], int] = {}
    for variable in carried.variables:
        supported = carried.claim(variable).supported
        for row in shown.loc[shown["variable"] == variable].head(_PLACES).to_dict("records"):
            name = f"{row['part']}@{row['span']}"
            stop = _stop(told, name, variable, float(row["held"]), supported)
            if stop is not None:
                number[variable, name] = len(stops)
                stops.append(stop)
    if not stops:
        return [], []
    moves: list[VariableMove] = []
    if passing is not None:
        for i, verdict in enumerate(passing.verdict):
            start = number.get((passing.variable[i], passing.sender[i]))
            end = number.get((passing.variable[i], passing.receiver[i]))
            whole = passing.receiver[i] == ANSWER
            if verdict == PASSES and start is not None and (whole or end is not None):
                moves.append(
                    VariableMove(start, None if whole else end, passing.variable[i], float(passing.held[i]))
                )
    fed = {move.end for move in moves}
    moves += [
        VariableMove(None, i, stop.variable)
        for i, stop in enumerate(stops)
        if i not in fed and stop.level < _first(stops)
    ]
    return stops, moves


def _first(stops: list[VariableStop]) -> float:
    """Below this height parts read the words themselves: the first layer that carries anything, and no more."""
    return min(stop.level for stop in stops) + 1.0


def _stop(
    told: ToldComputation, name: str, variable: str, share: float, supported: bool
) -> VariableStop | None:
    place = VariablePlace.parse(name)
    part = place.named
    if part is None or place.span == ALL or place.span not in told.example.at:
        return None
    layer = -1 if part.layer is None else part.layer
    mlp = part.kind == "mlp"
    row = part.words if layer < 0 else f"layer {layer} · {'MLP' if mlp else 'attention'}"
    words = f"{place.words}: brings {share:.0%} of what exchanging {variable} does"
    return VariableStop(
        part.words, words, variable, told.example.at[place.span], layer + 0.5 * mlp, row, supported
    )

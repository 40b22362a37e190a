"""Forms of prompt: whose positions correspond. Cells by position are averaged within a form, never over unlike ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import xarray as xr

from cutaway.effects.baselines import Resampling
from cutaway.effects.summary import summarise, token_labels

#: The dimension of the forms, where there are several, and the coordinate that says each example's.
FORM, OF = "form", "form_of"
#: Examples with hardly a gap of their own: under this share of the whole one, the whole gap stays the unit.
_OWN_GAP = 0.1


def forms(data: xr.Dataset) -> list[tuple[str, list[int]]]:
    """The forms of the prompts, the most frequent first: a label, and the examples that have it.

    Two prompts have one form where they share a template and a length in tokens.
    """
    if OF in data.coords:
        named: dict[str, list[int]] = {}
        for row, label in enumerate(map(str, data[OF].values)):
            named.setdefault(label, []).append(row)
        return [(label, members) for label, members in sorted(named.items(), key=_by_number)]
    lengths = np.zeros(data.sizes["example"], int)
    if "tokens" in data.coords:
        lengths = (data["tokens"].values != "").sum(1)
    rows: dict[tuple[str, int], list[int]] = {}
    for row, (template, length) in enumerate(zip(data["template"].values, lengths, strict=True)):
        rows.setdefault((str(template), int(length)), []).append(row)
    often = Counter(template for template, _ in rows)
    return [
        (_label(template, length, often[template] > 1), members)
        for (template, length), members in sorted(rows.items(), key=_by_number)
    ]


def _by_number(form: tuple[object, list[int]]) -> tuple[int, int]:
    """The most frequent first; those of equal number in the order in which they come."""
    return -len(form[1]), form[1][0]


def _label(template: str, length: int, several: bool) -> str:
    if not template:
        return f"{length} tokens"
    return f"{template} ({length} tokens)" if several else template


def among(data: xr.Dataset, examples: Sequence[int], seed: int) -> xr.Dataset:
    """The cells among some examples only, as a share of *their* gap, with interval, significance and labels anew.

    They are taken to have one form. Where they have hardly a gap of their own, the whole gap stays the unit.
    """
    part = data.isel(example=list(examples))
    if FORM in part.dims:
        part = part.drop_dims(FORM).drop_vars("token", errors="ignore")
    dims = tuple(str(d) for d in part["effect"].dims if d != "example")
    ends = [float(part[side].mean()) for side in ("clean", "corrupted")]
    whole = float(part.attrs["gap"])
    gap = ends[0] - ends[1] if (ends[0] - ends[1]) / whole > _OWN_GAP else whole
    part = part.assign(effect=part["effect"] * (whole / gap))
    flat = {name: part[name].transpose(*dims, "example").values for name in ("effect", "state")}
    effect, states = (array.reshape(-1, len(examples)) for array in flat.values())
    templates = [str(t) for t in part["template"].values]
    summary = summarise(effect, states, templates, seed)
    cells = [part.sizes[d] for d in dims]
    part = part.assign({name: (dims, values.reshape(cells)) for name, values in summary.items()})
    if "tokens" in part.coords and "position" in part.dims:
        tokens = part["tokens"].values
        part = part.assign_coords(token=("position", token_labels(tokens)))
        part = part.isel(position=np.flatnonzero((tokens != "").any(0)))
    anew = {"intervals": Resampling.of(templates).sentence, "gap": gap}
    anew |= {"clean_metric": ends[0], "corrupted_metric": ends[1]}
    return part.assign_attrs(part.attrs | anew)


def by_form(data: xr.Dataset, seed: int) -> xr.Dataset:
    """Cells by position with the figures of each form apart, along `form`; as they are where one form, or no position, is.

    Each form's figures are those of `among`: shares of its own gap, corrected over its own cells. What is kept of single
    examples stays a share of the whole gap.
    """
    if "position" not in data["effect"].dims or FORM in data.dims or len(told := forms(data)) < 2:
        return data
    cells = [name for name in data.data_vars if "example" not in data[name].dims]
    dims = tuple(str(d) for d in data["effect"].dims if d != "example")
    columns = {name: [] for name in (*cells, "token")}
    for _, rows in told:
        part = among(data, rows, seed)
        at = part["position"].values
        for name in cells:
            blank = np.zeros((), part[name].dtype) if part[name].dtype.kind in "bi" else np.nan
            table = np.full([data.sizes[d] for d in dims], blank)
            place = tuple(
                data.indexes["position"].get_indexer(at) if d == "position" else slice(None) for d in dims
            )
            table[place] = part[name].transpose(*dims).values
            columns[name].append(table)
        tokens = dict(zip(at.tolist(), part["token"].values.tolist(), strict=True))
        columns["token"].append([tokens.get(i, "") for i in data["position"].values.tolist()])
    data = data.drop_vars([*cells, "token"])
    data = data.assign({name: ((FORM, *dims), np.stack(columns[name])) for name in cells})
    data = data.assign_coords({FORM: [label for label, _ in told]})
    data = data.assign_coords(token=((FORM, "position"), np.array(columns["token"])))
    label_of = {row: label for label, rows in told for row in rows}
    data = data.assign_coords({OF: ("example", [label_of[row] for row in range(data.sizes["example"])])})
    apart = {
        "correction": "Benjamini-Hochberg over the cells of each form",
        "intervals": "95 % intervals and significance over the examples of each form by itself",
    }
    return data.assign_attrs(data.attrs | apart)

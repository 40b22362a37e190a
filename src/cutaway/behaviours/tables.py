"""Published tables of facts and prompts, recognised by their fields.

LRE relations (Hernandez et al. 2024), known facts (Meng et al. 2022), function vectors (Todd et al. 2024), and
indirect-object prompts with their answer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cutaway.behaviours.generators.facts import Fact, FactTable
from cutaway.errors import BadFormat
from cutaway.results.values import fits, in_words, short

#: What an LRE relation holds.
_RELATION: dict[str, Any] = {
    "prompt_templates": Sequence[str], "prompt_templates_zs": Sequence[str], "samples": Sequence[Mapping[str, Any]],
}  # fmt: skip
_SHOTS = 3
_FEW_SHOT_FRAMES = 4


def fact_table(data: Any, name: str, seed: int = 0) -> FactTable:
    """The table of facts that a JSON value holds; BadFormat when it is none of the known kinds."""
    if isinstance(data, Mapping) and {"samples", "prompt_templates"} <= set(data):
        return _relation(data, name)
    rows = data if isinstance(data, list) else []
    if rows and all(isinstance(r, Mapping) and {"subject", "attribute", "prompt"} <= set(r) for r in rows):
        _texts(name, rows, ("subject", "attribute", "prompt"))
        return _known(rows, name)
    if rows and all(isinstance(r, Mapping) and {"input", "output"} <= set(r) for r in rows):
        _texts(name, rows, ("input", "output"))
        return few_shot([(str(r["input"]), str(r["output"])) for r in rows], name, seed)
    raise BadFormat(
        f"{name!r} holds neither contrast pairs nor a table of facts that is known here.",
        "See docs/behaviours.md for the formats.",
    )


def _relation(data: Mapping[str, Any], name: str) -> FactTable:
    """An LRE relation: prompt templates with `{}` for the subject, and samples."""
    for key, hint in _RELATION.items():
        if not fits(data.get(key, ()), hint):
            raise BadFormat(f"{key!r} of {name!r} is {short(data[key])}.", f"Give {in_words(hint)}.")
    _texts(name, data["samples"], ("subject", "object"))
    templates = dict.fromkeys((*data["prompt_templates"], *data.get("prompt_templates_zs", ())))
    frames = [template.replace("{}", "{subject}") for template in templates]
    rows = [(str(sample["subject"]), str(sample["object"])) for sample in data["samples"]]
    return FactTable.of(str(data.get("name", name)), rows, frames)


def _texts(name: str, rows: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> None:
    """BadFormat where a row lacks one of these, or has something else than text or a number there."""
    for number, row in enumerate(rows, 1):
        for key in keys:
            if not fits(row.get(key), str | int | float) or row[key] == "":
                raise BadFormat(
                    f"Row {number} of {name!r}: {key!r} is {short(row.get(key))}.", "Give a text."
                )


def _known(rows: Sequence[Mapping[str, Any]], name: str) -> FactTable:
    """Known facts: each row has its own prompt; rows of one relation are rivals of each other."""
    facts = []
    for row in rows:
        subject, prompt = str(row["subject"]), str(row["prompt"])
        if subject in prompt:
            frame = prompt.replace(subject, "{subject}", 1)
            facts.append(Fact(subject, f" {row['attribute']}", str(row.get("relation_id", "")), (frame,)))
    return FactTable(name, tuple(facts))


def few_shot(rows: Sequence[tuple[str, str]], name: str, seed: int = 0) -> FactTable:
    """Inputs and outputs as facts that are asked for behind three others: 'hot -> cold' and so on.

    The rows that serve as examples in a frame are not asked for. Raises BadFormat with fewer than five rows.
    """
    if len(rows) < _SHOTS + 2:
        raise BadFormat(f"{name!r} has {len(rows)} rows.", f"Give at least {_SHOTS + 2}.")
    frames_wanted = min(_FEW_SHOT_FRAMES, max(1, (len(rows) - 2) // _SHOTS))
    order = np.random.default_rng(seed).permutation(len(rows))
    shots = order[: frames_wanted * _SHOTS].reshape(frames_wanted, _SHOTS)
    frames = ["".join(f"{rows[i][0]} -> {rows[i][1]}\n" for i in group) + "{subject} ->" for group in shots]
    asked = [rows[i] for i in sorted(order[frames_wanted * _SHOTS :])]
    return FactTable.of(name, asked, [f for f in frames if f.count("{") == 1])


def indirect_object_rows(data: Any) -> list[dict[str, Any]]:
    """Contrast pairs from prompts with an answer: the name that stands twice is exchanged, the second time, for the answer.

    Rows in which that cannot be done are left out; the empty list when the value holds no such prompts at all.
    """
    told = isinstance(data, list) and all(
        isinstance(r, Mapping) and {"prompt", "answer"} <= set(r) for r in data
    )
    if not told:
        return []
    rows = []
    for row in data:
        prompt, answer = str(row["prompt"]), str(row["answer"])
        words = re.findall(r"\b[A-Z][a-z]+\b", prompt)
        twice = {w for w in words if words.count(w) == 2 and w != answer}
        if len(twice) != 1 or words.count(answer) != 1:
            continue
        subject = twice.pop()
        at = prompt.rindex(subject)
        corrupted = prompt[:at] + answer + prompt[at + len(subject) :]
        spans = {"IO": answer, "S1": subject, "S2": [subject, 2]}
        label = " ".join(re.sub(rf"\b({subject}|{answer})\b", "_", prompt).split()[:2])
        sides = {"clean": prompt, "corrupted": corrupted, "right": f" {answer}", "wrong": f" {subject}"}
        rows.append(sides | {"spans": spans, "template": label})
    return rows

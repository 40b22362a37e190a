"""What the zoo's cards state, as roles: written down before any role was looked for, and the prompts that are asked.

A card states a mechanism: nodes, edges, and what passes between them. Each row says which role follows from that for a node.
Where a card states something that is no role of `cutaway.roles` (a head that counts, `bracket-depth`), the node has no row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from tests.algorithms.carried.specimens import PROMPTS, cases_of_specimen

from cutaway import zoo
from cutaway.behaviours.cases import Cases, cases_from
from cutaway.network import Network
from cutaway.recipes.algorithms import docstring
from cutaway.recipes.algorithms.causal import WordIds

#: Of constructed networks: the node in gpt2 and llama, the node in neox, and the role.
CONSTRUCTED: Mapping[str, tuple[tuple[str, str, str], ...]] = {
    "induction": (("a0.h1", "a0.h2", "previous token"), ("a1.h1", "a1.h2", "induction")),
    "duplicate": (("a0.h1", "a0.h2", "duplicate token"), ("m0", "m1", "answer")),
    # the copying heads are the two of layer 0; which of them stands one place back does not matter
    "copy-suppression": (
        ("a0.h1", "a0.h0", "mover"),
        ("a0.h2", "a0.h2", "mover"),
        ("a1.h1", "a1.h2", "suppression"),
    ),
    "bracket-depth": (("m0", "m1", "answer"),),
    "fourier-addition": (("a0.h1", "a0.h2", "reader"), ("m0", "m1", "answer")),
    "lookup": (("a0.h1", "a0.h2", "reader"), ("m0", "m1", "lookup")),
    "superposition": (("a0.h1", "a0.h2", "reader"), ("m0", "m1", "lookup")),
    "unread": (("a0.h1", "a0.h2", "mover"),),
    "redundant": (("a0.h1", "a0.h0", "backup"), ("a0.h2", "a0.h2", "backup"), ("m0", "m1", "answer")),
    "backup": (("a0.h1", "a0.h2", "mover"), ("a1.h1", "a2.h2", "backup")),
}
#: Of networks that were trained to a stated algorithm, by its name: a variable, and the role of the part in which the card
#: says that it lives. Where two heads carry what is read once more (`brackets`), no role follows.
TRAINED: Mapping[str, tuple[tuple[str, str], ...]] = {
    "indirect-object": (("duplicate", "duplicate token"), ("inhibited", "reader"), ("receiver", "mover")),
    "greater-than": (("year", "reader"), ("direction", "reader"), ("possible", "answer")),
    "agreement": (("number", "reader"), ("tense", "reader"), ("verb", "answer")),
    "cases": (("left", "reader"), ("right", "reader"), ("result", "answer")),
    "docstring": (("place", "reader"), ("argument", "mover")),
    "brackets": (("fault", "answer"),),
}
SECOND = {"indirect-object": "llama", "greater-than": "llama", "agreement": "llama", "brackets": "llama",
          "cases": "gpt2-seed1", "docstring": "gpt2-seed1"}  # fmt: skip
#: Roles that a node must not be given: who stands in for nobody, and the note that nothing reads.
NOT_BACKUPS = ("backup~without", "redundant~without")


@dataclass(frozen=True)
class KnownRole:
    """One node whose role is known.

    Attributes:
        specimen: of the zoo.
        part: the node.
        role: that follows from the card.
    """

    specimen: str
    part: str
    role: str


def known() -> list[KnownRole]:
    """All of them."""
    rows = []
    for name, stated in CONSTRUCTED.items():
        for arch in ("gpt2", "llama", "neox"):
            rows += [
                KnownRole(f"{name}-{arch}", neox if arch == "neox" else node, role)
                for node, neox, role in stated
            ]
    for name, pairs in TRAINED.items():
        for arch in ("gpt2", SECOND[name]):
            task: Any = zoo.specimen(f"{name}-{arch}").task
            lives = {v.name: str(v.part) for v in task.algorithm.variables}
            rows += [KnownRole(f"{name}-{arch}", lives[variable], role) for variable, role in pairs]
    return rows


#: Pairs whose clean and corrupted prompts differ in what: the variable by the name of their template.
_MARKS = {"mark taken away": "mark", "mark set": "mark"}


def cases_known(name: str, net: Network, n: int = 96, seed: int = 0) -> Cases:
    """Prompts of a specimen's task; each pair of its task is two cases that differ in one variable alone."""
    task: Any = zoo.specimen(name.partition("~")[0]).task
    algorithm = getattr(task, "algorithm", None)
    if algorithm is not None and algorithm.name in PROMPTS:
        return cases_of_specimen(name, net, seed)
    rows: list[dict[str, Any]] = []
    if algorithm is not None and algorithm.name == "docstring":
        return _docstring(task, net, seed)
    for number, pair in enumerate(task.pairs(n, seed)):
        variable = _MARKS.get(pair.template, "letters" if name.startswith("copy-suppression") else "what")
        names = ("mark", "letters") if name.startswith("copy-suppression") else ("what",)
        for which, (ids, answers) in enumerate(((pair.clean, pair.right), (pair.corrupted, pair.wrong))):
            spans = {span: list(ends) for span, ends in pair.spans.items() if span != "last"}
            values = {one: which if one == variable else 0 for one in names}
            rows.append(
                {"text": list(ids), "answer": list(answers), "spans": spans, "scene": number, **values}
            )
    return cases_from(net, rows, name=name, seed=seed)


def _docstring(task: Any, net: Network, seed: int) -> Cases:
    """Every argument asked for in each of some definitions."""
    rng, ids = np.random.default_rng(seed), WordIds(task.words)
    rows = []
    for scene in range(20):
        names = rng.choice(docstring.NAMES, 5, replace=False).tolist()
        function = str(rng.choice(docstring.FUNCTIONS))
        for place, ordinal in enumerate(docstring.ORDINALS):
            words = ["<bos>", "def", function, "(", *names]
            words += [")", ":", "argument", ordinal, ":"]
            spans = {"ordinal": [12, 13]} | {f"argument {i + 1}": [4 + i, 5 + i] for i in range(5)}
            tokens = [ids[word] for word in words]
            rows.append(
                {
                    "text": tokens,
                    "answer": [ids[names[place]]],
                    "spans": spans,
                    "place": place,
                    "scene": scene,
                }
            )
    return cases_from(net, rows, name="docstring", seed=seed)


def variables_of(cases: Cases) -> list[str]:
    """The variables that are exchanged: not the scene that two prompts share."""
    known = ("what", "mark", "letters")
    return [v for v in cases.free if v in known] or [v for v in cases.free if v != "scene"]


__all__ = ["CONSTRUCTED", "NOT_BACKUPS", "TRAINED", "KnownRole", "cases_known", "known", "variables_of"]

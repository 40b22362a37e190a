"""The bench as a page of Markdown."""

from __future__ import annotations

from cutaway.calibration.bench import ScoreTable
from cutaway.statistics import Estimate

_WHY = """# Methods of circuit discovery on networks whose circuit is known

`cutaway zoo bench --negatives 100 --out docs/circuits-bench.md` writes this page. Every method scores every specimen of the
zoo whose edges are known, on discovery pairs; CPR and CMD are taken on held-out pairs. Means over specimens and seeds, with
95 % intervals over specimens.

- **AUROC, edges**: the probability that a known edge has a larger |score| than another, over the full ROC curve. Left out
  are known edges through which nothing flows that tells the prompts of a pair apart (exact patching of the edge changes the
  metric by less than 1e-4 of the gap in both directions), such as the query of an induction head whose token is the same
  in both prompts: no method that compares the two prompts can see them. **All edges** counts them, too.
- **AUROC, nodes**: the same for heads and MLPs. For methods that score edges, a node has its largest outgoing score.
- **CPR, CMD**: area under faithfulness, and between faithfulness and 1, over the share of edges (Mueller et al. 2025).
- **seconds, MB**: of one scoring, and the most that the process grew by while it ran. Most specimens are so small that
  nothing is allocated anew.

On InterpBench the published edge AUROCs are EAP-IG over activations .81, EAP .73, information flow .71, node patching .30,
random .44 (Mueller et al. 2025). The order is the same here: integrated gradients before EAP, EAP before information flow,
that before random. Two figures differ, and for a reason. All are higher, because here the full ROC is taken (not ten points
of it, from circuits grown greedily), and integrals lie level with exact path patching. And patching of nodes is judged on
nodes, where it is exact; as a score of edges it can only give all edges of a node the same, which is what .30 says.
"""


def page(table: ScoreTable) -> str:
    """The page: one row for each method, then each specimen's edge AUROC, then the negative controls."""
    lines = [
        _WHY,
        "| method | AUROC, edges | all edges | AUROC, nodes | CPR | CMD | seconds | MB |",
        "| --- " * 8 + "|",
    ]
    for name in table.methods():
        figures = [table.mean(name, f) for f in ("auroc", "auroc_all", "auroc_nodes", "cpr", "cmd")]
        cost = [table.mean(name, f) for f in ("seconds", "megabytes")]
        cells = [_figure(f) for f in figures] + ["" if c is None else f"{c.value:.2g}" for c in cost]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", "## Edge AUROC by specimen (mean over seeds)", ""]
    names = [m for m in table.methods() if table.mean(m, "auroc") is not None]
    lines += ["| specimen | " + " | ".join(names) + " |", "| --- " * (len(names) + 1) + "|"]
    for specimen in dict.fromkeys(r.specimen for r in table.rows):
        cells = []
        for name in names:
            rows = [r for r in table.rows if (r.specimen, r.method) == (specimen, name)]
            areas = [r.auroc for r in rows if r.auroc is not None]
            cells.append(f"{sum(areas) / len(areas):.2f}" if areas else "")
        lines.append(f"| {specimen} | " + " | ".join(cells) + " |")
    failed = {(r.specimen, r.method): r.error for r in table.rows if r.error}
    lines += ["", *(f"- {m} on {s}: {e}" for (s, m), e in failed.items())] if failed else []
    lines += _negative_lines(table)
    return "\n".join(lines) + "\n"


def _figure(mean: Estimate | None) -> str:
    if mean is None:
        return ""
    interval = "" if mean.interval is None else f" ({mean.interval.low:.2f} to {mean.interval.high:.2f})"
    return f"{mean.value:.3f}{interval}"


def _negative_lines(table: ScoreTable) -> list[str]:
    tried = table.negatives
    if tried is None:
        return []
    counts = ", ".join(f"{n} {v}" for v, n in sorted(tried.verdicts.items()))
    return [
        "", "## Negative controls", "",
        f"On twins that lack the mechanism (random weights, shuffled answers, a part taken out) a circuit was traced and "
        f"tested {tried.tries} times with fresh pairs: {counts}. By the held-out evidence and random circuits alone, before "
        f"the other controls, {tried.supported} would have been supported (95 % interval of the rate: {tried.rate}).",
    ]  # fmt: skip

"""What probes find on labelled sets made by others: a true positive, confounds caught, nulls.

stories260K (a Llama of 260,000 parameters trained on small stories) and the data in a folder of shared inputs; see their
READMEs for sources and licences.

    python benchmarks/probe_real_data.py [--shared ../shared] [--json] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import zlib
from pathlib import Path
from typing import Any

import pandas as pd

import cutaway
from cutaway.probes import Columns, ProbeData, Probing, Use
from cutaway.results import atomic_write

ROOT = Path(__file__).resolve().parents[1]
FRAMES = (
    "Once upon a time, there was a child named {}. One day,",
    "{} was very happy because",
    "{} went to the park and then",
    "One day {} saw a big dog. Then",
    "{} was sad. The next day",
)
SUBJECTS = ("The boy and the girl {}", "We all {}", "They {}", "I {}")
CONTROLS = ("tokens", "untrained", "control")


def verbs(shared: Path) -> ProbeData:
    """Verbs in present and past, after subjects that take the same form of both, read at the verb, grouped by verb.

    One half of the verbs; the other half served to choose this example.
    """
    pairs = {
        s["subject"]: s["object"]
        for s in json.loads((shared / "data/lre_relations/linguistic/verb_past_tense.json").read_text())[
            "samples"
        ]
    }
    for pair in json.loads((shared / "data/function_vectors/present-past.json").read_text()):
        pairs.setdefault(pair["input"], pair["output"])
    rows = [
        {"text": frame.format(form), "tense": tense, "verb": present, "frame": i}
        for present, past in pairs.items()
        if zlib.crc32(present.encode()) % 2
        for i, frame in enumerate(SUBJECTS)
        for tense, form in (("present", present), ("past", past))
    ]
    return cutaway.probe_data(rows, columns=Columns("tense", group="verb", source="frame"))


def names(shared: Path) -> ProbeData:
    """First names with their gender, in frames, read at the last token, grouped by name."""
    known = json.loads((shared / "data/lre_relations/bias/name_gender.json").read_text())["samples"]
    rows = [
        {"text": frame.format(s["subject"]), "gender": s["object"], "name": s["subject"], "frame": i}
        for s in known
        for i, frame in enumerate(FRAMES)
    ]
    return cutaway.probe_data(rows, columns=Columns("gender", group="name", source="frame"))


def subjects(shared: Path, crossed: bool) -> ProbeData:
    """Number of the subject before a noun of the other number (crossed: of either), with the same token read."""
    rows, seen = [], set()
    for line in (shared / "data/subject_verb/nounpp_train.json").read_text().splitlines():
        pair = json.loads(line)
        number, attractor = pair["case"].split("_")
        other = "singular" if number == "plural" else "plural"
        for text, is_number in ((pair["clean_prefix"], number), (pair["patch_prefix"], other)):
            if text not in seen and (crossed or is_number != attractor):
                seen.add(text)
                noun = text.split()[1].rstrip("s")
                rows.append(
                    {"text": f"{text} really", "number": is_number, "attractor": attractor, "subject": noun}
                )
    n = 800 if crossed else 400
    return cutaway.probe_data(rows, columns=Columns("number", group="subject", also=("attractor",)), n=n)


def places(shared: Path) -> ProbeData:
    """Latitude of the first 600 places of the United States, grouped by state."""
    table = pd.read_csv(shared / "data/world_models/us_place.csv").head(600)
    table["text"] = table["name"] + " is"
    return cutaway.probe_data(table, columns=Columns("latitude", group="state_id"), n=600)


def told(found: Probing, used: Use | None) -> list[str]:
    """A result in words."""
    i = found.number()
    row = {k: float(v.values.ravel()[i]) for k, v in found.data.data_vars.items()}
    controls = ", ".join(f"{k} {row[k]:.3f}" for k in CONTROLS if row[k] == row[k])
    lines = [
        f"> {found.headline()}",
        ">",
        f"> At that place: {controls}; best of all places under permuted labels:",
    ]
    lines[-1] += f" p = {row['p_best']:.3f}."
    for claim in found.finding.claims:
        lines += [f"> - {e.sentence}" for e in (*claim.evidence, *claim.controls)]
    if used is not None:
        lines += [f"> - {note}" for note in used.claim.notes]
    return lines


def main() -> None:
    """Probe, print, write the page."""
    parser = argparse.ArgumentParser(description="Probes on labelled sets made by others.")
    parser.add_argument("--shared", type=Path, default=ROOT.parent / "shared")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks" / "probe_real_data.md")
    options = parser.parse_args()
    net = cutaway.open(options.shared / "models" / "stories260K")
    sets: dict[str, tuple[ProbeData, Any]] = {
        "Tense of verbs": (verbs(options.shared), None),
        "First names and their gender": (names(options.shared), {"woman": " she", "man": " he"}),
        "Number of the subject, where the nearer noun has the other": (subjects(options.shared, False), None),
        "Number of the subject, crossed with the nearer noun's": (subjects(options.shared, True), None),
        "Latitude of places": (places(options.shared), None),
    }
    lines = [
        "# Probes on data made by others",
        "",
        "Made by `python benchmarks/probe_real_data.py`: stories260K, default options. The sets are described in",
        "[probes.md](../probes.md#results-on-real-data).",
    ]
    results = {}
    for title, (data, answers) in sets.items():
        found = cutaway.probe(net, data)
        used = cutaway.use(net, found, data, answers=answers) if found.finding.word == "encoded" else None
        if used is not None:
            found = found.with_finding(used.finding)
        results[title] = found.to_dict() | {"use": None if used is None else used.to_dict()}
        lines += ["", f"## {title}", "", f"{data.n} examples.", "", *told(found, used)]
    text = "\n".join(lines) + "\n"
    print(json.dumps(results, default=str) if options.json else text)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(options.out, text)


if __name__ == "__main__":
    main()

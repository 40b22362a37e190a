"""What the commands do between opening and printing: tables, JSON and files."""

from __future__ import annotations

import re
import shlex
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from cutaway.errors import BadInput, SaveFailed
from cutaway.figures import show_token

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.cli.options import Common
    from cutaway.cli.screen import Screen
    from cutaway.effects import Effects
    from cutaway.explanations import Explanation
    from cutaway.network import Network, Run
    from cutaway.results import Work


_FILES = (".json", ".jsonl", ".csv")


def network(common: Common, model: str) -> Network:
    """Open a network as the common options say."""
    from transformers.utils import logging

    from cutaway.network.opening import open_network

    if common.device is not None:
        _check_device(common.device)
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    return open_network(
        model, device=common.device, dtype=common.dtype, trust_remote_code=common.trust_remote_code
    )


def _check_device(device: str) -> None:
    import torch

    try:
        torch.empty(0, device=device)
    except Exception as error:
        raise BadInput(
            f"There is no device {device!r} here: {str(error).strip().splitlines()[0]}",
            "Use cpu, or cuda, cuda:1 or mps where the machine has one.",
        ) from error


def pairs(
    screen: Screen, net: Network, common: Common, behaviour: str, n: int, force: bool, aligned: bool = True
) -> Behaviour:
    """The behaviour's pairs; NotPerformed unless forced.

    aligned: of a file, only the pairs of equal length, with a remark on stderr how many were left out.
    """
    from cutaway.behaviours import behaviour as make

    options: dict[str, Any] = {"aligned": True} if aligned and behaviour.endswith(_FILES) else {}
    made = make(behaviour, net, n=n, seed=common.seed, force=force, **options)
    made = made.only_aligned() if options else made
    for note in made.notes:
        if options and "differ in length" in note:
            screen.say(escape(note))
    return made


@contextmanager
def quiet_warnings() -> Iterator[None]:
    """Leave out the library's remark about a stopped sweep: the command says it itself."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Stopped: .* cells are finished")
        yield


def slug(name: str) -> str:
    """A name fit for a folder.

    >>> slug("/models/stories260K"), slug("zoo:tales")
    ('stories260K', 'tales')
    """
    last = Path(name).stem if name.endswith(_FILES) else name.rstrip("/").split("/")[-1].split(":")[-1]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", last) or "network"


def command_line(common: Common, model: str, behaviour: str, n: int, force: bool, no_controls: bool) -> str:
    """The command that repeats an explanation."""
    words = ["cutaway", "explain", model, "--behaviour", behaviour, "--n", str(n), "--seed", str(common.seed)]
    for name, value in (("--device", common.device), ("--dtype", common.dtype)):
        words += [name, value] if value else []
    flags = (
        ("--force", force),
        ("--no-controls", no_controls),
        ("--trust-remote-code", common.trust_remote_code),
    )
    return shlex.join([*words, *(name for name, on in flags if on)])


@dataclass(frozen=True, eq=False)
class Sweep:
    """A patching or ablation sweep as the command line asks for it."""

    net: Network
    behaviour: Behaviour
    at: str
    by: tuple[str, ...]
    direction: str
    ablate: str | None
    seed: int

    def run(self, work: Work, folder: Path | None) -> Effects:
        """Run it."""
        from cutaway.effects import ablate, patch

        common: dict[str, Any] = {
            "at": self.at, "by": self.by, "seed": self.seed, "work": work, "folder": folder,
        }  # fmt: skip
        if self.ablate is not None:
            return ablate(self.net, self.behaviour, how=self.ablate, **common)  # type: ignore[arg-type]
        return patch(self.net, self.behaviour, direction=self.direction, **common)  # type: ignore[arg-type]


def plan_shown(sweep: Sweep) -> tuple[dict[str, Any], Table]:
    """What a sweep will cost, as plain data and as a table."""
    from dataclasses import asdict

    from cutaway.effects import plan

    way: dict[str, Any] = (
        {"how": sweep.ablate} if sweep.ablate is not None else {"direction": sweep.direction}
    )
    planned = plan(sweep.net, sweep.behaviour, at=sweep.at, by=sweep.by, seed=sweep.seed, **way)
    table = Table(show_header=False, title="Planned, not run")
    for name, value in planned.plan.rows():
        table.add_row(escape(name), escape(value))
    rules = {"on": planned.plan.rules.names, "off": dict(planned.plan.rules.reasons)}
    return asdict(planned.plan.cost) | {"rules": rules, "notes": list(planned.plan.warnings)}, table


def described(net: Network) -> dict[str, Any]:
    """A network as plain data."""
    return {
        "name": net.name,
        "hash": net.hash,
        "class": type(net.model).__name__,
        "layers": net.n_layers,
        "heads": net.n_heads,
        "width": net.d_model,
        "vocabulary": net.d_vocab,
        "context": net.n_ctx,
        "device": str(net.device),
        "dtype": str(net.dtype).removeprefix("torch."),
        "sites": [str(site) for site in net.sites()],
        "certificate": net.certificate.to_dict(),
    }


def next_tokens(net: Network, run: Run, top: int) -> list[tuple[str, float]]:
    """The likeliest next tokens with their probabilities."""
    if run.logits is None or run.tokens is None:
        return []
    last = int(run.tokens.columns(-1)[0, 0])
    best = run.logits[0, last].float().softmax(-1).topk(min(top, run.logits.shape[-1]))
    return [(net.decode([int(t)]), float(p)) for p, t in zip(best.values, best.indices, strict=True)]


def run_data(net: Network, run: Run, top: int) -> dict[str, Any]:
    """A run as plain data: tokens, next tokens, shapes."""
    return {
        "network": net.name,
        "tokens": run.tokens.strings(0) if run.tokens else None,
        "next": [{"token": token, "probability": p} for token, p in next_tokens(net, run, top)],
        "kept": {str(site): list(run.kept[site].shape) for site in run.sites},
    }


def run_tables(net: Network, run: Run, top: int) -> list[Table]:
    """A run as tables."""
    following = Table("next token", "probability", box=None)
    for token, p in next_tokens(net, run, top):
        following.add_row(repr(token), f"{p:.4f}")
    tables = [following]
    if run.kept:
        kept = Table("site", "shape", box=None)
        for site in run.sites:
            kept.add_row(str(site), " × ".join(map(str, run.kept[site].shape)))
        tables.append(kept)
    return tables


def save_run(screen: Screen, run: Run, path: Path) -> Path:
    """Write kept sites and logits as safetensors, atomically; sites that share memory are written as copies."""
    from safetensors.torch import save

    from cutaway.results import atomic_write

    tensors = {str(site): value.detach().cpu().contiguous().clone() for site, value in run.kept.items()}
    if run.logits is not None:
        tensors["logits"] = run.logits.detach().cpu().contiguous().clone()
    content = save(tensors)
    return or_elsewhere(screen, lambda place: atomic_write(place, content), path)


def claim_tables(found: Explanation) -> list[Table]:
    """Every test and control in one line; the words are in the report. Nothing where nothing was tested."""
    if not found.claim.rows():
        return []
    table = Table("", "test", "figure", box=None)
    marks = {"✓": "[green]✓[/]", "✗": "[red]✗[/]", "?": "[yellow]?[/]"}
    for kind, name, figure, mark, _ in found.claim.rows():
        table.add_row(marks[mark], f"control: {name.lower()}" if kind == "control" else name.lower(), figure)
    return [table]


def verdict_line(found: Explanation) -> str:
    """The verdict and the headline."""
    colour = {"supported": "green", "refuted": "red", "inconclusive": "yellow"}[found.verdict]
    return f"[bold {colour}]{found.verdict}[/] {escape(found.headline)}"


def effects_data(effects: Effects, paths: list[Path]) -> dict[str, Any]:
    """Effects as plain data: one record per cell."""
    return effects.to_dict() | {"saved": [str(path) for path in paths]}


def effects_table(effects: Effects, top: int = 12) -> Table:
    """The strongest cells; where prompts differ in form, those of the form with most examples."""
    form, groups = "", effects.groups() if "position" in effects.dims else []
    if len(groups) > 1:
        template, effects = groups[0]
        form = f", of the {effects.data.sizes['example']} pairs of the form {template!r}"
    frame = effects.top(top)
    names = [*effects.dims, *(["token"] if "token" in frame else [])]
    title = escape(
        f"{effects.headline()}: the {len(frame)} strongest of {len(effects.to_pandas())} cells{form}"
    )
    table = Table(*names, "effect", "95 % interval", "q", box=None, title=title, title_justify="left")
    for _, row in frame.iterrows():
        place = [
            show_token(str(row[name]), escape=False) if name == "token" else str(row[name]) for name in names
        ]
        table.add_row(
            *place, f"{row['mean']:+.3f}", f"{row['low']:+.3f} to {row['high']:+.3f}", f"{row['q']:.3g}"
        )
    return table


def save_effects(screen: Screen, effects: Effects, target: Path) -> list[Path]:
    """Save the numbers (netCDF where the name ends in .nc, else a folder) and, beside or in it, the figure."""
    from cutaway.reports import write

    page = effects.page()

    def save(place: Path) -> list[Path]:
        netcdf = place.suffix == ".nc"
        numbers = effects.save(place if netcdf else place / "effects")
        return [numbers, write(page, place.with_suffix(".html") if netcdf else place / "figure.html")]

    return or_elsewhere(screen, save, target)


def save_explanation(screen: Screen, found: Explanation, target: Path) -> Path:
    """Save results and report; the folder of the results."""
    return or_elsewhere(screen, found.save, target)


def or_elsewhere(screen: Screen, save: Any, target: Path) -> Any:
    """Save to the target, or, when the disk refuses, to a temporary folder, saying so: the work is not lost."""
    try:
        return save(target)
    except SaveFailed as error:
        place = Path(tempfile.mkdtemp(prefix="cutaway-")) / target.name
        saved = save(place)
        screen.say(f"[yellow]{escape(error.problem)}[/] Saved in a temporary folder instead.")
        return saved

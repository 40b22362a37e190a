"""How the command line explains itself: commands in the order in which one works, options with room for their words,
and for each command an example or two that run.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Sequence
from typing import Any

from typer.core import TyperCommand, TyperGroup

from cutaway.verbs import VERBS, Verb

#: A column of names is at most so wide; what does not fit has its words on the next line.
_NAMES = 26

#: Options that all commands have: the fields of `cli.common.Common`, and what click adds.
SHARED = (
    "out", "overwrite", "seed", "device", "dtype", "budget", "resume", "sets", "trust_remote_code", "as_json",
    "json_progress", "debug", "help", "interactive", "attached",
)  # fmt: skip

#: The groups of commands, in the order in which one works, each with the commands that come first in it and the rooms
#: whose verbs belong to it.
GROUPS: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("Look at a network", ("open", "sites", "run", "behaviours"), ("network", "behaviours")),
    (
        "Read one text",
        ("lens", "stream", "patterns", "compare-prompts", "expand"),
        ("stream",),
    ),
    (
        "Intervene",
        ("attribution", "patch", "ablate", "paths", "loss", "steer"),
        ("effects", "control", "interventions", "sweeps"),
    ),
    ("Read many texts", ("top-examples", "activations", "induction-heads", "features"), ("features",)),
    (
        "Explain and test",
        ("explain", "feature-effects", "trace", "test", "probe"),
        ("explanations", "circuits", "probes", "trials"),
    ),
    (
        "Tell what is computed",
        ("computation", "carried", "passing", "roles", "inputs", "backups", "algorithm"),
        ("algorithms",),
    ),
    ("Afterwards", ("show", "runs"), ("results",)),
    ("Networks whose mechanism is known", ("zoo",), ("zoo", "calibration", "recipes")),
)  # fmt: skip

_TEXT = '"Mary was sad because"'
_OTHER = '--corrupted "Tom was sad because" --answers " she" " he"'
#: Columns of a terminal for which help is written.
_WIDTH = 80
#: What is written where a command asks for it.
_ASKED = {
    "net": "zoo:tales",
    "model": "zoo:tales",
    "text": _TEXT,
    "behaviour": "-b pronoun",
    "cases": "-b pronoun",
    "question": "-b pronoun",
    "circuit": "pronoun-circuit",
}

#: Examples of commands; those of other verbs are made from their rows. All of them are run by the tests.
EXAMPLES: dict[str, tuple[str, ...]] = {
    "": (
        "cutaway open zoo:tales",
        f"cutaway run zoo:tales {_TEXT}",
        "cutaway patch zoo:tales -b pronoun --by layer,position",
    ),
    "open": ("cutaway open zoo:tales", "cutaway open ./my-model --dtype bfloat16"),
    "sites": ("cutaway sites zoo:tales",),
    "run": (f"cutaway run zoo:tales {_TEXT}", f"cutaway run zoo:tales {_TEXT} --keep z.1 --save z1.safetensors"),
    "behaviours": ("cutaway behaviours", "cutaway behaviours zoo:tales --n 16"),
    "lens": (f"cutaway lens zoo:tales {_TEXT}", f'cutaway lens zoo:tales {_TEXT} --target " she"'),
    "stream": (
        f'cutaway stream zoo:tales {_TEXT} --target " she" --foil " he"',
        f'cutaway stream zoo:tales {_TEXT} --target " she" --by head',
    ),
    "expand": (f'cutaway expand zoo:tales {_TEXT} --target " she" --depth 1',),
    "patch": (
        f"cutaway patch zoo:tales --clean {_TEXT} {_OTHER}",
        "cutaway patch zoo:tales -b pronoun --by layer,position",
        "cutaway patch zoo:tales -b pronoun --at z --by layer,head --plan",
    ),
    "ablate": ("cutaway ablate zoo:tales -b pronoun --at z --by layer,head --how mean",),
    "paths": ("cutaway paths zoo:tales -b pronoun --from a2.h3 --to logits",),
    "attribution": (f"cutaway attribution zoo:tales --clean {_TEXT} {_OTHER}",),
    "steer": ('cutaway steer zoo:tales "One day" --positive happy.txt --negative sad.txt --at resid_post.1',),
    "loss": (f"cutaway loss zoo:tales {_TEXT}",),
    "explain": ("cutaway explain zoo:tales -b pronoun",),
    "computation": ("cutaway computation zoo:tales -b pronoun --depth what",),
    "carried": ("cutaway carried zoo:tales -b pronoun", "cutaway carried zoo:tales --table prompts.csv"),
    "passing": ("cutaway passing zoo:tales -b pronoun",),
    "roles": ("cutaway roles zoo:tales -b pronoun",),
    "inputs": ("cutaway inputs zoo:tales -b pronoun",),
    "backups": ("cutaway backups zoo:tales -b pronoun",),
    "algorithm": ("cutaway algorithm zoo:tales -b pronoun",),
    "feature-effects": ("cutaway feature-effects zoo:tales -b pronoun",),
    "trace": ("cutaway trace zoo:tales -b pronoun --edges 60 -o pronoun-circuit",),
    "test": ("cutaway test zoo:tales pronoun-circuit -b pronoun",),
    "probe": ("cutaway probe zoo:tales --data labelled.csv --label mood",),
    "show": ("cutaway show pronoun-circuit",),
    "runs": ("cutaway runs",),
    "features train": ("cutaway features train zoo:tales --file texts.txt --at resid_post.2 --latents 256 --k 8",),
    "features open": ("cutaway features open zoo:tales my-sae --file texts.txt",),
    "features measure": ("cutaway features measure zoo:tales my-sae --file texts.txt",),
    "features index": ("cutaway features index zoo:tales my-sae --file texts.txt -o my-index",),
    "features label": ("cutaway features label zoo:tales my-index --of my-sae",),
    "features dashboard": (
        "cutaway features dashboard zoo:tales my-index --of my-sae -o my-index.html",
        "cutaway features dashboard zoo:tales neurons.2 --file texts.txt --labels none -o neurons.html",
    ),
    "features formats": ("cutaway features formats",),
    "features convert": ("cutaway features convert my-sae --to dictionary_learning --out other",),
    "zoo list": ("cutaway zoo list",),
    "zoo show": ("cutaway zoo show tales",),
    "zoo verify": ("cutaway zoo verify induction-gpt2 --twins",),
    "zoo make": ("cutaway zoo make induction-gpt2",),
    "zoo text": ("cutaway zoo text tales --tokens 40",),
    "zoo bench": ("cutaway zoo bench induction-gpt2 --method eap-ig --seeds 1",),
}  # fmt: skip


def examples(name: str) -> tuple[str, ...]:
    """Examples of a command by its words after the program's name ("zoo list"); "" for the program itself.

    >>> examples("open")[0]
    'cutaway open zoo:tales'
    """
    if name in EXAMPLES:
        return EXAMPLES[name]
    return tuple(" ".join(example(row)) for row in VERBS.values() if row.command == name)


def example(row: Verb) -> Iterator[str]:
    """The words of a command as short as it can be asked, from the row of its verb."""
    yield from ("cutaway", row.command)
    yield from (_ASKED[taken] for taken in row.takes if taken in _ASKED)


def group_of(command: str) -> int:
    """To which of the groups a command belongs."""
    for i, (_, commands, _) in enumerate(GROUPS):
        if command in commands:
            return i
    rooms = [row.where.split(".")[1].partition(":")[0] for row in VERBS.values() if row.command == command]
    return next((i for i, (_, _, of) in enumerate(GROUPS) if rooms and rooms[0] in of), len(GROUPS) - 1)


def ordered(commands: Sequence[str]) -> list[str]:
    """Commands in the order in which one works: by group, and in a group as it names them, others after these.

    >>> ordered(["show", "patch", "run", "open"])
    ['open', 'run', 'patch', 'show']
    """

    def place(command: str) -> tuple[int, int]:
        group = group_of(command)
        named = GROUPS[group][1]
        return group, named.index(command) if command in named else len(named)

    return sorted(commands, key=place)


class HelpedCommand(TyperCommand):
    """A command whose help has its own options first, those that all commands share after them, and examples."""

    def __init__(self, *given: Any, **settings: Any) -> None:
        super().__init__(*given, **(settings | {"rich_markup_mode": None}))

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """What is asked first, then the options, as one writes it."""
        asked = [p for p in self.get_params(ctx) if p.param_type_name == "argument"]
        words = [p.name.upper() + ("..." if p.nargs == -1 else "") for p in asked]
        return [*(w if p.required else f"[{w}]" for w, p in zip(words, asked, strict=True)), "[OPTIONS]"]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """As described by the class."""
        rows: dict[str, list[tuple[str, str]]] = {"Asked": [], "Options": [], "Options of all commands": []}
        for param in self.get_params(ctx):
            if (record := param.get_help_record(ctx)) is None:
                continue
            kind = "Asked" if param.param_type_name == "argument" else "Options"
            rows["Options of all commands" if param.name in SHARED else kind].append(_record(param, *record))
        for title, those in rows.items():
            if those:
                with formatter.section(title):
                    formatter.write_dl(those, col_max=_NAMES)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """The examples."""
        _write_examples(formatter, examples(" ".join(ctx.command_path.split()[1:])))


class HelpedGroup(TyperGroup):
    """A group of commands whose help has them in the order in which one works, under headings, with examples."""

    def __init__(self, *given: Any, **settings: Any) -> None:
        super().__init__(*given, **(settings | {"rich_markup_mode": None}))

    def list_commands(self, ctx: Any) -> list[str]:
        """In the order in which one works."""
        names = super().list_commands(ctx)
        return names if ctx.parent is not None else ordered(names)

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """The commands by group, each in a line or two; then the program's own options."""
        names = self.list_commands(ctx)
        width = max(map(len, names)) + 2
        groups = {"Commands": names}
        if ctx.parent is None:
            groups = {head: [n for n in names if group_of(n) == i] for i, (head, _, _) in enumerate(GROUPS)}
        for head, those in groups.items():
            found = ((name, self.get_command(ctx, name)) for name in those)
            rows = [
                (name.ljust(width - 2), _first(command.help))
                for name, command in found
                if command is not None
            ]
            if rows:
                with formatter.section(head):
                    formatter.write_dl(rows, col_max=width)
        records = [
            (p, record) for p in self.get_params(ctx) if (record := p.get_help_record(ctx)) is not None
        ]
        with formatter.section("Options"):
            formatter.write_dl([_record(p, *record) for p, record in records], col_max=_NAMES)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Examples of the program; how to go on."""
        if ctx.parent is None:
            _write_examples(formatter, examples(""))
        formatter.write_paragraph()
        formatter.write_text(f"Help on a command, with examples: {ctx.command_path} COMMAND --help")


def _first(text: str | None) -> str:
    """The first sentence of a help text."""
    said = " ".join(inspect.cleandoc(text or "").partition("\n\n")[0].split())
    return said.partition(". ")[0].removesuffix(".") + "."


def _record(param: Any, names: str, text: str) -> tuple[str, str]:
    """An option's line: its names with what follows them in a word, and what it means."""
    for long, short in (("<bool>", ""), ("<list[str]>", "TEXT"), ("<str>", "TEXT"), ("<path>", "PATH")):
        names = names.replace(long, short)
    names = names.replace("<int range>", "<int>").replace("<int>", "N").replace("<float>", "X").strip()
    names = names.partition(" [x")[0]
    if param.param_type_name == "argument":
        names = param.name.upper()
    words = (
        re.sub(r"x>=(\d+)", r"at least \1", text)
        .replace("[required]", "(required)")
        .replace("; required]", "] (required)")
    )
    words = words if words.startswith("`") else words[:1].upper() + words[1:]
    return names, words.replace("`", "")


def _write_examples(formatter: Any, lines: Sequence[str]) -> None:
    if not lines:
        return
    with formatter.section("For example"):
        for line in lines:
            formatter.write(f"{'':{formatter.current_indent}}{broken(line, formatter.current_indent)}\n")


def broken(line: str, indent: int = 2) -> str:
    """An example as the help shows it: one that is too long for a line goes on in further ones, as a shell reads it.

    >>> broken("cutaway open zoo:tales")
    'cutaway open zoo:tales'
    """
    lines = [""]
    for piece in line.split(" --"):
        words = piece if lines == [""] else f" --{piece}"
        if indent + len(lines[-1]) + len(words) > _WIDTH - 2:
            lines.append(f"{'':{indent + 4}}{words.strip()}")
        else:
            lines[-1] += words
    return " \\\n".join(lines)

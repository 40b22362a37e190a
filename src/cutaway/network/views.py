"""How a network shows itself: its anatomy and its certificate, in a terminal and in a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

import torch

from cutaway.network.anatomy import Layer, Sublayer
from cutaway.network.certification.identities import carried_in_words
from cutaway.network.core import Core

if TYPE_CHECKING:
    from rich.console import Group


def describe_sublayer(sub: Sublayer) -> str:
    """A sublayer in one line: kind, module, heads or width, factor, norm after it."""
    parts = [f"{sub.kind.replace('_', '-')} {sub.path.split('.')[-1]}"]
    if sub.attention is not None:
        a = sub.attention
        shared = f" on {a.kv_heads} key/value heads" if a.kv_heads != a.heads else ""
        parts.append(f"{a.heads} heads{shared} of {a.head_width}")
    if sub.mlp is not None and sub.mlp.experts:
        parts.append(f"{sub.mlp.experts} experts")
    if torch.is_tensor(sub.factor):
        parts.append("scaled per channel")
    elif sub.factor != 1:
        parts.append(f"times {sub.factor:.4g}")
    if sub.norm_after:
        parts.append(f"then {sub.norm_after.split('.')[-1]}")
    return ", ".join(parts)


def describe_layer(layer: Layer) -> str:
    """A layer in one line: its form and its sublayers."""
    if layer.form == "unknown":
        return "unknown: what its sublayers write could not be read"
    carried = carried_in_words([layer])
    form = f"{layer.form}, its input {carried}" if carried else layer.form
    return f"{form}: " + " | ".join(describe_sublayer(s) for s in layer.sublayers)


def layer_groups(net: Core) -> list[tuple[str, str, str]]:
    """(stack, layers, description), layers of the same make together."""
    rows: list[tuple[str, list[int], str]] = []
    for stack in net.anatomy.stacks:
        for layer in stack.layers:
            text = describe_layer(layer)
            if rows and rows[-1][0] == stack.name and rows[-1][2] == text:
                rows[-1][1].append(layer.index)
            else:
                rows.append((stack.name, [layer.index], text))
    return [(s or "main", f"{i[0]}-{i[-1]}" if len(i) > 1 else str(i[0]), t) for s, i, t in rows]


def head_line(net: Core) -> str:
    """How the stream becomes logits, in one line."""
    head = net.anatomy.head
    if head is None:
        return "no layer stack was found: modules can be read and written by their dotted paths"
    steps = [head.norm or "no final norm"]
    if head.before != 1:
        steps.append(f"times {head.before:.4g}")
    steps.append(head.unembed or "an output head of its own")
    if head.scale != 1:
        steps.append(f"times {head.scale:.4g}")
    if head.softcap is not None:
        steps.append(f"soft-cap {head.softcap:g}")
    return " -> ".join(steps)


def site_lines(net: Core) -> list[tuple[str, str]]:
    """Kinds of site that exist here, each with its layers."""
    layers: dict[str, list[int]] = {}
    for site in net.sites():
        name = f"{site.stack}.{site.name}" if site.stack else site.name
        layers.setdefault(name, []).extend([] if site.layer is None else [site.layer])
    return [(name, _ranges(numbers)) for name, numbers in layers.items()]


def site_groups(net: Core) -> list[tuple[str, str]]:
    """(layers, kinds of site that exist at them), kinds with the same layers together."""
    groups: dict[str, list[str]] = {}
    for name, layers in site_lines(net):
        groups.setdefault(layers or "none", []).append(name)
    return [(layers, ", ".join(names)) for layers, names in groups.items()]


def refusal_lines(net: Core) -> list[tuple[str, str, str]]:
    """(sites, layers, reason) of what is refused, alike ones together; what no layer could have is left out."""
    grouped: dict[tuple[str, str], list[int]] = {}
    present = {name for name, _ in site_lines(net)}
    for text, reason in net.certificate.refusals.items():
        head, _, tail = text.rpartition(".")
        name, layer = (head, int(tail)) if tail.isdigit() else (text, None)
        whole = reason.startswith("Layer ") and " has no " in reason
        if name not in present and (whole or "mixture of experts" in reason and "has no" in reason):
            continue
        key = (name, without_number(reason))
        grouped.setdefault(key, []).extend([] if layer is None else [layer])
    merged: dict[tuple[str, str], list[str]] = {}
    for (name, reason), layers in grouped.items():
        merged.setdefault((_ranges(layers), reason), []).append(name)
    return [(", ".join(names), layers, reason) for (layers, reason), names in merged.items()]


def without_number(reason: str) -> str:
    """A refusal without the numbers of its layer, so that alike ones are shown together."""
    import re

    reason = re.sub(r"^Layer \d+ ", "These layers ", reason).replace("These layers has", "These layers have")
    reason = re.sub(r" at (\w+\.)?\d+: relative error inf\b", " there: relative error inf", reason)
    reason = re.sub(r" at (\w+\.)?\d+: relative error [\d.e+-]+", " there", reason)
    return re.sub(r"\.(\d+)(?=[.: ]|$)", ".*", reason)


def _ranges(layers: list[int]) -> str:
    """
    >>> _ranges([0, 1, 2, 5])
    '0-2, 5'
    """
    out: list[list[int]] = []
    for layer in sorted(set(layers)):
        if out and layer == out[-1][-1] + 1:
            out[-1].append(layer)
        else:
            out.append([layer])
    return ", ".join(str(r[0]) if len(r) == 1 else f"{r[0]}-{r[-1]}" for r in out)


def _facts(net: Core) -> str:
    parameters = sum(p.numel() for p in net.model.parameters())
    size = f"{parameters / 1e9:.2f} B" if parameters > 1e9 else f"{parameters / 1e6:.2f} M"
    return (
        f"{type(net.model).__name__}, {size} parameters, {net.n_layers} layers, width {net.d_model}, "
        f"vocabulary {net.d_vocab}, context {net.n_ctx}, {_type(net)} on {net.device}"
    )


def _certificate_rows(net: Core) -> list[tuple[str, str, str, str]]:
    return [
        ("holds" if c.holds else "fails", c.name, f"{c.error:.1e}" if c.name != "writing" else "", c.sentence)
        for c in net.certificate.checks
    ]


_LAYERS, _SITES = ("stack", "layers", "form and sublayers"), ("layers", "sites")
_CHECKS = ("", "identity", "error", "")


#: What the certificate says of logits while sites are read.
_READING = {
    True: "Reading leaves the logits bitwise as they were.",
    False: "Reading changes the logits within the tolerance, not bitwise.",
    None: "No logits were found, so it was not compared whether reading leaves the output as it is.",
}


def anatomy_tables(net: Core) -> Group:
    """The network as rich tables."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    def table(title: str, head: Sequence[str], rows: Iterable[Sequence[str | Text]]) -> Table:
        grid = Table(*head, title=title, title_justify="left")
        for row in rows:
            grid.add_row(*row)
        return grid

    parts: list[object] = [
        Text(net.name, style="bold"), Text(_facts(net)), table("Anatomy", _LAYERS, layer_groups(net)),
        Text(f"output: {head_line(net)}"), table("Sites", _SITES, site_groups(net)),
    ]  # fmt: skip
    if net.certificate.made:
        rows = _certificate_rows(net)
        checks = [
            (Text(verdict, style="green" if verdict == "holds" else "red"), *rest) for verdict, *rest in rows
        ]
        parts.append(table("Certificate", _CHECKS, checks))
        parts.append(Text(_READING[net.certificate.bitwise]))
    else:
        parts.append(Text("Not certified: opened with certify=False.", style="yellow"))
    if refused := refusal_lines(net):
        parts.append(table("Refused", ("refused", "layers", "why"), refused))
    return Group(*parts)  # type: ignore[arg-type]


def anatomy_html(net: Core) -> str:
    """The network as HTML tables, for notebooks."""

    def cells(tag: str, texts: Sequence[str]) -> str:
        return "".join(f"<{tag} style='text-align:left'>{escape(text)}</{tag}>" for text in texts)

    def table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
        if not rows:
            return ""
        body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
        grid = f"<table><tr>{cells('th', head)}</tr>{body}</table>"
        return f"<details open><summary><b>{escape(title)}</b></summary>{grid}</details>"

    return (
        f"<div><b>{escape(net.name)}</b><br>{escape(_facts(net))}<br>output: {escape(head_line(net))}"
        + table("Anatomy", _LAYERS, layer_groups(net))
        + table("Sites", _SITES, site_groups(net))
        + table("Certificate", _CHECKS, _certificate_rows(net))
        + table("Refused", ("sites", "layers", "why"), refusal_lines(net))
        + "</div>"
    )


def _type(net: Core) -> str:
    """The type of the weights, and of products where it is another."""
    coarse = "" if net.products is None else f", products in {net.products}"
    return f"{net.dtype}{coarse}".replace("torch.", "")

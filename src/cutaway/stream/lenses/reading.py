"""One text through a lens: at each layer and token the likeliest next token, how sure, and how far from the output."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from cutaway.errors import BadInput
from cutaway.figures import show_token
from cutaway.figures.lens import LensGrid, lens_table
from cutaway.network.inputs import Tokens
from cutaway.network.pricing import announce
from cutaway.reports import Figure, Page, Section, display_result, page_of
from cutaway.results import Provenance, Work, brief, described, load_fields, save_fields, strict, working
from cutaway.stream.lenses.affine import on_network
from cutaway.stream.lenses.protocol import Lens, chosen_layers, streams
from cutaway.stream.shared import one_text, origin, require_count, require_one
from cutaway.stream.targets import token_ids

if TYPE_CHECKING:
    from cutaway.network import Network
    from cutaway.network.edits import Edit
    from cutaway.stream.lenses.report import LensReport

#: Bytes of the log-probabilities that are made at once, in double precision.
_BYTES = 64 << 20


@dataclass(frozen=True, eq=False)
class Reading:
    """What a lens reads in one text.

    Attributes:
        lens: the lens's name.
        layers: the streams that were read, the last being the network's output.
        tokens: [p], the text.
        top: token strings [l p k], likeliest first.
        probability: [l p k], theirs.
        entropy: [l p] in nats.
        kl: [l p] in nats, from the network's own output (`ahead` places later, for a future lens; NaN where the text ends
            before).
        provenance: what is needed to repeat it.
        ahead: how many tokens beyond the next the lens reads.
        target: [l p] probability of a token that was asked for, or None.
        target_name: that token.
    """

    kind: ClassVar[str] = "reading"

    lens: str
    layers: tuple[int, ...]
    tokens: tuple[str, ...]
    top: np.ndarray
    probability: np.ndarray
    entropy: np.ndarray
    kl: np.ndarray
    provenance: Provenance
    ahead: int = 0
    target: np.ndarray | None = None
    target_name: str = ""

    __repr__ = brief

    @property
    def network(self) -> str:
        """The network's name."""
        return self.provenance.network

    def to_pandas(self) -> pd.DataFrame:
        """One row per layer and position."""
        n_layers, n_tokens = self.entropy.shape
        table = {
            "layer": np.repeat(self.layers, n_tokens), "position": np.tile(np.arange(n_tokens), n_layers),
            "token": list(self.tokens) * n_layers, "top": self.top[..., 0].reshape(-1),
            "probability": self.probability[..., 0].reshape(-1), "entropy": self.entropy.reshape(-1),
            "kl": self.kl.reshape(-1),
        }  # fmt: skip
        return pd.DataFrame(table if self.target is None else table | {"target": self.target.reshape(-1)})

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        fields = ("lens", "layers", "tokens", "ahead", "top", "probability", "entropy", "kl")
        target = None if self.target is None else {"token": self.target_name, "probability": self.target}
        return described(self, *fields, target=target)

    def plot(self, colour: str = "probability") -> Any:
        """The table as a figure: layer by token, coloured by probability, entropy or kl."""
        values = {"probability": self.probability[..., 0], "entropy": self.entropy, "kl": self.kl}
        if self.target is not None:
            values["target"] = self.target
        require_one("colour", colour, values)
        last = self.layers[-1]
        names = [f"{i}" if i != last or self.ahead else f"{i} (output)" for i in self.layers]
        notes = [
            [
                "<br>".join(
                    [f"entropy {self.entropy[i, p]:.2f} nats, KL {self.kl[i, p]:.2f} nats"]
                    + [f"{t!r} {q:.3f}" for t, q in zip(self.top[i, p], self.probability[i, p], strict=True)]
                )
                for p in range(len(self.tokens))
            ]
            for i in range(len(self.layers))
        ]
        unit = {"probability": "probability", "entropy": "entropy (nats)", "kl": "KL from the output (nats)"}
        grid = LensGrid(values[colour], self.top[..., 0], names, list(self.tokens), notes,
                        unit.get(colour, f"probability of {self.target_name!r}"))  # fmt: skip
        return lens_table(grid)

    @property
    def headline(self) -> str:
        """From which layer on the last token's prediction stands, in a sentence."""
        if not len(self.tokens) or not len(self.layers):
            return "Nothing was read"
        best = [str(token) for token in self.top[:, -1, 0]]
        since = next(i for i in range(len(best)) if len(set(best[i:])) == 1)
        share = float(self.probability[-1, -1, 0])
        after = f"after {show_token(self.tokens[-1], escape=False)!r}"
        if len(best) == 1:
            return f"The likeliest token {after} is {best[0]!r} ({share:.2f})"
        later = f", {self.ahead} beyond the next" if self.ahead else ""
        where = "at every layer" if since == 0 else f"from layer {self.layers[since]} on"
        return f"{best[-1]!r} is the likeliest token{later} {after} {where}, with {share:.2f} at the end"

    def page(self, report: LensReport | None = None) -> Page:
        """Layer by token, coloured by what is asked for most; with a report, how well the lens reads beside others."""
        says = {
            "probability": "The likeliest token in each cell, coloured by its probability.",
            "kl": "The same, coloured by the divergence from the network's own output.",
        }
        if self.target is not None:
            says["target"] = f"The same, coloured by the probability of {self.target_name!r}."
        figures = [Figure(self.plot(colour), caption) for colour, caption in says.items()]
        sections = [Section("reading", "Layer by token", figures)]
        if report is not None:
            held = Figure(report.plot(), "By layer, on held-out text, with 95 % intervals over rows of text.")
            sections.append(Section("report", "How well it reads", [held]))
        return page_of(
            self, "Cutaway · lens", self._title, sections, lead=f"The text: “{''.join(self.tokens)}”."
        )

    @property
    def _title(self) -> str:
        return f"{self.provenance.network} through the {self.lens} lens"

    save = save_fields
    load = classmethod(load_fields)

    def _last_tokens(self, most: int = 8) -> pd.DataFrame:
        """The likeliest token of every layer at the last few positions."""
        start = max(0, len(self.tokens) - most)
        table: dict[str, list[str]] = {"layer": [str(i) for i in reversed(self.layers)]}
        for p in range(start, len(self.tokens)):
            cells = zip(self.top[::-1, p, 0], self.probability[::-1, p, 0], strict=True)
            table[f"{p} {self.tokens[p]}"] = [f"{t} {q:.2f}" for t, q in cells]
        return pd.DataFrame(table)

    def _repr_html_(self) -> str:
        return display_result(self, [self.headline], self._last_tokens(), headline=self._title)

    def __str__(self) -> str:
        width = 12
        head = "layer".ljust(7) + "".join(repr(t)[1:-1][: width - 1].ljust(width) for t in self.tokens)
        lines = [f"{self.lens} lens of {self.provenance.network}", head]
        for i in reversed(range(len(self.layers))):
            cells = [
                f"{str(t)[: width - 5]} {q:.2f}".ljust(width)
                for t, q in zip(self.top[i, :, 0], self.probability[i, :, 0], strict=True)
            ]
            lines.append(str(self.layers[i]).ljust(7) + "".join(cells))
        return "\n".join(lines)


@strict
def read_lens(
    net: Network,
    lens: Lens,
    text: str | Sequence[int] | Tokens,
    *,
    layers: Sequence[int] | None = None,
    top: int = 5,
    target: str | int | None = None,
    edits: Sequence[Edit] | Edit = (),
    work: Work | None = None,
) -> Reading:
    """Read one text with a lens, at every position and at the given layers (default: all that the lens reads).

    Args:
        net: the network.
        lens: `LogitLens.of(net)`, or one that was fitted or loaded.
        text: one text, or its token ids.
        layers: which streams to read, the last being the network's output; default all that the lens reads.
        top: how many tokens to keep of each.
        target: a token whose probability is reported as well.
        edits: interventions that the run carries.
        work: may stop it.

    Raises:
        TooLong: for a text beyond the context.
        BadInput: for an empty range of layers, an unknown target, or what is no lens.
    """
    began, work = time.monotonic(), working(work)
    require_count("top", top)
    if not isinstance(lens, Lens):
        raise BadInput(
            f"{lens!r:.80} is no lens.", "Use LogitLens.of(net), or a lens that was fitted or loaded."
        )
    lens, sites = on_network(net, lens), streams(net)
    asked = lens.layers if layers is None else chosen_layers(net, layers, last=True)
    missing = [i for i in asked if i not in lens.layers]
    if missing:
        raise BadInput(
            f"The {lens.name} lens does not read layers {missing}.", f"It reads {list(lens.layers)}."
        )
    aim = None if target is None else int(token_ids(net, target, 1)[0])
    tokens = one_text(net, text)
    if tokens.n != 1:
        raise BadInput("A reading is of one text.", "Give one text at a time.")
    announce(net, tokens, work, "reading", 1.0)
    work.check()
    run = net.run(tokens, keep=[sites[i] for i in asked], edits=edits)
    assert run.logits is not None
    given, ahead, width = run.logits[0], lens.ahead, len(run.logits[0])
    size = max(16, _BYTES // (8 * given.shape[-1]))
    shape = (len(asked), width)
    names = np.empty((*shape, min(top, given.shape[-1])), dtype=object)
    probs, entropy, kl, aimed = (
        np.empty(names.shape), np.empty(shape), np.full(shape, np.nan), np.empty(shape)
    )  # fmt: skip
    for start in range(0, width, size):  # probabilities of a whole long text would be many times its logits
        work.check()
        here = slice(start, min(start + size, width))
        later = given[start + ahead : here.stop + ahead].double().log_softmax(-1)
        likely = later.exp()
        own = _dot(likely, later)
        for i, layer in enumerate(asked):
            # one exponential serves all: in double precision they are what a lens costs
            read = lens.logits(run[sites[layer]][:, here], layer)[0]
            best, read = read.topk(names.shape[-1], -1), read.double()
            read = read - read.amax(-1, keepdim=True)
            weight = read.exp()
            mass = weight.sum(-1)
            entropy[i, here] = (mass.log() - _dot(weight, read) / mass).cpu().numpy()
            names[i, here] = [net.token_strings(row) for row in best.indices.tolist()]
            probs[i, here] = (weight.gather(-1, best.indices) / mass[:, None]).cpu().numpy()
            gap = (own - _dot(likely, read[: len(later)]) + mass[: len(later)].log()).clamp(min=0)
            kl[i, start : start + len(later)] = gap.cpu().numpy()
            if aim is not None:
                aimed[i, here] = (weight[:, aim] / mass).cpu().numpy()
    return Reading(
        lens.name, tuple(asked), tuple(tokens.strings(0)), names, probs, entropy, kl, origin(net, tokens, began), lens.ahead,
        None if aim is None else aimed,
        "" if aim is None else net.token_strings([aim])[0],
    )  # fmt: skip


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Products of rows: [n v], [n v] -> [n]."""
    return torch.bmm(a[:, None], b[:, :, None])[:, 0, 0]

"""Which source of a dictionary reads which places and writes to which targets, and what training it takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from cutaway.errors import BadInput
from cutaway.features.training.recipe import DictionaryRecipe
from cutaway.features.training.selection import chunks


@dataclass(frozen=True)
class Routes:
    """Sources and targets of a recipe.

    Attributes:
        reads: for each source the numbers of the places that it reads, side by side.
        writes: for each source the numbers of the targets that it writes to, its own one first.
        widths_in: of each place.
        widths_out: of each target.
    """

    reads: tuple[tuple[int, ...], ...]
    writes: tuple[tuple[int, ...], ...]
    widths_in: tuple[int, ...]
    widths_out: tuple[int, ...]

    def width_in(self, source: int) -> int:
        """Numbers that a source reads."""
        return sum(self.widths_in[i] for i in self.reads[source])

    def width_out(self, source: int) -> int:
        """Numbers that a source writes."""
        return sum(self.spans(source).values())

    def spans(self, source: int) -> dict[int, int]:
        """Width of each target of a source, in the order in which they stand side by side in its decoder."""
        return {t: self.widths_out[t] for t in self.writes[source]}


def wire(recipe: DictionaryRecipe, widths_in: tuple[int, ...], widths_out: tuple[int, ...]) -> Routes:
    """How a recipe's sources and targets hang together.

    Source i of autoencoders and transcoders writes to target i, that of a cross-layer transcoder to i and all later ones; a
    crosscoder has one source, which reads all places and writes to all.

    Raises `BadInput` where places and widths do not go together.
    """
    n, m = len(recipe.reads), len(recipe.writes)
    if not n or (len(widths_in), len(widths_out)) != (n, m) or min((*widths_in, *widths_out)) < 1:
        raise BadInput(
            f"{n} places to read and {m} to write do not go with widths {widths_in} and {widths_out}.",
            "Give one width for each place.",
        )
    if recipe.kind == "crosscoder":
        return Routes((tuple(range(n)),), (tuple(range(m)),), widths_in, widths_out)
    if n != m:
        raise BadInput(
            f"A dictionary of kind {recipe.kind} cannot read {n} places and write {m}.",
            "Name one target for each source.",
        )
    if recipe.kind == "autoencoder" and widths_in != widths_out:
        raise BadInput(
            f"An autoencoder cannot read rows of {widths_in} numbers and write rows of {widths_out}.",
            'Give kind="transcoder".',
        )
    later = recipe.kind == "cross-layer transcoder"
    writes = tuple(tuple(range(i, m)) if later else (i,) for i in range(n))
    return Routes(tuple((i,) for i in range(n)), writes, widths_in, widths_out)


def k_aux_of(recipe: DictionaryRecipe, wiring: Routes, source: int) -> int:
    """How many dead latents are tried on a row: half the width of the source's own target."""
    return max(1, min(wiring.widths_out[wiring.writes[source][0]] // 2, recipe.latents))


def parameters_of(recipe: DictionaryRecipe, widths_in: tuple[int, ...], widths_out: tuple[int, ...]) -> int:
    """How many numbers are learned."""
    wiring = wire(recipe, widths_in, widths_out)
    vectors = {"jumprelu": 2, "gated": 3}.get(recipe.activation, 1)
    sources = range(len(wiring.reads))
    rows = sum(wiring.width_in(s) + wiring.width_out(s) + vectors for s in sources)
    skips = sum(a * b for a, b in zip(widths_in, widths_out, strict=True)) if recipe.skip else 0
    return recipe.latents * rows + sum(widths_out) + skips


def memory_of(
    recipe: DictionaryRecipe, widths_in: tuple[int, ...], widths_out: tuple[int, ...], itemsize: int = 4
) -> int:
    """Bytes that a step needs at its fullest, beside the rows that it is given.

    Parameters, their gradients and both moments; a chunk of the encoder's product with its mask; the list of what fires and
    what is kept for each entry; rows of reconstruction, error and gradient. Activations that are charged by size begin with
    most latents firing: for them the whole product counts, four times.
    """
    wiring = wire(recipe, widths_in, widths_out)
    sources, n, size = len(wiring.reads), recipe.batch, recipe.latents
    learned = 4 * parameters_of(recipe, widths_in, widths_out) * itemsize
    held = next(chunks(n, size)).stop * size * (itemsize + 1)
    spare = 2 if recipe.activation == "jumprelu" else 1
    entries = sources * n * recipe.k * spare * (8 * 8 + 6 * itemsize)
    if recipe.activation in ("relu", "gated") or recipe.k > 0.2 * size:
        entries += sources * n * size * (4 * itemsize + 2)
    outs = sum(widths_out) + sum(wiring.width_out(s) for s in range(sources))
    rows = n * max(1, len(recipe.prefixes)) * outs * 4 * itemsize
    dead = sum(min(n, max(16, n // 8)) * (size + wiring.width_out(s)) for s in range(sources)) * itemsize
    return learned + held + entries + rows + (dead if recipe.revive else 0)


def products_of(
    recipe: DictionaryRecipe, widths_in: tuple[int, ...], widths_out: tuple[int, ...]
) -> Mapping[str, float]:
    """Floating-point operations of one row in a step, where k latents fire.

    "encoder": the product of the row with all latents. "sparse": reconstruction and three gradients at what fires.
    "revival": at most, where all latents are dead. "update": Adam on all rows, 16 for a number, shared among the batch.
    """
    wiring = wire(recipe, widths_in, widths_out)
    sources = range(len(wiring.reads))
    encoder = sum(2.0 * wiring.width_in(s) * recipe.latents for s in sources)
    sparse = sum(2.0 * recipe.k * (wiring.width_in(s) + 3 * wiring.width_out(s)) for s in sources)
    skips = sum(4.0 * a * b for a, b in zip(widths_in, widths_out, strict=True)) if recipe.skip else 0.0
    update = 16.0 * parameters_of(recipe, widths_in, widths_out) / recipe.batch
    return {
        "encoder": encoder, "sparse": sparse + skips, "update": update,
        "revival": (encoder / 8 + sparse / 4) if recipe.revive else 0.0,
    }  # fmt: skip

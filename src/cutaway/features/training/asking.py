"""What is to be trained, in full: recipes for every site that was named, and their twins."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from cutaway.errors import BadInput, did_you_mean
from cutaway.features.activations import Activations
from cutaway.features.attach import sites_of
from cutaway.features.dictionaries.dictionary import Kind
from cutaway.features.texts import TextsLike, texts_in
from cutaway.features.training.loop import Assignment
from cutaway.features.training.recipe import Activation, DictionaryRecipe
from cutaway.network.sites import Site, SiteLike

if TYPE_CHECKING:
    from cutaway.network import Network

#: Latents where nobody says how many: so many times the width, and no more than that.
EXPANSION, MOST_LATENTS = 16, 1 << 15
#: Rows of a step at most, and how many steps there are to be at least before a step has fewer rows.
BATCH, SMALLEST, STEPS = 4096, 64, 1000
CONTROLS = ("frozen", "seed")
#: Steps from which on the learning rate is the recipe's own, and how many times larger it is at most.
LONG, MOST_FASTER = 10_000, 4.0
#: Bounds of the rows after which a latent counts as dead.
LEAST_SILENT, MOST_SILENT = 1_000, 1_000_000
#: Texts by which one set is told from another.
_TOLD_BY = 10_000


def recipes_at(
    net: Network, at: Any, writes: Any, kind: str | None, widths: Any, activation: str, latents: int | None, seed: int,
    **settings: Any,
) -> tuple[DictionaryRecipe, ...]:  # fmt: skip
    """One recipe for each site, pair of sites, or all of them together, as the kind says.

    widths: a function of sites that gives the width of each. Raises `BadInput` where sites and kind do not go together.
    """
    if at is None:
        raise BadInput("No site is named to train on.", 'Write at="resid_post.5", or give recipes.')
    reads = sites_of(net, at)
    targets = reads if writes is None else sites_of(net, writes)
    if not reads:
        raise BadInput(f"{at!r} names no site.", 'Write at="resid_post.5".')
    chosen = kind or ("autoencoder" if writes is None else "transcoder")
    if chosen not in get_args(Kind):
        raise BadInput(f"kind={kind!r} is not known.", did_you_mean(kind, get_args(Kind)))
    if activation not in get_args(Activation):
        raise BadInput(
            f"activation={activation!r} is not known.", did_you_mean(activation, get_args(Activation), 3)
        )
    if chosen in ("autoencoder", "crosscoder") and targets != reads:
        raise BadInput(
            f"A dictionary of kind {chosen} writes where it reads.",
            'Leave writes= out, or give kind="transcoder".',
        )
    if chosen in ("transcoder", "cross-layer transcoder") and writes is None:
        raise BadInput(f"A {chosen} writes elsewhere than it reads.", 'Say where: writes="mlp_out".')
    if len(targets) != len(reads):
        raise BadInput(
            f"{len(reads)} sites are read and {len(targets)} written.",
            "Name one target for each site that is read.",
        )
    if chosen in ("crosscoder", "cross-layer transcoder") and len(reads) < 2:
        raise BadInput(
            f"A {chosen} reads several sites, and {reads[0]} is one.",
            'Write at=["resid_post.1", "resid_post.2"].',
        )
    size = widths([*reads, *targets])
    alone = chosen in ("autoencoder", "transcoder")
    groups = [([r], [w]) for r, w in zip(reads, targets, strict=True)] if alone else [(reads, targets)]
    return tuple(
        DictionaryRecipe(
            tuple(map(str, mine)), tuple(map(str, theirs)), chosen, activation,  # type: ignore[arg-type]
            latents or min(MOST_LATENTS, EXPANSION * max(size[s] for s in mine)), seed=seed, **settings,
        )
        for mine, theirs in groups
    )  # fmt: skip


def resolved(net: Network, recipes: Sequence[DictionaryRecipe]) -> tuple[DictionaryRecipe, ...]:
    """Recipes with the full names of their sites. Raises `BadInput` for a name of several, and for what is no recipe."""
    found = []
    for recipe in recipes:
        if not isinstance(recipe, DictionaryRecipe):
            raise BadInput(
                f"{recipe!r:.60} is no recipe.", "Give cutaway.features.training.DictionaryRecipe(...)."
            )
        names = []
        for sites in (recipe.reads, recipe.writes):
            each = [sites_of(net, site) for site in sites]
            if not each or any(len(one) != 1 for one in each):
                raise BadInput(f"{sites} does not name one site each.", 'Write reads=("resid_post.5",).')
            names.append(tuple(str(one[0]) for one in each))
        found.append(replace(recipe, reads=names[0], writes=names[1]))
    if not found:
        raise BadInput("No recipe is given.", "Give one at least.")
    return tuple(found)


def assignments(recipes: Sequence[DictionaryRecipe], controls: Sequence[str]) -> tuple[Assignment, ...]:
    """Each recipe and its twins, under names that are fit for folders. Raises `BadInput` for a control that is not known."""
    listed = [controls] if isinstance(controls, str) else list(controls)
    for control in listed:
        if control not in CONTROLS:
            raise BadInput(f"There is no control {control!r}.", did_you_mean(control, CONTROLS, 2))
    asked: list[Assignment] = []
    twins: list[Assignment] = []
    taken: set[str] = set()
    for recipe in recipes:
        name = _named(recipe)
        number = 2
        while (full := name if number == 2 and name not in taken else f"{name}-{number}") in taken:
            number += 1
        taken.add(full)
        asked.append(Assignment(full, recipe))
        if "frozen" in listed and recipe.frozen == "none":
            twins.append(Assignment(f"{full}-frozen", replace(recipe, frozen="decoder"), "frozen", full))
        if "seed" in listed:
            twins.append(
                Assignment(
                    f"{full}-seed-{recipe.seed + 1}", replace(recipe, seed=recipe.seed + 1), "seed", full
                )
            )
    return (*asked, *twins)


def _named(recipe: DictionaryRecipe) -> str:
    if len(recipe.reads) == 1:
        name = (
            recipe.reads[0] if recipe.reads == recipe.writes else f"{recipe.reads[0]}-to-{recipe.writes[0]}"
        )
    else:
        name = f"{recipe.kind}-{recipe.reads[0]}-to-{recipe.reads[-1]}"
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-") or "dictionary"


def sized(recipe: DictionaryRecipe, tokens: int, batch: int | None, lr: float | None) -> DictionaryRecipe:
    """A recipe with what goes by the number of tokens, where nobody says otherwise: rows of a step, the learning rate, and
    after how many rows a latent counts as dead.

    A short training takes larger steps: on the stream of `tales` with 800 steps, three and a half times the rate leaves a
    third less unexplained. Ten times leaves still less there, and wrecks dictionaries of streams with a few huge rows.
    """
    rows = batch or batch_for(tokens)
    larger = min(MOST_FASTER, max(1.0, (LONG / max(1, tokens // rows)) ** 0.5))
    return replace(
        recipe, batch=rows, lr=recipe.rate * larger if lr is None else lr, dead_after=dead_after_for(tokens)
    )


def dead_after_for(tokens: int) -> int:
    """Rows after which a latent that did not fire counts as dead: a tenth of the training, a million at most.

    >>> dead_after_for(20_000_000), dead_after_for(400_000), dead_after_for(100)
    (1000000, 40000, 1000)
    """
    return min(MOST_SILENT, max(LEAST_SILENT, tokens // 10))


def batch_for(tokens: int) -> int:
    """Rows of a step where nobody says how many.

    >>> batch_for(10_000_000), batch_for(1_000_000), batch_for(5_000)
    (4096, 512, 64)
    """
    fits = max(SMALLEST, min(BATCH, tokens // STEPS))
    return 1 << (fits.bit_length() - 1)


def places_of(tasks: Sequence[Assignment]) -> list[str]:
    """Every place that is read or written, once."""
    return list(dict.fromkeys(p for t in tasks for p in (*t.recipe.reads, *t.recipe.writes)))


def told(texts: TextsLike | Activations | Iterator[Any]) -> str:
    """A hash by which these texts are told from others; "" of an iterator, which can be read only once."""
    if isinstance(texts, Activations):
        return hashlib.sha256("".join(shard.sha256 for shard in texts.shards).encode()).hexdigest()
    if isinstance(texts, Iterator):
        return ""
    digest = hashlib.sha256(str(Path(texts).stat().st_size if isinstance(texts, Path) else "").encode())
    for text in islice(texts_in(texts), _TOLD_BY):
        digest.update(repr(text).encode())
    return digest.hexdigest()


def question_of(tasks: Sequence[Assignment], **more: Any) -> Mapping[str, Any]:
    """All that the numbers depend on, by name."""
    return {"dictionaries": {t.name: vars(t.recipe) for t in tasks}, **more}


def only_sites(net: Network, names: Sequence[SiteLike]) -> list[Site]:
    """The sites of full names."""
    return [net.resolve(name)[0] for name in names]

"""Fine-tuning an autoencoder through the network: by how far the logits are from the network's own with the reconstruction
in place, rather than by the squared error.

The divergence is KL(network || spliced), a mean over tokens that count: no padding, nothing special, not the first of each
window, at which nothing is spliced either. Denominators: the divergence with the site's mean in place of every value.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cutaway.errors import BadInput, SiteUnavailable
from cutaway.features.dictionaries import Dictionary, Encoder
from cutaway.features.lengths import Lengths
from cutaway.features.texts import Batch, TextWindow, batches
from cutaway.features.training.recipe import DictionaryRecipe
from cutaway.features.training.rows import TextRows, order
from cutaway.interventions import Apply
from cutaway.results import Work

if TYPE_CHECKING:
    from cutaway.network import Network

#: Tokens of a step, its learning rate as a share of the recipe's, and tokens that are measured before and after.
STEP_TOKENS, SHARE, MEASURED = 2048, 0.1, 4096
LABEL = "fine-tuning through the network"


def tuned(
    net: Network, dictionary: Dictionary, rows: TextRows, tokens: int, recipe: DictionaryRecipe, short: Lengths,
    work: Work,
) -> tuple[Dictionary, tuple[int, int, float, float, float]]:  # fmt: skip
    """The dictionary tuned on so many tokens, and: tokens, tokens measured, divergence before, after, with the mean.

    short: which values of the site it was trained on; longer ones are left as they are.

    Raises `BadInput` for a dictionary of several sources or sites, `SiteUnavailable` for a network without logits.
    """
    if recipe.kind != "autoencoder" or not dictionary.single:
        raise BadInput(
            f"A {recipe.kind} is not fine-tuned through the network here.",
            "Leave end_to_end= out, or train autoencoders.",
        )
    if net.d_vocab is None or net.run([[0, 0]]).logits is None:
        raise SiteUnavailable(
            "This network has no logits to keep.", "Open it with its language-modelling head."
        )
    site = net.resolve(recipe.reads[0])[0]
    held = rows.held_out(MEASURED)
    mean = short.mean
    learn = {n: t.detach().clone().requires_grad_(_learns(n, recipe)) for n, t in _parts(dictionary).items()}
    splice = _Splice(net, str(site), rows.sizes.length, rows.sizes.skip, rows.sizes.batch, short, work)
    rebuilt = _with(dictionary, learn)
    before, count = splice.divergence(held, lambda x: rebuilt.reconstruct(x))
    flat, _ = splice.divergence(held, lambda x: mean.to(x).expand_as(x))
    rates = {
        name: SHARE * recipe.rate * (recipe.encoder_rate if name == "encoder" else 1.0) for name in learn
    }
    adam = torch.optim.Adam(
        [
            {"params": [t], "lr": rates[name], "full": rates[name]}
            for name, t in learn.items()
            if t.requires_grad
        ]
    )
    done = step = 0
    for slab in rows.slabs():
        for number in order(len(slab), recipe.seed, 0, step).split(
            max(1, min(STEP_TOKENS, tokens) // rows.sizes.length)
        ):
            part = [slab[int(i)] for i in number]
            share = max(0.1, 1 - done / tokens)
            for group in adam.param_groups:
                group["lr"] = group["full"] * share
            done += splice.step(part, adam, learn, dictionary)
            step += 1
            work.step(LABEL, min(done, tokens), tokens)
            if done >= tokens:
                break
        if done >= tokens:
            break
    made = _with(dictionary, {name: tensor.detach() for name, tensor in learn.items()})
    after, _ = splice.divergence(held, lambda x: made.reconstruct(x))
    return made, (done, count, before, after, flat)


def _parts(dictionary: Dictionary) -> dict[str, Tensor]:
    encoder, bias = dictionary.encoders[0], dictionary.biases[0]
    found = {
        "encoder": encoder.weight,
        "bias": encoder.bias,
        "decoder": dictionary.decoders[0].weight,
        "out": bias,
    }
    return {name: value for name, value in found.items() if value is not None}


def _learns(name: str, recipe: DictionaryRecipe) -> bool:
    return name != recipe.frozen


def _with(dictionary: Dictionary, parts: dict[str, Tensor]) -> Dictionary:
    encoder: Encoder = replace(dictionary.encoders[0], weight=parts["encoder"], bias=parts.get("bias"))
    decoders = (replace(dictionary.decoders[0], weight=parts["decoder"]),)
    return replace(dictionary, encoders=(encoder,), decoders=decoders, biases=(parts.get("out"),))


class _Splice:
    """Runs of the network with something else in the place of a site's values at the tokens that count."""

    def __init__(
        self, net: Network, site: str, length: int, skip: int, batch: int, short: Lengths, work: Work
    ) -> None:
        self.net, self.site, self.length, self.skip, self.batch = net, site, length, skip, batch
        self.short = short
        self.work = replace(work, listener=None)

    def _batches(self, windows: Sequence[TextWindow]) -> list[Batch]:
        return list(
            batches(
                self.net, windows, [self.net.resolve(self.site)[0]], self.length, self.work, LABEL, self.batch
            )
        )

    def _loss(self, batch: Batch, change: Callable[[Tensor], Tensor], grad: bool) -> tuple[Tensor, int]:
        """Summed divergence at the tokens that count, and how many they are."""
        chosen = batch.ordinary.clone()
        chosen[:, : self.skip] = False
        with torch.no_grad():
            run = self.net.run(batch.tokens, keep=[self.site])
            plain = run.logits
            chosen &= self.short(run[self.site].flatten(2)).to(chosen.device)
        assert plain is not None

        def put(value: Tensor) -> Tensor:
            mask = chosen.to(value.device)
            flat = value[mask].flatten(1)
            return value.masked_scatter(
                mask.reshape(*mask.shape, *[1] * (value.ndim - 2)).expand_as(value), change(flat).to(value)
            )

        spliced = self.net.run(batch.tokens, edits=[Apply(self.site, put)], grad=grad).logits
        assert spliced is not None
        mask = chosen.to(plain.device)
        wanted, found = plain[mask].float().log_softmax(-1), spliced[mask].float().log_softmax(-1)
        return (wanted.exp() * (wanted - found)).sum(), int(mask.sum())

    def divergence(
        self, windows: Sequence[TextWindow], change: Callable[[Tensor], Tensor]
    ) -> tuple[float, int]:
        """Mean over tokens [nats], and how many."""
        total, count = 0.0, 0
        with torch.no_grad():
            for batch in self._batches(windows):
                loss, n = self._loss(batch, change, False)
                total, count = total + float(loss), count + n
        return total / max(1, count), count

    def step(
        self,
        windows: Sequence[TextWindow],
        adam: torch.optim.Optimizer,
        learn: dict[str, Tensor],
        dictionary: Dictionary,
    ) -> int:
        """One step on some windows; how many tokens counted."""
        made = _with(dictionary, learn)
        adam.zero_grad(set_to_none=True)
        losses = [self._loss(batch, made.reconstruct, True) for batch in self._batches(windows)]
        count = sum(n for _, n in losses)
        (sum((loss for loss, _ in losses), torch.zeros(())) / max(1, count)).backward()
        adam.step()
        return count

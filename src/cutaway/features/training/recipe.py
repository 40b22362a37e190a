"""How a dictionary is to be trained: every setting, as plain data that its card repeats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cutaway.errors import BadInput
from cutaway.features.dictionaries.dictionary import Kind

Activation = Literal["topk", "batchtopk", "relu", "jumprelu", "gated", "groupmax"]
#: Which directions are left at random, as a control: a dictionary that learns only its other half.
Frozen = Literal["none", "decoder", "encoder"]
#: What a dictionary that is charged for the size of its activations pays: the size, or its hyperbolic tangent.
Penalty = Literal["l1", "tanh"]
#: Do the rows of decoders keep length one?
Lengths = Literal["free", "unit"]


@dataclass(frozen=True)
class DictionaryRecipe:
    """One dictionary: where, of which form, and how it is trained.

    Attributes:
        reads: the site of each source; of a crosscoder all sites, which its one source reads side by side.
        writes: the site of each target; the same as `reads` for autoencoders and crosscoders.
        kind: what it is.
        activation: what pre-activations go through in training. "batchtopk" keeps the largest of the whole batch, and is a
            threshold (jumprelu) afterwards.
        latents: how many each source has.
        k: how many are to fire on a token, whatever the activation: those that are penalised are steered to it.
        prefixes: widths of a Matryoshka dictionary, ascending, the last of them `latents`; empty for none.
        skip: is there a linear map from each source to its target beside the latents? Transcoders only.
        frozen: whose directions stay as they were drawn, the encoder's or the decoder's; biases and thresholds learn.
        penalty: of "relu" and "gated", what firing is charged for: "l1", the size, or "tanh", its hyperbolic tangent.
        batch: rows of one step.
        lr: of Adam, at its largest; None for 8e-4 divided by the square root of latents / 2^14.
        encoder_rate: the learning rate of the encoders' directions, as a share of that of all else: they are shorter than
            decoders, and latents that turn fast towards a few rows leave the others none.
        lengths: "unit" where the rows of decoders keep length one, "free" where they do not; None for what the activation
            is best with: free, but for those with thresholds or gates of their own.
        warmup, decay: shares of the steps at whose beginning and end the learning rate rises from and falls to zero.
        revive: weight of the loss that revives dead latents; 0 for none.
        dead_after: rows after which a latent that did not fire counts as dead.
        seed: of its first values and of the order of rows.
    """

    reads: tuple[str, ...]
    writes: tuple[str, ...]
    kind: Kind = "autoencoder"
    activation: Activation = "batchtopk"
    latents: int = 4096
    k: int = 32
    prefixes: tuple[int, ...] = ()
    skip: bool = False
    frozen: Frozen = "none"
    penalty: Penalty = "l1"
    batch: int = 4096
    lr: float | None = None
    encoder_rate: float = 0.25
    lengths: Lengths | None = None
    warmup: float = 0.05
    decay: float = 0.2
    revive: float = 1 / 32
    dead_after: int = 1_000_000
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.k <= self.latents:
            raise BadInput(
                f"k={self.k} of {self.latents} latents cannot fire.", "Give k from 1 to their number."
            )
        if self.prefixes and (
            list(self.prefixes) != sorted(set(self.prefixes)) or self.prefixes[-1] != self.latents
        ):
            raise BadInput(
                f"prefixes={self.prefixes} do not ascend to {self.latents}.",
                "The last one is the number of latents.",
            )
        if self.skip and self.kind not in ("transcoder", "cross-layer transcoder"):
            raise BadInput(
                f"A skip connection of a dictionary of kind {self.kind} would copy its input.",
                "Leave it out.",
            )
        if self.activation == "groupmax" and self.latents % self.k:
            raise BadInput(
                f"{self.latents} latents do not fall into {self.k} equal groups.",
                "Give a k that divides them.",
            )
        if self.batch < 2 or self.dead_after < 1 or self.revive < 0 or not 0 <= self.warmup + self.decay <= 1:
            raise BadInput(
                "batch, dead_after, revive, warmup or decay is out of range.", "See the recipe's fields."
            )
        if not 0 < self.encoder_rate < float("inf"):
            raise BadInput(
                f"encoder_rate={self.encoder_rate} is not above zero.",
                'Give a share above zero, or frozen="encoder".',
            )
        if self.lengths == "unit" and self.activation == "relu":
            raise BadInput(
                "Decoders of length one are not trained with relu, which is charged for activation times length.",
                "Leave lengths out.",
            )

    @property
    def rate(self) -> float:
        """The largest learning rate."""
        return self.lr if self.lr is not None else 8e-4 / (self.latents / 2**14) ** 0.5

    @property
    def unit(self) -> bool:
        """Do the rows of decoders keep length one?"""
        return self.activation in ("jumprelu", "gated") if self.lengths is None else self.lengths == "unit"

"""A network: an opened model with its tokenizer, its anatomy and its certificate."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from numbers import Integral
from typing import Any, TypeVar

import torch
from torch import Tensor

from cutaway.errors import BadInput
from cutaway.network import transformerlens, views
from cutaway.network.anatomy import Tap
from cutaway.network.certificate import uncertified
from cutaway.network.chat import chat as chat_of
from cutaway.network.core import Core
from cutaway.network.edits import Edit, Phase, bind
from cutaway.network.examining import examine_model, redrawn
from cutaway.network.execution import running
from cutaway.network.execution.attached import Attached, attached
from cutaway.network.generate import Generation, generate
from cutaway.network.gradients import gradients as gradients_of
from cutaway.network.indices import Index
from cutaway.network.inputs import Inputs, Pos, Tokens
from cutaway.network.items import rows_of_items
from cutaway.network.loss import Loss, loss_on
from cutaway.network.named_weights import named_weight
from cutaway.network.opened import Opened
from cutaway.network.pricing import announce
from cutaway.network.run import Run
from cutaway.network.sites import Site, SiteLike
from cutaway.network.texts import InputLike
from cutaway.network.textsets import rows_in, texts_in
from cutaway.results import Work, named, working
from cutaway.results.meter import Meter, metered

T = TypeVar("T")


def told(get: Callable[[Core], T], doc: str) -> T:
    """A property that the core knows; typed as its value, as `dataclasses.field` is."""
    return property(lambda net: get(net.core), doc=doc)  # type: ignore[return-value]


class Network:
    """A model that can be read and written at named sites. Made by `cutaway.open`.

    It is a face: what it knows lies in its `core`, what it does in the modules beside it.
    """

    def __init__(self, core: Core) -> None:
        self._core: Core | None = core
        self._name = core.name

    @property
    def core(self) -> Core:
        """All that is known about it.

        Raises `BadInput` once the network is closed.
        """
        if self._core is None:
            raise BadInput(f"The network {self._name} is closed.", "Open it again with cutaway.open.")
        return self._core

    # what it is --------------------------------------------------------------------------------------------------

    model = told(lambda core: core.model, "The model itself.")
    tokenizer = told(
        lambda core: core.texts.tokenizer, "Its tokenizer; None where it was opened without one."
    )
    anatomy = told(lambda core: core.anatomy, "Where each site lives in the module tree.")
    certificate = told(
        lambda core: core.certificate,
        "What was checked on it, to what error, and what is refused because of it.",
    )
    name = told(lambda core: core.name, "What it is called in results.")
    opened = told(
        lambda core: core.opened,
        "How it was opened: `cutaway.open(**net.opened)` opens the same network in another process.",
    )
    remembered = told(
        lambda core: core.remembered, "Were anatomy and certificate found at an earlier opening of it?"
    )
    interface = told(lambda core: core.interface, "What the model's forward takes.")
    modules = told(lambda core: core.modules, "The model's modules by dotted path.")
    hash = told(
        lambda core: core.hash,
        "SHA-256 of configuration and weights, the same on every machine; made anew once weights have changed.",
    )
    device = told(lambda core: core.device, "Where inputs belong.")
    dtype = told(lambda core: core.dtype, "Type of the weights.")
    products = told(
        lambda core: core.products,
        "Type of matrix products where it is coarser than the weights'; else None.",
    )
    roundings = told(
        lambda core: core.roundings, "What that does to behaviours, by their hash, where it was measured."
    )
    config = told(lambda core: core.config, "The model's configuration, if it has one.")
    text_config = told(lambda core: core.text_config, "The part of the configuration that is about text.")
    n_layers = told(lambda core: core.n_layers, "Layers of the main stack.")

    def heads(self, layer: int, stack: str = "") -> int | None:
        """Attention heads of a layer (a negative one counts from the end); None where it has no attention."""
        return self.core.heads(layer, stack)

    n_heads = told(
        lambda core: core.n_heads, "Heads per layer where all layers with attention agree, else None."
    )
    d_model = told(lambda core: core.d_model, "Width of the main stream.")
    d_vocab = told(lambda core: core.d_vocab, "Number of output tokens.")
    d_vocab_in = told(lambda core: core.d_vocab_in, "Number of token ids that can be given.")
    n_ctx = told(
        lambda core: core.n_ctx,
        "Longest prompt: what the configuration names, else how many positions are embedded; None where neither tells.",
    )

    @property
    def is_causal(self) -> bool:
        """Whether a token's outputs do not depend on later tokens (as measured, once)."""
        return running.known_causal(self.core)

    # facts -------------------------------------------------------------------------------------------------------

    def fact(self, key: Hashable, make: Callable[[], T]) -> T:
        """A fact about this network that is costly to find, found once.

        It is forgotten when the network is moved or its weights change. While edits stand, facts are neither read nor
        kept, because they would speak of the edited network.
        """
        return self.core.fact(key, make)

    def forget(self) -> None:
        """Know no facts any more: after a change of the weights that torch does not count, as through `.data`."""
        self.core.forget()

    def to(self, *place: Any, **options: Any) -> Network:
        """Move the model to a device or type, as `torch.nn.Module.to` does; facts about it are forgotten."""
        self.core.to(*place, **options)
        return self

    # sites -------------------------------------------------------------------------------------------------------

    def sites(self) -> list[Site]:
        """Every site that can be read and written here, in the order of computation."""
        return self.core.sites()

    def layers_with(self, name: str, stack: str = "") -> list[int]:
        """Layers at which a site exists."""
        return self.core.layers_with(name, stack)

    def has(self, site: SiteLike) -> bool:
        """Whether a site exists here, at the given layer or, without one, at any."""
        return self.core.has(site)

    def refusal(self, site: SiteLike) -> str | None:
        """Why a site is refused; None where it is there."""
        return self.core.refusal(site)

    def resolve(self, spec: SiteLike, layers: Index = None) -> list[Site]:
        """The sites that a name stands for: one, or one per layer where no layer is named; globs give all that match.

        layers: only these; negative ones count from the end.

        Raises `NotFound`, `BadAddress` or `SiteUnavailable`, each saying what there is instead.
        """
        return self.core.resolve(spec, layers)

    def tap(self, site: Site) -> Tap:
        """Where a site lives in the module tree."""
        return self.core.tap(site)

    weights = named_weight

    # text --------------------------------------------------------------------------------------------------------

    def encode(self, inputs: InputLike, add_special_tokens: bool = True) -> Tokens:
        """Text or token ids as rows of tokens, padded on the right; images and other floating-point input as rows of items.

        Raises `BadInput` for an empty prompt, text without a tokenizer or what is neither text nor token ids, `TooLong`
        for a prompt beyond the context.
        """
        if torch.is_tensor(inputs) and inputs.is_floating_point():
            return rows_of_items(self, inputs)
        return self.core.texts.encode(inputs, add_special_tokens)

    chat = chat_of

    def tokens_of(self, inputs: Any, add_special_tokens: bool = True) -> list[list[int]]:
        """The token ids of each prompt, of any length and without padding: what `encode` makes a batch of."""
        return self.core.texts.tokens_of(inputs, add_special_tokens)

    def continuation_ids(self, text: str) -> list[int]:
        """Token ids of a piece of text as it continues other text."""
        return self.core.texts.continuation_ids(text)

    pad_id = told(lambda core: core.texts.pad_id, "The token that stands where a row is padded.")

    def decode(self, ids: Tensor | Sequence[int]) -> str:
        """Token ids as text."""
        return self.core.texts.decode(ids)

    def token_strings(self, ids: Sequence[int]) -> list[str]:
        """Each token as text (its number where there is no tokenizer)."""
        return self.core.texts.token_strings(ids)

    def is_single_token(self, text: str) -> bool:
        """Whether a piece of text is one token of this network's tokenizer."""
        return self.core.texts.is_single_token(text)

    def to_single_token(self, text: str) -> int:
        """The token that a piece of text is.

        Raises `BadInput` naming the pieces when it is not one token.
        """
        return self.core.texts.to_single_token(text)

    # running -----------------------------------------------------------------------------------------------------

    @named
    def run(
        self,
        inputs: InputLike,
        keep: Sequence[SiteLike] | SiteLike = (),
        edits: Sequence[Edit] | Edit = (),
        *,
        pos: Pos = None,
        layers: Index = None,
        logits: bool | str | Pos = True,
        grad: bool = False,
        stop_at: SiteLike | None = None,
    ) -> Run:
        """Run the network once, keep the values of sites, and change them on the way.

        Args:
            inputs: text, texts, token ids, `Tokens`, or a mapping of the model's own arguments.
            keep: sites by name, TransformerLens name, ("resid_post", 5), glob or module path; without a layer, all.
            edits: interventions, applied in the order of computation and, at one site, in the order given.
            pos, layers: keep only these (row-relative) positions and layers: integers (negative ones count from the end),
                lists, ranges, slices or boolean masks.
            logits: True for all positions, "last" for each row's last token, positions, or False for none.
            grad: keep the graph.
            stop_at: end the pass after this site.

        Raises `NotFound`, `SiteUnavailable`, `BadAddress`, `BadInput`, `TooLong`, `OutOfMemory`.
        """
        options = running.RunOptions(pos, layers, logits, grad, stop_at)
        bound = bind(self, self._carried(edits))
        return running.run(self.core, self.prepare(inputs), _listed(keep), bound, options)

    def __call__(self, inputs: InputLike) -> Run:
        """`run` with nothing kept and nothing changed."""
        return self.run(inputs)

    def prepare(self, inputs: InputLike) -> Inputs:
        """Inputs as the model's keyword arguments.

        Raises `BadInput` where rows of unequal length are given to a network whose padding was found not to be neutral.
        """
        return running.prepare(self.core, inputs)

    @contextmanager
    def edit(self, *edits: Edit) -> Iterator[Network]:
        """While active, every run and generation of this network carries these edits, in whatever thread it is made.

        Blocks may overlap and end in any order; each takes away its own edits and no others. The model called by hand,
        without `net.run`, never carries them.
        """
        bind(self, edits)
        with self.core.carrying(edits):
            yield self

    lock = told(
        lambda core: core.lock,
        "The model's lock, for `with`: hooks and configuration belong to one run at a time. Runs take it by themselves; "
        "hold it around a bare model's forward in one thread while a network over it runs in another.",
    )
    standing = told(lambda core: tuple(core.standing), "The edits that every run carries at present.")

    def generate(
        self,
        inputs: InputLike,
        max_new_tokens: int = 20,
        *,
        edits: Sequence[Edit] | Edit = (),
        on: Phase = "all",
        **options: Any,
    ) -> Generation:
        """Continue prompts under edits; see `cutaway.network.generate.generate`."""
        return generate(self.core, inputs, max_new_tokens, bind(self, self._carried(edits)), on, options)

    @named
    def loss(
        self, texts: Any, *, edits: Sequence[Edit] | Edit = (), column: str = "text", work: Work | None = None
    ) -> Loss:
        """Next-token cross-entropy on texts, with edits beside without them; see `cutaway.loss`."""
        several = [texts] if isinstance(texts, str) else texts_in(texts, column)
        if several and all(isinstance(t, Integral) and not isinstance(t, bool) for t in several):
            several = [several]
        carried = self._carried(edits)
        work = working(work)
        with metered(Meter()):
            if work.priced:
                rows = rows_in(self.core, several)
                announce(self, rows[:32], work, "loss", len(rows) * (2 if carried else 1), rows=len(rows))
            return loss_on(self.core, several, carried, bind(self, carried), work)

    gradients = gradients_of

    @contextmanager
    def attached(
        self,
        reads: Sequence[SiteLike] | SiteLike = (),
        writes: Sequence[Edit] | Edit = (),
        *,
        pos: Pos = None,
        layers: Index = None,
        on: Phase = "all",
        on_step: Callable[[Run], object] | None = None,
    ) -> Iterator[Attached]:
        """While active, every forward pass of the model is read and written, whoever makes it.

        One meets it around one's own `model.generate(...)`, a training step, or a loop with the cache. Each pass gives a
        `Run` in `attached.runs`. Where gradients are on, what is read lies in the graph, and the pass's own gradients
        stay as they are. The model's mode and settings are the user's.

        Args:
            reads: sites, as in `run`. Inside attention, in a step with a cache, keys and values are those of all
                columns so far, queries those of the step.
            writes: interventions, applied in each pass. Their positions count from the first token of the prompt,
                negative ones from its last, as in `generate`; a pass without a cache is a prompt of its own.
            pos, layers: keep only these layers and positions, counted over the whole row so far (-1 is the newest
                token). A step keeps those of them that it covers in every row.
            on: "all", "prompt" or "new": which tokens the writes act on.
            on_step: is given each run in place of `attached.runs`; for long generations.

        Raises what `run` raises; `BadInput` for writes into a model that checkpoints its gradients.
        """
        options = running.RunOptions(pos, layers)
        bound = bind(self, writes if isinstance(writes, Sequence) else [writes])
        with attached(self.core, _listed(reads), bound, options, on, on_step) as seen:
            yield seen

    def _carried(self, edits: Sequence[Edit] | Edit) -> list[Edit]:
        """The standing edits and those given."""
        return [*self.core.standing, *(edits if isinstance(edits, Sequence) else [edits])]

    def randomized(self, seed: int = 0, *, examine: bool = True) -> Network:
        """The same architecture with freshly drawn weights: the control on which a mechanism must not be found.

        Matrices are drawn anew from a normal distribution with the old one's spread; vectors (norms, biases) are permuted.

        The anatomy is discovered and certified anew, because factors of the stream may be weights. Without `examine` it is
        that of this network and nothing is certified, which is cheap, and enough where only logits are asked for.

        Raises `BadInput` where the weights are offloaded or quantised.
        """
        name = f"{self.name} (random weights, seed {seed})"
        reason = "Its weights were drawn at random in this process."
        certify = examine and self.opened.certify
        opened = Opened(name, certify=certify, example=self.opened.example, reason=reason)
        model = redrawn(self.model, seed)
        if not examine:
            return Network(Core(model, self.tokenizer, self.anatomy, uncertified(), name, opened))
        return Network(examine_model(model, self.tokenizer, name, opened))

    def close(self) -> None:
        """Let the model go, with all that was found out about it, so that its memory is free once nobody else holds it.

        A module that was handed over in hand stays as it is: nothing of Cutaway is left on it after a run.
        """
        self._core = None

    def __enter__(self) -> Network:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # TransformerLens's verbs -------------------------------------------------------------------------------------

    def run_with_cache(
        self,
        inputs: Any,
        names_filter: str | Sequence[str] | Callable[[str], bool] | None = None,
        stop_at_layer: int | None = None,
    ) -> tuple[Tensor | None, transformerlens.Cache]:
        """Logits and a cache of activations; see `cutaway.network.transformerlens`."""
        return transformerlens.run_with_cache(self, inputs, names_filter, stop_at_layer)

    def run_with_hooks(
        self, inputs: Any, fwd_hooks: Sequence[tuple[Any, Callable[..., Any]]] = ()
    ) -> Tensor | None:
        """Logits [b p v] of a run with hook functions: each `(name, fn)` with fn(value, hook) -> new value or None."""
        return transformerlens.run_with_hooks(self, inputs, fwd_hooks)

    @contextmanager
    def hooks(self, fwd_hooks: Sequence[tuple[Any, Callable[..., Any]]] = ()) -> Iterator[Network]:
        """While active, every run carries these hook functions."""
        with self.edit(*transformerlens.hook_edits(self, fwd_hooks)):
            yield self

    def to_tokens(self, text: str | Sequence[str], prepend_bos: bool | None = None) -> Tensor:
        """Token ids LongTensor [b p], padded on the right; `prepend_bos` adds or leaves out the beginning-of-text token."""
        return transformerlens.to_tokens(self, text, prepend_bos)

    def to_str_tokens(self, text: Any, prepend_bos: bool | None = None) -> list[str]:
        """The tokens of one prompt as strings."""
        return transformerlens.to_str_tokens(self, text, prepend_bos)

    # how it shows itself -----------------------------------------------------------------------------------------

    def __repr__(self) -> str:
        if self._core is None:
            return f"Network({self._name!r}: closed)"
        return (
            f"Network({self.name!r}: {type(self.model).__name__}, {self.n_layers} layers, width {self.d_model}, "
            f"{self.n_heads} heads, {len(self.core.kinds_of_site())} kinds of site)"
        )

    def __rich__(self) -> object:
        return views.anatomy_tables(self.core)

    def _repr_html_(self) -> str:
        return views.anatomy_html(self.core)


def _listed(keep: Sequence[SiteLike] | SiteLike) -> list[SiteLike]:
    """One site, which may be a pair of name and layer, or several, as a list."""
    pair = (
        isinstance(keep, tuple)
        and len(keep) == 2
        and isinstance(keep[0], str)
        and isinstance(keep[1], Integral)
    )
    return [keep] if pair or isinstance(keep, str | Site) else list(keep)  # type: ignore[list-item,arg-type]

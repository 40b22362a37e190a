"""The core of a network: model, tokenizer, anatomy, certificate, and the facts found out about it.

Whatever runs, reads or describes a network below its face `cutaway.Network` takes this.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from hashlib import sha256
from typing import Any, TypeVar

import torch
from torch import nn

from cutaway.errors import BadAddress, NotFound, SiteUnavailable, nearest
from cutaway.network.anatomy import FIRST, Anatomy, Layer, NormedTap, Port, PortTap, Tap
from cutaway.network.bare import BareMatrix
from cutaway.network.certificate import Certificate
from cutaway.network.discovery.example import device_of
from cutaway.network.edits import Edit
from cutaway.network.facts import FactMemo
from cutaway.network.identity import weights_hash, weights_sample, weights_version
from cutaway.network.indices import Index, layer_numbers
from cutaway.network.interface import Interface, text_part
from cutaway.network.locks import Lock, lock_of
from cutaway.network.opened import Opened
from cutaway.network.products import products_of
from cutaway.network.sites import SITES, Site, SiteLike, expand_glob, is_glob, parse
from cutaway.network.texts import Texts
from cutaway.network.ungained import summed
from cutaway.results.rounding import Rounding

T = TypeVar("T")


class Core:
    """A model with all that opening found out about it.

    Attributes:
        model: the module that is run.
        texts: how prompts become token ids.
        anatomy: where each site lives.
        certificate: what was checked, and what is refused because of it.
        name: what it is called in results.
        opened: how it was opened.
        interface: what its forward takes.
        modules: its modules by dotted path, with the linear maps of parameters that are used without one.
        contexts: edits that every run carries at present, by the block that put them there.
        attachments: how many attachments write into the model at present.
        facts: what was found out about it; ask `fact`, which knows when they do not hold.
        remembered: were anatomy and certificate found at an earlier opening of the same network?
        roundings: what products coarser than the weights do to behaviours, by their hash, where it was measured.
        dictionaries: hashes of the dictionaries whose latents are sites here.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        anatomy: Anatomy,
        certificate: Certificate,
        name: str,
        opened: Opened,
        remembered: bool = False,
        dictionaries: tuple[str, ...] = (),
    ) -> None:
        self.remembered = remembered
        self.dictionaries = dictionaries
        self.model = model
        self.texts = Texts(
            model, tokenizer, (_entries(model, anatomy, "embed"), _entries(model, anatomy, "pos_embed"))
        )
        self.anatomy = anatomy
        self.certificate = certificate
        self.name = name
        self.opened = opened
        self.interface = Interface.of(model, opened.example)
        self.modules = {**dict(model.named_modules()), **anatomy.bare}
        self.contexts: dict[object, tuple[Edit, ...]] = {}
        self.attachments = 0
        self.facts = FactMemo()
        self.roundings: dict[str, Rounding] = {}
        self._version: int | None = None
        self._sample: bytes | None = None

    # standing edits ------------------------------------------------------------------------------------------------

    @property
    def standing(self) -> list[Edit]:
        """Edits that every run carries at present, whoever makes it, in the order in which their blocks began."""
        return [edit for edits in list(self.contexts.values()) for edit in edits]

    @contextmanager
    def carrying(self, edits: Sequence[Edit]) -> Iterator[None]:
        """While active these edits stand; blocks may overlap, end in any order, and be in several threads."""
        block = object()
        self.contexts[block] = tuple(edits)
        try:
            yield
        finally:
            self.contexts.pop(block, None)

    # facts -------------------------------------------------------------------------------------------------------

    def fact(self, key: Hashable, make: Callable[[], T]) -> T:
        """A fact about this network that is costly to find, found once.

        While edits stand, facts are neither read nor kept: they would speak of the edited network.
        """
        return make() if self.standing else self.fact_of_weights(key, make)

    def fact_of_weights(self, key: Hashable, make: Callable[[], T]) -> T:
        """A fact that standing edits do not touch; found anew once weights are replaced, moved or changed in place.

        While an attachment writes into the model, it is neither read nor kept either.
        """
        if self.attachments:
            return make()
        version = weights_version(self.model)
        if version != self._version:
            self.facts.forget()
            self._version = version
        return self.facts.get(key, make)

    def forget(self) -> None:
        """Know no facts any more: after a change of the weights that torch does not count, as through `.data`."""
        self.facts.forget()

    def to(self, *place: Any, **options: Any) -> None:
        """Move the model as `torch.nn.Module.to` does, and forget the facts."""
        self.model.to(*place, **options)
        self.forget()

    # what it is --------------------------------------------------------------------------------------------------

    @property
    def hash(self) -> str:
        """SHA-256 of configuration, weights and coarser products, the same on every machine; anew once weights have changed.

        A look at some numbers of every weight finds changes that torch does not count as well; all facts are forgotten then.
        """
        sample = weights_sample(self.model)
        if self._sample not in (None, sample):
            self.forget()
        self._sample = sample
        plain = self.fact_of_weights("hash", lambda: weights_hash(self.model))
        beside = [*([] if self.products is None else [f" {self.products}"]), *self.dictionaries]
        return sha256("".join((plain, *beside)).encode()).hexdigest() if beside else plain

    def with_taps(self, taps: Mapping[Site, Tap], name: str, digest: str) -> Core:
        """The same model with further sites, those of a dictionary of that hash; this one stays as it is."""
        anatomy = replace(self.anatomy, taps={**self.anatomy.taps, **taps})
        return Core(
            self.model, self.texts.tokenizer, anatomy, self.certificate, name, self.opened, self.remembered,
            (*self.dictionaries, digest),
        )  # fmt: skip

    @property
    def lock(self) -> Lock:
        """The model's lock, which models that share its configuration share with it."""
        return lock_of(self.model)

    @property
    def device(self) -> torch.device:
        """Where inputs belong."""
        return device_of(self.model)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights."""
        return next((p.dtype for p in self.model.parameters() if p.is_floating_point()), torch.float32)

    @property
    def products(self) -> torch.dtype | None:
        """Type in which linear maps multiply, where it is coarser than the weights' (`network.products`); else None."""
        return products_of(self.model)

    @property
    def config(self) -> Any:
        """The model's configuration, if it has one."""
        return getattr(self.model, "config", None)

    @property
    def text_config(self) -> Any:
        """The part of the configuration that is about text."""
        return text_part(self.config)

    @property
    def n_layers(self) -> int:
        """Layers of the main stack."""
        return len(self._layers(""))

    def heads(self, layer: int, stack: str = "") -> int | None:
        """Attention heads of a layer (a negative one counts from the end); None where it has no attention."""
        layers = self._layers(stack)
        attention = layers[layer].attention() if -len(layers) <= layer < len(layers) else None
        return None if attention is None else attention.heads

    @property
    def n_heads(self) -> int | None:
        """Heads per layer where all layers with attention agree, else None."""
        counts = {h for i in range(self.n_layers) if (h := self.heads(i)) is not None}
        return counts.pop() if len(counts) == 1 else None

    @property
    def d_model(self) -> int | None:
        """Width of the main stream."""
        stack = self.anatomy.stack()
        return None if stack is None else stack.width

    @property
    def d_vocab(self) -> int | None:
        """Number of output tokens."""
        head = self.anatomy.head
        weight = getattr(self.modules.get(head.unembed or ""), "weight", None) if head else None
        size = getattr(self.text_config, "vocab_size", None)
        return int(weight.shape[0]) if torch.is_tensor(weight) and weight.ndim == 2 else size

    @property
    def n_ctx(self) -> int | None:
        """Longest prompt: what the configuration names, else how many positions are embedded; None where neither tells."""
        return self.texts.n_ctx

    @property
    def d_vocab_in(self) -> int | None:
        """Number of token ids that can be given."""
        return self.texts.d_vocab_in

    # sites -------------------------------------------------------------------------------------------------------

    def sites(self) -> list[Site]:
        """Every site that can be read and written here, in the order of computation."""
        return [s for s in self.anatomy.sites() if str(s) not in self.certificate.refusals]

    @cached_property
    def _available(self) -> frozenset[Site]:
        return frozenset(self.sites())

    def layers_with(self, name: str, stack: str = "") -> list[int]:
        """Layers at which a site exists."""
        return sorted(
            s.layer for s in self._available if s.name == name and s.stack == stack and s.layer is not None
        )

    def has(self, site: SiteLike) -> bool:
        """Whether a site exists here, at the given layer or, without one, at any."""
        return self.refusal(site) is None

    def refusal(self, site: SiteLike) -> str | None:
        """Why a site is refused; None where it is there."""
        try:
            self.resolve(site)
        except (NotFound, SiteUnavailable, BadAddress) as error:
            return str(error)
        return None

    def resolve(self, spec: SiteLike, layers: Index = None) -> list[Site]:
        """The sites that a name stands for: one, or one per layer where no layer is named; globs give all that match.

        layers: only these; negative ones count from the end (see `indices`).

        Raises `NotFound`, `BadAddress` or `SiteUnavailable`, each saying what there is instead.
        """
        if layers is not None:
            layers = self._layer_numbers(layers)
        if is_glob(spec):
            matches = expand_glob(str(spec), self.sites())
            if not matches:
                offers = ", ".join(self.kinds_of_site())
                raise NotFound(f"No site matches {spec!r}.", f"Sites here: {offers}.")
            return matches if layers is None else [s for s in matches if s.layer in layers]
        names = [*(s.name for s in self.anatomy.stacks), *self.anatomy.dictionaries]
        site = parse(spec, self.modules, names)
        if site.module:
            return [site]
        _refuse_unrotated(self.anatomy, spec, site)
        if SITES[site.name].layered and site.layer is None:
            chosen = [i for i in self.layers_with(site.name, site.stack) if layers is None or i in layers]
            if not chosen:
                raise SiteUnavailable(*self._why(Site(site.name, 0, site.stack)))
            return [Site(site.name, i, site.stack) for i in chosen]
        if site.layer is not None:
            site = self._in_range(site)
        if site not in self._available:
            raise SiteUnavailable(*self._why(site))
        return [site]

    def tap(self, site: Site) -> Tap:
        """Where a site lives in the module tree."""
        if site.module:
            side = "in" if site.name.endswith(":in") else "out"
            return PortTap(Port(site.name.removesuffix(":in"), side, FIRST))
        found = self.anatomy.taps[site]
        if isinstance(found, NormedTap):
            return self.fact(("before the gain", found), lambda: summed(found, self.modules))
        return found

    def kinds_of_site(self) -> list[str]:
        """Names of the sites that exist here, without layers."""
        return list(dict.fromkeys((f"{s.stack}." if s.stack else "") + s.name for s in self.sites()))

    def _layer_numbers(self, layers: object) -> list[int]:
        """Layers as numbers from 0, by the rule of `layer_numbers`."""
        return layer_numbers(layers, max((len(s.layers) for s in self.anatomy.stacks), default=0))

    def _layers(self, stack: str) -> Sequence[Layer]:
        named = self.anatomy.stack(stack)
        return () if named is None else named.layers

    def _in_range(self, site: Site) -> Site:
        depth, layer = len(self._layers(self.anatomy.home(site.stack))), site.layer or 0
        if not -depth <= layer < depth:
            raise BadAddress(
                f"{site} asks for layer {layer}, but this network has {depth} layers.",
                f"Use layers 0 to {depth - 1}." if depth else "Name modules by their dotted path.",
            )
        return Site(site.name, layer % depth, site.stack)

    def _why(self, site: Site) -> tuple[str, str]:
        refusals = self.certificate.refusals
        reason = refusals.get(str(site)) or refusals.get(str(Site(site.name, None, site.stack)))
        names = self.kinds_of_site()
        said = f"{site} does not exist on this network." if reason is None else f"{site} is refused: {reason}"
        offers = nearest(site.name, names, n=4) or names[:6]
        return said, f"Sites here: {', '.join(offers)}." if offers else "Name modules by their dotted path."


def _entries(model: nn.Module, anatomy: Anatomy, name: str) -> int | None:
    """How many entries the table of a site at the entrance has; None where it is not one table of known form."""
    tap, stack = anatomy.taps.get(Site(name)), anatomy.stack()
    if not isinstance(tap, PortTap) or stack is None:
        return None
    module = anatomy.module(model, tap.port.path)
    tables = [module.table] if isinstance(module, BareMatrix) else list(module.parameters())
    if len(tables) != 1 or tables[0].ndim < 2:
        return None
    count, width = tables[0].shape[-2:]
    return int(count if width == stack.width else width) if stack.width in (count, width) else None


def _refuse_unrotated(anatomy: Anatomy, spec: SiteLike, site: Site) -> None:
    """Refuse TransformerLens's queries and keys before the rotary embedding, where there is one: they are not a site."""
    if not isinstance(spec, str) or not spec.endswith(("attn.hook_q", "attn.hook_k")):
        return
    stack = anatomy.stack()
    attention = next((a for layer in (stack.layers if stack else ()) if (a := layer.attention())), None)
    if attention is not None and attention.rotary:
        raise SiteUnavailable(
            f"{spec} means {site.name} before the rotary embedding, which is not a site here.",
            f"Use {spec.replace('hook_', 'hook_rot_')} or {site.name}, after the rotary embedding.",
        )

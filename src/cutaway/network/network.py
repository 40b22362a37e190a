"""A network: an opened model with its tokenizer, its anatomy and its certificate."""

from __future__ import annotations

import copy
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from cutaway.errors import BadAddress, BadInput, NotFound, SiteUnavailable, nearest
from cutaway.network.anatomy import FIRST, Anatomy, Port, PortTap, Tap
from cutaway.network.certification.certificate import Certificate
from cutaway.network.discovery.example import accepted, context, device_of, from_mapping
from cutaway.network.edits import Edit
from cutaway.network.execution import running
from cutaway.network.facts import Facts
from cutaway.network.identity import weights_hash
from cutaway.network.inputs import Inputs, Pos
from cutaway.network.run import Run
from cutaway.network.sites import SITES, Site, SiteLike, expand_glob, is_glob, parse
from cutaway.network.texts import InputLike, TokenVerbs
from cutaway.network.transformerlens import TransformerLensVerbs
from cutaway.network.views import anatomy_html, anatomy_tables

if TYPE_CHECKING:
    from cutaway.network.generate import Generation

T = TypeVar("T")


class Network(TokenVerbs, TransformerLensVerbs):
    """A model that can be read and written at named sites. Made by `cutaway.open`."""

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        anatomy: Anatomy,
        certificate: Certificate,
        name: str,
        example: Mapping[str, Any] | None = None,
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.anatomy = anatomy
        self.certificate = certificate
        self.name = name
        self._example = example
        self._standing: list[Edit] = []
        self._hash: str | None = None
        self._facts = Facts()
        self._examine: Callable[[nn.Module, str], Network] | None = None
        self._accepts = accepted(model)
        self._modules = dict(model.named_modules())

    # what it is --------------------------------------------------------------------------------------------------

    @property
    def hash(self) -> str:
        """SHA-256 of configuration and weights, the same on every machine; computed once."""
        if self._hash is None:
            self._hash = weights_hash(self.model)
        return self._hash

    @property
    def device(self) -> torch.device:
        """Where inputs belong."""
        return device_of(self.model)

    @property
    def dtype(self) -> torch.dtype:
        """Type of the weights."""
        return next((p.dtype for p in self.model.parameters() if p.is_floating_point()), torch.float32)

    @property
    def config(self) -> Any:
        """The model's configuration, if it has one."""
        return getattr(self.model, "config", None)

    def _text_config(self) -> Any:
        config = self.config
        return getattr(config, "text_config", None) or config

    @property
    def n_layers(self) -> int:
        """Layers of the main stack."""
        stack = self.anatomy.stack()
        return 0 if stack is None else len(stack.layers)

    def heads(self, layer: int, stack: str = "") -> int | None:
        """Attention heads of a layer; None where it has no attention."""
        found = self.anatomy.stack(stack)
        attention = found.layers[layer].attention() if found and 0 <= layer < len(found.layers) else None
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
        weight = getattr(self._modules.get(head.unembed or ""), "weight", None) if head else None
        size = getattr(self._text_config(), "vocab_size", None)
        return int(weight.shape[0]) if torch.is_tensor(weight) and weight.ndim == 2 else size

    @property
    def n_ctx(self) -> int | None:
        """Longest prompt, where the configuration names one."""
        return context(self.model)

    @property
    def is_causal(self) -> bool:
        """Whether a token's outputs do not depend on later tokens (as measured at opening)."""
        return self.certificate.pads_right is not False and self._causal

    @cached_property
    def _causal(self) -> bool:
        return running.is_causal(self)

    def fact(self, key: Hashable, make: Callable[[], T]) -> T:
        """A fact about this network that is costly to find, found once; not kept while edits stand."""
        return make() if self._standing else self._facts.get(key, make)

    # sites -------------------------------------------------------------------------------------------------------

    def sites(self) -> list[Site]:
        """Every site that can be read and written here, in the order of computation."""
        return [s for s in self.anatomy.sites() if str(s) not in self.certificate.refusals]

    @cached_property
    def _available(self) -> frozenset[Site]:
        return frozenset(self.sites())

    def layers_with(self, name: str, stack: str = "") -> list[int]:
        """Layers at which a site exists.

        >>> # net.layers_with("z") -> [0, 1, 2, ...]
        """
        return sorted(
            s.layer for s in self._available if s.name == name and s.stack == stack and s.layer is not None
        )

    def has(self, site: SiteLike) -> bool:
        """Whether a site exists here, at the given layer or, without one, at any."""
        try:
            return bool(self.resolve(site))
        except (NotFound, SiteUnavailable, BadAddress):
            return False

    def refusal(self, site: SiteLike) -> str | None:
        """Why a site is refused; None where it is there."""
        try:
            self.resolve(site)
        except (NotFound, SiteUnavailable, BadAddress) as error:
            return str(error)
        return None

    def resolve(self, spec: SiteLike, layers: Sequence[int] | None = None) -> list[Site]:
        """The sites that a name stands for: one, or one per layer where no layer is named; globs give all that match.

        Raises `NotFound`, `BadAddress` or `SiteUnavailable`, each saying what there is instead.
        """
        if layers is not None:
            layers = self._layer_numbers(layers)
        if is_glob(spec):
            found = expand_glob(str(spec), self.sites())
            if not found:
                raise NotFound(f"No site matches {spec!r}.", f"Sites here: {', '.join(self._names())}.")
            return found if layers is None else [s for s in found if s.layer in layers]
        site = parse(spec, self._modules, [s.name for s in self.anatomy.stacks])
        if site.module:
            return [site]
        self._check_rotary(spec, site)
        if SITES[site.name].layered and site.layer is None:
            chosen = self.layers_with(site.name, site.stack)
            if layers is not None:
                chosen = [i for i in chosen if i in layers]
            if not chosen:
                raise SiteUnavailable(*self._why(Site(site.name, 0, site.stack)))
            return [Site(site.name, i, site.stack) for i in chosen]
        if site.layer is not None:
            site = self._in_range(site)
        if site not in self._available:
            raise SiteUnavailable(*self._why(site))
        return [site]

    def _layer_numbers(self, layers: Sequence[int]) -> list[int]:
        """Layers as numbers from 0; negative ones count from the end.

        Raises `BadAddress` where one is out of range, `BadInput` where none is given.
        """
        depth = max((len(s.layers) for s in self.anatomy.stacks), default=0)
        if not layers:
            raise BadInput("layers is empty, so nothing would be kept.", "Leave it out for all layers.")
        for layer in layers:
            if not isinstance(layer, int) or not -depth <= layer < depth:
                raise BadAddress(f"Layer {layer!r} is out of range.", f"Use layers 0 to {depth - 1}.")
        return [layer % depth for layer in layers]

    def _check_rotary(self, spec: SiteLike, site: Site) -> None:
        if not isinstance(spec, str) or not spec.endswith(("attn.hook_q", "attn.hook_k")):
            return
        stack = self.anatomy.stack()
        attention = next((a for la in (stack.layers if stack else ()) if (a := la.attention())), None)
        if attention is not None and attention.rotary:
            raise SiteUnavailable(
                f"{spec} means {site.name} before the rotary embedding, which is not a site here.",
                f"Use {spec.replace('hook_', 'hook_rot_')} or {site.name}, after the rotary embedding.",
            )

    def _depth(self, stack: str) -> int:
        found = self.anatomy.stack(stack)
        return len(found.layers) if found else 0

    def _in_range(self, site: Site) -> Site:
        depth = self._depth(site.stack)
        layer = site.layer or 0
        if not -depth <= layer < depth:
            raise BadAddress(
                f"{site} asks for layer {layer}, but this network has {depth} layers.",
                f"Use layers 0 to {depth - 1}." if depth else "Name modules by their dotted path.",
            )
        return Site(site.name, layer % depth, site.stack)

    def _names(self) -> list[str]:
        return list(dict.fromkeys((f"{s.stack}." if s.stack else "") + s.name for s in self.sites()))

    def _why(self, site: Site) -> tuple[str, str]:
        reason = self.certificate.refusals.get(str(site)) or self.certificate.refusals.get(
            str(Site(site.name, None, site.stack))
        )
        here = self._names()
        reason = (
            f"{site} does not exist on this network." if reason is None else f"{site} is refused: {reason}"
        )
        offers = nearest(site.name, here, n=4) or here[:6]
        return reason, f"Sites here: {', '.join(offers)}." if offers else "Name modules by their dotted path."

    def tap(self, site: Site) -> Tap:
        """Where a site lives in the module tree."""
        if site.module:
            side = "in" if site.name.endswith(":in") else "out"
            return PortTap(Port(site.name.removesuffix(":in"), side, FIRST))
        return self.anatomy.taps[site]

    # running -----------------------------------------------------------------------------------------------------

    def run(
        self,
        inputs: InputLike,
        keep: Sequence[SiteLike] | SiteLike = (),
        edits: Sequence[Edit] | Edit = (),
        *,
        pos: Pos = None,
        layers: Sequence[int] | range | None = None,
        logits: bool | str | Pos = True,
        grad: bool = False,
        stop_at: SiteLike | None = None,
    ) -> Run:
        """Run the network once, keep the values of sites, and change them on the way.

        inputs: text, texts, token ids, `Tokens`, or a mapping of the model's own arguments.
        keep: sites by name, TransformerLens name, ("resid_post", 5), glob or module path; without a layer, all layers.
        edits: interventions, applied in the order of computation and, at one site, in the order given.
        pos, layers: keep only these (row-relative) positions and layers.
        logits: True for all positions, "last" for each row's last token, positions, or False for none.
        grad: keep the graph. stop_at: end the pass after this site.

        Raises `NotFound`, `SiteUnavailable`, `BadAddress`, `BadInput`, `TooLong`, `OutOfMemory`.
        """
        if layers is not None and not isinstance(layers, Sequence | range):
            raise BadInput(
                f"layers={layers!r} is not a list of layers.", "Write layers=[0, 1] or layers=range(2)."
            )
        options = running.Options(pos, None if layers is None else list(layers), logits, grad, stop_at)
        wanted: list[Any] = [keep] if isinstance(keep, str | Site) or _is_pair(keep) else list(keep)
        changes = [*edits] if isinstance(edits, Sequence) else [edits]
        return running.run(self, self.prepare(inputs), wanted, [*self._standing, *changes], options)

    def __call__(self, inputs: InputLike) -> Run:
        """`run` with nothing kept and nothing changed."""
        return self.run(inputs)

    def prepare(self, inputs: InputLike) -> Inputs:
        """Inputs as the model's keyword arguments.

        Raises `BadInput` where rows of unequal length are given to a network whose padding was found not to be neutral.
        """
        if isinstance(inputs, Mapping):
            return from_mapping(dict(inputs), self.device)
        if isinstance(inputs, Tensor) and inputs.is_floating_point():
            main = getattr(self.model, "main_input_name", None)
            name = main if main in self._accepts else next(iter(self._accepts), None)
            if name is None:
                raise BadInput(
                    f"It is not known which argument of {type(self.model).__name__} a tensor is for.",
                    "Give a mapping: net.run({'name': tensor}).",
                )
            return Inputs({name: inputs.to(self.device)}, None, int(inputs.shape[0]))
        return running.token_inputs(self, self.encode(inputs))

    @contextmanager
    def edit(self, *edits: Edit) -> Iterator[Network]:
        """While active, every run and generation of this network carries these edits."""
        for change in edits:
            change.bind(self)
        before = self._standing
        self._standing = [*before, *edits]
        try:
            yield self
        finally:
            self._standing = before

    def generate(
        self,
        inputs: InputLike,
        max_new_tokens: int = 20,
        *,
        edits: Sequence[Edit] | Edit = (),
        on: str = "all",
        **options: Any,
    ) -> Generation:
        """Continue prompts under edits; see `cutaway.network.generate.generate`."""
        from cutaway.network.generate import generate

        changes = [*edits] if isinstance(edits, Sequence) else [edits]
        return generate(self, inputs, max_new_tokens, [*self._standing, *changes], on, options)

    def randomized(self, seed: int = 0) -> Network:
        """The same architecture with freshly drawn weights: the control on which a mechanism must not be found.

        Matrices are drawn anew from a normal distribution with the old one's spread; vectors (norms, biases) are permuted.

        The anatomy is discovered and certified anew, because factors of the stream may be weights.

        Raises `BadInput` where the weights are offloaded or quantised.
        """
        if any(p.device.type == "meta" for p in self.model.parameters()):
            raise BadInput(
                "The weights of this network are offloaded, so they cannot be drawn anew.",
                "Open it on one device for the control with random weights.",
            )
        model = copy.deepcopy(self.model)
        generator = torch.Generator().manual_seed(seed)
        done: set[int] = set()
        with torch.no_grad():
            for tensor in model.parameters():
                if id(tensor) in done or not tensor.is_floating_point() or tensor.numel() < 2:
                    continue
                done.add(id(tensor))
                if tensor.ndim < 2:
                    tensor.copy_(
                        tensor[torch.randperm(tensor.numel(), generator=generator).to(tensor.device)]
                    )
                else:
                    drawn = torch.randn(tensor.shape, generator=generator)
                    tensor.copy_(
                        (drawn * tensor.float().std().cpu() + tensor.float().mean().cpu()).to(tensor)
                    )
        if done.isdisjoint(id(p) for p in model.parameters() if p.ndim > 1):
            raise BadInput(
                "This network has no floating-point matrices (it is quantised), so none can be drawn anew.",
                "Open it unquantised for the control with random weights.",
            )
        name = f"{self.name} (random weights, seed {seed})"
        if self._examine is not None:
            return self._examine(model, name)
        return Network(model, self.tokenizer, self.anatomy, self.certificate, name, self._example)

    def close(self) -> None:
        """Nothing of Cutaway is left on the model after a run; this only drops standing edits."""
        self._standing = []

    def __enter__(self) -> Network:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return (
            f"Network({self.name!r}: {type(self.model).__name__}, {self.n_layers} layers, width {self.d_model}, "
            f"{self.n_heads} heads, {len(self._names())} kinds of site)"
        )

    def __rich__(self) -> object:
        return anatomy_tables(self)

    def _repr_html_(self) -> str:
        return anatomy_html(self)


def _is_pair(value: object) -> bool:
    return (
        isinstance(value, tuple)
        and len(value) == 2
        and isinstance(value[0], str)
        and isinstance(value[1], int)
    )

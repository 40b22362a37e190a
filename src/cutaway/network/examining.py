"""Examine a model: observe one forward pass, discover its anatomy, certify what was found."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from cutaway.errors import BadInput, CutawayError, NotFinite
from cutaway.network.anatomy import Anatomy
from cutaway.network.certificate import TOLERANCE, Certificate, uncertified
from cutaway.network.certification.certify import certify
from cutaway.network.core import Core
from cutaway.network.discovery.discover import discover
from cutaway.network.discovery.example import device_of, probe_inputs
from cutaway.network.discovery.trace import Recorder, Trace, record
from cutaway.network.execution.attention import scoped
from cutaway.network.execution.running import evaluating, find_item, logits_key
from cutaway.network.inputs import Inputs, pack, token_kwargs
from cutaway.network.locks import configurations, lock_of
from cutaway.network.memory import give_back
from cutaway.network.opened import Opened
from cutaway.network.products import exactly
from cutaway.network.sentences import sentence


def examine_model(model: nn.Module, tokenizer: Any, name: str, opened: Opened) -> Core:
    """Discover and certify a module in hand, as `opened` asks for it.

    Raises `NotFinite` where a weight is NaN or infinite and the network is to be certified.
    """
    check_readable(model)
    if opened.certify:
        check_finite(model)
    example = None if opened.example is None else dict(opened.example)
    try:
        inputs = probe_inputs(model, example=example)
    except BadInput:
        if example is not None:
            raise
        nothing = Anatomy((), {}, {}, None, in_place=True)
        return Core(model, tokenizer, nothing, uncertified(), name, opened)
    with lock_of(model), evaluating(model), exactly(model):
        trace = observe(model, inputs)
        anatomy = discover(model, trace, inputs.batch)
        certified = opened.certify and anatomy.stacks
        core = Core(model, tokenizer, anatomy, uncertified(anatomy.refusals), name, opened)
        if certified:
            core.certificate = _certify(core, inputs)
    del trace
    give_back()  # what the checks took lies freed in the heap, as much as a third of a network
    return core


def redrawn(model: nn.Module, seed: int = 0) -> nn.Module:
    """A copy of a model with freshly drawn weights; see `Network.randomized`.

    Raises `BadInput` where the weights are offloaded or quantised.
    """
    if any(p.device.type == "meta" for p in model.parameters()):
        raise BadInput(
            "The weights of this network are offloaded, so they cannot be drawn anew.",
            "Open it on one device for the control with random weights.",
        )
    drawn_anew = copy.deepcopy(model)
    generator = torch.Generator().manual_seed(seed)
    done: set[int] = set()
    with torch.no_grad():
        for tensor in drawn_anew.parameters():
            if id(tensor) in done or not tensor.is_floating_point() or tensor.numel() < 2:
                continue
            done.add(id(tensor))
            if tensor.ndim < 2:
                tensor.copy_(tensor[torch.randperm(tensor.numel(), generator=generator).to(tensor.device)])
            else:
                drawn = torch.randn(tensor.shape, generator=generator)
                tensor.copy_((drawn * tensor.float().std().cpu() + tensor.float().mean().cpu()).to(tensor))
    if done.isdisjoint(id(p) for p in drawn_anew.parameters() if p.ndim > 1):
        raise BadInput(
            "This network has no floating-point matrices (it is quantised), so none can be drawn anew.",
            "Open it unquantised for the control with random weights.",
        )
    return drawn_anew


def check_readable(model: nn.Module) -> None:
    """Raise `BadInput` where weights are tensors of a make of their own that cannot be read as numbers (torchao's)."""
    for name, parameter in model.named_parameters():
        if isinstance(parameter, UninitializedParameter):
            continue
        value = parameter.detach()
        if type(value) in (Tensor, nn.Parameter) or value.device.type == "meta":
            continue
        try:
            value.reshape(-1)
        except (NotImplementedError, RuntimeError) as error:
            raise BadInput(
                f"The parameter {name} is a {type(value).__name__} of {type(value).__module__.partition('.')[0]}, which can "
                "be multiplied with and not read.",
                "Open the network as it was before it was quantised, or quantised by bitsandbytes, or as GGUF.",
            ) from error


def check_finite(model: nn.Module) -> None:
    """Raise `NotFinite` naming the first parameter that holds NaN or infinity; offloaded ones are not looked at."""
    for name, parameter in model.named_parameters():
        empty = isinstance(parameter, UninitializedParameter) or parameter.device.type == "meta"
        if empty or not parameter.is_floating_point() or not parameter.numel():
            continue
        value = parameter.detach()
        try:
            least, most = torch.aminmax(value.float() if value.dtype.itemsize == 1 else value)
        except (NotImplementedError, RuntimeError):  # a quantised tensor that only its own layer can read
            continue
        if not (bool(torch.isfinite(least)) and bool(torch.isfinite(most))):
            raise NotFinite(
                f"The parameter {name} holds NaN or infinity.",
                "Restore the weights; to look at them as they are, open with certify=False.",
            )


class _Noting:
    """Shows the recorder what one module's registered attention function was given and gave."""

    wants = frozenset({"scores", "pattern"})
    active = True

    def __init__(self, recorder: Recorder, module: nn.Module) -> None:
        self.recorder, self.module = recorder, module
        self.fields: dict[str, Tensor] = {}

    def begin(self) -> None:
        self.fields = {}

    def see(self, name: str, value: Tensor) -> Tensor:
        self.fields[name] = value
        if name == "z":
            self.recorder.attention(self.module, self.fields)
        return value


def observe(model: nn.Module, inputs: Inputs) -> Trace:
    """One forward pass under observation, with the eager attention, whose softmax can be seen.

    A model that does not ask the registry for its attention function, or does not run with the eager one, is observed
    with the kernel that it will run with.
    """

    def forward(recorder: Recorder, eager: bool) -> Any:
        observers: dict[nn.Module, Any] = {m: _Noting(recorder, m) for m in model.modules()}
        with scoped(configurations(model), observers, eager=eager):
            return model(**inputs.kwargs)

    def traced(eager: bool) -> Trace:
        return record(model, lambda recorder: forward(recorder, eager))[0]

    try:
        trace = traced(eager=True)
        return trace if trace.attention else traced(eager=False)
    except CutawayError:
        raise
    except Exception as error:
        try:
            trace = traced(eager=False)
            trace.eager = False
            return trace
        except Exception:
            raise BadInput(
                f"{type(model).__name__} could not be run on a short input: {sentence(error)}",
                "Pass an example that it runs on: cutaway.open(model, example={...}).",
            ) from error


def _certify(core: Core, inputs: Inputs) -> Certificate:
    model, anatomy, interface, longest_row = core.model, core.anatomy, core.interface, core.n_ctx
    key = logits_key(anatomy)

    def forward(given: Inputs) -> Tensor | None:
        with torch.no_grad():
            output = model(**given.kwargs)
        return None if key is None else find_item(output, key)

    def pad(side: str) -> tuple[Inputs, Tensor] | None:
        tokens, decodes = inputs.tokens, "decoder_input_ids" in inputs.kwargs
        if tokens is None or decodes:
            return None
        longest = min(tokens.width + 3, longest_row or tokens.width + 3)
        if longest == tokens.width:
            return None
        rows = [tokens.row_ids(i) for i in range(tokens.n)]
        wide = pack(rows, rows[0][0], side, columns=longest)
        kwargs = token_kwargs(wide, interface, device_of(model))
        rest = {k: v for k, v in inputs.kwargs.items() if k not in (interface.ids, "attention_mask")}
        return Inputs({**rest, **kwargs}, wide, inputs.batch), wide.mask

    dtype = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
    return certify(model, anatomy, inputs, forward, pad, TOLERANCE.get(dtype, 6e-2))

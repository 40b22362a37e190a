"""Run a network once: from inputs, sites and edits to a `Run`."""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from cutaway.errors import BadInput, CutawayError, OutOfMemory
from cutaway.network.anatomy import Anatomy, PortTap
from cutaway.network.core import Core
from cutaway.network.discovery.example import COLUMNS, from_mapping, probe_rows
from cutaway.network.discovery.trace import tensor_leaves
from cutaway.network.edits import Bound
from cutaway.network.execution.session import Session, SiteWork
from cutaway.network.execution.spending import backward_counted, share_until
from cutaway.network.indices import Index
from cutaway.network.inputs import Inputs, Pos, Tokens, token_kwargs
from cutaway.network.loading import sentence
from cutaway.network.run import Outlook, Run
from cutaway.network.sites import Site, SiteLike
from cutaway.network.texts import InputLike
from cutaway.results.meter import spend

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, eq=False)
class RunOptions:
    """What of a run is kept, and how it is done.

    Attributes:
        pos: the positions that are kept.
        layers: the layers at which kinds of site are kept; None for all.
        logits: whether, and where, they are kept.
        grad: is gradient recorded?
        stop_at: the site behind which the pass ends.
    """

    pos: Pos = None
    layers: Index = None
    logits: bool | str | Pos = True
    grad: bool = False
    stop_at: SiteLike | None = None


def token_inputs(net: Core, tokens: Tokens) -> Inputs:
    """Token rows as keyword arguments.

    Raises `BadInput` where the rows are padded on a side on which padding was found not to be neutral.
    """
    if tokens.padded:
        left = bool((tokens.first > 0).any())
        neutral = net.certificate.pads_left if left else net.certificate.pads_right
        if neutral is False or not (neutral or net.interface.masks):
            raise BadInput(
                f"Prompts of unequal length need padding, and {'left' if left else 'right'} padding changes this network's "
                "numbers.",
                "Run prompts of one length at a time.",
            )
    if tokens.values is not None:
        return item_inputs(net, tokens.values, tokens)
    kwargs = token_kwargs(tokens, net.interface, net.device)
    if net.interface.decodes:
        kwargs["decoder_input_ids"] = torch.full((tokens.n, 1), net.interface.start_token, device=net.device)
    return Inputs(kwargs, tokens, tokens.n)


def item_inputs(net: Core, values: Tensor, tokens: Tokens | None) -> Inputs:
    """Inputs that are no tokens (images, frames) as the argument that they are for.

    Raises `BadInput` where it is not known which argument that is, or where they are not of the model's size.
    """
    name = net.interface.main
    if name is None or name == "input_ids":
        raise BadInput(
            f"It is not known which argument of {type(net.model).__name__} a tensor is for.",
            "Give a mapping: net.run({'name': tensor}).",
        )
    return Inputs({name: values.to(device=net.device, dtype=net.dtype)}, tokens, int(values.shape[0]))


def prepare(net: Core, inputs: InputLike) -> Inputs:
    """Inputs as the model's keyword arguments; see `Network.prepare`."""
    if isinstance(inputs, Mapping):
        net.interface.require(map(str, inputs))
        given = from_mapping(dict(inputs), net.device, net.interface.ids)
        for rows in (given.kwargs.get(net.interface.ids or ""), given.tokens and given.tokens.ids):
            if torch.is_tensor(rows) and rows.ndim == 2:
                net.texts.check_length(_longest(rows, given))
        return given
    if isinstance(inputs, Tensor) and inputs.is_floating_point():
        return item_inputs(net, inputs, None)
    return token_inputs(net, net.texts.encode(inputs))


def _longest(rows: Tensor, given: Inputs) -> int:
    """Tokens of the longest row; with padding, where the rows' own mask says so, those that are real."""
    mask = given.kwargs.get("attention_mask")
    if isinstance(mask, Tensor) and mask.shape == rows.shape and rows.numel():
        return int(mask.bool().sum(1).max())
    return int(rows.shape[1])


def tokens_by_stack(net: Core, inputs: Inputs) -> dict[str, Tokens | None]:
    """The token rows that positions refer to, for each stack."""
    tokens: dict[str, Tokens | None] = {s.name: None for s in net.anatomy.stacks} | {"": inputs.tokens}
    encoder, decoder = inputs.kwargs.get(net.interface.ids or ""), inputs.kwargs.get("decoder_input_ids")
    if torch.is_tensor(decoder):
        tokens[""] = Tokens.of_ids(decoder)
        if torch.is_tensor(encoder):
            tokens["encoder"] = Tokens.of_ids(encoder, inputs.kwargs.get("attention_mask"))
    return tokens


def plan_work(
    net: Core, keep: Sequence[SiteLike], edits: Sequence[Bound], options: RunOptions
) -> list[SiteWork]:
    """What is to be done at each site: the functions of the edits, and what is to be kept, with its names resolved."""
    work: dict[Site, SiteWork] = {}

    def at(site: Site) -> SiteWork:
        if site not in work:
            work[site] = SiteWork(site, net.tap(site))
        return work[site]

    for site, function in edits:
        at(site).edits.append(function)
    for spec in keep:
        for site in net.resolve(spec, options.layers):
            if site.name == "logits":
                continue
            item = at(site)
            item.keep, item.pos = True, options.pos
    return list(work.values())


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """While active every module is in evaluation mode; each one's own mode is as before afterwards."""
    training = [m for m in model.modules() if m.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def memory_errors(inputs: Inputs) -> Iterator[None]:
    """Turn a device's out-of-memory error into one that says how much was needed and what to lower."""
    try:
        yield
    except CutawayError:
        raise
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        text = str(error)
        if not isinstance(error, torch.OutOfMemoryError | MemoryError) and "memory" not in text.lower():
            raise
        size = re.search(r"(?:allocate|Tried to allocate)\s+([\d.,]+\s*\w*)", text)
        needed = f"{size.group(1)} more" if size else "more than there is"
        raise OutOfMemory(
            f"The device ran out of memory: {needed} was needed for {inputs.batch} rows.",
            "Run fewer rows at a time, keep fewer sites or positions (pos=...), or read fewer logits (logits='last').",
        ) from error


@contextmanager
def own_errors(net: Core, edits: Sequence[Bound]) -> Iterator[None]:
    """Say what a model's own forward could not do as a sentence; what edits raise is left as it is."""
    try:
        yield
    except (IndexError, TypeError) as error:
        if edits or isinstance(error, CutawayError):
            raise
        longest = "" if net.n_ctx is not None else " How long its prompts may be is not known."
        raise BadInput(
            f"The forward of {type(net.model).__name__} failed: {sentence(error)}{longest}",
            "Give it what it takes: shorter prompts, ids that it knows, the arguments that it names.",
        ) from error


def run(
    net: Core, inputs: Inputs, keep: Sequence[SiteLike], edits: Sequence[Bound], options: RunOptions
) -> Run:
    """Run once; see `Network.run`."""
    work = plan_work(net, keep, edits, options)
    tokens = tokens_by_stack(net, inputs)
    main = tokens[""]
    if options.pos is not None and main is None:
        raise BadInput("Positions were asked for, but these inputs hold no tokens.", "Leave pos out.")
    stop = _stop_site(net, work, options)
    if stop is not None and all(w.site != stop for w in work):
        work.append(SiteWork(stop, net.tap(stop)))
    partly = all(w.site.name != "logits" or not w.edits for w in work)
    kwargs, columns, asked = _arguments(net, inputs, main, options, partly)
    with net.lock, memory_errors(inputs), evaluating(net.model), torch.set_grad_enabled(options.grad):
        session: Any = nullcontext()
        if work:
            session = Session(net.model, net.anatomy, work, tokens, inputs.batch, options.grad, stop)
        output: Any = None
        with (
            session,
            backward_counted(net.model, net.anatomy, inputs.batch, options.grad),
            own_errors(net, edits),
        ):
            output = net.model(**kwargs)
    spend(inputs.batch * share_until(net.anatomy, stop))
    kept = session.kept if work else {}
    logits = None if output is None else _logits(net, output, options, columns, asked)
    stacks = {net.anatomy.home(w.site.stack) for w in work if w.keep and not w.site.module}
    rows = tokens.get(stacks.pop()) if len(stacks) == 1 else main
    at = None if options.pos is None or rows is None else rows.columns(options.pos)
    outlook = Outlook(net.texts.tokenizer, _foresight(net))
    return Run(logits, main, dict(kept), output if logits is None else None, at, outlook)


def _foresight(net: Core) -> Callable[[], bool]:
    """Whether logits are about the next token, asked when somebody wants to know; it keeps no network alive."""
    held, likely = weakref.ref(net), "Masked" not in type(net.model).__name__

    def foresees() -> bool:
        core = held()
        return likely if core is None else known_causal(core)

    return foresees


def _stop_site(net: Core, work: list[SiteWork], options: RunOptions) -> Site | None:
    """Where the pass may end: at the site asked for, or, without logits, after the last site that is kept."""
    if options.stop_at is not None:
        return net.resolve(options.stop_at)[-1]
    if options.logits is not False:
        return None
    kept = [w.site for w in work if w.keep]
    if not kept or any(s.module or s.stack or s.layer is None for s in kept) or len(net.anatomy.stacks) > 1:
        return None
    last = max(kept, key=lambda s: s.rank)
    return None if any(w.edits for w in work if w.site == last) else last


def _arguments(
    net: Core, inputs: Inputs, main: Tokens | None, options: RunOptions, partly: bool
) -> tuple[dict[str, Any], Tensor | None, Tensor | None]:
    """The model's arguments; the columns [b k] whose logits are wanted; and those [c] that the model is asked for.

    partly: whether the model may compute the logits of some columns only (not where logits are edited by position).
    """
    kwargs = dict(inputs.kwargs)
    if "past_key_values" not in kwargs:
        kwargs = net.interface.uncached | kwargs
    if options.logits is True:
        return kwargs, None, None
    if options.logits is False:
        if partly and net.interface.logits_to_keep and net.d_vocab:
            kwargs.setdefault("logits_to_keep", 1)
        return kwargs, None, None
    if main is None:
        raise BadInput(
            "Positions of logits were asked for, but these inputs hold no tokens.", "Use logits=True."
        )
    pos = options.logits
    if isinstance(pos, str):
        if pos != "last":
            raise BadInput(f"logits={pos!r} is not known.", 'Use True, False, "last" or positions.')
        pos = -1
    columns = main.columns(pos)
    if not partly or not net.interface.logits_to_keep:
        return kwargs, columns, None
    asked = columns.unique()
    kwargs["logits_to_keep"] = asked.to(net.device)
    return kwargs, columns, asked


def _logits(
    net: Core, output: Any, options: RunOptions, columns: Tensor | None, asked: Tensor | None
) -> Tensor | None:
    key = logits_key(net.anatomy)
    if options.logits is False:
        return None
    logits = find_item(output, key or "logits")
    if logits is None or columns is None:
        return logits
    if logits.ndim == 2:  # a classifier gives one answer for the whole row
        return logits[:, None].expand(-1, columns.shape[1], -1)
    where = torch.searchsorted(asked, columns) if asked is not None else columns
    return logits.gather(1, where.to(logits.device)[..., None].expand(-1, -1, logits.shape[-1]))


def find_item(output: Any, key: str) -> Tensor | None:
    """The tensor at a key of a model's output, or the output itself if it is a tensor."""
    if torch.is_tensor(output):
        return output
    return next((tensor for name, tensor in tensor_leaves(output) if name == key), None)


def logits_key(anatomy: Anatomy) -> str | None:
    """The key of the logits in the model's output, if it has any."""
    tap = anatomy.taps.get(Site("logits"))
    return tap.port.key if isinstance(tap, PortTap) else None


def known_causal(net: Core) -> bool:
    """Whether a token's outputs do not depend on later tokens, as measured once."""
    if net.certificate.pads_right is False:
        return False
    return net.fact_of_weights("is causal", lambda: is_causal(net))


def is_causal(net: Core) -> bool:
    """Change a prompt's last token: do the outputs at the tokens before it stay as they were?"""
    try:
        rows = probe_rows(net, COLUMNS, seed=5)
    except CutawayError:
        return False
    other = [[*r[:-1], rows[1 - i][-1] if rows[1 - i][-1] != r[-1] else r[0]] for i, r in enumerate(rows)]
    last = Site("resid_post", net.n_layers - 1)
    if net.n_layers == 0 or last not in net.anatomy.taps:
        return False
    inputs: list[InputLike] = [rows, other]
    if net.interface.decodes:
        source = torch.tensor(rows)
        inputs = [{"input_ids": source, "decoder_input_ids": torch.tensor(r)} for r in (rows, other)]
    options = RunOptions(logits=False)
    pairs = [run(net, prepare(net, r), [last], [], options)[last][:, :-1] for r in inputs]
    scale = float(pairs[0].abs().max())
    return bool((pairs[0] - pairs[1]).abs().max() <= 1e-4 * max(scale, 1e-12))

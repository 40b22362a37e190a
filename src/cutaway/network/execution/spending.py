"""What a run takes, counted on the meters of `results.meter`: the share of the layers that it runs, forward and backward."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn

from cutaway.network.anatomy import Anatomy
from cutaway.network.discovery.trace import tensor_leaves
from cutaway.network.sites import Site
from cutaway.results.meter import BACKWARD, Meter, running, spend


def depth(anatomy: Anatomy) -> int:
    """How many layers there are, over all stacks; 1 where none was found, so that the whole model counts as one."""
    return sum(len(stack.layers) for stack in anatomy.stacks) or 1


def share_until(anatomy: Anatomy, stop: Site | None) -> float:
    """The share of the layers that a pass enters which ends at a site: the site's own counts, except at its entrance.

    An encoder is run before the main stack.
    """
    if stop is None or stop.module or not any(stack.layers for stack in anatomy.stacks):
        return 1.0
    named = anatomy.stack(stop.stack)
    own = len(named.layers) if named is not None else 0
    before = 0 if stop.stack else depth(anatomy) - own
    if stop.layer is not None:
        own = stop.layer + (stop.name != "resid_pre")
    elif stop.name in ("embed", "pos_embed"):
        own = 0
    return (before + own) / depth(anatomy)


@contextmanager
def backward_counted(model: nn.Module, anatomy: Anatomy, rows: int, grad: bool) -> Iterator[None]:
    """While active, layers that are run have every later gradient that comes to what they gave counted.

    It counts on the meters that run now: a gradient may be taken in a thread of torch's own.
    """
    if not grad or not running():
        yield
        return
    meters, each = running(), BACKWARD * rows / depth(anatomy)
    with ExitStack() as hooks:
        for path in {layer.path for stack in anatomy.stacks for layer in stack.layers}:
            hook = partial(_watch, meters, each)
            hooks.callback(model.get_submodule(path).register_forward_hook(hook).remove)
        yield


def _watch(meters: tuple[Meter, ...], each: float, _module: nn.Module, _args: Any, output: Any) -> None:
    asking = (t for _, t in tensor_leaves(output) if isinstance(t, Tensor) and t.requires_grad)
    if (tensor := next(asking, None)) is not None:
        tensor.register_hook(lambda _grad: spend(each, meters))

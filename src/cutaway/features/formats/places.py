"""What files call the place that a dictionary was trained on, and the site that they mean."""

from __future__ import annotations

import re

from cutaway.features.dictionaries import Place
from cutaway.network.sites import TRANSFORMER_LENS

_BLOCK = re.compile(r"blocks\.(\d+)\.(.+)")
#: Names of TransformerLens that stand for the norm's output before its gain.
_BEFORE_GAIN = {"ln1.hook_normalized": "attn_normed", "ln2.hook_normalized": "mlp_normed"}
#: TransformerLens's names for what a sublayer reads: before its norm, a copy of the stream.
_COPIES = {"hook_mlp_in": "resid_mid", "hook_attn_in": "resid_pre"}
#: TransformerLens's names for the ends of the MLP as a module: after its norm, and before what is done to its output.
_ENDS = {"mlp.hook_in": "mlp_in", "mlp.hook_out": "mlp_out"}


def hook_place(hook: str, width: int) -> Place:
    """The place of a TransformerLens hook name.

    >>> hook_place("blocks.7.hook_resid_post", 64).site, hook_place("blocks.2.ln2.hook_normalized", 64).site
    ('resid_post.7', 'mlp_normed.2')
    """
    found = _BLOCK.fullmatch(hook)
    if not found:
        name = TRANSFORMER_LENS.get(hook, "")
        return Place(hook, name, width)
    layer, rest = found.groups()
    name = _BEFORE_GAIN.get(rest) or _COPIES.get(rest) or _ENDS.get(rest) or TRANSFORMER_LENS.get(rest, "")
    return Place(hook, f"{name}.{layer}" if name else "", width)


def module_place(path: str, width: int, side: str = "out") -> Place:
    """The place of a module's path in the network's own tree, which only the network can tell; `:in` marks its input.

    >>> module_place("model.layers.7", 64)
    Place(said='model.layers.7', site='', width=64, model=0)
    """
    return Place(path if side == "out" else f"{path}:in", "", width)

"""How much of a network's work fits into memory at once: one rule for every room, from one budget."""

from __future__ import annotations

import ctypes
import math
import os
import sys
from collections.abc import Iterable

import torch

from cutaway.network.anatomy import LatentTap
from cutaway.network.face import Face
from cutaway.network.sites import Site
from cutaway.results.work import Work

#: Share of the free memory that is taken where no budget says how much.
SHARE = 0.5
#: Rows beyond which a batch is not made larger: matrix products are then as fast as they get.
MOST_ROWS = 256
#: Tokens beyond which a batch is not made larger: activations no longer fit the processor's cache.
MOST_TOKENS = 8_192
#: Activations that a forward keeps alive at its peak, in multiples of what one layer makes.
_ALIVE = 4
#: Share of the budget that one forward pass may take, beside what is kept.
_PASS = 4


def available_bytes(device: torch.device) -> int:
    """Memory that is free on a device."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            for line in lines:
                if line.startswith("MemAvailable"):
                    return int(line.split()[1]) * 1024
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return 2 << 30


def give_back() -> None:
    """Return memory that was freed to the system, where the C library keeps it otherwise (glibc); nothing elsewhere."""
    trim = None if sys.platform != "linux" else getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def budget_bytes(net: Face, work: Work | None = None) -> int:
    """Bytes that work on a network may take at its peak, beside the network: the budget's, else half of what is free."""
    if work is not None and work.budget.memory is not None:
        return int(work.budget.memory)
    return int(SHARE * available_bytes(net.device))


def numbers_of(net: Face, site: Site, width: int) -> int:
    """About how many numbers one row of `width` items has at a site, as the anatomy tells without a run.

    Of a module's own output it is taken that it is as wide as the stream.
    """
    stack, tap = net.anatomy.stack(net.anatomy.home(site.stack)), net.anatomy.taps.get(site)
    if isinstance(tap, LatentTap):
        return width * tap.size
    stream = (None if stack is None else stack.width) or net.d_model or 64
    layer = stack.layers[site.layer] if stack is not None and site.layer is not None else None
    attention = None if layer is None else layer.attention(cross=site.name.startswith("cross_"))
    mlp = None if layer is None else next((s.mlp for s in layer.sublayers if s.mlp is not None), None)
    down = None if mlp is None or mlp.down is None else net.modules.get(mlp.down)
    sizes = {
        "batch": 1, "pos": width, "dest": width, "src": width, "width": stream, "vocab": net.d_vocab or 1,
        "head": attention.heads if attention else net.n_heads or 1, "expert": (mlp.experts if mlp else None) or 1,
        "kv_head": attention.kv_heads if attention else net.n_heads or 1,
        "head_width": attention.head_width if attention else stream, "hidden": getattr(down, "in_features", 4 * stream),
    }  # fmt: skip
    return math.prod(sizes.get(axis, 1) for axis in site.axes or ("pos", "width"))


def bytes_of(net: Face, sites: Iterable[Site], width: int) -> int:
    """About how many bytes one row of `width` items takes where these sites are kept."""
    size = torch.empty(0, dtype=net.dtype).element_size()
    return size * sum(numbers_of(net, site, width) for site in sites)


#: Attention functions that never hold a row's scores all at once.
_FLAT = ("sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")


def row_bytes(net: Face, width: int, kept: int = 0, read: int = 1, square: bool = False) -> int:
    """About how many bytes one row of `width` items takes on its way through the network; see `rows_at_once`."""
    per_item = _ALIVE * 16 * (net.d_model or 64) + kept
    made = square or getattr(net.config, "_attn_implementation", None) not in _FLAT
    scores = _ALIVE * (net.n_heads or 0) * width * width if made else 2 * width * width  # else a mask
    return 4 * (per_item * width + scores + read * (net.d_vocab or 0))


def rows_at_once(
    net: Face, width: int, work: Work | None = None, *, kept: int = 0, read: int = 1, most: int = MOST_ROWS,
    square: bool = False,
) -> int:  # fmt: skip
    """How many rows of `width` items fit into one forward pass: a power of two, at least 1, at most `most`.

    kept: numbers that are kept of every item. read: positions of a row whose logits are made. square: scores or patterns of
    attention are looked at, so that they are made. The size of a batch does not follow the free memory number by number (it
    is a power of two under fixed bounds), so that results repeat.
    """
    fits = budget_bytes(net, work) // _PASS // max(1, row_bytes(net, width, kept, read, square))
    rows = max(1, min(most, MOST_TOKENS // max(1, width), fits))
    return 1 << (int(rows).bit_length() - 1)


def are_square(sites: Iterable[Site]) -> bool:
    """Whether reading these sites has attention make its scores for every pair of positions.

    >>> are_square([Site("z", 0)]), are_square([Site("pattern", 0)])
    (False, True)
    """
    return any("src" in site.axes for site in sites)

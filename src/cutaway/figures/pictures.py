"""Images as small pictures that a page holds in itself."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np

#: Most pixels along a side; larger images are thinned out.
_SIDE = 64
_COLOUR, _GREY = 2, 0


def picture(image: np.ndarray) -> str:
    """An image [c y x] as the data URI of a PNG, stretched to its own range of values.

    Three channels are taken as red, green and blue; of any other number the mean is shown in grey.

    >>> picture(np.zeros((3, 8, 8)))[:22]
    'data:image/png;base64,'
    """
    step = -(-max(image.shape[1:]) // _SIDE)
    thin = np.asarray(image, float)[:, ::step, ::step]
    thin = thin if len(thin) == 3 else thin.mean(0, keepdims=True)
    low, high = thin.min(), thin.max()
    pixels = np.round(255 * (thin - low) / max(high - low, 1e-12)).astype(np.uint8).transpose(1, 2, 0)
    height, width, depth = pixels.shape
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)  # each row begins with its filter: none
    head = struct.pack(">IIBBBBB", width, height, 8, _COLOUR if depth == 3 else _GREY, 0, 0, 0)
    body = _chunk(b"IHDR", head) + _chunk(b"IDAT", zlib.compress(rows, 9)) + _chunk(b"IEND", b"")
    return "data:image/png;base64," + base64.b64encode(b"\x89PNG\r\n\x1a\n" + body).decode()


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

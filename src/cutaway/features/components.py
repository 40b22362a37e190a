"""Components of rows: directions of largest variance, and coordinates that are least Gaussian."""

from __future__ import annotations

import torch
from torch import Tensor

#: Steps of the search for independent components, and the change at which it ends.
_STEPS, _STILL = 200, 1e-6


def random_units(n: int, width: int, draw: torch.Generator) -> Tensor:
    """Directions [n width] of length one, drawn uniformly, in double precision: what claims about directions stand beside.

    >>> random_units(2, 3, torch.Generator().manual_seed(0)).norm(dim=1).tolist()
    [1.0, 1.0]
    """
    return torch.nn.functional.normalize(torch.randn(n, width, generator=draw, dtype=torch.float64), dim=1)


def principal_components(rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Of centred rows [n d] the k unit directions [k d] of largest variance, and the same again: what each writes.

    >>> rows = torch.tensor([[3.0, 0.1], [-3.0, -0.1], [1.0, -0.1], [-1.0, 0.1]]).double()
    >>> abs(float(principal_components(rows, 1)[0][0, 0])) > 0.99
    True
    """
    values, vectors = torch.linalg.eigh(rows.T @ rows / len(rows))
    found = vectors[:, values.argsort(descending=True)[:k]].T
    found = _skewed(rows, found)
    return found, found


def independent_components(rows: Tensor, k: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Of centred rows [n d] k directions [k d] along which they are read, of variance one, and those [k d] they write.

    FastICA with symmetric decorrelation and tanh (Hyvarinen 1999), in the space of the k principal components.
    """
    values, vectors = torch.linalg.eigh(rows.T @ rows / len(rows))
    order = values.argsort(descending=True)[:k]
    spread = values[order].clamp(min=1e-12 * float(values.max())).sqrt()
    whiten, colour = (vectors[:, order] / spread).T, (vectors[:, order] * spread).T
    white = rows @ whiten.T
    turn = _decorrelated(torch.randn(k, k, generator=torch.Generator().manual_seed(seed), dtype=rows.dtype))
    for _ in range(_STEPS):
        bent = (white @ turn.T).tanh()
        new = _decorrelated(bent.T @ white / len(rows) - (1 - bent.square()).mean(0)[:, None] * turn)
        change = float((1 - (new * turn).sum(1).abs()).max())
        turn = new
        if change < _STILL:
            break
    reads, writes = turn @ whiten, turn @ colour
    sign = torch.where((rows @ reads.T).pow(3).mean(0) < 0, -1.0, 1.0).to(rows)[:, None]
    order = (writes.square().sum(1)).argsort(descending=True)
    return (reads * sign)[order], (writes * sign)[order]


def _decorrelated(turn: Tensor) -> Tensor:
    """The nearest matrix with orthonormal rows."""
    left, _, right = torch.linalg.svd(turn)
    return left @ right


def _skewed(rows: Tensor, found: Tensor) -> Tensor:
    """Directions with the sign that makes the skewness of the coordinates positive."""
    return torch.where(((rows @ found.T).pow(3).mean(0) < 0)[:, None], -found, found)

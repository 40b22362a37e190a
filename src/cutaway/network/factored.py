"""Matrices kept as products of thin ones: norms, eigenvalues and singular directions without multiplying out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cutaway.errors import BadInput


@dataclass(frozen=True, eq=False)
class Factored:
    """The matrices left @ right with a small inner width; leading axes are independent matrices.

    Multiplied out they would be as large as the stream or the vocabulary; nothing here does that but `full`.

    Attributes:
        left: [... n r].
        right: [... r m].

    >>> ab = Factored(torch.ones(3, 1), torch.ones(1, 3))
    >>> float(ab.norm()), ab.shape
    (3.0, (3, 3))
    """

    left: Tensor
    right: Tensor

    def __post_init__(self) -> None:
        if self.left.ndim < 2 or self.right.ndim < 2 or self.left.shape[-1] != self.right.shape[-2]:
            raise BadInput(
                f"Factors of shapes {tuple(self.left.shape)} and {tuple(self.right.shape)} do not multiply.",
                "Give [... n r] and [... r m].",
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the product."""
        batch = torch.broadcast_shapes(self.left.shape[:-2], self.right.shape[:-2])
        return (*batch, self.left.shape[-2], self.right.shape[-1])

    @property
    def rank(self) -> int:
        """The inner width, which bounds the rank."""
        return int(self.left.shape[-1])

    @property
    def T(self) -> Factored:
        """The transposed matrices."""
        return Factored(self.right.mT, self.left.mT)

    def __getitem__(self, index: object) -> Factored:
        return Factored(self.left[index], self.right[index])  # type: ignore[index]

    def __matmul__(self, other: Factored) -> Factored:
        """The product with another factored matrix, at the smaller of the two inner widths."""
        middle = self.right @ other.left
        if self.rank <= other.rank:
            return Factored(self.left, middle @ other.right)
        return Factored(self.left @ middle, other.right)

    def full(self) -> Tensor:
        """The product, multiplied out: [... n m]."""
        return self.left @ self.right

    def norm(self) -> Tensor:
        """Frobenius norms [...], from the r x r Gram matrices, in double precision."""
        left, right = self.left.double(), self.right.double()
        return ((left.mT @ left) * (right @ right.mT)).sum((-2, -1)).clamp(min=0).sqrt()

    def eigenvalues(self) -> Tensor:
        """The r eigenvalues that can be other than zero [... r], complex, largest first; those of right @ left."""
        if self.shape[-1] != self.shape[-2]:
            raise BadInput(f"A matrix of shape {self.shape} has no eigenvalues.", "Use svd().")
        eigenvalues = torch.linalg.eigvals(self.right.double() @ self.left.double())
        order = eigenvalues.abs().argsort(dim=-1, descending=True)
        return eigenvalues.gather(-1, order)

    def svd(self) -> tuple[Tensor, Tensor, Tensor]:
        """U [... n r], singular values [... r] and V [... m r], largest first, from two QR decompositions."""
        q_left, r_left = torch.linalg.qr(self.left.double())
        q_right, r_right = torch.linalg.qr(self.right.double().mT)
        u, s, vh = torch.linalg.svd(r_left @ r_right.mT, full_matrices=False)
        return q_left @ u, s, q_right @ vh.mT


def positive_share(eigenvalues: Tensor) -> Tensor:
    """Sum of the eigenvalues over the sum of their sizes [...], from -1 to 1: how far a matrix copies (Elhage et al. 2021).

    >>> float(positive_share(torch.tensor([2.0, -1.0, 1.0]) + 0j))
    0.5
    """
    size = eigenvalues.abs().sum(-1)
    return torch.where(size > 0, eigenvalues.real.sum(-1) / size.clamp(min=1e-30), torch.zeros_like(size))

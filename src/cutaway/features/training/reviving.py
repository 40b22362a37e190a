"""The loss that revives dead latents.

What the live latents leave over is reconstructed by the strongest dead ones. They are picked and used by their
pre-activations as they are, *without* a ReLU: a latent that is silent everywhere has a negative pre-activation everywhere,
and a ReLU, before or after the pick, would give it the value zero and no gradient ever.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cutaway.features.training.kernels import Listed
from cutaway.features.training.selection import kth_largest, nonzero


def sample(n_rows: int, k: int, k_aux: int, seed: int) -> Tensor:
    """The rows [m] on which dead latents are tried: evenly spaced from a drawn first one, so that each row is as likely.

    So many that neither their entries (m * k_aux) exceed a quarter of the live ones' (n_rows * k), nor their products with
    the dead latents an eighth of the encoder's; but 16, where there are as many.
    """
    most = min(n_rows * k // (4 * max(k_aux, 1)), n_rows // 8)
    count = min(n_rows, max(16, most))
    start = int(torch.randint(n_rows, (), generator=torch.Generator().manual_seed(seed)))
    return ((torch.arange(count) * n_rows) // count + start) % n_rows


def strongest_dead(
    rows: Tensor, weight: Tensor, bias: Tensor, dead: Tensor, k_aux: int
) -> tuple[Listed, Tensor]:
    """The k_aux dead latents with the largest pre-activation on each of rows [m d], and these [n], whatever their sign.

    dead: their numbers, ascending. Ties: the smaller number.
    """
    with torch.no_grad():
        pre = torch.addmm(bias[dead], rows, weight[dead].T)
        count = min(k_aux, dead.numel())
        least = kth_largest(pre, count)[:, None]
        above, equal = pre > least, pre == least
        if bool((equal.sum(1) > 1).any()):
            equal &= equal.cumsum(1) <= count - above.sum(1, keepdim=True)
        flat = nonzero(above | equal)
    at = torch.div(flat, dead.numel(), rounding_mode="floor")
    chosen = Listed(at, dead[flat - at * dead.numel()], rows.shape[0], weight.shape[0], (weight.shape[0],))
    return chosen, pre.view(-1).index_select(0, flat)


def revival(
    rows: Tensor, weight: Tensor, bias: Tensor, decoder: Tensor, left: Tensor, dead: Tensor, k_aux: int,
    at: Tensor,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """How much of what is left over the dead latents do not explain, and which of them were called upon: [] and bool [F].

    rows: [N d], what the source reads; weight [F d], bias [F], decoder [F D]: its own. left: [N D], targets less
    reconstructions, without gradient. dead: the numbers of the dead latents. at: the rows [m] on which they are tried.

    The mean of |left - reconstruction by the dead|^2 over these rows, divided by the variance of `left` about its mean over
    *all* rows: one where they explain nothing and the mean is zero, and in the mean over the draw of rows exactly the same
    with all of them.
    """
    with torch.no_grad():
        left = left.detach()
        about = (left - left.mean(0)).reshape(-1)
        scale = (about.dot(about) / left.shape[0]).clamp_min(torch.finfo(left.dtype).tiny)
    tried = rows[at]
    chosen, values = strongest_dead(tried.detach(), weight, bias, dead, k_aux)
    made = chosen.decoded(chosen.encoded(tried, weight, bias, values), decoder)[:, 0]
    return (left[at] - made).square().sum(1).mean() / scale, chosen.touched

"""The tuned lens: one affine translator per layer, trained so that the head reads from it what it reads at the end.

Belrose et al. 2023, "Eliciting Latent Predictions from Transformers with the Tuned Lens": the translator is the identity
plus a map that starts at zero, and the loss is the KL divergence from the network's own output.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from cutaway.errors import BadInput, NotFinite, Stopped
from cutaway.network.precision import precise
from cutaway.results import Provenance, Work, head, read, save_folder, strict, working
from cutaway.stream.lenses.affine import AffineLens, Translator
from cutaway.stream.lenses.protocol import OutputHead, chosen_layers, streams
from cutaway.stream.lenses.rows import Rows, Texts, rows_of
from cutaway.stream.shared import origin, require_one

if TYPE_CHECKING:
    from cutaway.network import Network


@dataclass(frozen=True)
class LensTraining:
    """How a tuned lens is trained.

    Attributes:
        steps: number of batches.
        rows: rows per batch.
        length: tokens per row.
        optimizer: "adamw" or "sgd" (Nesterov momentum 0.9).
        rate: its first learning rate, falling linearly to zero (default 2e-3 and 1.0).
        decay: of the translators towards the identity.
        clip: largest norm of a translator's gradient.
        ahead: train towards the output that many places later, which makes it a future lens.
    """

    steps: int = 300
    rows: int = 16
    length: int = 64
    optimizer: str = "adamw"
    rate: float | None = None
    decay: float = 1e-3
    clip: float = 1.0
    ahead: int = 0

    def __post_init__(self) -> None:
        require_one("optimizer", self.optimizer, ("adamw", "sgd"))
        if self.steps < 1 or self.rows < 1:
            raise BadInput("A lens needs at least one step of one row.", "Give steps=300, rows=16.")
        if not 0 <= self.ahead < self.length - 2:
            raise BadInput(f"ahead={self.ahead} does not fit rows of {self.length} tokens.", "Use 0, 1, 2.")

    @property
    def first_rate(self) -> float:
        """The learning rate of the first step."""
        return self.rate if self.rate is not None else 2e-3 if self.optimizer == "adamw" else 1.0


class _Translators(nn.Module):
    """The maps under training: residual, zero at the start."""

    def __init__(self, layers: Sequence[int], width: int, like: Tensor) -> None:
        super().__init__()
        self.layers = tuple(layers)
        self.matrix = nn.ParameterList([torch.zeros(width, width).to(like) for _ in layers])
        self.shift = nn.ParameterList([torch.zeros(width).to(like) for _ in layers])

    def forward(self, x: Tensor, n: int) -> Tensor:
        """The stream [... d] of the n-th layer, translated."""
        return x + x @ self.matrix[n].T + self.shift[n]

    def frozen(self) -> dict[int, Translator]:
        """The maps as they stand."""
        eye = torch.eye(self.matrix[0].shape[0]).to(self.matrix[0])
        return {
            layer: Translator((eye + m).detach().clone(), s.detach().clone())
            for layer, m, s in zip(self.layers, self.matrix, self.shift, strict=True)
        }


@strict
def train_tuned_lens(
    net: Network,
    texts: Texts | Rows,
    *,
    training: LensTraining | None = None,
    layers: Sequence[int] | None = None,
    checkpoint: str | Path | None = None,
    every: int = 100,
    seed: int = 0,
    work: Work | None = None,
) -> AffineLens:
    """Train a tuned lens on a stream of text. The network's own weights stay as they are.

    checkpoint: a folder to which translators, optimizer and step are written every `every` steps and when the training is
    stopped; a training that finds one there goes on from it and ends with the same numbers as one that was never stopped.
    seed: of the order in which rows are read.

    Where the work is stopped the lens as it stands is returned, with `origin["complete"]` False.

    Raises `BadInput` where the text is too short, the layers are empty or a checkpoint belongs to another training;
    `NotFinite` where the loss is.
    """
    began, training = time.monotonic(), training or LensTraining()
    output, sites, chosen = OutputHead(net), streams(net), chosen_layers(net, layers, last=training.ahead > 0)
    rows = rows_of(net, texts, length=training.length)
    like = torch.zeros(1, device=net.device, dtype=net.dtype)
    maps = _Translators(chosen, net.d_model or 0, precise(like))
    optimizer = _optimizer(maps, training)
    how = {**asdict(training), "seed": seed}
    about = {"training": how, "layers": list(chosen), "network": net.hash, "rows": rows.n}
    done, losses = _resume(checkpoint, maps, optimizer, about)

    def keep() -> Provenance:
        """Write a checkpoint, which `AffineLens.load` reads as the lens that it is so far; where that comes from."""
        source = origin(net, rows.ids, began, seed)
        if checkpoint is not None:
            manifest = head(AffineLens.kind, source, **about, done=done, losses=losses)
            save_folder(checkpoint, manifest, _tensors(maps, optimizer))
        return source

    complete = True
    batches = rows.batches(training.rows, seed)
    for _ in range(done):
        next(batches)
    streams_read = [sites[i] for i in chosen]
    with working(work).interruptible() as work:
        try:
            for step in range(done, training.steps):
                for group in optimizer.param_groups:
                    group["lr"] = training.first_rate * (1 - step / training.steps)
                batch = next(batches)
                losses = _step(net, batch, maps, optimizer, output, streams_read, rows.special, training)
                done = step + 1
                work.step("training the lens", done, training.steps)
                if done % every == 0:
                    keep()
        except Stopped:
            complete = done == training.steps
    source = keep()
    how = {**about, "steps_done": done, "complete": complete, "last_losses": losses}
    name = f"future+{training.ahead}" if training.ahead else "tuned"
    return AffineLens(name, output, maps.frozen(), training.ahead, how, net.n_layers, source)


def _optimizer(maps: _Translators, training: LensTraining) -> torch.optim.Optimizer:
    groups = [
        {"params": list(maps.matrix), "weight_decay": training.decay},
        {"params": list(maps.shift), "weight_decay": 0.0},
    ]
    if training.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=training.first_rate, momentum=0.9, nesterov=True)
    return torch.optim.AdamW(groups, lr=training.first_rate)


def _step(
    net: Network,
    batch: Tensor,
    maps: _Translators,
    optimizer: torch.optim.Optimizer,
    output: OutputHead,
    sites: Sequence[Any],
    special: int,
    training: LensTraining,
) -> list[float]:
    """One update of all translators; the KL divergence of each layer, in nats, before it."""
    run = net.run(batch, keep=sites)
    assert run.logits is not None
    wanted = run.logits[:, special + training.ahead :].to(maps.matrix[0].dtype).log_softmax(-1)
    optimizer.zero_grad(set_to_none=True)
    losses = []
    frozen = [p for p in net.model.parameters() if p.requires_grad]
    for p in frozen:
        p.requires_grad_(False)
    try:
        for n, site in enumerate(sites):
            with torch.enable_grad():
                stream = run[site][:, special : special + wanted.shape[1]].to(maps.matrix[n].dtype)
                got = output(maps(stream, n)).log_softmax(-1)
                loss = (wanted.exp() * (wanted - got)).sum(-1).mean()
            value = float(loss.detach())
            if value != value or value == float("inf"):
                raise NotFinite(
                    f"The loss of layer {maps.layers[n]} is not finite.",
                    "Lower the learning rate (rate=...).",
                )
            loss.backward()
            nn.utils.clip_grad_norm_([maps.matrix[n], maps.shift[n]], training.clip)
            losses.append(value)
    finally:
        for p in frozen:
            p.requires_grad_(True)
    optimizer.step()
    return losses


def _tensors(maps: _Translators, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What a checkpoint holds beside its manifest."""
    tensors = {f"map/{name}": p.detach() for name, p in maps.named_parameters()}
    for i, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{i}/{k}": torch.as_tensor(v) for k, v in state.items() if v is not None}
    return tensors


def _resume(
    path: str | Path | None, maps: _Translators, optimizer: torch.optim.Optimizer, about: dict[str, Any]
) -> tuple[int, list[float]]:
    """Load a checkpoint where there is one: (steps done, last losses)."""
    if path is None or not (Path(path) / "manifest.json").exists():
        return 0, []
    saved, _ = read(path, AffineLens.kind)
    if "done" not in saved.manifest or any(saved.manifest.get(k) != v for k, v in about.items()):
        raise BadInput(
            f"{path} holds another training (other network, text, layers or settings).",
            "Give another folder, or remove that one.",
        )
    with torch.no_grad():
        for name, p in maps.named_parameters():
            p.copy_(saved.tensors[f"map/{name}"])
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in saved.tensors.items():
        if key.startswith("optimizer/"):
            _, number, name = key.split("/")
            state.setdefault(int(number), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return int(saved.manifest["done"]), list(saved.manifest["losses"])

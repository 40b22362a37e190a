"""Dictionaries that are misread in ten ways: how many of these are caught, and whether what is right is ever refused.

Dictionaries are trained on three networks (tales, and the shapes of GPT-2 and of GPT-NeoX with random weights), at the
stream, at heads' values, at writes, and from what an MLP reads to what it writes. Each is bound as it is, and misread in
every way that applies to it. Caught means that the claim is not supported; named, that the reading that would mend it is
among those it names.

    python benchmarks/binding.py [--out docs/benchmarks/binding.md]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch

import cutaway
from cutaway.features.binding import Binding, bind
from cutaway.features.dictionaries import Decoder, Dictionary, Encoder, JumpReLU, Place, ReLU, TopK
from cutaway.features.readings import scaled
from cutaway.network import Network
from cutaway.recipes.tales.scenes import stories
from cutaway.results import atomic_write
from cutaway.statistics import proportion

K, STEPS = 16, 600


@dataclass(frozen=True)
class Trained:
    """A dictionary, and what is known of its training.

    Attributes:
        name: network and sites.
        net: the network.
        dictionary: as it was trained.
        length: mean length of the rows that it reads.
    """

    name: str
    net: Network
    dictionary: Dictionary
    length: float


def networks() -> dict[str, Network]:
    """Three architectures that read the same words."""
    from transformers import GPT2Config, GPT2LMHeadModel, GPTNeoXConfig, GPTNeoXForCausalLM

    tales = cutaway.open("zoo:tales")
    words_known = tales.d_vocab or 0
    size: dict[str, Any] = {"vocab_size": words_known, "max_position_embeddings": 128}
    torch.manual_seed(0)
    gpt2 = GPT2LMHeadModel(
        GPT2Config(n_layer=4, n_head=4, n_embd=96, initializer_range=0.2, vocab_size=words_known)
    )
    neox = GPTNeoXForCausalLM(
        GPTNeoXConfig(num_hidden_layers=4, num_attention_heads=4, hidden_size=96, intermediate_size=384,
                      initializer_range=0.2, use_parallel_residual=True, **size)
    )  # fmt: skip
    words: dict[str, Any] = {"tokenizer": tales.tokenizer}
    return {
        "llama": tales,
        "gpt2": cutaway.open(gpt2.eval(), **words),
        "neox": cutaway.open(neox.eval(), **words),
    }


def trained(name: str, net: Network, reads: str, writes: str, how: str, texts: list[str]) -> Trained:
    """By plain gradient descent on the rows of texts; `how`: topk, threshold, or scaled (rows are, and it is folded in)."""
    run = net.run(texts, keep=list(dict.fromkeys([reads, writes])), logits=False)
    assert run.tokens is not None
    mask = run.tokens.mask.clone()
    mask[:, 0] = False
    rows, wanted = (run[site][mask].flatten(1) for site in (reads, writes))
    length = float(rows.norm(dim=1).mean())
    same, (d, out) = reads == writes, (rows.shape[1], wanted.shape[1])
    scale = length / d**0.5 if how == "scaled" else 1.0
    f = d if how == "square" else 2 * d
    torch.manual_seed(1)
    decoder = torch.nn.functional.normalize(torch.randn(f, out), dim=1).requires_grad_()
    encoder = (decoder.detach().T.clone() if same else torch.randn(d, f) / d**0.5).requires_grad_()
    bias, centre = torch.zeros(f, requires_grad=True), (wanted.mean(0) / scale).clone().requires_grad_()
    optimiser = torch.optim.Adam([decoder, encoder, bias, centre], lr=3e-3)
    draw = torch.Generator().manual_seed(2)
    for _ in range(STEPS):
        at = torch.randint(len(rows), (256,), generator=draw)
        x = rows[at] / scale
        latents = TopK(K)((x - centre if same else x) @ encoder + bias)
        loss = (latents @ decoder + centre - wanted[at] / scale).square().sum(1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    activation: TopK | JumpReLU = TopK(K)
    inner = centre.detach().clone() if same else None
    with torch.no_grad():
        if how == "threshold":
            level = TopK(K)((rows - centre if same else rows) @ encoder + bias)
            activation = JumpReLU(torch.full((f,), float(level[level > 0].quantile(0.05))))
        made = Encoder(encoder.detach(), bias.detach(), activation, inner)
        fires = float((made(rows / scale) != 0).sum(1).float().mean())
    found = Dictionary(
        "autoencoder" if same else "transcoder", (made,), (Decoder(0, 0, decoder.detach()),), (centre.detach(),),
        ((Place("", reads, d),),), (Place("", writes, out),), said={"l0": fires},
    )  # fmt: skip
    return Trained(
        f"{name} {reads}" + ("" if same else f" to {writes}") + f", {how}",
        net,
        scaled(found, 1 / scale),
        length,
    )


def at(dictionary: Dictionary, reads: str | None = None, writes: str | None = None) -> Dictionary:
    """The same, said to belong to other sites."""
    one, other = dictionary.reads[0][0], dictionary.writes[0]
    return replace(
        dictionary, reads=((replace(one, site=reads or one.site),),), writes=(replace(other, site=writes or other.site),)
    )  # fmt: skip


def _encoder(dictionary: Dictionary, **changes: object) -> Dictionary:
    return replace(dictionary, encoders=(replace(dictionary.encoders[0], **changes),))  # type: ignore[arg-type]


def misread(one: Trained) -> Iterator[tuple[str, Dictionary, str]]:
    """Every way to misread it that applies: the way, the dictionary, and words of the reading that mends it."""
    made, encoder = one.dictionary, one.dictionary.encoders[0]
    reads, writes = made.reads[0][0].site, made.writes[0].site
    kind, _, layer = reads.rpartition(".")
    width = encoder.width
    if encoder.width == encoder.size:
        yield "transposed", _encoder(made, weight=encoder.weight.T.contiguous()), "encoder transposed"
    if encoder.centre is not None:
        yield "bias flag", _encoder(made, centre=None), "taken from the rows first"
    if isinstance(encoder.activation, JumpReLU):
        logs = JumpReLU(encoder.activation.threshold.log())
        yield "log-threshold", _encoder(made, activation=logs), "logarithms"
    if isinstance(encoder.activation, TopK):
        yield "top-k as relu", _encoder(made, activation=ReLU()), "only so many latents"
    factor = one.length / width**0.5
    if max(factor, 1 / factor) > 1.2:
        yield "lost scale", scaled(made, factor), "mean length"
        yield "double fold", scaled(made, 1 / factor), "folded into it twice"
    beside = int(layer) + (1 if int(layer) < one.net.n_layers - 1 else -1)
    moved = at(made, f"{kind}.{beside}", f"{writes.rpartition('.')[0]}.{beside}")
    yield "layer off by one", moved, reads
    if kind == "mlp_in" and one.net.has(f"resid_mid.{layer}"):
        yield "stream for what a sublayer reads", at(made, reads=f"resid_mid.{layer}"), reads
    if kind == "z":
        yield "attention's output for z", at(made, f"attn_write.{layer}", f"attn_write.{layer}"), reads
    if kind == "mlp_write":
        yield "another sublayer's write", at(made, f"attn_write.{layer}", f"attn_write.{layer}"), reads


def caught(found: Binding, words: str) -> tuple[bool, bool]:
    """Was it caught, and was the reading that mends it named?"""
    readings = [
        f"{fit.reading} {fit.reads} {fit.writes}" for fit in (*found.better, *found.as_sparse, *found.alike)
    ]
    return not found.claim.supported, any(words in said for said in readings)


def main() -> None:
    """Train, bind, misread, write the page."""
    parser = argparse.ArgumentParser(description="How many misread dictionaries are caught.")
    parser.add_argument("--out", type=Path, default=Path("docs/benchmarks/binding.md"))
    given = parser.parse_args()
    began = time.process_time()
    seen, unseen = ([story.text for story in islice(stories(f"binding {i}"), 150)] for i in (1, 0))
    cases = [("resid_post.1", "resid_post.1", "topk"), ("resid_post.2", "resid_post.2", "threshold"),
             ("mlp_write.1", "mlp_write.1", "scaled"), ("z.2", "z.2", "topk"), ("mlp_in.2", "mlp_write.2", "threshold"),
             ("resid_pre.1", "resid_pre.1", "square")]  # fmt: skip
    rows, right = [], []
    for name, net in networks().items():
        for reads, writes, how in cases:
            one = trained(name, net, reads, writes, how, seen)
            plain = bind(net, one.dictionary, unseen)
            right.append((one.name, plain))
            print(one.name, plain.claim.verdict, plain.stated.fvu, flush=True)
            for way, wrong, words in misread(one):
                found = bind(net, wrong, unseen)
                rows.append((one.name, way, found.claim.verdict, *caught(found, words)))
                print("  ", *rows[-1][1:], flush=True)
    atomic_write(given.out, page(rows, right, time.process_time() - began))


def page(
    rows: list[tuple[str, str, str, bool, bool]], right: list[tuple[str, Binding]], seconds: float
) -> str:
    """The figures as a page."""
    refused = [name for name, found in right if found.claim.verdict == "refuted"]
    supported = sum(found.claim.supported for _, found in right)
    stopped, named = sum(row[3] for row in rows), sum(row[3] and row[4] for row in rows)
    either = sum(row[3] or row[4] for row in rows)
    lines = [
        "# Misread dictionaries", "",
        f"{len(right)} dictionaries on three architectures, {len(rows)} misreadings. Made by `python benchmarks/binding.py`",
        f"in {seconds:.0f} s of processor time.", "",
        f"As they are: {supported} of {len(right)} supported, {len(refused)} refused ({', '.join(refused) or 'none'}).",
        f"Misread: {stopped} of {len(rows)} are not supported ({proportion(stopped, len(rows))});",
        f"{named} of these name the reading that mends it. The others are supported with a note that another leaves less;",
        f"{either} of {len(rows)} are caught, or the reading that mends it is named.", "",
        "| misreading | tried | caught | caught and named |", "| --- | --- | --- | --- |",
    ]  # fmt: skip
    for way in dict.fromkeys(row[1] for row in rows):
        those = [row for row in rows if row[1] == way]
        both = sum(row[3] and row[4] for row in those)
        lines.append(f"| {way} | {len(those)} | {sum(row[3] for row in those)} | {both} |")
    lines += ["", "| dictionary | verdict as it is | unexplained |", "| --- | --- | --- |"]
    lines += [f"| {name} | {found.claim.verdict} | {found.stated.fvu} |" for name, found in right]
    missed = [f"{row[0]}: {row[1]}" for row in rows if not row[3]]
    return "\n".join([*lines, "", f"Not caught: {'; '.join(missed) or 'none'}.", ""])


if __name__ == "__main__":
    main()

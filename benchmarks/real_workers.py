"""The workers of `real.py`: one process for each library and network, told over standard input what to run next.

Each line of input is a JSON object of arguments; each answer is a JSON object on one line. A worker runs in the environment
of the library that it measures, and imports nothing else. The first argument is the library, the second the network: a
folder, or `gpt2` for GPT-2-small's shape with random weights; the third says how many threads.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import torch

from side_by_side import ANSWERS, bridged, gpt2, metric


def prompts(rows: int, tokens: int, first: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Clean and corrupted ids [rows tokens] that differ at one token, the one at `first`."""
    draw = torch.Generator().manual_seed(seed)
    clean = torch.randint(1000, 45000, (rows, tokens), generator=draw)
    corrupted = clean.clone()
    corrupted[:, first] = torch.randint(1000, 45000, (rows,), generator=draw)
    return clean, corrupted


def loaded(name: str) -> Any:
    """The network as transformers builds it."""
    from transformers import AutoModelForCausalLM

    if name == "gpt2":
        return gpt2()
    return AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32).eval()


def places(model: Any, kind: str) -> list[Any]:
    """What is patched: layers, whose input is the stream, or the modules that read the heads' outputs."""
    inner = getattr(model, "transformer", None) or model.model
    layers = inner.h if hasattr(inner, "h") else inner.layers
    if kind == "residual":
        return list(layers)
    return [b.attn.c_proj if hasattr(b, "attn") else b.self_attn.o_proj for b in layers]


def part(model: Any, kind: str, place: int) -> tuple[Any, ...]:
    """The slice of an input [rows tokens width] that one cell writes."""
    if kind == "residual":
        return (slice(None), place)
    config = model.config
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return (slice(None), slice(None), slice(place * size, (place + 1) * size))


def cells_of(model: Any, kind: str, tokens: int, some: int) -> tuple[list[tuple[int, int]], int]:
    """Some of the cells (layer, position or head), evenly over all, and how many there are in all."""
    places = tokens if kind == "residual" else model.config.num_attention_heads
    cells = [(i, j) for i in range(model.config.num_hidden_layers) for j in range(places)]
    step = max(1, len(cells) // some) if some else 1
    return cells[::step], len(cells)


def clocked(function: Callable[[], Any]) -> dict[str, float]:
    """Seconds by the clock and of processor time."""
    clock, spent = time.perf_counter(), time.process_time()
    function()
    return {"seconds": time.perf_counter() - clock, "processor": time.process_time() - spent}


def scaled(taken: dict[str, float], by: float) -> dict[str, float]:
    """The same for so many times the work."""
    return {name: value * by for name, value in taken.items()}


def peak(reset: bool = False) -> float:
    """MiB at the peak since the last reset."""
    if reset:
        gc.collect()
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")
    with open("/proc/self/status", encoding="ascii") as lines:
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


class Cutaway:
    """Cutaway, and the loop of bare forwards with hooks."""

    def __init__(self, name: str) -> None:
        import cutaway

        self.model = loaded(name)
        self.net = cutaway.open(self.model)
        self.version = f"Cutaway {cutaway.__version__}"

    def _plan(self, kind: str, rows: int, tokens: int, first: int, seed: int, time_it: bool) -> Any:
        from cutaway.behaviours import Behaviour
        from cutaway.effects.patching import box_sweep

        sides = prompts(rows, tokens, first, seed)
        ids = [tuple(tuple(r) for r in t.tolist()) for t in sides]
        pairs = Behaviour(
            "bench", *([tuple(map(str, side)) for side in ids]), *ids,
            right=((ANSWERS[0],),) * rows, wrong=((ANSWERS[1],),) * rows, template=("one",) * rows,
        )  # fmt: skip
        at, by = ("resid_pre", ("layer", "position")) if kind == "residual" else ("z", ("layer", "head"))
        return box_sweep(self.net, pairs, at, by, "restore", time_it=time_it).plan

    def sweep(
        self, kind: str, rows: int, tokens: int, first: int, seed: int, new: bool, **_: Any
    ) -> dict[str, Any]:
        """The whole of it: both runs of the prompts and all cells; `new`: of the network only its anatomy is known."""
        if new:
            self.net.forget()
        found: list[Any] = []
        taken = clocked(
            lambda: found.append(self._plan(kind, rows, tokens, first, seed, False).run().values.mean())
        )
        return taken | {"mean": float(found[0])}

    def predict(self, kind: str, rows: int, tokens: int, first: int, seed: int) -> dict[str, Any]:
        """What a plan says, and what the run of all its waves then takes, and both together of memory."""
        before = peak(reset=True)
        plan = self._plan(kind, rows, tokens, first, seed, True)
        taken = clocked(lambda: list(plan.job.results()))
        cost = plan.cost
        said = {
            "said seconds": cost.seconds,
            "said processor": cost.processor,
            "said memory": cost.memory / 2**20,
        }
        runs = 1 + 2 * rows / max(cost.forwards, 1e-9)
        allowed = {"allowed": 1 / cost.share, "allowed with runs": 1 / cost.share / runs}
        return taken | said | allowed | {"memory": peak() - before, "forwards": cost.forwards}

    def bare(self, kind: str, rows: int, tokens: int, first: int, seed: int, some: int) -> dict[str, Any]:
        """One bare forward per cell with all logits, for some of the cells."""
        clean, corrupted = prompts(rows, tokens, first, seed)
        modules, kept = places(self.model, kind), {}
        cells, count = cells_of(self.model, kind, tokens, some)
        hooks = [
            m.register_forward_pre_hook(lambda _m, a, i=i: kept.__setitem__(i, a[0]))
            for i, m in enumerate(modules)
        ]
        with torch.no_grad():
            self.model(clean)
        for handle in hooks:
            handle.remove()

        def run() -> None:
            for layer, place in cells:
                where = part(self.model, kind, place)

                def change(_m: Any, args: Any, layer: int = layer, where: Any = where) -> Any:
                    new = args[0].clone()
                    new[where] = kept[layer][where]
                    return (new, *args[1:])

                handle = modules[layer].register_forward_pre_hook(change)
                with torch.no_grad():
                    metric(self.model(corrupted).logits)
                handle.remove()

        return scaled(clocked(run), count / len(cells))


class TransformerLens:
    """TransformerLens's own `patching` module on its bridge to the same transformers model."""

    def __init__(self, name: str) -> None:
        from importlib.metadata import version

        self.plain = loaded(name)
        self.model = bridged(self.plain)
        self.version = f"TransformerLens {version('transformer-lens')}"

    def sweep(
        self, kind: str, rows: int, tokens: int, first: int, seed: int, some: int, **_: Any
    ) -> dict[str, Any]:
        """Both runs of the prompts and some of the cells, these scaled up to all."""
        import pandas as pd
        from transformer_lens import patching

        clean, corrupted = prompts(rows, tokens, first, seed)
        cells, count = cells_of(self.plain, kind, tokens, some)
        names = ("layer", "pos") if kind == "residual" else ("layer", "head")
        write = (
            patching.layer_pos_patch_setter if kind == "residual" else patching.layer_head_vector_patch_setter
        )
        site = "resid_pre" if kind == "residual" else "z"
        wanted = "resid_pre" if kind == "residual" else "hook_z"
        kept: list[Any] = []

        def cache() -> None:
            kept.append(self.model.run_with_cache(clean, names_filter=lambda name: name.endswith(wanted))[1])

        def patch() -> None:
            index = pd.DataFrame(cells, columns=list(names))
            patching.generic_activation_patch(
                self.model, corrupted, kept[0], metric, write, site, index_df=index
            )

        with torch.no_grad():
            first_run, rest = clocked(cache), scaled(clocked(patch), count / len(cells))
        return {name: first_run[name] + rest[name] for name in rest}


class Nnsight:
    """One nnsight trace per cell."""

    def __init__(self, name: str) -> None:
        from importlib.metadata import version

        import nnsight

        self.model = loaded(name)
        self.wrapped = nnsight.NNsight(self.model)
        self.version = f"nnsight {version('nnsight')}"

    def sweep(
        self, kind: str, rows: int, tokens: int, first: int, seed: int, some: int, **_: Any
    ) -> dict[str, Any]:
        """Both runs of the prompts and some of the cells, these scaled up to all."""
        clean, corrupted = prompts(rows, tokens, first, seed)
        cells, count = cells_of(self.model, kind, tokens, some)
        kept: dict[int, torch.Tensor] = {}
        hooks = [
            m.register_forward_pre_hook(lambda _m, a, i=i: kept.__setitem__(i, a[0].clone()))
            for i, m in enumerate(places(self.model, kind))
        ]

        def run() -> None:
            with torch.no_grad():
                self.model(clean)

        first_run = clocked(run)
        for handle in hooks:
            handle.remove()
        envoys = places(self.wrapped, kind)

        def patch() -> None:
            for layer, place in cells:
                source, where = kept[layer], part(self.model, kind, place)
                with torch.no_grad(), self.wrapped.trace(corrupted):
                    envoys[layer].input[where] = source[where]
                    logits = self.wrapped.lm_head.output.save()
                metric(logits)

        rest = scaled(clocked(patch), count / len(cells))
        return {name: first_run[name] + rest[name] for name in rest}


def main() -> None:
    """Serve requests until the input ends."""
    library, network, threads = sys.argv[1:4]
    torch.set_num_threads(int(threads))
    kinds = {"cutaway": Cutaway, "transformerlens": TransformerLens, "nnsight": Nnsight}
    worker = kinds[library](network)
    print(json.dumps({"ready": worker.version, "opened": peak(reset=True)}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        peak(reset=True)
        answer = getattr(worker, asked.pop("do"))(**asked)
        print(json.dumps(answer | {"peak": peak()}), flush=True)


if __name__ == "__main__":
    main()

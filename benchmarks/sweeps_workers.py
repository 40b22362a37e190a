"""The workers of `sweeps.py`: one process for each library, told over standard input what to run next.

Each line of input is a JSON list [what, arguments ...]; each answer is a JSON object on one line. Runs in the environment of
the library that it measures, and imports nothing else.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from typing import Any

import torch

from side_by_side import ANSWERS, bridged, gpt2, metric

LAYERS, HEADS, WIDTH, VOCABULARY = 12, 12, 768, 50257


def prompts(rows: int, tokens: int, first: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Clean and corrupted ids [rows tokens] that differ at one token, the one at `first`."""
    draw = torch.Generator().manual_seed(0)
    clean = torch.randint(1000, 50000, (rows, tokens), generator=draw)
    corrupted = clean.clone()
    corrupted[:, first] = torch.randint(1000, 50000, (rows,), generator=draw)
    return clean, corrupted


class Cutaway:
    """The generic path that serves every architecture."""

    def __init__(self) -> None:
        import cutaway

        self.model = gpt2()
        self.net = cutaway.open(self.model)

    def version(self) -> str:
        import cutaway

        return f"Cutaway {cutaway.__version__}"

    def _sweep(
        self,
        kind: str,
        rows: int,
        tokens: int,
        first: int,
        layers: list[int] | None = None,
        time_it: bool = True,
    ) -> Any:
        from cutaway.behaviours import Behaviour
        from cutaway.effects.patching import box_sweep

        clean, corrupted = prompts(rows, tokens, first)
        ids = [tuple(tuple(r) for r in t.tolist()) for t in (clean, corrupted)]
        pairs = Behaviour(
            "bench", *([tuple(map(str, side)) for side in ids]), *ids,
            right=((ANSWERS[0],),) * rows, wrong=((ANSWERS[1],),) * rows, template=("one",) * rows,
        )  # fmt: skip
        at, by = ("resid_pre", ("layer", "position")) if kind == "residual" else ("z", ("layer", "head"))
        return box_sweep(self.net, pairs, at, by, "restore", layers, time_it=time_it)

    def sweep(
        self, kind: str, rows: int, tokens: int, first: int, layers: list[int] | None = None
    ) -> dict[str, Any]:
        """The whole of it: both runs of the prompts, the base run, all cells, nothing kept from before but the model."""
        self.net.forget()
        started = time.perf_counter()
        plan = self._sweep(kind, rows, tokens, first, layers, time_it=False).plan
        result = plan.run()
        seconds = time.perf_counter() - started
        return {
            "seconds": seconds,
            "mean": float(result.values.mean()),
            "states": int((result.states == 1).sum()),
        }

    def predict(self, kind: str, rows: int, tokens: int, first: int) -> dict[str, Any]:
        """What a plan says, and what the run of all its waves then takes."""
        plan = self._sweep(kind, rows, tokens, first).plan
        started = time.perf_counter()
        for _ in plan.job.results():
            pass
        seconds = time.perf_counter() - started
        cost = plan.cost
        return {"predicted": cost.seconds, "seconds": seconds, "operations": cost.operations, "share": cost.share,
                "forwards": cost.forwards}  # fmt: skip

    def naive(self, kind: str, rows: int, tokens: int, first: int, cells: int) -> dict[str, Any]:
        """One bare forward per cell with all logits, for some of the cells."""
        clean, corrupted = prompts(rows, tokens, first)
        blocks = self.model.transformer.h
        kept: dict[int, torch.Tensor] = {}
        hooks = [
            b.register_forward_pre_hook(lambda _m, a, i=i: kept.__setitem__(i, a[0]))
            for i, b in enumerate(blocks)
        ]
        with torch.no_grad():
            self.model(clean)
        for handle in hooks:
            handle.remove()
        started, values = time.perf_counter(), []
        for cell in range(cells):
            layer, position = (cell * 7) % LAYERS, cell % tokens

            def change(_m: Any, args: Any, layer: int = layer, position: int = position) -> Any:
                new = args[0].clone()
                new[:, position] = kept[layer][:, position]
                return (new, *args[1:])

            handle = blocks[layer].register_forward_pre_hook(change)
            with torch.no_grad():
                values.append(float(metric(self.model(corrupted).logits)))
            handle.remove()
        return {"seconds": time.perf_counter() - started}

    def rate(self, tokens: int) -> dict[str, Any]:
        """The machine's own rate: a matrix product of the MLP's shape, operations a second."""
        a, b = torch.randn(tokens, WIDTH), torch.randn(WIDTH, 4 * WIDTH)
        a @ b
        started, count = time.perf_counter(), 0
        while time.perf_counter() - started < 2:
            a @ b
            count += 1
        return {"rate": 2 * count * tokens * WIDTH * 4 * WIDTH / (time.perf_counter() - started)}


class TransformerLens:
    """TransformerLens's own `patching` module on its bridge to the same transformers model."""

    def __init__(self) -> None:
        self.model = bridged(gpt2())

    def version(self) -> str:
        from importlib.metadata import version

        return f"TransformerLens {version('transformer-lens')}"

    def sweep(self, kind: str, rows: int, tokens: int, first: int) -> dict[str, Any]:
        from transformer_lens import patching

        clean, corrupted = prompts(rows, tokens, first)
        run = {
            "residual": patching.get_act_patch_resid_pre,
            "heads": patching.get_act_patch_attn_head_out_all_pos,
        }[kind]
        started = time.perf_counter()
        with torch.no_grad():
            wanted = "resid_pre" if kind == "residual" else "hook_z"
            _, cache = self.model.run_with_cache(clean, names_filter=lambda name: name.endswith(wanted))
            found = run(self.model, corrupted, cache, metric)
        return {"seconds": time.perf_counter() - started, "mean": float(found.mean())}


class Nnsight:
    """One nnsight trace per cell."""

    def __init__(self) -> None:
        import nnsight

        self.model = gpt2()
        self.wrapped = nnsight.NNsight(self.model)

    def version(self) -> str:
        from importlib.metadata import version

        return f"nnsight {version('nnsight')}"

    def sweep(self, kind: str, rows: int, tokens: int, first: int) -> dict[str, Any]:
        clean, corrupted = prompts(rows, tokens, first)
        kept: dict[int, torch.Tensor] = {}
        places = [b if kind == "residual" else b.attn.c_proj for b in self.model.transformer.h]
        hooks = [
            m.register_forward_pre_hook(lambda _m, a, i=i: kept.__setitem__(i, a[0].clone()))
            for i, m in enumerate(places)
        ]
        started = time.perf_counter()
        with torch.no_grad():
            self.model(clean)
        for handle in hooks:
            handle.remove()
        total, size = 0.0, WIDTH // HEADS
        cells = [(i, j) for i in range(LAYERS) for j in range(tokens if kind == "residual" else HEADS)]
        for layer, place in cells:
            source = kept[layer]
            with torch.no_grad(), self.wrapped.trace(corrupted):
                if kind == "residual":
                    self.wrapped.transformer.h[layer].input[:, place] = source[:, place]
                else:
                    part = slice(place * size, (place + 1) * size)
                    self.wrapped.transformer.h[layer].attn.c_proj.input[:, :, part] = source[:, :, part]
                logits = self.wrapped.lm_head.output.save()
            total += float(metric(logits))
        return {"seconds": time.perf_counter() - started, "mean": total / len(cells)}


def main() -> None:
    """Serve requests until the input ends."""
    torch.set_num_threads(int(sys.argv[2]))
    worker = {"cutaway": Cutaway, "transformerlens": TransformerLens, "nnsight": Nnsight}[sys.argv[1]]()
    print(json.dumps({"ready": worker.version()}), flush=True)
    for line in sys.stdin:
        what, *arguments = json.loads(line)
        answer = getattr(worker, what)(*arguments)
        answer["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()

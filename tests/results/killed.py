"""Run verbs in processes of their own, kill them (-9) at several moments, go on, and compare: run by `test_stages`."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import cutaway
from cutaway.circuits import CircuitLimits
from cutaway.probes import ProbeData, ProbeOptions
from cutaway.results import Budget, Progress, Stages, Work, finite

warnings.filterwarnings("ignore")
NET = cutaway.open("zoo:tales")
PAIRS = cutaway.behaviour("pronoun", NET, n=24)
CIRCUIT = cutaway.trace(NET, PAIRS, method="eap", edges=30)
ROWS = [list(row) for row in (*PAIRS.clean_ids, *PAIRS.corrupted_ids)]
DATA = ProbeData(ROWS, np.array([0] * PAIRS.n + [1] * PAIRS.n), name="side")
FEW = CircuitLimits(random=10, subsets=4, edges=6, bootstrap=10)
QUICK = ProbeOptions(permutations=20)
PROBING = cutaway.probe(NET, DATA, at="resid_post", options=QUICK)
SHE = [ids for ids in dict.fromkeys(PAIRS.clean_ids) if ids not in set(PAIRS.corrupted_ids)]
HE = [ids for ids in dict.fromkeys(PAIRS.corrupted_ids) if ids not in set(PAIRS.clean_ids)]
VECTOR = cutaway.difference_of_means(NET, SHE, HE, at="resid_post.2")
EDIT = cutaway.Ablate("mlp_out.1")


def little(work: Work) -> Work:
    """The same work, allowed so little memory that it goes in several batches."""
    return replace(work, budget=Budget(memory=3_000_000))


CALLS: dict[str, Callable[[Work], Any]] = {
    "patch": lambda w: cutaway.patch(NET, PAIRS, at="z", by=("layer", "head"), work=w),
    "path_patch": lambda w: cutaway.path_patch(NET, PAIRS, to=["logits", "m3", "a3.h0<q>"], work=w),
    "pair_effects": lambda w: cutaway.pair_effects(NET, PAIRS, work=w),
    "trace": lambda w: cutaway.trace(NET, PAIRS, method="eap-ig", edges=30, work=w),
    "acdc": lambda w: cutaway.trace(
        NET, PAIRS.take(list(range(6))), method="acdc", threshold=0.1, edges=30, work=w
    ),
    "masks": lambda w: cutaway.trace(NET, PAIRS, method="mask-edges", rounds=6, work=w),
    "node_masks": lambda w: cutaway.trace(
        NET, PAIRS, method="mask-nodes", sampler="l0", warm=None, rounds=6, work=w
    ),
    "atp_star": lambda w: cutaway.trace(NET, PAIRS, method="atp-star", nodes=6, work=w),
    "neurons": lambda w: cutaway.trace(NET, PAIRS, method="neurons", nodes=6, work=w),
    "attribution_patch": lambda w: cutaway.attribution_patch(
        NET, PAIRS, at="z", by=("layer", "head"), work=little(w)
    ),
    "loss": lambda w: cutaway.loss(NET, ROWS, edits=[EDIT], work=little(w)),
    "top_examples": lambda w: cutaway.top_examples(NET, ROWS, of=["n1.3", "a2.h0"], work=little(w)),
    "test": lambda w: cutaway.test(NET, CIRCUIT, PAIRS, limits=FEW, work=w),
    "probe": lambda w: cutaway.probe(NET, DATA, at="resid_post", options=QUICK, work=w),
    "use": lambda w: cutaway.use(NET, PROBING, DATA, work=w),
    "steer": lambda w: cutaway.steer(NET, [list(PAIRS.clean_ids[0])], VECTOR, max_new_tokens=3, work=w),
    "explain": lambda w: cutaway.explain(NET, PAIRS, controls=False, work=w),
    "induction_heads": lambda w: cutaway.induction_heads(NET, length=12, n=12, work=w),
}


class Killer:
    """Ends its process with SIGKILL once so many stages are on disk and one more step is heard."""

    def __init__(self, folder: Path, after: int) -> None:
        self.folder, self.after = folder, after

    def __call__(self, _progress: Progress) -> None:
        if len(list(self.folder.rglob("*.safetensors"))) >= self.after:
            os.kill(os.getpid(), signal.SIGKILL)


def said(result: Any) -> str:
    """All that a result says, without when and at what cost."""
    return json.dumps(_timeless(finite(result.to_dict())), sort_keys=True)


def _timeless(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _timeless(v) for k, v in value.items() if k not in ("provenance", "seconds", "forwards")}
    return [_timeless(v) for v in value] if isinstance(value, list) else value


def killed(call: Callable[[Work], Any], folder: Path, after: int) -> bool:
    """Whether a process that makes the call was killed."""
    NET.forget()
    child = os.fork()
    if not child:
        try:
            call(Work(Killer(folder, after), stages=Stages(folder)))
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def main(moments: list[str]) -> None:
    """Print what came of each verb, killed after so many stages: `trace:3`."""
    for moment in moments:
        name, _, after = moment.partition(":")
        NET.forget()
        whole = CALLS[name](Work())
        folder = Path(tempfile.mkdtemp()) / "stages"
        was = killed(CALLS[name], folder, int(after))
        kept = len(list(folder.rglob("*.safetensors")))
        NET.forget()
        again = CALLS[name](Work(stages=Stages(folder)))
        row = {"moment": moment, "killed": was, "kept": kept, "equal": said(whole) == said(again)}
        forwards = {"whole": whole.provenance.forwards, "again": again.provenance.forwards}
        sys.stdout.write(json.dumps(row | forwards) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])

"""The worker of `inputs.py`: Captum attributes the same prompts of the same network, in an environment of its own.

    python inputs_workers.py MODEL-FOLDER QUESTION.json THREADS

QUESTION.json holds the prompts as token ids with the right and wrong tokens of each, the baseline's token, the steps and the
windows. One line of JSON says what each token adds and what that took. Nothing of Cutaway is imported here.
"""

from __future__ import annotations

import json
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any


def main(folder: str, question: str, threads: int) -> None:
    import torch
    from captum.attr import LayerIntegratedGradients, Occlusion
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(threads)
    asked = json.loads(Path(question).read_text())
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, asked["dtype"])).eval()
    embedding = model.get_input_embeddings()

    def metric(logits: Any, right: Any, wrong: Any) -> Any:
        return logits[:, -1].gather(1, right).mean(1) - logits[:, -1].gather(1, wrong).mean(1)

    def of_ids(ids: Any, right: Any, wrong: Any) -> Any:
        return metric(model(input_ids=ids).logits, right, wrong)

    def of_embeddings(values: Any, right: Any, wrong: Any) -> Any:
        return metric(model(inputs_embeds=values).logits, right, wrong)

    groups: dict[tuple[int, int, int], list[int]] = defaultdict(list)
    for number, (ids, right, wrong) in enumerate(asked["prompts"]):
        groups[len(ids), len(right), len(wrong)].append(number)
    found: dict[str, dict[int, list[float]]] = defaultdict(dict)
    seconds: dict[str, float] = defaultdict(float)
    for rows in groups.values():
        ids, right, wrong = (torch.tensor([asked["prompts"][i][k] for i in rows]) for k in range(3))
        base = torch.full_like(ids, asked["baseline"])
        base[:, : asked["kept"]] = ids[:, : asked["kept"]]
        began = time.perf_counter()
        method = LayerIntegratedGradients(of_ids, embedding)
        values = method.attribute(
            ids, base, additional_forward_args=(right, wrong), n_steps=asked["steps"], internal_batch_size=256
        ).sum(-1)
        seconds["integrated_gradients"] += time.perf_counter() - began
        found["integrated_gradients"] |= dict(zip(rows, values.tolist(), strict=True))
        for window in asked["windows"]:
            began = time.perf_counter()
            with torch.no_grad():
                values = Occlusion(of_embeddings).attribute(
                    embedding(ids), (window, embedding.weight.shape[1]), (1, embedding.weight.shape[1]), embedding(base),
                    additional_forward_args=(right, wrong), perturbations_per_eval=16,
                )[..., 0]  # fmt: skip
            seconds[f"occlusion, {window}"] += time.perf_counter() - began
            found[f"occlusion, {window}"] |= dict(zip(rows, values.tolist(), strict=True))
    print(json.dumps({"values": found, "seconds": seconds}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))

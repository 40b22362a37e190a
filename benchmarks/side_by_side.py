"""What benchmarks that hold several libraries against one another share: the process of each, the metric, the bridge.

Workers run in the environment of the library that they measure, so nothing but torch and transformers is imported here.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

import torch

ANSWERS = (464, 262)


class Process:
    """A worker in a process of its own: one line of JSON is asked, one is answered."""

    def __init__(
        self, command: Sequence[str], env: Mapping[str, str] | None = None, quiet: bool = False
    ) -> None:
        self.command, pipe = [*map(str, command)], subprocess.PIPE
        errors = subprocess.DEVNULL if quiet else None
        self.process = subprocess.Popen(
            self.command, stdin=pipe, stdout=pipe, stderr=errors, text=True, env=env
        )
        self.ready = self.answer()

    def send(self, request: object) -> dict[str, Any]:
        """Have it do one thing, and wait for it."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self.answer()

    def answer(self) -> dict[str, Any]:
        """The next line of JSON; what else is printed is passed over."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise SystemExit(f"The worker {' '.join(self.command)} ended.")

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()


def metric(logits: torch.Tensor) -> torch.Tensor:
    """Mean logit difference at the last position."""
    return (logits[:, -1, ANSWERS[0]] - logits[:, -1, ANSWERS[1]]).mean()


def gpt2() -> Any:
    """GPT-2-small's shape with random weights, as transformers builds it."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config()).eval()


def bridged(model: Any) -> Any:
    """TransformerLens's bridge to a transformers model; it wants a tokenizer and a configuration that were saved."""
    import tempfile

    from tokenizers import Tokenizer, models
    from transformer_lens.model_bridge import TransformerBridge
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"a": 0, "b": 1}, unk_token="a"))
    with tempfile.TemporaryDirectory() as folder:
        special = {"eos_token": "b", "bos_token": "b", "pad_token": "b"}
        PreTrainedTokenizerFast(tokenizer_object=words, **special).save_pretrained(folder)
        model.config.architectures = [type(model).__name__]
        model.config.save_pretrained(folder)
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        bridge = TransformerBridge.boot_transformers(folder, hf_model=model, tokenizer=tokenizer)
    bridge.enable_compatibility_mode(no_processing=True)
    return bridge

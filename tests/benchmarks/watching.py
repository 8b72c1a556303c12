"""What the benchmarks of training see of one: the time of its updates, and its loss on rows that were held out."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any


def clock() -> Any:
    """A callback that takes the time of the updates; made here, for it needs transformers."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        began = ended = (0.0, 0.0)

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.began = time.perf_counter(), time.process_time()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.ended = time.perf_counter(), time.process_time()

        def report(self, losses: list[float], tokens: int) -> dict[str, Any]:
            seconds, processor = (end - begin for begin, end in zip(self.began, self.ended, strict=True))
            return {"tokens": tokens, "seconds": seconds, "losses": losses, "processor": processor}

    return Clock()


def held_loss(model: Any, tokenizer: Any, rows: str) -> float:
    """Mean loss of the last answers' tokens, in nats, each row by itself.

    Args:
        model: that was trained.
        tokenizer: its own.
        rows: JSONL of conversations.
    """
    import torch

    model.eval()
    total, count = 0.0, 0
    for line in Path(rows).read_text().splitlines():
        messages = json.loads(line)["messages"]
        asked = tokenizer.apply_chat_template(messages[:-1], add_generation_prompt=True, return_dict=False)
        answer = tokenizer(messages[-1]["content"] + tokenizer.eos_token, add_special_tokens=False)["input_ids"]
        ids = torch.tensor([asked + answer])
        with torch.no_grad():
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[0, len(asked) - 1 : -1].float()
        total += torch.nn.functional.cross_entropy(logits, torch.tensor(answer), reduction="sum").item()
        count += len(answer)
    return total / count

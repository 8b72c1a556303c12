"""What the benchmarks of training see of one: the time of its updates, and its loss on rows that were held out."""

from __future__ import annotations

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
    """Mean loss of the answers' tokens, in nats, each row by itself.

    Args:
        model: that was trained.
        tokenizer: its own.
        rows: JSONL of conversations.
    """
    import torch

    from studio.evaluate.answers import answer_logits
    from studio.evaluate.questions import read_questions

    model.eval()
    total, count = 0.0, 0
    for one in read_questions(Path(rows), tokenizer):
        (logits,) = answer_logits(model, [(one.prompt_ids, one.answer_ids)])
        expected = torch.tensor(one.answer_ids, device=logits.device)
        total += torch.nn.functional.cross_entropy(logits.float(), expected, reduction="sum").item()
        count += len(one.answer_ids)
    return total / count

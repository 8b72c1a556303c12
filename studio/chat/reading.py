"""How a model reads on: what it remembers between two tokens, under which name, and whether a prompt may be split.

Most keep keys and values (`past_key_values`); Mamba, xLSTM and RWKV keep a state, which cannot take up a second part of
a prompt as well; some keep nothing (the first GPT), or fail at it. Those read the whole text again for each token.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

_KEPT = ("past_key_values", "cache_params", "state")


@dataclass(frozen=True)
class Reading:
    """How one model's `forward` is called.

    Attributes:
        kept: argument and output that hold what was read; empty where the text is read again.
        options: what it is told besides: to compute the last logits only, and whether to keep anything.
    """

    kept: str
    options: dict[str, Any]

    @property
    def splits(self) -> bool:
        """Whether a prompt can be read in parts."""
        return self.kept == "past_key_values"

    @classmethod
    def of(cls, module: Any) -> Reading:
        """Find out by reading five tokens in steps; what raises there is not used."""
        accepted = inspect.signature(module.forward).parameters
        short = {"logits_to_keep": 1} if "logits_to_keep" in accepted else {}
        for kept in _KEPT:
            reading = cls(kept, {"use_cache": True, **short})
            if kept in accepted and reading._works(module):
                return reading
        return cls("", {"use_cache": False, **short} if "use_cache" in accepted else short)

    def step(self, module: Any, ids: Sequence[int], before: Any) -> tuple[torch.Tensor, Any]:
        """Read ids (T) after `before`, None at the start; return the last logits (V,) and what to pass next time.

        Args:
            module: the model, in evaluation mode.
            ids: new tokens only, (T).
            before: what the previous step returned.
        """
        kept = {self.kept: before} if self.kept and before is not None else {}
        if not self.kept:
            ids = before = [*(before or []), *ids]
        output = module(input_ids=torch.tensor([list(ids)], device=module.device), **kept, **self.options)
        return output.logits[0, -1], getattr(output, self.kept) if self.kept else before

    def _works(self, module: Any) -> bool:
        before: Any = None
        try:
            with torch.inference_mode():
                for part in ([0, 1], [0, 1] if self.splits else [0], [0]):
                    _, before = self.step(module, part, before)
        except Exception:  # whatever a model's own code raises; it is then read without
            return False
        return before is not None

"""Hugging Face checkpoints as a chat backend: base and tuned from one copy of the weights.

An adapter is switched by the flag that PEFT's layers read, per step: PEFT's own switch also rewrites requires_grad
of every weight and costs a third of a token. A full fine-tune is a second model, so it takes the memory of two.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import AutoModelForCausalLM

from studio.chat.decoding import Logits, WindowText
from studio.chat.prompting import prompt_ids, turn_end
from studio.chat.reading import Reading
from studio.data.tokens.pretrained import load_tokenizer
from studio.errors import InputError
from studio.models.inspect.adapters import require_quick_adapter
from studio.models.inspect.attention import answer_options
from studio.models.inspect.headers import SAFE, read_config, weight_files
from studio.writing.adapters import shorten
from studio.writing.passes import quicken_passes
from studio.writing.products import quicken

PREFILL_TOKENS = 512  # longest part of a prompt read in one step: others wait no longer than that
DEFAULT_CONTEXT = 4096  # tokens, where the model's config names no limit
PARALLEL = 4  # answers in progress; each holds a key/value cache


def use_all_cores(threads: int | None = None) -> None:
    """Give torch the physical cores that this process may use, or `threads`."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(threads or max(1, min(allowed, psutil.cpu_count(logical=False) or allowed)))


def choose_dtype(name: str) -> torch.dtype:
    """Resolve auto | float32 | bfloat16: auto takes bfloat16 where this device multiplies faster with it."""
    if name != "auto":
        return torch.float32 if name == "float32" else torch.bfloat16
    if torch.cuda.is_available():
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    if torch.backends.mps.is_available():
        return torch.float16
    return torch.bfloat16 if _product_seconds(torch.bfloat16) < _product_seconds(torch.float32) else torch.float32


def _product_seconds(dtype: torch.dtype) -> float:
    """Best of five of one matrix product (256, 1024) x (1024, 1024), in seconds: 0.5 GFLOP."""
    left, right = torch.ones(256, 1024, dtype=dtype), torch.ones(1024, 1024, dtype=dtype)
    best = float("inf")
    for _ in range(6):  # the first warms up the kernel
        begin = time.perf_counter()
        torch.mm(left, right)
        best = min(best, time.perf_counter() - begin)
    return best


@dataclass
class Voice:
    """One model id: which module answers, how it reads, with which tokenizer, and whether the adapter is on."""

    module: Any
    reading: Reading
    tokenizer: Any
    adapter: bool
    ends: frozenset[int]


class HfBackend:
    """A checkpoint, alone or with an adapter or beside a full fine-tune.

    Args:
        model: folder of the base model.
        adapter: folder of a PEFT adapter on it.
        tuned: folder of a fully fine-tuned checkpoint.
        dtype: auto, float32 or bfloat16.
        context: cap on prompt and answer together, in tokens; None for the model's own.
        trust_remote_code: run Python code that lies in the model's folder.

    Raises:
        InputError: a folder cannot be used.
    """

    parallel = PARALLEL

    def __init__(
        self,
        model: Path,
        *,
        adapter: Path | None = None,
        tuned: Path | None = None,
        dtype: str = "auto",
        context: int | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        self._device = _device()
        self._dtype = choose_dtype(dtype)
        self._trust = trust_remote_code
        self._tokenizing = threading.Lock()  # Hugging Face tokenizers are not safe between threads
        base = self._load(model)
        self._switches: list[Any] = []
        self._adapter_on = False
        result = adapter or tuned
        tokenizer = self._load_tokenizer(result if result and _has_tokenizer(result) else model)
        reading = Reading.of(base)
        self._voices: dict[str, Voice] = {}
        if adapter:
            base = self._with_adapter(base, adapter)
            self._voices["tuned"] = Voice(base, reading, tokenizer, True, _end_ids(base, tokenizer))
        elif tuned:
            module = self._load(tuned)
            self._voices["tuned"] = Voice(module, Reading.of(module), tokenizer, False, _end_ids(module, tokenizer))
        # The same prompt for both makes them comparable, unless the run added tokens that the base cannot read.
        if result and len(tokenizer) > base.get_input_embeddings().weight.shape[0]:
            tokenizer = self._load_tokenizer(model)
        self._voices = {"base": Voice(base, reading, tokenizer, False, _end_ids(base, tokenizer)), **self._voices}
        self.models = tuple(self._voices)
        limits = [_context(voice.module) for voice in self._voices.values()]
        self.context = min([*limits, context] if context else limits)
        self.details: dict[str, object] = {
            "context_length": self.context,
            "dtype": str(self._dtype).removeprefix("torch."),
            "device": str(self._device),
            "threads": torch.get_num_threads(),
        }

    def prompt(self, model: str, messages: list[dict[str, str]]) -> list[int]:
        """Token ids of the conversation by the tokenizer's own template, ready for the answer.

        Without a template (a model that was only pretrained) the texts are joined by newlines.

        Raises:
            ApiError: the template refuses these messages, or takes too much.
        """
        with self._tokenizing:
            return prompt_ids(self._voices[model].tokenizer, messages)

    def ends(self, model: str, token: int) -> bool:
        """Whether this token ends an answer."""
        return token in self._voices[model].ends

    def text(self, model: str) -> WindowText:
        """A new token-to-text state; special tokens are not shown."""
        tokenizer = self._voices[model].tokenizer

        def decode(tokens: Sequence[int]) -> str:
            with self._tokenizing:
                return str(tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False))

        return WindowText(decode)

    def begin(self, model: str, ids: Sequence[int]) -> HfDecoder:
        """A new answer."""
        return HfDecoder(self, self._voices[model], ids)

    def forward(self, voice: Voice, ids: Sequence[int], cache: Any) -> tuple[Logits, Any]:
        """One step: read ids (T) after `cache`; return the last logits (V,) and the grown cache.

        Args:
            voice: which model id answers.
            ids: new tokens only, (T).
            cache: from the previous step; None at the start.
        """
        if self._switches and voice.adapter != self._adapter_on:
            for layer in self._switches:
                layer._disable_adapters = not voice.adapter
            self._adapter_on = voice.adapter
        with torch.inference_mode():
            last, grown = voice.reading.step(voice.module, ids, cache)
            logits: Logits = last.float().cpu().numpy()
        return logits, grown

    def _load(self, folder: Path) -> Any:
        if not (folder / "config.json").is_file():
            raise InputError("this folder is not a model: it has no config.json", where=str(folder))
        if not weight_files(folder):
            raise InputError(
                "this folder has no weights that are safe to load",
                where=str(folder),
                fix="Convert the model to safetensors",
            )
        module = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=self._dtype,
            trust_remote_code=self._trust,
            **answer_options(read_config(folder)),
            **SAFE,
        )
        module = module.to(self._device).eval()
        quicken(module)
        quicken_passes(module)
        return module

    def _load_tokenizer(self, folder: Path) -> Any:
        return load_tokenizer(folder, self._trust)

    def _with_adapter(self, base: Any, folder: Path) -> Any:
        from peft import PeftConfig, PeftModel

        for name in ("adapter_config.json", "adapter_model.safetensors"):
            if not (folder / name).is_file():
                raise InputError(f"this folder is not an adapter: it has no {name}", where=str(folder))
        kind = PeftConfig.from_pretrained(str(folder))
        if kind.is_prompt_learning or kind.is_adaption_prompt:
            raise InputError(
                f"adapters of type {kind.peft_type} put tokens before the prompt and cannot be switched per answer",
                where=str(folder),
                fix="Train with tuning.name lora",
            )
        require_quick_adapter(folder, base)
        model = PeftModel.from_pretrained(base, str(folder), is_trainable=False, local_files_only=True).eval()
        shorten(model)
        self._switches = [layer for layer in model.modules() if hasattr(layer, "_disable_adapters")]
        self._adapter_on = True
        return model


class HfDecoder:
    """One answer: its key/value cache and the logits of the next token."""

    def __init__(self, backend: HfBackend, voice: Voice, ids: Sequence[int]) -> None:
        self._backend, self._voice = backend, voice
        self._unread = list(ids)
        self._cache: Any = None
        self._logits: Logits

    def prefill(self) -> bool:
        """Read the next part of the prompt; True when all of it is read."""
        most = PREFILL_TOKENS if self._voice.reading.splits else len(self._unread)
        part, self._unread = self._unread[:most], self._unread[most:]
        self._read(part)
        return not self._unread

    def logits(self) -> Logits:
        """Logits (V,) of the next token."""
        return self._logits

    def advance(self, token: int) -> None:
        """Read one more token."""
        self._read([token])

    def _read(self, ids: Sequence[int]) -> None:
        self._logits, self._cache = self._backend.forward(self._voice, ids, self._cache)


def _device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _has_tokenizer(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "tokenizer_config.json"))


def _context(module: Any) -> int:
    """Longest input in tokens by the model's config."""
    config = module.config.get_text_config()
    return int(getattr(config, "max_position_embeddings", None) or DEFAULT_CONTEXT)


def _end_ids(module: Any, tokenizer: Any) -> frozenset[int]:
    """Every token that ends an answer: generation config, config, tokenizer, and the template's end of turn."""
    found: set[int] = set()
    for value in (
        module.generation_config.eos_token_id if module.generation_config else None,
        getattr(module.config, "eos_token_id", None),
        tokenizer.eos_token_id,
        turn_end(tokenizer) if tokenizer.chat_template is not None else None,
    ):
        found.update(value if isinstance(value, list) else [] if value is None else [value])
    return frozenset(found)

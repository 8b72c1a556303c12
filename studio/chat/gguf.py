"""A GGUF file as a chat backend, through llama.cpp.

Prompts are rendered by the template inside the file and fed as ids without another BOS (llama.cpp's own text entry
would double it). One answer at a time: the context holds one conversation. Logits are sampled by our own code, so
both backends mean the same by temperature, top_p and seed.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from llama_cpp import Llama, llama_cpp

from studio.chat.decoding import ByteText, Logits
from studio.chat.prompting import prompt_text
from studio.errors import InputError
from studio.reach import opened

LONGEST_CONTEXT = 4096  # tokens; the cache is allocated whole at the start
PREFILL_TOKENS = 512  # longest part of a prompt read in one step, so that a cancel is prompt


def piece_of(vocab: Any, token: int) -> bytes:
    """What a token adds to the text, nothing if it is special.

    llama-cpp-python's own `detokenize` loses tokens of more than 32 bytes.

    Args:
        vocab: llama.cpp's, of a loaded model.
        token: its id.
    """
    size = 32
    while True:
        room = ctypes.create_string_buffer(size)
        length = int(llama_cpp.llama_token_to_piece(vocab, token, room, size, 0, False))
        if length >= 0:
            return room.raw[:length]
        size = -length


class GgufBackend:
    """A GGUF file under the id `gguf`.

    Args:
        file: path of the GGUF file.
        context: cap on prompt and answer together, in tokens.
        threads: threads of llama.cpp; None for the physical cores that this process may use.

    Raises:
        InputError: llama.cpp cannot load the file.
    """

    models: tuple[str, ...] = ("gguf",)
    parallel = 1

    def __init__(self, file: Path, *, context: int | None = None, threads: int | None = None) -> None:
        if not file.is_file():
            raise InputError("there is no such file", where=str(file))
        with opened(file) as begun:
            if begun.read(4) != b"GGUF":
                raise InputError("this is not a GGUF file: it does not begin with GGUF", where=str(file))
        limit = min(context or LONGEST_CONTEXT, LONGEST_CONTEXT)
        allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        threads = threads or max(1, min(allowed, psutil.cpu_count(logical=False) or allowed))
        try:
            trained = _training_context(file)
            self._llama = Llama(
                str(file),
                n_ctx=min(limit, trained) if trained else limit,
                n_batch=PREFILL_TOKENS,
                n_threads=threads,
                n_threads_batch=threads,
                n_gpu_layers=-1,  # all of them where llama.cpp was built for a GPU; without effect elsewhere
                verbose=False,
            )
        except (ValueError, RuntimeError) as error:
            raise InputError(
                f"llama.cpp cannot load this file ({error})",
                where=str(file),
                fix="Export it again, or check that the download is complete",
            ) from error
        self._vocab = llama_cpp.llama_model_get_vocab(self._llama.model)
        self._size = llama_cpp.llama_vocab_n_tokens(self._vocab)
        self.context = self._llama.n_ctx()
        # Rendered by our own process, not by llama.cpp's reading of it, which nothing ends.
        self._chat_template = self._llama.metadata.get("tokenizer.chat_template") or ""
        bos, eos = self._llama.token_bos(), self._llama.token_eos()
        self._tokens = {"bos_token": self._token_text(bos), "eos_token": self._token_text(eos)}
        self.details: dict[str, object] = {
            "context_length": self.context,
            "device": "gpu" if llama_cpp.llama_supports_gpu_offload() else "cpu",
            "threads": threads,
        }

    def prompt(self, model: str, messages: list[dict[str, str]]) -> list[int]:
        """Token ids of the conversation by the file's template; without one the texts are joined by newlines.

        Raises:
            ApiError: the template refuses these messages, or takes too much.
        """
        if not self._chat_template:
            text = "\n".join(message["content"] for message in messages)
            return self._llama.tokenize(text.encode(), add_bos=True, special=False)
        text = prompt_text(self._chat_template, messages, self._tokens)
        return self._llama.tokenize(text.encode(), add_bos=False, special=True)

    def ends(self, model: str, token: int) -> bool:
        """Whether this token ends an answer (llama.cpp knows all end tokens of the file)."""
        return bool(llama_cpp.llama_vocab_is_eog(self._vocab, token))

    def text(self, model: str) -> ByteText:
        """A new token-to-text state; special tokens are not shown."""
        return ByteText(lambda token: piece_of(self._vocab, token))

    def begin(self, model: str, ids: Sequence[int]) -> GgufDecoder:
        """A new answer; the cache starts empty, so the same seed gives the same answer whatever was before."""
        self._llama.reset()  # type: ignore[no-untyped-call]
        return GgufDecoder(self._llama, self._size, ids)

    def _token_text(self, token: int) -> str:
        return llama_cpp.llama_vocab_get_text(self._vocab, token).decode("utf-8") if token >= 0 else ""


class GgufDecoder:
    """One answer in llama.cpp's one context."""

    def __init__(self, llama: Llama, vocabulary: int, ids: Sequence[int]) -> None:
        self._llama, self._vocabulary = llama, vocabulary
        self._unread = list(ids)

    def prefill(self) -> bool:
        """Read the next part of the prompt; True when all of it is read."""
        part, self._unread = self._unread[:PREFILL_TOKENS], self._unread[PREFILL_TOKENS:]
        self._llama.eval(part)
        return not self._unread

    def logits(self) -> Logits:
        """Logits (V,) of the next token."""
        pointer = llama_cpp.llama_get_logits_ith(self._llama.ctx, -1)
        row: Logits = np.ctypeslib.as_array(ctypes.cast(pointer, ctypes.POINTER(ctypes.c_float)), (self._vocabulary,))
        return row

    def advance(self, token: int) -> None:
        """Read one more token."""
        self._llama.eval([token])


def _training_context(file: Path) -> int | None:
    """Context length that the file names, in tokens, without loading its weights."""
    vocabulary_only = Llama(str(file), vocab_only=True, verbose=False)
    try:
        key = f"{vocabulary_only.metadata.get('general.architecture')}.context_length"
        value = vocabulary_only.metadata.get(key, "")
        return int(value) if value.isdigit() else None
    finally:
        vocabulary_only.close()

"""A GGUF loaded by llama.cpp: token ids, logits at chosen positions, greedy answers.

Through llama-cpp-python's `Llama` for what people use (loading, chat template, tokenizer) and through the C API for
what that class cannot do: logits of some positions only, and a common beginning kept from one prompt to the next.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import numpy.typing as npt

from studio.alike import alike
from studio.chat.gguf import piece_of
from studio.errors import StudioError

BATCH_TOKENS = 512
Token = tuple[int, int, int, bool]  # sequence, position, id, and whether it is asked what follows
OWN_TEMPLATE = "chat_template.default"  # llama-cpp-python's name for the template that the file carries


class GgufModel:
    """One loaded file; close it after use.

    Args:
        path: the file.
        context: longest sequence, in tokens.
        threads: CPU threads.
        options: more of `llama_cpp.Llama`'s.

    Raises:
        StudioError: llama.cpp cannot load it.
    """

    def __init__(self, path: Path, context: int, threads: int, **options: Any) -> None:
        try:
            self._llama = llama_cpp.Llama(
                model_path=str(path),
                n_ctx=context,
                n_batch=BATCH_TOKENS,
                n_threads=threads,
                n_threads_batch=threads,
                verbose=False,
                **options,
            )
        except (ValueError, RuntimeError, OSError) as error:
            raise StudioError(f"llama.cpp cannot load it: {error}", where=path.name) from error
        model = self._llama.model
        self._vocab = llama_cpp.llama_model_get_vocab(model)
        self._memory = llama_cpp.llama_get_memory(self._llama.ctx)
        self._batch = llama_cpp.llama_batch_init(BATCH_TOKENS, 0, 1)
        # llama.cpp sets up the matrix unit of a processor (AMX) once a thread; torch, where both are in one process,
        # switches it off in its own threads, and the next product there would be an illegal instruction.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="llama.cpp")
        self._kept: list[int] = []
        self.vocabulary = self._llama.n_vocab()

    def close(self) -> None:
        """Free the model's memory."""
        self._thread.shutdown()
        llama_cpp.llama_batch_free(self._batch)
        self._llama.close()

    @property
    def template(self) -> str:
        """The chat template that the file carries; empty for none."""
        return str(self._llama.metadata.get("tokenizer.chat_template", ""))

    @property
    def adds_start(self) -> bool:
        """Does llama.cpp put the token that begins a text before each prompt, unless it is told not to?"""
        return bool(llama_cpp.llama_vocab_get_add_bos(self._vocab))

    def is_end(self, token: int) -> bool:
        """Does generation stop at this token?"""
        return bool(llama_cpp.llama_vocab_is_eog(self._vocab, token))

    def whole_tokens(self) -> list[str]:
        """The texts that are taken for one token wherever they stand in a prompt: control and user-defined tokens."""
        whole = llama_cpp.LLAMA_TOKEN_ATTR_CONTROL | llama_cpp.LLAMA_TOKEN_ATTR_USER_DEFINED
        whole |= llama_cpp.LLAMA_TOKEN_ATTR_UNKNOWN
        return [
            llama_cpp.llama_vocab_get_text(self._vocab, token).decode("utf-8", "replace")
            for token in range(self.vocabulary)
            if llama_cpp.llama_vocab_get_attr(self._vocab, token) & whole
        ]

    def text_ids(self, text: str) -> list[int]:
        """Token ids of a rendered text, with the special tokens that stand in it and no others."""
        return self._llama.tokenize(text.encode("utf-8"), add_bos=False, special=True)

    @property
    def guessed_format(self) -> str:
        """llama-cpp-python's own chat format that it takes for the file's template; empty where it renders that."""
        taken = str(self._llama.chat_format)
        return "" if taken == OWN_TEMPLATE or not self.template else taken

    def chat_ids(self, messages: Sequence[dict[str, str]], chat_format: str = "") -> list[int]:
        """Token ids that a chat with llama-cpp-python feeds to the model.

        Args:
            messages: {"role", "content"} each.
            chat_format: `OWN_TEMPLATE`, or what a person gets who names none.

        Raises:
            StudioError: the file's template cannot be rendered.
        """
        seen: list[list[int]] = []

        class Seen(Exception):
            pass

        def catch(*args: Any, **options: Any) -> Any:
            seen.append(list(options["prompt"]))
            raise Seen

        # The chat handler renders, tokenises and then calls this method of the instance: the prompt is caught there.
        self._llama.create_completion = catch  # type: ignore[method-assign]
        usual = self._llama.chat_format
        self._llama.chat_format = chat_format or usual
        try:
            self._llama.create_chat_completion(messages=[dict(message) for message in messages])  # type: ignore[misc]
        except Seen:
            return seen[0]
        except Exception as error:  # a template raises whatever it likes
            raise StudioError(f"llama.cpp cannot render the chat template: {error}") from error
        finally:
            del self._llama.create_completion
            self._llama.chat_format = usual
        raise StudioError("llama-cpp-python answered without a prompt")

    def decode(self, ids: Sequence[int]) -> str:
        """Text of an answer, without special tokens."""
        return b"".join(piece_of(self._vocab, token) for token in ids).decode("utf-8", "replace")

    def logits(self, ids: Sequence[int], first: int) -> npt.NDArray[np.float32]:
        """Logits after each of the positions first, first + 1, … of a sequence: (len(ids) - first, vocabulary).

        What `ids` has in common with the previous call is not computed again.

        Raises:
            StudioError: llama.cpp fails.
        """
        same = min(alike(self._kept, ids), first)
        if not llama_cpp.llama_memory_seq_rm(self._memory, 0, same, -1):
            # A recurrent state cannot be cut back; it starts anew.
            llama_cpp.llama_memory_seq_rm(self._memory, 0, -1, -1)
            same = 0
        table = np.empty((len(ids) - first, self.vocabulary), np.float32)
        for begin in range(same, len(ids), BATCH_TOKENS):
            self._run(ids, begin, min(len(ids), begin + BATCH_TOKENS), first, table)
        self._kept = list(ids)
        return table

    def _run(self, ids: Sequence[int], begin: int, end: int, first: int, table: npt.NDArray[np.float32]) -> None:
        tokens = [(0, position, ids[position], position >= first) for position in range(begin, end)]
        try:
            found = self.decode_batch(self._llama.ctx, self._batch, tokens)
        except StudioError:
            self._kept = []
            raise
        for row, values in enumerate(found, max(begin, first) - first):
            table[row] = values

    def decode_batch(self, context: Any, batch: Any, tokens: Sequence[Token]) -> list[npt.NDArray[np.float32]]:
        """Let llama.cpp compute tokens; return the logits, (vocabulary,), after each that is asked.

        They lie in the context's memory, until it computes again.

        Args:
            context: of this model.
            batch: of llama.cpp, for at most `BATCH_TOKENS`.
            tokens: at most so many.

        Raises:
            StudioError: it fails.
        """
        batch.n_tokens = len(tokens)
        for slot, (sequence, position, token, asked) in enumerate(tokens):
            batch.token[slot], batch.pos[slot], batch.n_seq_id[slot] = token, position, 1
            batch.seq_id[slot][0] = sequence
            batch.logits[slot] = asked
        code = self._thread.submit(llama_cpp.llama_decode, context, batch).result()
        if code != 0:
            raise StudioError(f"llama.cpp could not compute {len(tokens)} tokens (llama_decode: {code})")
        return [
            np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(context, slot), shape=(self.vocabulary,))
            for slot, (*_, asked) in enumerate(tokens)
            if asked
        ]

    @contextmanager
    def beside(self, sequences: int, cells: int) -> Iterator[Any]:
        """A context for several sequences beside the model's own, with the adapter that this has.

        Args:
            sequences: how many.
            cells: tokens of all of them that are kept at a time.

        Raises:
            StudioError: there is no memory for it.
        """
        asked = llama_cpp.llama_context_params.from_buffer_copy(self._llama.context_params)
        asked.n_ctx, asked.n_seq_max, asked.kv_unified = max(cells, BATCH_TOKENS), sequences, True
        asked.n_batch = asked.n_ubatch = BATCH_TOKENS
        context = self._thread.submit(llama_cpp.llama_init_from_model, self._llama.model, asked).result()
        if not context:
            raise StudioError(f"llama.cpp has no memory for {cells:,} tokens of {sequences} rows")
        try:
            if self._llama._lora_adapter is not None:
                adapter: Any = self._llama._lora_adapter
                adapters = (llama_cpp.llama_adapter_lora_p_ctypes * 1)(adapter)
                scales = (ctypes.c_float * 1)(self._llama.lora_scale)
                llama_cpp.llama_set_adapters_lora(context, adapters, 1, scales)
            yield context
        finally:
            llama_cpp.llama_free(context)

    def greedy(self, prompt: Sequence[int], most: int) -> tuple[list[int], bool]:
        """The most likely answer token by token, without its end token; and whether it ended by itself.

        Args:
            prompt: token ids.
            most: longest answer, tokens.
        """
        answer: list[int] = []
        while len(answer) < most:
            ids = [*prompt, *answer]
            token = int(self.logits(ids, len(ids) - 1)[0].argmax())
            if self.is_end(token):
                return answer, True
            answer.append(token)
        return answer, False

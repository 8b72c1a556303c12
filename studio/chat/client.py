"""Ask a chat server: a thin cover over the official `openai` client with our error sentences.

`openai` is imported at the first question (0.4 s, 25 MB), not by whoever imports this module.
"""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from studio.errors import InputError, StudioError
from studio.remote.client import sentence

if TYPE_CHECKING:
    import openai

Messages = Sequence[dict[str, Any]]
# Models of OpenAI that reason take neither a temperature nor max_tokens.
_THINKS = re.compile(r"(?:ft:)?(?:o\d|gpt-5)")


@dataclass(frozen=True)
class ChatHandle:
    """Where a loaded model answers.

    Attributes:
        base_url: address for an OpenAI client, such as http://127.0.0.1:40123/v1.
        key: its secret; never to be written anywhere.
        models: ids that can be asked.
        pid: the server's process; 0 for a service elsewhere.
        there: names at that service by ids here; empty for a server of ours.
    """

    base_url: str
    key: str
    models: tuple[str, ...]
    pid: int
    there: Mapping[str, str] = field(default_factory=dict)

    def __repr__(self) -> str:
        """Everything but the key, which must not get into a log by way of a traceback."""
        return f"ChatHandle({self.base_url!r}, models={self.models!r}, pid={self.pid})"


@dataclass(frozen=True)
class AnswerStats:
    """How one answer went.

    Attributes:
        finish_reason: stop, or length where the limit cut it.
        prompt_tokens: tokens of the rendered conversation.
        completion_tokens: tokens of the answer.
        first_token_seconds: from the question to the first text; None for an empty answer.
        tokens_per_second: after the first text; None for an answer of one token.
        seconds: from the question to the end.
    """

    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    first_token_seconds: float | None
    tokens_per_second: float | None
    seconds: float


def stream(
    handle: ChatHandle,
    model: str,
    messages: Messages,
    *,
    on_end: Callable[[AnswerStats], None] | None = None,
    **options: Any,
) -> Iterator[str]:
    """Ask, and give the answer piece by piece. Closing the iterator cancels the answer on the server.

    Args:
        handle: of `ChatManager.open`.
        model: one of `handle.models`.
        messages: [{"role", "content"}, ...].
        on_end: called once with the figures of a complete answer.
        options: temperature, top_p, max_tokens, seed, stop.

    Raises:
        InputError: the server refuses the question (too long, a bad value).
        StudioError: the server failed or is gone.
    """
    import openai

    begin = time.perf_counter()
    first: float | None = None
    reason, counts = "", (0, 0)
    try:
        # The options come as keywords of unknown types; the server checks them and names what is wrong.
        create: Any = _client(handle.base_url, handle.key, bool(handle.there)).chat.completions.create
        name = handle.there.get(model, model)
        with create(
            model=name, messages=list(messages), stream=True, stream_options={"include_usage": True},
            **(as_taken(name, options) if handle.there else options),
        ) as chunks:  # fmt: skip
            for chunk in chunks:
                if chunk.usage:
                    counts = (chunk.usage.prompt_tokens, chunk.usage.completion_tokens)
                for choice in chunk.choices:
                    reason = choice.finish_reason or reason
                    if choice.delta.content:
                        first = first or time.perf_counter()
                        yield choice.delta.content
    except openai.APIError as error:
        if handle.there:
            raise sentence(error, "get an answer") from error
        raise _failure(error, model) from error
    if not reason:
        raise StudioError("the answer was cut off", where=model, fix="Send it again")
    end = time.perf_counter()
    if on_end:
        speed = (counts[1] - 1) / (end - first) if first and counts[1] > 1 else None
        on_end(AnswerStats(reason, *counts, first - begin if first else None, speed, end - begin))


@functools.lru_cache(maxsize=8)
def _client(base_url: str, key: str, elsewhere: bool) -> openai.OpenAI:
    import openai

    # A proxy of the environment must not see questions to this machine; a lost answer is not asked again unseen.
    return openai.OpenAI(
        base_url=base_url, api_key=key, max_retries=0, http_client=openai.DefaultHttpxClient(trust_env=elsewhere)
    )


def as_taken(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options as a model of a service takes them: those that think first choose their tokens themselves.

    Args:
        name: of the model at the service.
        options: temperature, top_p, max_tokens, seed, stop.
    """
    if not _THINKS.match(name):
        return dict(options)
    kept = {key: value for key, value in options.items() if key not in ("temperature", "top_p", "max_tokens")}
    return kept | ({"max_completion_tokens": options["max_tokens"]} if options.get("max_tokens") else {})


def _failure(error: openai.APIError, model: str) -> StudioError:
    """What happened to a server of ours."""
    import openai

    if isinstance(error, openai.APIConnectionError):
        return StudioError(
            f"the chat server of '{model}' is no longer responding", fix="Send it again: the model is reloaded"
        )
    return _refusal(error) if isinstance(error, openai.APIStatusError) else StudioError(error.message)


def _refusal(error: openai.APIStatusError) -> StudioError:
    body = error.body if isinstance(error.body, dict) else {}
    sentence = str(body.get("message") or error.message)
    return InputError(sentence) if error.status_code < 500 else StudioError(sentence)

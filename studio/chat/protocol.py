"""The part of OpenAI's chat API that the chat server speaks: requests, replies, chunks, errors.

A field that would change the answer and that we do not implement is refused by name, never ignored. Pure data:
no HTTP, no model.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

MAX_STOPS = 16  # OpenAI takes 4; more cost nothing here.


class ApiError(Exception):
    """An answer in OpenAI's error shape.

    Args:
        status: HTTP status.
        message: the sentence for the person.
        param: the request's field, None where it is no field.
        code: OpenAI's machine-readable code.
    """

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code

    def body(self) -> dict[str, Any]:
        """The JSON body."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


class TextPart(BaseModel):
    """One part of a message given as a list; only text is understood."""

    model_config = ConfigDict(extra="forbid")
    type: Literal["text"]
    text: str


class Message(BaseModel):
    """One message of the conversation."""

    model_config = ConfigDict(extra="forbid")
    role: Literal["system", "developer", "user", "assistant"]
    content: list[TextPart]
    name: str | None = None

    @field_validator("content", mode="before")
    @classmethod
    def _as_parts(cls, value: object) -> object:
        # Not a union of both forms: its errors would name the wrong form's fields.
        if isinstance(value, str):
            return [{"type": "text", "text": value}]
        if not isinstance(value, list):
            raise ValueError("give a text, or a list of parts of type text")
        return value

    def plain(self) -> dict[str, str]:
        """What chat templates expect: role and content, `developer` under its older name."""
        text = "".join(part.text for part in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class StreamOptions(BaseModel):
    """Options of a streamed answer."""

    model_config = ConfigDict(extra="forbid")
    include_usage: bool = False


class ChatRequest(BaseModel):
    """Body of POST /v1/chat/completions.

    Fields that clients send by habit are accepted at the value that changes nothing (n = 1, penalties 0).
    """

    model_config = ConfigDict(extra="forbid")
    model: str
    messages: list[Message] = Field(min_length=1)
    temperature: float | None = Field(None, ge=0, le=2, allow_inf_nan=False)
    top_p: float | None = Field(None, gt=0, le=1, allow_inf_nan=False)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: Annotated[list[str], Field(max_length=MAX_STOPS)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    n: Literal[1] | None = None
    frequency_penalty: Literal[0] | None = None
    presence_penalty: Literal[0] | None = None
    logprobs: Literal[False] | None = None
    user: str | None = None

    @field_validator("stop", mode="before")
    @classmethod
    def _stop_list(cls, value: object) -> object:
        return [value] if isinstance(value, str) else value

    @field_validator("stop")
    @classmethod
    def _stop_not_empty(cls, value: list[str] | None) -> list[str] | None:
        if value and not all(value):
            raise ValueError("a stop string is empty")
        return value

    @property
    def limit(self) -> int | None:
        """Longest answer in tokens; None for whatever the context leaves."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens


def parse_request(body: bytes) -> ChatRequest:
    """Read a request body.

    Raises:
        ApiError: 400 that names the field.
    """
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, f"The body is not JSON: {error}", code="invalid_json") from None
    if not isinstance(value, dict):
        raise ApiError(400, "The body is not a JSON object", code="invalid_json")
    try:
        return ChatRequest.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        path = field_path(first["loc"])
        if first["type"] == "extra_forbidden":
            raise ApiError(400, f"{path}: unknown field; remove it", param=path, code="unknown_parameter") from None
        raise ApiError(400, f"{path}: {first['msg']}", param=path, code="invalid_value") from None


def field_path(location: Sequence[int | str]) -> str:
    """Write a pydantic location as OpenAI does: messages[0].content."""
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            path += f".{part}" if path else part
    return path or "body"


@dataclass(frozen=True)
class Reply:
    """Makes the bodies of one answer; id and time are the same in all its chunks.

    Args:
        id: chatcmpl-...
        created: unix time in seconds.
        model: model id that was asked.
        with_usage: stream_options.include_usage.
    """

    id: str
    created: int
    model: str
    with_usage: bool = False

    def chunk(self, delta: dict[str, str], finish: str | None = None) -> str:
        """One server-sent event with a piece of the answer."""
        return self._event([{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}], None)

    def usage_chunk(self, prompt_tokens: int, completion_tokens: int) -> str:
        """The last event before [DONE] where usage was asked."""
        return self._event([], usage(prompt_tokens, completion_tokens))

    def whole(self, text: str, finish: str, prompt_tokens: int, completion_tokens: int) -> dict[str, Any]:
        """The body of an answer that is not streamed.

        Args:
            text: the completion, decoded.
            finish: OpenAI's finish_reason: stop or length.
            prompt_tokens, completion_tokens: counts for `usage`.
        """
        message = {"role": "assistant", "content": text, "refusal": None}
        return {
            "id": self.id,
            "object": "chat.completion",
            "created": self.created,
            "model": self.model,
            "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish}],
            "usage": usage(prompt_tokens, completion_tokens),
        }

    def _event(self, choices: list[dict[str, Any]], counts: dict[str, int] | None) -> str:
        body: dict[str, Any] = {
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
            "choices": choices,
        }
        if self.with_usage:
            body["usage"] = counts
        return sse(body)


def sse(body: dict[str, Any]) -> str:
    """One server-sent event."""
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"


SSE_DONE = "data: [DONE]\n\n"


def usage(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    """Token counts; the prompt's are exactly those that the template makes, the answer's exclude the end token."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }

"""A conversation as a prompt: the model's template and tokenizer, which others wrote, within bounds of time and memory.

The template is rendered in a process of its own, as for training, and the tokenizer's call is left behind when it does
not come back, so that one message cannot keep a chat server for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from studio.chat.protocol import ApiError
from studio.data.masks.rendering import CallWay, Renderer
from studio.data.masks.spans import TemplateRefusedError
from studio.data.sandbox.bounds import Budget, OutOfBoundsError
from studio.data.sandbox.process import SANDBOX, Refusal
from studio.data.tokens.plaintext import Texts

Messages = list[dict[str, str]]


def prompt_ids(tokenizer: Any, messages: Messages) -> list[int]:
    """Token ids of a conversation by the tokenizer's own template, ready for the answer.

    Without a template (a model that was only pretrained) the texts are joined by newlines.

    Raises:
        ApiError: the template refuses these messages, or template or tokenizer take too much.
    """
    try:
        if tokenizer.chat_template is None:
            return _ids(tokenizer, _joined(messages), special=True)
        return _ids(tokenizer, Renderer(tokenizer).text(messages, True, None, CallWay()), special=False)
    except TemplateRefusedError as error:
        raise _refused(error) from error
    except OutOfBoundsError as error:
        raise ApiError(400, f"messages: {error.sentence}", param="messages") from error


def prompt_text(template: str, messages: Messages, tokens: dict[str, str]) -> str:
    """The prompt by the template of a GGUF file; `tokens` are those that it knows by name (bos_token, eos_token).

    Args:
        template: Jinja source from the file's metadata.
        messages: OpenAI style, validated.
        tokens: texts of special tokens by the name the template knows.

    Raises:
        ApiError: as `prompt_ids`.
    """
    shared = {"add_generation_prompt": True, "tools": None, "documents": None, **tokens}
    try:
        (text,) = SANDBOX.render("chat", template, shared, [{"messages": messages}], Budget())
    except OutOfBoundsError as error:
        what = f"the model's chat template {error.what}"
        raise ApiError(400, f"messages: {what}", param="messages") from error
    if isinstance(text, Refusal):
        raise _refused(text)
    return text


def turn_end(tokenizer: Any) -> int | None:
    """The token that the chat template writes after an assistant's text; None where there is none.

    As in training, the first special token, or else the first other added one that is not only blanks.
    """
    mark = "finetune-studio-mark"
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": mark}]
    try:
        text = Renderer(tokenizer).text(turns, False, None, CallWay())
        after = _ids(tokenizer, text.rpartition(mark)[2], special=False)
    except (TemplateRefusedError, OutOfBoundsError):
        return None  # a template may refuse anything; then the ids of generation_config must do
    return next((token for known in end_marks(tokenizer) for token in after if token in known), None)


def end_marks(tokenizer: Any) -> tuple[set[int], set[int]]:
    """Tokens that may end a turn: the special ones, and all added ones that are not only blanks.

    Args:
        tokenizer: of transformers.
    """
    added = {id for id, token in tokenizer.added_tokens_decoder.items() if token.content.strip()}
    return set(tokenizer.all_special_ids), added


def _joined(messages: Sequence[dict[str, str]]) -> str:
    return "\n".join(message["content"] for message in messages)


def _ids(tokenizer: Any, text: str, special: bool) -> list[int]:
    if not getattr(tokenizer, "is_fast", False):  # Python of transformers, or code that the person let in
        return list(tokenizer(text, add_special_tokens=special)["input_ids"])
    (encoded,) = Texts(tokenizer).encode([text], special)
    return list(encoded.ids)


def _refused(error: object) -> ApiError:
    return ApiError(400, f"messages: the model's chat template refuses them: {error}", param="messages")

"""The chat template of a run: the model's own or one of six, with a system text built in.

The template is a part of the tokenizer, and the tokenizer is saved with what was trained. So training, preview, chat,
evaluation and export have one template between them, and none of them needs to be told which.
"""

from __future__ import annotations

import copy
import json
from typing import Any

from studio.config.data import TemplateName
from studio.data.masks.rendering import CallWay, Renderer
from studio.data.masks.spans import TemplateRefusedError
from studio.data.report import Finding
from studio.errors import InputError
from studio.settings import ASSETS

# The tokens that each writes around its turns; `eos` is whatever ends a text of the model.
NEEDED: dict[str, tuple[str, ...]] = {
    "chatml": ("<|im_start|>", "<|im_end|>"),
    "llama3": ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    "mistral": ("eos",),
    "gemma": ("<start_of_turn>", "<end_of_turn>"),
    "phi": ("<|user|>", "<|assistant|>", "<|end|>"),
    "plain": ("eos",),
}


def with_template(tokenizer: Any, template: TemplateName = "auto", system: str | None = None) -> Any:
    """Return the tokenizer as the run uses it; the one given is left as it is.

    Args:
        tokenizer: the model's transformers tokenizer.
        template: one of ours, or auto for the tokenizer's own.
        system: system text of the conversations that have none; None or "" for none.

    Raises:
        InputError: the model lacks a token that the template needs, or the template does not write a system text.
    """
    if template == "auto" and not system:
        return tokenizer
    # A copy that shares the vocabulary: only the template differs.
    changed = copy.copy(tokenizer)
    if template != "auto":
        changed.chat_template = _ours(tokenizer, template)
    if system:
        if not changed.chat_template:
            raise InputError(
                "the model has no chat template, so there is no place for a system prompt",
                where="data.system",
                fix="Set data.template, or leave the system prompt empty",
            )
        changed.chat_template = _with_system(changed.chat_template, system)
        _require_system(changed, system)
    return changed


def template_findings(tokenizer: Any, template: TemplateName) -> list[Finding]:
    """A warning where one of our templates takes the place of the model's own."""
    if template == "auto" or not tokenizer.chat_template:
        return []
    text = f"the template {template} replaces the one that the model was trained with"
    return [Finding("warning", 0, text, "Set data.template: auto unless this is intended")]


def usable_templates(tokenizer: Any) -> list[str]:
    """Our templates whose tokens the model has."""
    return [name for name in NEEDED if not missing_tokens(tokenizer, name)]


def missing_tokens(tokenizer: Any, template: str) -> list[str]:
    """The tokens that a template of ours needs and the model has not.

    Without them the marks would be cut into pieces, and no single token would tell chat and export that an answer is
    over.
    """
    missing = []
    for word in NEEDED[template]:
        if word == "eos":
            missing += ["end-of-text token"] if tokenizer.eos_token is None else []
        elif len(tokenizer(word, add_special_tokens=False)["input_ids"]) != 1:
            missing.append(word)
    return missing


def _ours(tokenizer: Any, template: str) -> str:
    if missing := missing_tokens(tokenizer, template):
        names = " or ".join(usable_templates(tokenizer))
        raise InputError(
            f"the model has no {', '.join(missing)}, which the template {template} needs",
            where="data.template",
            fix=f"Set it to {names}" if names else "Use rows with prompt and completion, or another model",
        )
    text = (ASSETS / "templates" / f"{template}.jinja").read_text(encoding="utf-8").rstrip("\n")
    bos = tokenizer.bos_token_id
    starts = bos is not None and tokenizer("a")["input_ids"][:1] == [bos]
    # A model that reads every text after its BOS was trained so; the template has to write it.
    return ("{{- bos_token }}" if starts else "") + text


def _with_system(template: Any, system: str) -> Any:
    if isinstance(template, dict):
        return {name: _with_system(one, system) for name, one in template.items()}
    # JSON's escapes are Jinja's, and other characters stand for themselves.
    message = "{'role': 'system', 'content': " + json.dumps(system, ensure_ascii=False) + "}"
    test = "{%- if not messages or messages[0]['role'] != 'system' %}"
    # The empty text keeps Jinja from trimming what the template begins with.
    return f"{test}{{%- set messages = [{message}] + messages %}}{{%- endif %}}{{{{- '' }}}}{template}"


def _require_system(changed: Any, system: str) -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    fix = "Leave it empty and put it in the user messages, or set data.template"
    try:
        text = Renderer(changed).text(turns, False, None, CallWay())
    except TemplateRefusedError as error:
        what = f"the model's chat template rejects a system prompt: {error}"
        raise InputError(what, where="data.system", fix=fix) from error
    if system.strip() not in text:
        what = "the model's chat template drops the system prompt when a conversation ends with an answer"
        raise InputError(what, where="data.system", fix=fix)

"""Axolotl's fixed prompts as lines over columns: what stands around the question in the rows that it trains on.

Its `alpaca` and the like know no chat template: the prompt is a text of its own, the answer follows it, then the end
token. The same text is made here of the same columns, and read as it is (`reading: raw`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_PAIRED = (
    "Below is an instruction that describes a task, paired with an input that provides further context. Write a "
    "response that appropriately completes the request."
)
_ALONE = "Below is an instruction that describes a task. Write a response that appropriately completes the request."
_CONCISE_PAIRED = (
    "Below is an instruction from a USER that describes a task, paired with an input that provides further context. "
    "The ASSISTANT writes a response that concisely and appropriately completes the request.\n\n"
)
_CONCISE_ALONE = (
    "Below is an instruction from a USER that describes a task. The ASSISTANT writes a response that appropriately and "
    "concisely completes the request.\n\n"
)
# Python's format: doubled braces are one of a text.
_FIELD = re.compile(r"\{\{|\}\}|\{(\w*)\}")


@dataclass(frozen=True)
class Style:
    """How a prompt is written; `{…}` are fields of a row.

    Attributes:
        with_input, alone: with and without an input.
        system: of the text before both, with `{system}`.
    """

    with_input: str
    alone: str
    system: str


STYLES: dict[str, Style] = {
    "instruct": Style(
        "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n",
        "### Instruction:\n{instruction}\n\n### Response:\n",
        "{system}\n\n",
    ),
    "chat": Style("USER: {instruction}\n{input}\nASSISTANT:", "USER: {instruction}\nASSISTANT:", "SYSTEM: {system}\n"),
    "chatml": Style(
        "<|im_start|>user\n{instruction}\n{input}<|im_end|>\n<|im_start|>assistant\n",
        "<|im_start|>user\n{instruction}<|im_end|>\n<|im_start|>assistant\n",
        "<|im_start|>system\n{system}<|im_end|>\n",
    ),
    "phi": Style(
        "<|user|>\n{instruction}<|end|>{input}<|assistant|>",
        "<|user|>\n{instruction}<|end|>\n<|assistant|>\n",
        "<|system|>\n{system}<|end|>\n",
    ),
}
# Type, style, system text with and without an input, question and answer column; no input where that is "".
_FIXED: dict[str, tuple[str, str, str, str, str, str]] = {
    "alpaca_instruct": ("instruct", _PAIRED, _ALONE, "instruction", "input", "output"),
    "alpaca_instruct.load_no_prompt": ("instruct", "", "", "instruction", "input", "output"),
    "alpaca_chat": ("chat", _PAIRED, _ALONE, "instruction", "input", "output"),
    "alpaca_chat.load_concise": ("chat", _CONCISE_PAIRED, _CONCISE_ALONE, "instruction", "input", "output"),
    "alpaca_chat.load_no_prompt": ("chat", "", "", "instruction", "input", "output"),
    "alpaca_chat.load_qa": ("chat", "", _CONCISE_ALONE, "question", "", "answer"),
    "alpaca_chat.load_camel_ai": ("chat", "", _CONCISE_ALONE, "message_1", "", "message_2"),
    "gpteacher": ("instruct", _PAIRED, _ALONE, "instruction", "input", "response"),
}
_SYSTEM_STYLES = {
    "alpaca_w_system": "chat", "alpaca_w_system.load_chat": "chat", "alpaca_w_system.load_instruct": "instruct",
}  # fmt: skip


#: Every type that has one.
KINDS = (*(f"alpaca:{word}" if word != "instruct" else "alpaca" for word in STYLES), *_FIXED, *_SYSTEM_STYLES)


def columns_of(kind: str) -> dict[str, str] | None:
    """The columns `prompt` and `completion` of a type with a fixed prompt; None where it is no such type."""
    base, _, word = kind.partition(":")
    if base == "alpaca" and (word or "instruct") in STYLES:
        style, row = STYLES[word or "instruct"], ("", _PAIRED, _ALONE, "instruction", "input", "output")
    elif not word and kind in _FIXED:
        row = _FIXED[kind]
        style = STYLES[row[0]]
    elif not word and kind in _SYSTEM_STYLES:
        style = STYLES[_SYSTEM_STYLES[kind]]
        fields = {"instruction": "instruction", "input": "input", "system": "system"}
        before = _given("system", _line(style.system, fields))
        return {"prompt": before + _either(style, fields), "completion": "output"}
    else:
        return None
    _, paired, alone, question, context, answer = row
    fields = {"instruction": question, "input": context}
    texts = [_literal(style.system.replace("{system}", text)) if text else "" for text in (paired, alone)]
    if not context:
        return {"prompt": texts[1] + _line(style.alone, fields), "completion": answer}
    with_input, without = texts[0] + _line(style.with_input, fields), texts[1] + _line(style.alone, fields)
    return {"prompt": _choice(context, with_input, without), "completion": answer}


def user_columns(given: dict[str, str]) -> dict[str, str]:
    """The columns of a type that is written out in the config, with `format`, `no_input_format` and `field_…`.

    Args:
        given: the mapping, its values texts.
    """
    fields = {
        name: given.get(f"field_{name}", name) for name in ("instruction", "input", "output", "system")
    }  # fmt: skip
    style = Style(
        given.get("format", "{instruction} {input} "), given.get("no_input_format", "{instruction} "),
        given.get("system_format", "{system}"),
    )  # fmt: skip
    always = given.get("system_prompt", "")
    own = _literal(style.system.replace("{system}", always)) if always else ""
    system = _given(fields["system"], _line(style.system, fields), own)
    return {"prompt": system + _either(style, fields), "completion": fields["output"]}


def formatted(template: str, fields: dict[str, str]) -> str:
    """A text with `{…}` as a line over columns; a column alone where it is nothing but that.

    Args:
        template: such as "Question: {prompt}".
        fields: column of each field.
    """
    if (found := _FIELD.fullmatch(template)) and found[1] in fields:
        return fields[found[1]]
    return _line(template, fields)


def _either(style: Style, fields: dict[str, str]) -> str:
    return _choice(fields["input"], _line(style.with_input, fields), _line(style.alone, fields))


def _choice(column: str, with_it: str, without: str) -> str:
    return f"{{% if {_has(column)} %}}{with_it}{{% else %}}{without}{{% endif %}}"


def _given(column: str, text: str, otherwise: str = "") -> str:
    other = f"{{% else %}}{otherwise}" if otherwise else ""
    return f"{{% if {_has(column)} %}}{text}{other}{{% endif %}}"


def _has(column: str) -> str:
    return f"{column} is defined and {column}" if column.isidentifier() else f"row[{_quoted(column)}]"


def _line(template: str, fields: dict[str, str]) -> str:
    parts, at = [], 0
    for found in _FIELD.finditer(template):
        parts.append(_literal(template[at : found.start()]))
        at = found.end()
        if found[1] is None:
            parts.append(f"{{{{ {_quoted(found[0][0])} }}}}")
            continue
        column = fields.get(found[1])
        name = column if column and column.isidentifier() else f"row[{_quoted(column)}]" if column else ""
        parts.append(f"{{{{ {name} }}}}" if name else _literal(found[0]))
    return "".join([*parts, _literal(template[at:])])


def _literal(text: str) -> str:
    """A text in a line, in which braces of its own begin nothing."""
    return re.sub(r"\{[{%#]|[}%#]\}", lambda found: f"{{{{ {_quoted(found[0])} }}}}", text)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'

"""The mask truth table: chat templates of model families times shapes of conversations, and hostile templates.

Each cell is either the texts that are trained on, derived by hand from the family's template, or the reason why the
row is refused. Nothing here comes from the code under test. The tokenizers are fetched by tests/install_tokenizers.py.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from studio.data.formats.rows import parse_row
from studio.data.masks.masked import Masked
from studio.data.masks.masker import Masker
from studio.data.masks.overlay import IGNORED
from studio.errors import InputError
from tests.data.templates import CHATML, with_template
from tests.install_tokenizers import FAMILIES, folder_of
from tests.support.everyday import everyday

Row = dict[str, Any]
SYSTEM = {"role": "system", "content": "Be brief."}
FRANCE = {"role": "user", "content": "Capital of France?"}
PARIS = {"role": "assistant", "content": "Paris."}
ITALY = {"role": "user", "content": "And of Italy?"}
ROME = {"role": "assistant", "content": "Rome."}
WEATHER = {"role": "user", "content": "Weather in Paris?"}
CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [
        {
            "id": "call12345",
            "type": "function",
            "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'},
        }
    ],
}
RESULT = {"role": "tool", "tool_call_id": "call12345", "name": "get_weather", "content": "18 degrees"}
SUNNY = {"role": "assistant", "content": "It is warm."}
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "The weather of a city.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]
SHAPES: dict[str, Row] = {
    "single": {"messages": [FRANCE, PARIS]},
    "system": {"messages": [SYSTEM, FRANCE, PARIS]},
    "multi": {"messages": [FRANCE, PARIS, ITALY, ROME]},
    "tool call": {"messages": [WEATHER, CALL, RESULT, SUNNY], "tools": TOOLS},
    "reasoning": {"messages": [FRANCE, {**PARIS, "reasoning_content": "An easy one."}]},
    "open end": {"messages": [FRANCE, PARIS, ITALY]},
    "greeting": {"messages": [PARIS, FRANCE, ROME]},
}
NO_TOOLS = "does not render the row's tools, so the model would never see them"
NO_REASONING = "does not render reasoning_content, so it would be lost"
ALTERNATE = "Conversation roles must alternate user/assistant/user/assistant"


def turns(end: str) -> dict[str, Any]:
    """The row of a template that writes answer and end mark, and knows neither tools nor reasoning."""
    return {
        "single": [f"Paris.{end}"],
        "system": [f"Paris.{end}"],
        "multi": [f"Paris.{end}", f"Rome.{end}"],
        "tool call": NO_TOOLS,
        "reasoning": NO_REASONING,
        "open end": [f"Paris.{end}"],
        "greeting": [f"Paris.{end}", f"Rome.{end}"],
    }


# family -> shape -> the trained texts, or a part of the reason for the refusal
TRUTH: dict[str, dict[str, list[str] | str]] = {
    # Its generation prompt is there whether asked for or not: context, behind the last answer.
    "llama3": turns("<|eot_id|>"),
    # It writes today's date.
    "llama3_2": {
        **turns("<|eot_id|>"),
        "tool call": [
            '{"name": "get_weather", "parameters": {"city": "Paris"}}<|eot_id|>',
            "It is warm.<|eot_id|>",
        ],
    },
    "qwen2_5": {
        **turns("<|im_end|>"),
        "tool call": [
            '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call><|im_end|>',
            "It is warm.<|im_end|>",
        ],
    },
    # It looks at the last message: only an answer at the end, after the last question, has a reasoning block.
    "qwen3": {
        "single": ["<think>\n\n</think>\n\nParis.<|im_end|>"],
        "system": ["<think>\n\n</think>\n\nParis.<|im_end|>"],
        "multi": ["Paris.<|im_end|>", "<think>\n\n</think>\n\nRome.<|im_end|>"],
        "tool call": [
            '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call><|im_end|>',
            "<think>\n\n</think>\n\nIt is warm.<|im_end|>",
        ],
        "reasoning": ["<think>\nAn easy one.\n</think>\n\nParis.<|im_end|>"],
        "open end": ["Paris.<|im_end|>"],
        "greeting": ["Paris.<|im_end|>", "<think>\n\n</think>\n\nRome.<|im_end|>"],
    },
    # The system text goes into the first question.
    "gemma3": {**turns("<end_of_turn>"), "tool call": ALTERNATE, "greeting": ALTERNATE},
    "deepseek_v3": turns("<｜end▁of▁sentence｜>"),
    # The system text is written only where a question is last, that is in use and never in training.
    "mistral_nemo": {
        **turns("</s>"),
        "system": "leaves out message 1 (system)",
        "tool call": [
            '[TOOL_CALLS][{"name": "get_weather", "arguments": {"city": "Paris"}, "id": "call12345"}]</s>',
            "It is warm.</s>",
        ],
        "greeting": "roles must alternate user/assistant",
    },
    # Its template for tools wants another shape of tools than OpenAI's.
    "command_r_plus": {
        **turns("<|END_OF_TURN_TOKEN|>"),
        "tool call": "chat template rejects the row: 'dict object' has no attribute 'name'",
        "greeting": ALTERNATE,
    },
    "smollm2": turns("<|im_end|>"),
}


@pytest.fixture(scope="module", params=everyday(TRUTH, "llama3", "qwen2_5", "smollm2"))
def family(request: pytest.FixtureRequest) -> Iterator[tuple[str, Masker]]:
    from transformers import AutoTokenizer

    if request.param == "smollm2":
        yield request.param, Masker(request.getfixturevalue("tokenizer"))
    else:
        folder = folder_of(request.param)
        yield request.param, Masker(AutoTokenizer.from_pretrained(folder, local_files_only=True))


def encoded(masker: Masker, row: Row) -> Masked:
    return masker.encode([parse_row(row, 1, "x.jsonl", "messages")])[0]


def trained(masker: Masker, masked: Masked) -> list[str]:
    """The texts of the runs of supervised tokens."""
    groups = itertools.groupby(masker.pieces(masked), key=lambda piece: piece.trained)
    return ["".join(piece.text for piece in run) for counted, run in groups if counted]


def test_every_cell(family: tuple[str, Masker]) -> None:
    name, masker = family
    for shape, row in SHAPES.items():
        wanted = TRUTH[name][shape]
        if isinstance(wanted, str):
            with pytest.raises(InputError) as caught:
                encoded(masker, row)
            assert wanted in caught.value.sentence, shape
            assert "x.jsonl, row 1" in caught.value.where
            continue
        masked = encoded(masker, row)
        assert trained(masker, masked) == wanted, shape
        assert "straddling" not in masked.notes, shape
        # The tokens are those of the template as chat writes it, arguments as an object where there is a call.
        turns = [one if one is not CALL else with_object(CALL) for one in row["messages"]]
        whole = masker.tokenizer.apply_chat_template(turns, tools=row.get("tools"), tokenize=True)
        assert masked.input_ids == whole["input_ids"], shape
        assert all(label in (IGNORED, token) for label, token in zip(masked.labels, masked.input_ids, strict=True))


def with_object(message: Row) -> Row:
    """The message with the arguments of its only call as an object."""
    (call,) = message["tool_calls"]
    function = {"name": "get_weather", "arguments": {"city": "Paris"}}
    return {**message, "content": "", "tool_calls": [{**call, "function": function}]}


def test_the_table_is_whole() -> None:
    assert set(TRUTH) == {*FAMILIES, "smollm2"}
    assert all(set(cells) == set(SHAPES) for cells in TRUTH.values())
    assert len(TRUTH) >= 8
    assert len(SHAPES) >= 6


def test_what_an_answer_looks_like_after_the_prompt(family: tuple[str, Masker]) -> None:
    """In use the model is given the prompt alone; what it then has to write is what it was trained on."""
    name, masker = family
    wanted = TRUTH[name]["single"]
    masked = encoded(masker, SHAPES["single"])
    prompt = masker.tokenizer.apply_chat_template([FRANCE], add_generation_prompt=True, tokenize=True)["input_ids"]
    at = next(i for i, label in enumerate(masked.labels) if label != IGNORED)
    assert masked.input_ids[:at] == prompt
    end = at + masked.supervised
    assert [masker.tokenizer.decode(masked.input_ids[at:end])] == wanted


# ---- hostile templates: (template, row, trained texts or reason, note)

HEADER = "<|im_start|>{{ m.role }}\n"
PROMPT = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
CALLED = {"messages": [WEATHER, {**CALL, "content": "Let me look."}, RESULT, SUNNY]}
HOSTILE: dict[str, tuple[str, Row, list[str] | str, str]] = {
    "strips": (
        "{% for m in messages %}" + HEADER + "{{ m.content | trim }}<|im_end|>\n{% endfor %}" + PROMPT,
        {"messages": [FRANCE, {**PARIS, "content": "  Paris. \n"}]},
        ["Paris.<|im_end|>"],
        "",
    ),
    "adds a date": (
        "{{ strftime_now('%d %B %Y') }}\n" + CHATML,
        SHAPES["multi"],
        ["Paris.<|im_end|>", "Rome.<|im_end|>"],
        "",
    ),
    "adds a time": (
        "{{ strftime_now('%H:%M:%S.%f') }}\n" + CHATML,
        SHAPES["single"],
        "depends on what the answer says",
        "",
    ),
    "looks at the last message": (
        "{% for m in messages %}"
        + HEADER
        + "{{ '!' if loop.last else '' }}{{ m.content }}<|im_end|>\n{% endfor %}"
        + PROMPT,
        SHAPES["single"],
        ["!Paris.<|im_end|>"],
        "other_context",
    ),
    "reverses": (
        "{% for m in messages | reverse %}" + HEADER + "{{ m.content }}<|im_end|>\n{% endfor %}" + PROMPT,
        SHAPES["single"],
        "does not render the answer in message 2 after the previous message",
        "",
    ),
    "puts answers first": (
        "{% for m in messages if m.role == 'assistant' %}" + HEADER + "{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% for m in messages if m.role != 'assistant' %}"
        + HEADER
        + "{{ m.content }}<|im_end|>\n{% endfor %}"
        + PROMPT,
        SHAPES["single"],
        "does not render the answer in message 2 after the previous message",
        "",
    ),
    "drops the system text": (
        "{% for m in messages if m.role != 'system' %}" + HEADER + "{{ m.content }}<|im_end|>\n{% endfor %}" + PROMPT,
        SHAPES["system"],
        "leaves out message 1 (system)",
        "",
    ),
    "keeps only the last question": (
        "{% for m in messages[-2:] %}" + HEADER + "{{ m.content }}<|im_end|>\n{% endfor %}" + PROMPT,
        SHAPES["multi"],
        "the template renders a message's content not at all",
        "",
    ),
    "forgets calls": (
        CHATML,
        {"messages": [WEATHER, CALL, RESULT, SUNNY]},
        "does not fully render the tool calls of message 2",
        "",
    ),
    "forgets the text beside calls": (
        "{% for m in messages %}" + HEADER + "{% if m.tool_calls %}{{ m.tool_calls | tojson }}{% else %}{{ m.content }}"
        "{% endif %}<|im_end|>\n{% endfor %}" + PROMPT,
        CALLED,
        "leaves out the text next to the tool calls of message 2",
        "",
    ),
    "escapes arguments twice": (
        "{% for m in messages %}" + HEADER + "{{ m.content }}{% for c in m.tool_calls %}{{ c.function.name }}"
        "{{ c.function.arguments | tojson | tojson }}{% endfor %}<|im_end|>\n{% endfor %}" + PROMPT,
        CALLED,
        "does not fully render the tool calls of message 2",
        "",
    ),
    "no end after a call": (
        "{% for m in messages %}"
        + HEADER
        + "{{ m.content }}{% for c in m.tool_calls %}{{ c.function | tojson }}{% endfor %}"
        "{% if not m.tool_calls %}<|im_end|>{% endif %}\n{% endfor %}" + PROMPT,
        CALLED,
        "no special token after the answer in message 2, a tool call",
        "",
    ),
    "calls as text only": (
        "{% for m in messages %}" + HEADER + "{{ m.content }}{% for c in m.tool_calls %}{{ '(' + c.function.name + ' ' "
        "+ c.function.arguments + ')' }}{% endfor %}<|im_end|>\n{% endfor %}" + PROMPT,
        CALLED,
        ['Let me look.(get_weather {"city": "Paris"})<|im_end|>', "It is warm.<|im_end|>"],
        "",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_templates_are_exact_or_refused(tokenizer: Any, name: str) -> None:
    template, row, wanted, note = HOSTILE[name]
    masker = Masker(with_template(tokenizer, template))
    if isinstance(wanted, str):
        with pytest.raises(InputError) as caught:
            encoded(masker, row)
        assert wanted in caught.value.sentence
        assert caught.value.fix
    else:
        masked = encoded(masker, row)
        assert trained(masker, masked) == wanted
        assert note in masked.notes if note else not masked.notes

"""Rows of a shape that was searched before: the same masks as a search of each gives, and fewer renderings."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.data.formats.answers import Example
from studio.data.masks import masker as masks
from studio.data.masks.masked import Masked
from studio.data.masks.masker import Masker
from tests.data.masks.test_masks import ANSWER, EXAMPLES, TEXT, WORDS
from tests.data.templates import CHATML, SHAPES, shaped, with_template
from tests.support.everyday import everyday

Messages = list[dict[str, str]]


def rows(conversations: list[Messages]) -> list[Example]:
    return [Example(i, "x.jsonl", "messages", messages=one) for i, one in enumerate(conversations, 1)]


def searched(
    masker: Masker, conversations: list[Messages], monkeypatch: pytest.MonkeyPatch
) -> tuple[list[Masked], int]:
    """The rows masked in one go, and how many of them were searched."""
    calls = []
    found = masks.locate_answers
    with monkeypatch.context() as patch:
        patch.setattr(masks, "locate_answers", lambda *args: calls.append(1) or found(*args))
        return masker.encode(rows(conversations)), len(calls)


@st.composite
def alike(draw: Any) -> list[Messages]:
    """Some conversations with the same roles."""
    roles = (["system"] if draw(st.booleans()) else []) + ["user", "assistant"] * draw(st.integers(1, 3))
    return [
        [{"role": role, "content": draw(ANSWER if role == "assistant" else TEXT | WORDS)} for role in roles]
        for _ in range(draw(st.integers(2, 4)))
    ]


@pytest.mark.parametrize("train_on", everyday(["assistant", "turns", "last", "all"], "assistant"))
@pytest.mark.parametrize("name", everyday(SHAPES, *list(SHAPES)[:3]))
def test_a_known_shape_gives_what_a_search_gives(tokenizer: Any, name: str, train_on: Any) -> None:
    changed, system = shaped(tokenizer, name), SHAPES[name].system

    @EXAMPLES
    @given(alike())
    def check(conversations: list[Messages]) -> None:
        if not system and conversations[0][0]["role"] == "system":
            conversations = [one[1:] for one in conversations]
        together = Masker(changed, train_on).encode(rows(conversations))
        alone = [Masker(changed, train_on).encode([row])[0] for row in rows(conversations)]
        assert together == alone

    check()


def turns(*said: str, system: str = "") -> Messages:
    first = [{"role": "system", "content": system}] if system else []
    roles = ["user", "assistant"] * (len(said) // 2)
    return [*first, *({"role": role, "content": text} for role, text in zip(roles, said, strict=True))]


def test_one_row_of_a_shape_is_searched(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    masker = Masker(with_template(tokenizer, CHATML))
    conversations = [turns(f"What is {i}?", f"It is {i}.") for i in range(20)]
    conversations += [turns("a", f"b{i}", "c", "d", system="Be brief.") for i in range(20)]
    masked, searches = searched(masker, conversations, monkeypatch)
    assert searches == 2 and len(masked) == 40
    again, searches = searched(masker, conversations, monkeypatch)
    assert searches == 0 and again == masked


# Templates whose other texts depend on what is said: (template, a plain row, a row that it treats otherwise)
TURN = "<|im_start|>{{ m.role }}\n{{ m.content }}"
PROMPT = "{% if add_generation_prompt %}<|im_start|>assistant\n"
MOODY = {
    "prompt depends on the question": (
        "{% for m in messages %}" + TURN + "<|im_end|>\n{% endfor %}"
        + PROMPT + "{% if 'why' in messages[-1].content %}<think>{% endif %}{% endif %}",
        turns("how", "so"), turns("why", "so"),
    ),
    "end depends on the answer": (
        "{% for m in messages %}" + TURN + "{{ '<|endoftext|>' if '!' in m.content else '<|im_end|>' }}\n"
        "{% endfor %}" + PROMPT + "{% endif %}",
        turns("how", "so"), turns("how", "so!"),
    ),
    "start depends on the system text": (
        "{{ 'Think.\n' if '/think' in messages[0].content }}{% for m in messages %}" + TURN
        + "<|im_end|>\n{% endfor %}" + PROMPT + "{% endif %}",
        turns("how", "so", system="Be brief."), turns("how", "so", system="/think"),
    ),
    "shouts some": (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content | upper if '!' in m.content else m.content }}"
        "<|im_end|>\n{% endfor %}" + PROMPT + "{% endif %}",
        turns("how", "so"), turns("how", "so!"),
    ),
    "cuts thoughts": (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content.split('</t>')[-1] }}<|im_end|>\n{% endfor %}"
        + PROMPT + "{% endif %}",
        turns("how", "so"), turns("how", "<t>hm</t>so"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", MOODY)
def test_a_row_that_the_template_treats_otherwise_is_searched(
    tokenizer: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    template, plain, other = MOODY[name]
    changed = with_template(tokenizer, template)

    def alone(conversation: Messages) -> Masked | str:
        try:
            return Masker(changed).encode(rows([conversation]))[0]
        except masks.InputError as error:
            return error.what

    masker = Masker(changed)
    assert searched(masker, [plain], monkeypatch)[0] == [alone(plain)]
    try:
        (masked,), searches = searched(masker, [other], monkeypatch)
    except masks.InputError as error:
        assert error.what == alone(other)
    else:
        assert masked == alone(other) and searches == 1

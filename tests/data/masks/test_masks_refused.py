"""What a mask cannot be made of for certain is refused, and what is odd is noted."""

from __future__ import annotations

from typing import Any

import pytest

from studio.data.formats.answers import Example
from studio.data.masks.masker import Masker
from studio.errors import InputError
from tests.data.templates import encode, trained_texts, with_template

ONE = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "answer"}]
TWO = [*ONE, {"role": "user", "content": "r"}, {"role": "assistant", "content": "more"}]
UNMASKABLE = {
    "twice": ("{% for m in messages %}{{ m.content }}|{{ m.content }};{% endfor %}", ONE, "content 2 times"),
    "upper": ("{% for m in messages %}{{ m.content | upper }};{% endfor %}", ONE, "content not at all"),
    "length after": (
        "{% for m in messages %}{{ m.content }}{{ m.content | length }};{% endfor %}",
        ONE,
        "depends on what the answer says",
    ),
    "length before": (
        "{% for m in messages %}{% if not loop.last or not add_generation_prompt %}{{ m.content | length }}:{% endif %}"
        "{{ m.content }};{% endfor %}",
        ONE,
        "depends on",
    ),
    "end differs": (
        "{% for m in messages %}{{ m.role }}:{{ m.content }}"
        "{{ '<|im_end|>' if loop.last and not add_generation_prompt else ';' }}{% endfor %}"
        "{% if add_generation_prompt %}assistant:{% endif %}",
        TWO,
        "which part of that ends the turn",
    ),
    "nothing left": (
        "{% for m in messages %}{{ m.content | replace('answer', '') }}<|im_end|>{% endfor %}",
        ONE,
        "nothing of the answer",
    ),
}


@pytest.mark.parametrize("name", UNMASKABLE)
def test_refuses_what_cannot_be_told_exactly(tokenizer: Any, name: str) -> None:
    template, messages, reason = UNMASKABLE[name]
    changed = with_template(tokenizer, template)
    with pytest.raises(InputError) as caught:
        encode(Masker(changed), messages)
    assert reason in caught.value.sentence
    assert "x.jsonl, row 1" in caught.value.sentence
    # The remedy that the sentence names works.
    assert "method.train_on" in caught.value.fix
    assert encode(Masker(changed, "all"), messages).supervised > 0


def test_end_that_differs_is_fine_for_the_last_answer(tokenizer: Any) -> None:
    template, messages, _ = UNMASKABLE["end differs"]
    masker = Masker(with_template(tokenizer, template), "last")
    assert trained_texts(masker, encode(masker, messages)) == ["more<|im_end|>"]


def test_no_generation_prompt_and_no_stop_are_noted(tokenizer: Any) -> None:
    silent = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    assert "header" in encode(Masker(with_template(tokenizer, silent)), ONE).notes
    endless = "{% for m in messages %}{{ m.role }}: {{ m.content }}{% endfor %}"
    assert "no_stop" in encode(Masker(with_template(tokenizer, endless)), ONE).notes


def test_template_that_refuses_a_row(maskers: dict[str, Masker]) -> None:
    with pytest.raises(InputError, match="System role not supported"):
        encode(maskers["gemma"], [{"role": "system", "content": "s"}, *ONE])


def test_no_template_names_the_remedies(tokenizer: Any) -> None:
    masker = Masker(with_template(tokenizer, None))
    with pytest.raises(InputError, match="no chat template") as caught:
        encode(masker, ONE)
    assert "model.path" in caught.value.fix
    plain = Example(1, "x", "prompt_completion", prompt="q ", completion="a")
    assert masker.encode([plain])[0].supervised == 2

"""Tokens that are pieces of the text: known without offsets what the offsets say, for all families; and the templates
that never look at contents."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.data.masks.oblivious import only_writes_contents
from studio.data.masks.overlay import lay_over
from studio.data.tokens.bytelevel import lay_over_pieces, pieces_of
from tests.data.masks.test_masks import EXAMPLES, TEXT, WORDS
from tests.data.templates import CHATML, CHATML_GENERATION, GEMMA, LLAMA3
from tests.install_tokenizers import FAMILIES, folder_of
from tests.support.everyday import everyday

PIECES = {
    "llama3", "llama3_2", "qwen2_5", "qwen3", "deepseek_v3", "mistral_nemo", "command_r_plus", "smollm2",
}  # fmt: skip


# Families with a normal form are known for ASCII only.
PLAIN = st.text(st.characters(max_codepoint=126, min_codepoint=32), max_size=30)


@pytest.fixture(scope="module", params=everyday([*FAMILIES, "smollm2"], "llama3_2", "qwen2_5", "smollm2"))
def named(request: pytest.FixtureRequest) -> tuple[str, Any]:
    if request.param == "smollm2":
        return request.param, request.getfixturevalue("tokenizer")
    from transformers import AutoTokenizer

    return request.param, AutoTokenizer.from_pretrained(folder_of(request.param), local_files_only=True)


def test_borders_say_what_all_offsets_say(named: tuple[str, Any]) -> None:
    name, tokenizer = named
    pieces = pieces_of(tokenizer)
    assert (pieces is not None) == (name in PIECES)
    if pieces is None:
        return
    compared = 0

    @EXAMPLES
    @given(st.lists(TEXT | WORDS | PLAIN, min_size=1, max_size=4) | st.lists(PLAIN, min_size=1), st.data())
    def check(texts: list[str], data: Any) -> None:
        nonlocal compared
        text = " ".join(texts)
        if not text or not pieces.fit(text):
            return
        cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=6)))
        spans = list(zip(cuts[::2], cuts[1::2], strict=False))
        (encoded,) = tokenizer.backend_tokenizer.encode_batch([text], add_special_tokens=False)
        slow = lay_over(text, encoded.offsets, spans)
        assert not slow.lost
        fast = lay_over_pieces(encoded, spans)
        if fast is not None:
            assert fast == (slow.trained, slow.straddling)
            compared += 1

    check()
    assert compared > 20


def test_a_byte_without_a_token_is_seen(tokenizer: Any) -> None:
    """SmolLM2's tokenizer leaves some control characters out without a word."""
    pieces = pieces_of(tokenizer)
    assert pieces is not None and pieces.fit("plain, naïve and 你好") and not pieces.fit("a\x04b")


HEAD = "{% for m in messages %}<|im_start|>{{ m.role }}\n"
TAIL = "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"


@pytest.mark.parametrize(
    "template",
    [
        CHATML,
        LLAMA3,
        GEMMA,
        HEAD + "{{ m['content'] | trim }}" + TAIL,
        HEAD + "{% if m.role == 'user' %}Q: {{ m.content }}{% else %}{{ 'A: ' + m.content + '!' }}{% endif %}" + TAIL,
        "{% if messages[0]['role'] != 'system' %}Be brief.\n{% endif %}" + HEAD + "{{ m.content }}" + TAIL,
        "{% for m in messages[1:] %}" + HEAD.partition("%}")[2] + "{{ m.content }}" + TAIL,
        HEAD + "{% if m.content is string %}{{ m.content }}{% endif %}{{ messages | length }}" + TAIL,
    ],
)
def test_these_only_write_contents(template: str) -> None:
    assert only_writes_contents(template)


@pytest.mark.parametrize(
    "template",
    [
        CHATML_GENERATION,  # a tag that plain Jinja does not know
        "{% for",
        HEAD + "{% if 'why' in m.content %}?{% endif %}{{ m.content }}" + TAIL,
        HEAD + "{% if m.content | length > 9 %}!{% endif %}{{ m.content }}" + TAIL,
        HEAD + "{{ m.content | upper }}" + TAIL,
        HEAD + "{{ m.content.split('</t>')[-1] }}" + TAIL,
        HEAD + "{{ m.content if m.content else 'nothing' }}" + TAIL,
        HEAD + "{% set c = m.content %}{% if c == 'x' %}!{% endif %}{{ c }}" + TAIL,
        HEAD + "{% set c %}{{ m.content }}{% endset %}{% if c == 'x' %}!{% endif %}{{ c }}" + TAIL,
        "{% macro say(m) %}{{ m.content }}{% endmacro %}" + HEAD + "{{ say(m) }}" + TAIL,
        "{% set all = messages %}" + HEAD + "{{ all[0].content | length }}" + TAIL,
        HEAD + "{{ m.content }}{% if loop.previtem and loop.previtem.content == 'x' %}!{% endif %}" + TAIL,
        HEAD + "{{ m.content }}{{ loop['nextitem'].content | length }}" + TAIL,
        "{{ messages | tojson }}" + HEAD + "{{ m.content }}" + TAIL,
        "{% if messages[-1]['content'] == 'x' %}!{% endif %}" + HEAD + "{{ m.content }}" + TAIL,
        HEAD + "{% for key in m %}{{ m[key] | length }}{% endfor %}{{ m.content }}" + TAIL,
        HEAD + "{% filter upper %}{{ m.content }}{% endfilter %}" + TAIL,
        "{{ strftime_now('%d %B %Y') }}" + CHATML,
        "{{ [1, 2] | random }}" + CHATML,
        "{% for m in messages if m.content != 'x' %}{{ m.content }}{% endfor %}",
        "{% set ns = namespace(seen='') %}" + HEAD + "{% set ns.seen = m.content %}{{ m.content }}" + TAIL,
        "{% for m in messages | sort(attribute='content') %}{{ m.content }}{% endfor %}",
        "{% for a, b in messages | items %}{{ a }}{% endfor %}",
        "{% for m in messages %}{% for m in m.content %}{{ m }}{% endfor %}{% endfor %}",
    ],
)
def test_these_may_look(template: str) -> None:
    assert not only_writes_contents(template)


def test_no_look_means_one_text_around_contents(tokenizer: Any) -> None:
    """The claim itself, on the shipped templates that pass."""
    from studio.settings import ASSETS

    passing = [one for one in (ASSETS / "templates").iterdir() if only_writes_contents(one.read_text())]
    assert {one.name for one in passing} >= {"llama3.jinja", "phi.jinja", "plain.jinja"}
    for template in passing:
        text_around_contents(tokenizer, template.read_text())


def text_around_contents(tokenizer: Any, template: str) -> None:
    def rendered(question: str, answer: str) -> str:
        said = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        return str(tokenizer.apply_chat_template(said, chat_template=template, tokenize=False))

    first, _, rest = rendered("FIRSTWORD", "SECONDWORD").partition("FIRSTWORD")
    second, _, third = rest.partition("SECONDWORD")

    @EXAMPLES
    @given(TEXT | WORDS, TEXT | WORDS)
    def check(question: str, answer: str) -> None:
        variants = [(question, answer), (question.strip(), answer.strip())]
        assert rendered(question, answer) in ["".join((first, a, second, b, third)) for a, b in variants]

    check()

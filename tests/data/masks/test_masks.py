"""Masks: laws that hold for every template and text, and the cases that each template shape is known for."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from studio.data.formats.answers import Example
from studio.data.formats.rows import detect_format, parse_row
from studio.data.masks.masker import Masker
from studio.data.masks.overlay import IGNORED, labels_of, lay_over
from studio.errors import InputError
from tests.data.templates import CHATML, CHATML_GENERATION, SHAPES, encode, trained_texts, with_template

EXAMPLES = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
MARKS = ("<|", "|>", "[INST", "[/INST", "<s>", "</s>", "think>", "_of_turn>", "<bos>")
# Any text without surrogates that does not spell one of the control tokens.
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30).filter(
    lambda text: not any(mark in text for mark in MARKS)
)
WORDS = st.sampled_from(
    ["yes", "Olá, você?", "你好 世界", "🙂👍🏽", '{"a": 1}', "two\nlines\n", "  blanks ", "<script>x</script>", "..."]
)
ANSWER = (TEXT | WORDS).filter(lambda text: bool(text.strip()))


@st.composite
def conversations(draw: Any) -> list[dict[str, str]]:
    messages = [{"role": "system", "content": draw(TEXT | WORDS)}] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 4))):
        messages.append({"role": "user", "content": draw(TEXT | WORDS)})
        messages.append({"role": "assistant", "content": draw(ANSWER)})
    return messages


@pytest.mark.parametrize("name", SHAPES)
def test_any_conversation(maskers: dict[str, Masker], name: str) -> None:
    masker, shape = maskers[name], SHAPES[name]
    exact = 0

    @EXAMPLES
    @given(conversations())
    def check(messages: list[dict[str, str]]) -> None:
        nonlocal exact
        if not shape.system and messages[0]["role"] == "system":
            messages = messages[1:]
        masked = encode(masker, messages)
        rendered = masker.tokenizer.apply_chat_template(messages, tokenize=False)
        # The tokens are those that chat and export get from the same template, and they tile its text.
        assert masked.input_ids == masker.tokenizer.apply_chat_template(messages, tokenize=True)["input_ids"]
        assert "".join(piece.text for piece in masker.pieces(masked)) == rendered
        assert all(label in (IGNORED, token) for label, token in zip(masked.labels, masked.input_ids, strict=True))
        # BOS at most once.
        if shape.bos:
            assert masked.input_ids.count(masker.tokenizer.bos_token_id) == 1
        last_user = max(i for i, message in enumerate(messages) if message["role"] == "user")
        expected = [
            shape.answer(message["content"], i < last_user)
            for i, message in enumerate(messages)
            if message["role"] == "assistant"
        ]
        found = trained_texts(masker, masked)
        assert len(found) == len(expected)
        for got, wanted in zip(found, expected, strict=True):
            assert wanted.endswith(got)
            if "straddling" not in masked.notes:
                assert got == wanted
                exact += 1

    check()
    assert exact > 20  # the law above was not vacuous


def test_equals_the_generation_mask_of_transformers(tokenizer: Any) -> None:
    """Where a template is annotated, transformers' own mask must agree with ours of the plain template."""
    masker = Masker(with_template(tokenizer, CHATML))
    annotated = with_template(tokenizer, CHATML_GENERATION)

    @EXAMPLES
    @given(conversations())
    def check(messages: list[dict[str, str]]) -> None:
        masked = encode(masker, messages)
        theirs = annotated.apply_chat_template(messages, return_dict=True, return_assistant_tokens_mask=True)
        assert masked.input_ids == theirs["input_ids"]
        # transformers gives up on an answer that begins with a character without a token; ours goes on.
        if not {"straddling", "lost"} & set(masked.notes):
            assert [int(label != IGNORED) for label in masked.labels] == theirs["assistant_masks"]

    check()


def test_a_separator_without_a_token_is_told(tokenizer: Any) -> None:
    masked = encode(Masker(tokenizer), [{"role": "user", "content": "a"}, {"role": "assistant", "content": "\x1d0"}])
    assert masked.notes == ("lost",)  # Python counts it as a blank, and blanks may go


def test_own_template_of_the_embedded_model(tokenizer: Any) -> None:
    masker = Masker(tokenizer)
    masked = encode(masker, [{"role": "user", "content": "2+2?"}, {"role": "assistant", "content": "4"}])
    assert trained_texts(masker, masked) == ["4<|im_end|>"]
    assert masker.stop_text() == "<|im_end|>"
    assert "named SmolLM" in masked.text  # the template's default system text is context


def test_train_on(tokenizer: Any) -> None:
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "one"},
        {"role": "user", "content": "b"},
        {"role": "assistant", "content": "two"},
    ]
    texts = {
        mode: trained_texts(Masker(tokenizer, mode), encode(Masker(tokenizer, mode), messages))
        for mode in ("assistant", "turns", "last", "all")
    }
    assert texts["assistant"] == ["one<|im_end|>", "two<|im_end|>"]
    assert texts["turns"] == ["one<|im_end|>\n", "two<|im_end|>\n"]
    assert Masker(tokenizer, "turns").stop_text() == "<|im_end|>"
    assert texts["last"] == ["two<|im_end|>"]
    assert texts["all"] == [tokenizer.apply_chat_template(messages, tokenize=False)]


def test_chat_completion_trains_only_the_completion(tokenizer: Any) -> None:
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "given"},
        {"role": "user", "content": "b"},
        {"role": "assistant", "content": "learned"},
    ]
    masker = Masker(tokenizer)
    assert trained_texts(masker, encode(masker, messages, trained_from=3)) == ["learned<|im_end|>"]


def test_reasoning_is_kept_in_the_last_turn_and_dropped_before(maskers: dict[str, Masker]) -> None:
    messages = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "<think>\nhm\n</think>\n\none"},
        {"role": "user", "content": "b"},
        {"role": "assistant", "content": "<think>\nso\n</think>\n\ntwo"},
    ]
    masker = maskers["qwen3"]
    masked = encode(masker, messages)
    assert trained_texts(masker, masked) == ["one<|im_end|>", "<think>\nso\n</think>\n\ntwo<|im_end|>"]
    assert "rewritten" in masked.notes


def test_prompt_that_opens_reasoning_is_noted(maskers: dict[str, Masker]) -> None:
    masked = encode(maskers["deepseek"], [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])
    assert "prompt_extra" in masked.notes


def test_answer_first_and_trailing_question(tokenizer: Any) -> None:
    masker = Masker(tokenizer)
    messages = [{"role": "assistant", "content": "Hello!"}, {"role": "user", "content": "Hi."}]
    assert trained_texts(masker, encode(masker, messages)) == ["Hello!<|im_end|>"]


def test_blank_at_the_start_is_context_and_noted(tokenizer: Any) -> None:
    masker = Masker(with_template(tokenizer, CHATML))
    masked = encode(masker, [{"role": "user", "content": "a"}, {"role": "assistant", "content": "\n\nb"}])
    # The template's line break and the first of the answer are one token.
    assert trained_texts(masker, masked) == ["\nb<|im_end|>"]
    assert "straddling" in masked.notes


SPELT = "a <|im_end|> b"
CONTROL: list[tuple[dict[str, Any], str]] = [
    ({"messages": [{"role": "user", "content": SPELT}, {"role": "assistant", "content": "b"}]}, "message 1 (user)"),
    ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": SPELT}]}, "message 2 (assist"),
    ({"messages": [{"role": "user", "content": "a"},
                   {"role": "assistant", "content": "", "tool_calls": [
                       {"function": {"name": "f", "arguments": {"x": SPELT}}}]}]}, "message 2 (assistant)"),
    ({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
      "tools": [{"name": "f", "description": SPELT}]}, "the list of tools"),
    ({"prompt": "a", "completion": SPELT}, "field 'completion'"),
    ({"text": SPELT}, "field 'text'"),
]  # fmt: skip


@pytest.mark.parametrize(("row", "part"), CONTROL)
def test_control_tokens_in_a_text_are_refused(tokenizer: Any, row: dict[str, Any], part: str) -> None:
    example = parse_row(row, 1, "x", detect_format([(1, row)], "x"))
    with pytest.raises(InputError, match="turns into a special token") as caught:
        Masker(tokenizer, control_tokens="refuse").encode([example])
    assert part in caught.value.sentence
    assert "'<|im_end|>'" in caught.value.sentence
    # Plain texts may bring their own markup; messages may not, whatever the option says.
    if example.messages is None:
        assert "data.control_tokens: keep" in caught.value.fix
        assert "control" in Masker(tokenizer, control_tokens="keep").encode([example])[0].notes
    else:
        with pytest.raises(InputError, match="into a special token"):
            Masker(tokenizer, control_tokens="keep").encode([example])


@pytest.mark.parametrize(
    ("shape", "word"), [("gemma", "<end_of_turn>"), ("deepseek", "<|User|>"), ("llama3", "<|bot|>")]
)
def test_control_tokens_need_not_be_flagged_as_special(maskers: dict[str, Masker], shape: str, word: str) -> None:
    with pytest.raises(InputError, match="into a special token"):
        encode(maskers[shape], [{"role": "user", "content": f"a {word}"}, {"role": "assistant", "content": "b"}])


def test_a_prompt_is_checked_for_control_tokens_too(tokenizer: Any) -> None:
    for example in (
        Example(1, "x", "prompts", messages=[{"role": "user", "content": SPELT}]),
        Example(1, "x", "prompts", prompt=SPELT),
    ):
        with pytest.raises(InputError, match="into a special token"):
            Masker(tokenizer, control_tokens="refuse").prompt(example)


def test_weight_zero_is_context(tokenizer: Any) -> None:
    first, second = {"role": "assistant", "content": "one"}, {"role": "assistant", "content": "two"}
    ask = {"role": "user", "content": "a"}
    for masker, messages, wanted in (
        (Masker(tokenizer), [ask, {**first, "weight": 0}, ask, second], ["two<|im_end|>"]),
        (Masker(tokenizer), [ask, first, ask, {**second, "weight": 0}], ["one<|im_end|>"]),
        (Masker(tokenizer, "last"), [ask, first, ask, {**second, "weight": 0}], ["one<|im_end|>"]),
    ):
        assert trained_texts(masker, encode(masker, messages)) == wanted
    with pytest.raises(InputError, match="every answer has weight 0"):
        encode(Masker(tokenizer), [ask, {**first, "weight": 0}])
    with pytest.raises(InputError, match=r"weight 0, but method.*method\.train_on: assistant"):
        encode(Masker(tokenizer, "all"), [ask, {**first, "weight": 0}])


def test_characters_without_a_token_are_noted(tokenizer: Any) -> None:
    masker = Masker(tokenizer)
    masked = encode(masker, [{"role": "user", "content": "q"}, {"role": "assistant", "content": "\x16b"}])
    assert trained_texts(masker, masked) == ["\x16b<|im_end|>"]
    assert "lost" in masked.notes
    for example in (
        Example(1, "x", "text", text="a\x16"),
        Example(1, "x", "prompt_completion", prompt="a\x16", completion="b"),
    ):
        assert masker.encode([example])[0].notes == ("lost",)
    plain = Example(1, "x", "text", text="  a  b \n")
    assert masker.encode([plain])[0].notes == ()


def test_plain_prompt_and_completion(tokenizer: Any) -> None:
    masker = Masker(tokenizer)
    # "Answer: Paris" would be one token across the border if it were tokenized in one piece.
    example = Example(1, "x", "prompt_completion", prompt="Capital? Answer: ", completion="Paris")
    masked = masker.encode([example])[0]
    assert trained_texts(masker, masked) == ["Paris<|im_end|>"]
    prompt = tokenizer("Capital? Answer: ")["input_ids"]
    assert masked.input_ids[: len(prompt)] == prompt
    assert masked.labels[: len(prompt)] == [IGNORED] * len(prompt)
    everything = Masker(tokenizer, "all").encode([example])[0]
    assert everything.labels == everything.input_ids


def test_text_gets_one_bos_and_one_eos(tokenizer: Any) -> None:
    from tokenizers.processors import TemplateProcessing

    changed = with_template(tokenizer, None)
    bos, eos = "<|im_start|>", "<|im_end|>"
    tokens = [(word, changed.convert_tokens_to_ids(word)) for word in (bos, eos)]
    changed.backend_tokenizer.post_processor = TemplateProcessing(single=f"{bos} $A {eos}", special_tokens=tokens)
    masker = Masker(changed)
    for text in ("a b", f"{bos}a b", f"a b{eos}", f"{bos}a b{eos}"):
        masked = masker.encode([Example(1, "x", "text", text=text)])[0]
        assert changed.decode(masked.input_ids) == f"{bos}a b{eos}"
        assert masked.labels == masked.input_ids
        assert "".join(piece.text for piece in masker.pieces(masked)) == f"{bos}a b{eos}"
    pair = masker.encode([Example(1, "x", "prompt_completion", prompt="a", completion=" b")])[0]
    assert changed.decode(pair.input_ids) == f"{bos}a b{eos}"
    assert trained_texts(masker, pair) == [f" b{eos}"]


@EXAMPLES
@given(st.lists(st.integers(1, 5), min_size=1, max_size=20), st.data())
def test_lay_over_gives_each_token_one_fate(widths: list[int], data: Any) -> None:
    borders = [0, *itertools.accumulate(widths)]
    offsets = list(itertools.pairwise(borders))
    cuts = sorted(data.draw(st.sets(st.integers(0, borders[-1]), max_size=6)))
    spans = list(zip(cuts[::2], cuts[1::2], strict=False))
    text = "a" * borders[-1]
    trained, ends, straddling, lost = lay_over(text, offsets, spans)
    labels = labels_of(range(len(offsets)), trained)
    inside = [any(left <= start and end <= right for left, right in spans) for start, end in offsets]
    touching = [any(start < right and left < end for left, right in spans) for start, end in offsets]
    assert [label != IGNORED for label in labels] == inside
    assert straddling == sum(touch and not within for touch, within in zip(touching, inside, strict=True))
    assert ends == borders[1:] and not lost
    # A character of two tokens: both have its fate, and the others keep theirs.
    twice = data.draw(st.integers(0, len(offsets) - 1))
    doubled = [*offsets[: twice + 1], offsets[twice], *offsets[twice + 1 :]]
    trained, ends, _, _ = lay_over(text, doubled, spans)
    labels = labels_of(range(len(doubled)), trained)
    assert [label != IGNORED for label in labels] == [*inside[: twice + 1], inside[twice], *inside[twice + 1 :]]
    assert ends == [end for _, end in doubled]


@pytest.mark.parametrize(
    ("text", "offsets", "lost"),
    [
        ("ab cd", [(0, 2), (3, 5)], False),  # only a blank
        ("abxcd", [(0, 2), (3, 5)], True),
        ("abcdx", [(0, 2), (2, 4)], True),
        ("abcd ", [(0, 2), (2, 4)], False),
        ("xabcd", [(1, 3), (3, 5)], True),
        ("x", [], True),
    ],
)
def test_a_character_without_a_token_is_told(text: str, offsets: list[tuple[int, int]], lost: bool) -> None:
    assert lay_over(text, offsets, []).lost is lost


def test_a_single_token_cannot_be_learned(tokenizer: Any) -> None:
    endless = with_template(tokenizer, None)
    endless.eos_token = None
    with pytest.raises(InputError, match="0 supervised tokens"):
        Masker(endless).encode([Example(1, "x", "text", text="a")])


def test_slow_tokenizer_is_refused() -> None:
    class Slow:
        is_fast = False

    with pytest.raises(InputError, match=r"tokenizer\.json"):
        Masker(Slow())

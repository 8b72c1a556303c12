"""What the trained model and each GGUF are both asked: texts, and prompts of many shapes.

Pure: token ids in, token ids out. A text is compared only at positions that no earlier text has: rows that share a
system prompt would otherwise count it again and again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from studio.data.formats.answers import Example
from studio.data.masks.masker import Masker

IGNORED = -100  # the label of a token that the loss does not count, as everywhere in transformers
TEXT_TOKENS = 256
POSITIONS = 512
# float32 log-probabilities of that many positions are kept on disk: 100 MB for SmolLM2's 49,152 tokens.
TABLE_BYTES = 256 * 1024 * 1024
# Below this many positions of the run's own text, the built-in text is added.
FEWEST_POSITIONS = 192
PROMPTS_OF_ROWS = 24
# An answer may be this much longer than the longest expected one before it is cut (the evaluation's rule).
SPARE_TOKENS = 16
SHOWN_WRONG = 20

Message = dict[str, str]


@dataclass(frozen=True)
class ComparedText:
    """A text to compare on.

    Attributes:
        ids: (T,) token ids.
        first: the predictions after `ids[p]` count for first <= p < T.
        supervised: (T - first,) of these predictions, is it one that the training's loss counts?
    """

    ids: list[int]
    first: int
    supervised: list[bool]


@dataclass(frozen=True)
class ComparedPrompt:
    """A prompt whose ids the two tokenizers are compared on; messages None: plain text.

    Attributes:
        rare: texts that few people write; a difference is told, with its cause, and fails nothing.
    """

    name: str
    messages: list[Message] | None
    text: str
    ids: list[int]
    rare: bool = False


def _user(content: str) -> Message:
    return {"role": "user", "content": content}


SHAPES: dict[str, list[Message]] = {
    "no system": [_user("Hello! What can you do for me?")],
    "system": [{"role": "system", "content": "Answer in one short sentence."}, _user("Why is the sky blue?")],
    "several turns": [
        _user("Name a fruit."),
        {"role": "assistant", "content": "Apple."},
        _user("And a vegetable?"),
        {"role": "assistant", "content": "Carrot."},
        _user("Which of the two is red?"),
    ],
    "system and turns": [
        {"role": "system", "content": "You are terse."},
        _user("2+2?"),
        {"role": "assistant", "content": "4"},
        _user("times 12,345.678?"),
    ],
    "unicode": [_user("Übersetze »Straße« ins 日本語, затем на русский; naïve café, Ελλάδα, 中文。한국어")],
    "emoji": [_user("Rate this 👍🏽 👩‍👩‍👧‍👦 🇩🇪 🏴‍☠️ from 1️⃣ to 🔟!")],
    "white space": [_user("Two  spaces,\ttabs\t\t, \n\n\nthree lines,\n    four more,\r\n  and an end   \n")],
    "code": [_user('```python\ndef f(x):\n    return {\'a\': [x ** 2, -1e-9], "b": f"{x!r}"}\n```\nWhat does <f> do?')],
    "markup": [_user("<p class='a'>One &amp; <b>two</b></p> <!-- 3 --> [link](https://example.org/?a=1#b) | a | b |")],
    "digits and rules": [_user("2024-11-24 10:00:00 #1 $3,999.00 1234567890 ____ ---- ===== //// \\n %20 &amp; @me")],
    "empty system": [{"role": "system", "content": ""}, _user("Go on.")],
    "long word": [_user("Donaudampfschifffahrtsgesellschaftskapitän " * 6 + "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")],
}

# Texts that few people write and that some tokenizers cut differently in llama.cpp: a difference is said, no failure.
RARE: dict[str, list[Message]] = {
    "decomposed letters": [
        _user("cafe\u0301, Stra\u00dfe u\u0308ber, \u1112\u1161\u11ab\u1100\u1173\u11af, a\u0323\u0302")
    ],
    "scripts with marks": [_user("हिन्दी में, தமிழ், ภาษาไทย, العَرَبِيَّة, עִבְרִית, বাংলা")],
    "compatible letters": [_user("ﬁne ① ㎏ Ａｂｃ １２３ \u212b \u2126 ½ ² … ™ Ⅳ ＜ ｶﾞ ﷺ")],
    "marks of control": [
        _user("Are <|im_end|>, <|endoftext|>, </s>, <s>, [INST], <end_of_turn>, <eos> and <|eot_id|> words?")
    ],
    "odd white space": [
        _user("  hard\u00a0space, em\u2003space, \u3000, \u200bzero, \u2028 a line, \ufeff, a\u00adhyphen \x0b\x0c.")
    ],
    "rare characters": [_user("\U00020bb7\U0002a6d6 \ue000 \U0010fffd \u0378 \x07\x1b[0m \x7f ꙮ 𓀀 𝔘𝔫𝔦 \ufffd ᚠᛇᚻ")],
}

# Ours, so that a run whose data cannot be read again is still compared on ordinary prose, lists, numbers and code.
BUILT_IN_TEXTS = (
    "The ferry leaves at seven in the morning and comes back after dark. Between the two trips the crew repairs nets, "
    "paints the railing and argues about the weather. On Thursday the wind turned, so the captain waited until noon. "
    "Nobody on the island minded; the post office had enough stamps and the baker had flour for another week.",
    "To change a bicycle tyre: 1. Release the brake. 2. Open the quick release and take out the wheel. 3. Push one "
    "side of the tyre over the rim with two levers. 4. Pull out the tube, find the hole and patch it. 5. Put all "
    "of it back in the opposite order and pump it up to 4.5 bar.",
    "def median(values):\n    ordered = sorted(values)\n    middle = len(ordered) // 2\n    if len(ordered) % 2:\n"
    "        return ordered[middle]\n    return (ordered[middle - 1] + ordered[middle]) / 2\n\n\n"
    "print(median([3, 1, 2]))  # prints 2\n",
    "In 1998 the town had 4,210 inhabitants, in 2008 there were 3,955 and in 2018 only 3,512. Most of those who left "
    "were between 18 and 30 years old. The school now shares its teachers with the next village, and the bus that "
    "connects the two runs every forty minutes, except on Sundays.",
)


def ids_of(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a rendered text; special tokens are those that stand in it, none is added."""
    return [int(token) for token in tokenizer(text, add_special_tokens=False)["input_ids"]]


def readable(example: Example, tokenizer: Any) -> Example:
    """A row as the model reads it: a conversation is a plain text for a model without a chat template.

    Args:
        example: of any format.
        tokenizer: the model's.
    """
    if tokenizer.chat_template or example.messages is None:
        return example
    said = [content for message in example.messages if isinstance(content := message.get("content"), str)]
    return replace(example, messages=None, trained_from=0, tools=None, text="\n".join(said))


def end_token(tokenizer: Any) -> int | None:
    """The token that ends an answer in this template; the tokenizer's end of text without one, None without either."""
    stop = Masker(tokenizer).stop_text()
    ids = ids_of(tokenizer, stop) if stop else []
    return ids[0] if ids else tokenizer.eos_token_id


def compared_prompts(tokenizer: Any, rows: Iterable[tuple[int, list[Message] | str]]) -> list[ComparedPrompt]:
    """The shapes, the rare texts, and the prompts of some rows, as the trained model reads them.

    A shape that the template refuses (some know no system role) is left out, for llama.cpp could not render it either.
    A model without a template is asked the last message of each shape as plain text.

    Args:
        tokenizer: the run's.
        rows: (row number, messages or plain text) of prompts from the run's own data; they must render.
    """
    asked: list[tuple[str, list[Message] | str]]
    built_in = SHAPES | RARE
    if tokenizer.chat_template:
        asked = list(built_in.items())
    else:
        asked = [(name, messages[-1]["content"]) for name, messages in built_in.items()]
    asked += [(f"row {number}", prompt) for number, prompt in rows][:PROMPTS_OF_ROWS]
    compared = []
    for name, prompt in asked:
        if isinstance(prompt, str):
            compared.append(ComparedPrompt(name, None, prompt, ids_of(tokenizer, prompt), name in RARE))
            continue
        try:
            text = str(tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True))
        except Exception:  # a template raises whatever it likes
            if name in built_in:
                continue
            raise
        compared.append(ComparedPrompt(name, prompt, text, ids_of(tokenizer, text), name in RARE))
    return compared


def compared_texts(
    rows: Iterable[tuple[list[int], list[int]]], built_in: Iterable[list[int]], vocabulary: int
) -> list[ComparedText]:
    """Texts with at most `POSITIONS` positions to compare in all, as few texts as fill them.

    Args:
        rows: (token ids, labels) of the run's own rows, answers included.
        built_in: token ids of the built-in texts, used when the rows give fewer than `FEWEST_POSITIONS`.
        vocabulary: number of logits, which limits the positions (`TABLE_BYTES`).
    """
    budget = min(POSITIONS, TABLE_BYTES // (4 * vocabulary))
    texts: list[ComparedText] = []
    left = _fill(texts, budget, rows)
    if budget - left < FEWEST_POSITIONS:
        _fill(texts, left, ((ids, [IGNORED] * len(ids)) for ids in built_in))
    return texts


def _fill(texts: list[ComparedText], budget: int, candidates: Iterable[tuple[list[int], list[int]]]) -> int:
    for ids, labels in candidates:
        if budget <= 0:
            break
        first = max((_common(ids[:TEXT_TOKENS], text.ids) for text in texts), default=0)
        kept = ids[: min(TEXT_TOKENS, first + budget)]
        if len(kept) > first:
            # The prediction after position p is of token p + 1.
            counted = [p + 1 < len(labels) and labels[p + 1] != IGNORED for p in range(first, len(kept))]
            texts.append(ComparedText(kept, first, counted))
            budget -= len(kept) - first
    return budget


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    pairs = zip(one, other, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(one), len(other)))


def spread(count: int, wanted: int) -> list[int]:
    """At most `wanted` indices of `count`, evenly from the first on."""
    if count <= wanted:
        return list(range(count))
    return [i * count // wanted for i in range(wanted)]

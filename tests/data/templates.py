"""Chat templates of the shapes that models have, written for these tests, and what an answer looks like in each.

`Shape.answer(content, later_user)` is the text the model has to write for an answer, the end of its turn included;
`later_user` says whether a user message follows.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tokenizers import AddedToken

from studio.data.formats.answers import Example
from studio.data.masks.masked import Masked
from studio.data.masks.masker import Masker


@dataclass(frozen=True)
class Shape:
    template: str
    answer: Callable[[str, bool], str]
    special: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    bos: str | None = None
    eos: str | None = None
    system: bool = True


CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CHATML_GENERATION = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}<|im_end|>{% endgeneration %}"
    "{% else %}{{ m.content }}<|im_end|>{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA3 = (
    "{{ bos_token }}{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n"
    "{{ m.content | trim }}<|eot_id|>{% endfor %}"
    "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
# The system text goes into the last question, so no rendering of a part is a prefix of the whole.
MISTRAL = (
    "{% set ns = namespace(system='', last=-1) %}{% if messages and messages[0].role == 'system' %}"
    "{% set ns.system = messages[0].content + '\n\n' %}{% endif %}"
    "{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] "
    "{% if loop.index0 == ns.last %}{{ ns.system }}{% endif %}{{ m.content }}[/INST]"
    "{% elif m.role == 'assistant' %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content | trim }}<end_of_turn>\n"
    "{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)
# A whole text ends with a second mark that a turn in the middle does not have.
PHI3 = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"
)
# Reasoning of earlier turns is dropped; the answers after the last question always get a reasoning block.
QWEN3 = (
    "{% set ns = namespace(last=-1) %}"
    "{% for m in messages %}{% if m.role == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
    "{% for m in messages %}{% if m.role == 'assistant' %}{% set said = m.content %}{% set thought = '' %}"
    "{% if '</think>' in said %}{% set thought = said.split('</think>')[0].split('<think>')[-1].strip('\n') %}"
    "{% set said = said.split('</think>')[-1].lstrip('\n') %}{% endif %}<|im_start|>assistant\n"
    "{% if loop.index0 > ns.last %}{{ '<think>\n' + thought + '\n</think>\n\n' }}{% endif %}{{ said }}<|im_end|>\n"
    "{% else %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Reasoning is dropped everywhere, and the generation prompt opens it: text that training never has.
DEEPSEEK = (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'system' %}{{ m.content }}"
    "{% elif m.role == 'user' %}<|User|>{{ m.content }}"
    "{% else %}<|Assistant|>{{ m.content.split('</think>')[-1] }}<|eos|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|Assistant|><think>\n{% endif %}"
)
# Words instead of special tokens; a default system text; EOS after each answer.
VICUNA = (
    "{% if not messages or messages[0].role != 'system' %}A chat.{{ '\n' }}{% endif %}"
    "{% for m in messages %}{% if m.role == 'system' %}{{ m.content + '\n' }}"
    "{% elif m.role == 'user' %}USER: {{ m.content }}{{ '\n' }}"
    "{% else %}ASSISTANT: {{ m.content | trim }}{{ eos_token + '\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def _thought(content: str, later_user: bool) -> str:
    return content + "<|im_end|>" if later_user else f"<think>\n\n</think>\n\n{content}<|im_end|>"


SHAPES = {
    "chatml": Shape(CHATML, lambda text, later: text + "<|im_end|>"),
    "llama3": Shape(
        LLAMA3,
        lambda text, later: text.strip() + "<|eot_id|>",
        ("<|bot|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        bos="<|bot|>",
    ),
    "mistral": Shape(
        MISTRAL, lambda text, later: f" {text}</s>", ("<s>", "</s>", "[INST]", "[/INST]"), bos="<s>", eos="</s>"
    ),
    # Gemma's own files do not flag its turn tokens as special everywhere.
    "gemma": Shape(
        GEMMA,
        lambda text, later: text.strip() + "<end_of_turn>",
        ("<bos>",),
        ("<start_of_turn>", "<end_of_turn>"),
        bos="<bos>",
        system=False,
    ),
    "phi3": Shape(
        PHI3,
        lambda text, later: text + "<|end|>",
        ("<|end|>", "<|user|>", "<|assistant|>", "<|system|>", "<|endoftext|>"),
        eos="<|endoftext|>",
    ),
    "qwen3": Shape(QWEN3, _thought, added=("<think>", "</think>")),
    "deepseek": Shape(
        DEEPSEEK,
        lambda text, later: text + "<|eos|>",
        ("<|bos|>", "<|eos|>", "<|User|>", "<|Assistant|>"),
        ("<think>", "</think>"),
        bos="<|bos|>",
        eos="<|eos|>",
    ),
    "vicuna": Shape(VICUNA, lambda text, later: f" {text.strip()}</s>", ("<s>", "</s>"), eos="</s>"),
}


def with_template(tokenizer: Any, template: str | None, shape: Shape | None = None) -> Any:
    """Return a copy of the tokenizer with another template, and the tokens that the template needs."""
    changed = copy.deepcopy(tokenizer)
    changed.chat_template = template
    if shape is not None:
        changed.add_tokens([AddedToken(word, special=True, normalized=False) for word in shape.special])
        changed.add_tokens([AddedToken(word, special=False, normalized=False) for word in shape.added])
        if shape.bos:
            changed.bos_token = shape.bos
        if shape.eos:
            changed.eos_token = shape.eos
    return changed


def shaped(tokenizer: Any, name: str) -> Any:
    """Return a copy of the tokenizer as one of SHAPES."""
    return with_template(tokenizer, SHAPES[name].template, SHAPES[name])


def encode(masker: Masker, messages: list[dict[str, str]], trained_from: int = 0) -> Masked:
    return masker.encode([Example(1, "x.jsonl", "messages", messages=messages, trained_from=trained_from)])[0]


def trained_texts(masker: Masker, masked: Masked) -> list[str]:
    """The texts of the runs of supervised tokens."""
    groups = itertools.groupby(masker.pieces(masked), key=lambda piece: piece.trained)
    return ["".join(piece.text for piece in run) for trained, run in groups if trained]

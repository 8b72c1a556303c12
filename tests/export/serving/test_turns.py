"""Real chat templates taken apart: what is put together again is what they render, or they are refused."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from studio.data.masks.masker import Masker
from studio.export.proof.chat import chat_facts
from studio.export.proof.material import SHAPES, compared_prompts
from studio.export.serving.turns import Turns, as_values, differing, from_values, taken_apart
from tests.install_tokenizers import CACHE, VERSION
from tests.support.everyday import everyday

# Family -> why its template has no counterpart; "" where it has.
FAMILIES = {
    "llama3": "", "llama3_2": "writes today's date", "qwen2_5": "", "qwen3": "", "gemma3": "", "deepseek_v3": "",
    "mistral_nemo": "treats some conversations in another way (system and turns)", "command_r_plus": "",
}  # fmt: skip
# What these remove around a message, Ollama leaves.
TRIMMING = {"llama3", "gemma3", "command_r_plus"}


@cache
def tokenizer_of(family: str) -> Any:
    return AutoTokenizer.from_pretrained(CACHE / f"{family}-{VERSION}")


def facts_of(tokenizer: Any, folder: Path, rows: list[Any] | None = None) -> dict[str, Any]:
    end = Masker(tokenizer).stop_text() or ""
    return chat_facts(tokenizer, compared_prompts(tokenizer, rows or []), [], folder, end)


@pytest.mark.parametrize("family", everyday(FAMILIES, "qwen2_5", "mistral_nemo"))
def test_a_template_is_rendered_or_refused(family: str, tmp_path: Path) -> None:
    facts = facts_of(tokenizer_of(family), tmp_path)
    assert FAMILIES[family] in facts["why"] and (facts["turns"] is None) == bool(FAMILIES[family])
    assert facts["compared"] == len(SHAPES) and facts["templated"]
    if not FAMILIES[family]:
        assert facts["blanks"] == (["white space"] if family in TRIMMING else [])
        turns = from_values(facts["turns"])
        render = tokenizer_of(family).apply_chat_template
        for name in ("system", "several turns", "system and turns"):
            assert turns.render(SHAPES[name]) == render(SHAPES[name], tokenize=False, add_generation_prompt=True)


def test_the_embedded_models_template_reads_as_a_person_would_write_it(model_path: Path) -> None:
    facts = facts_of(AutoTokenizer.from_pretrained(model_path), model_path)
    turns = from_values(facts["turns"])
    assert turns.user == ("<|im_start|>user\n", "<|im_end|>\n") and turns.closing == "<|im_start|>assistant\n"
    assert turns.head.startswith("<|im_start|>system\nYou are a helpful AI assistant")
    assert facts["stops"] == ["<|im_end|>"] and facts["context"] == 8192 and facts["blanks"] == []


def test_rows_are_compared_too(model_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model_path)
    row = [{"role": "user", "content": "hi"}, {"role": "user", "content": "there"}]
    facts = facts_of(tokenizer, model_path, [(3, row[:1])])
    assert facts["compared"] == len(SHAPES) + 1 and facts["turns"] is not None
    assert "(row 4)" in facts_of(tokenizer, model_path, [(4, row)])["why"], "Ollama joins the two"
    tool = [{"role": "user", "content": "hi"}, {"role": "tool", "content": "5"}]
    assert "messages of tools" in facts_of(tokenizer, model_path, [(4, tool)])["why"]


def test_a_template_that_does_more_is_refused() -> None:
    def shouting(messages: list[dict[str, str]]) -> str:
        return "".join(message["content"].upper() for message in messages)

    def counting(messages: list[dict[str, str]]) -> str:
        return "".join(f"[{len(messages)}]{message['content']}" for message in messages)

    def refusing(messages: list[dict[str, str]]) -> str:
        raise ValueError("no such role")

    assert [taken_apart(render) for render in (shouting, counting, refusing)] == [None, None, None]


def test_a_template_without_a_system_role_takes_none() -> None:
    def render(messages: list[dict[str, str]]) -> str:
        if messages[0]["role"] == "system":
            raise ValueError("System role not supported")
        return "".join(f"<{message['role']}>{message['content']}</s>" for message in messages) + "<assistant>"

    turns = taken_apart(render, end="</s>")
    assert turns == Turns("", "", None, ("<user>", "</s>"), ("<assistant>", "</s>"), "<assistant>")
    assert '"system" }}' not in turns.in_go(start=True)
    assert from_values(as_values(turns) or {}) == turns


def test_blanks_are_told_apart_from_other_differences() -> None:
    turns = Turns("", "", None, ("", ""), ("", ""), "")
    said = [(name, [{"role": "user", "content": " a "}], text) for name, text in (("1", "a"), ("2", "b"), ("3", " a "))]
    assert differing(turns, said) == (["1"], ["2"])


def test_braces_are_text_in_go() -> None:
    assert '{{ "{{" }}x}}' in Turns("", "", None, ("{{x}}", ""), ("", ""), "").in_go(start=False)
    assert '{{ "{{" }}{{ "{" }}{{ .Content }}}' in Turns("", "", None, ("{{{", "}"), ("", ""), "").in_go(start=False)
    assert 'a{b{{ "{" }}{{ .Content }}' in Turns("", "", None, ("a{b{", ""), ("", ""), "").in_go(start=False)

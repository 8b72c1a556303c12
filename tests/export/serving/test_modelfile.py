"""A Modelfile says what it was given, as Ollama reads it, or leaves it out and says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.export.serving.modelfile import Facts, holds, modelfile, write_modelfile
from studio.export.serving.turns import Turns, as_values
from tests.export.serving.grammar import read_modelfile

TURNS = Turns("<s>", "", ("<sys>", "</sys>"), ("<user>\n", "<end>\n"), ("<bot>\n", "<end>\n"), "<bot>\n")
CHAT: dict[str, Any] = {
    "templated": True, "turns": as_values(TURNS), "why": "", "compared": 12, "blanks": [], "stops": ["<end>"],
    "context": 8192, "sampling": {"temperature": 0.6, "top_p": 0.95, "repetition_penalty": 1.1}, "system": "Be terse.",
    "license": "Do what\nyou like.",
}  # fmt: skip


def test_everything_is_read_back(tmp_path: Path) -> None:
    told = write_modelfile(tmp_path, "x-q8_0.gguf", {"chat": CHAT}, adds_start=True)
    assert read_modelfile((tmp_path / "Modelfile").read_text()) == [
        ("from", "./x-q8_0.gguf"), ("template", TURNS.in_go(start=False)), ("system", "Be terse."),
        ("parameter stop", "<end>"), ("parameter num_ctx", "4096"), ("parameter temperature", "0.6"),
        ("parameter top_p", "0.95"), ("parameter repeat_penalty", "1.1"), ("license", "Do what\nyou like."),
    ]  # fmt: skip
    assert told == {"file": "Modelfile", "template": True, "compared": 12, "blanks": [], "notes": []}


@pytest.mark.parametrize("adds", [True, False])
def test_the_token_that_begins_a_text_stands_once(adds: bool, tmp_path: Path) -> None:
    write_modelfile(tmp_path, "x.gguf", {"chat": CHAT}, adds_start=adds)
    template = dict(read_modelfile((tmp_path / "Modelfile").read_text()))["template"]
    assert template.count("<s>") == (0 if adds else 1)


def test_without_a_template_ollama_is_asked_to_run_the_files(tmp_path: Path) -> None:
    chat = CHAT | {"turns": None, "why": "its chat template writes today's date", "context": 2048, "sampling": {}}
    told = write_modelfile(tmp_path, "x.gguf", {"chat": chat | {"system": "", "license": ""}}, adds_start=False)
    assert read_modelfile((tmp_path / "Modelfile").read_text()) == [
        ("from", "./x.gguf"), ("requires", "0.30.0"), ("parameter stop", "<end>"), ("parameter num_ctx", "2048"),
    ]  # fmt: skip
    assert not told["template"]
    assert told["notes"][0] == "its chat template writes today's date"
    assert "ollama show --modelfile" in told["notes"][1]


def test_a_base_model_without_a_template_is_given_the_prompt(tmp_path: Path) -> None:
    chat = CHAT | {"turns": None, "templated": False}
    (note,) = write_modelfile(tmp_path, "x.gguf", {"chat": chat}, adds_start=False)["notes"]
    assert "no chat template" in note and "ollama show" not in note


@pytest.mark.parametrize(
    ("change", "word"),
    [({"system": 'Say """'}, "system message"), ({"stops": ["a\u200b"]}, "stop"), ({"blanks": ["row 3"]}, "blanks"),
     ({"turns": as_values(Turns("", "", None, ('"""', ""), ("", ""), ""))}, "characters of its chat template")],
)  # fmt: skip
def test_what_cannot_be_said_is_told(change: dict[str, Any], word: str, tmp_path: Path) -> None:
    told = write_modelfile(tmp_path, "x.gguf", {"chat": CHAT | change}, adds_start=False)
    assert any(word in note for note in told["notes"])
    names = [name for name, _ in read_modelfile((tmp_path / "Modelfile").read_text())]
    assert ("system" in names) == ("system" not in change)


@given(st.text(max_size=60))
def test_what_it_holds_is_read_as_it_is(text: str) -> None:
    said = modelfile(Facts("x.gguf", text, [text], 10, {}, text, ""))
    values = read_modelfile(said)
    if holds(text):
        assert dict(values)["template"] == dict(values)["parameter stop"] == text
        assert dict(values).get("system", "") == text
    else:
        assert [name for name, _ in values] == ["from", "requires", "parameter num_ctx"]

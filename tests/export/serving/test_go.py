"""What is written in Go's template language, rendered by Go as Ollama does, is the prompt of training."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from studio.data.masks.masker import Masker
from studio.export.proof.material import SHAPES
from studio.export.serving.turns import taken_apart
from tests.install_tokenizers import CACHE, VERSION
from tests.support.programs.golang import go_program

# As Ollama calls a template: its options, its one function, its names.
PROGRAM = """package main

import (
	"bytes"
	"encoding/json"
	"os"
	"text/template"
)

type Message struct{ Role, Content string }

type Asked struct {
	Template string
	Talks    [][]*Message
}

func main() {
	var asked []Asked
	if err := json.NewDecoder(os.Stdin).Decode(&asked); err != nil {
		panic(err)
	}
	funcs := template.FuncMap{"json": func(v any) string { b, _ := json.Marshal(v); return string(b) }}
	answers := [][]string{}
	for _, one := range asked {
		made := template.Must(template.New("").Option("missingkey=zero").Funcs(funcs).Parse(one.Template))
		texts := []string{}
		for _, talk := range one.Talks {
			system := ""
			for _, message := range talk {
				if message.Role == "system" {
					system = message.Content
				}
			}
			var b bytes.Buffer
			if err := made.Execute(&b, map[string]any{"System": system, "Messages": talk, "Response": ""}); err != nil {
				panic(err)
			}
			texts = append(texts, b.String())
		}
		answers = append(answers, texts)
	}
	json.NewEncoder(os.Stdout).Encode(answers)
}
"""
FAMILIES = ("llama3", "qwen2_5", "qwen3", "gemma3", "deepseek_v3", "command_r_plus")


@pytest.mark.long
def test_go_renders_what_was_trained(tmp_path: Path, model_path: Path) -> None:
    program = go_program()
    if program is None:
        pytest.skip("Go is fetched for Linux on x86-64 alone")
    asked, expected = [], []
    for folder in [model_path, *(CACHE / f"{family}-{VERSION}" for family in FAMILIES)]:
        tokenizer = AutoTokenizer.from_pretrained(folder)

        def render(messages: list[dict[str, str]], tokenizer: object = tokenizer) -> str:
            return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))  # type: ignore[attr-defined]

        stop = (Masker(tokenizer).stop_text() or "").strip()
        turns = taken_apart(render, tokenizer.bos_token or "", stop)
        assert turns is not None
        talks = {name: talk for name, talk in SHAPES.items() if turns.render(talk) == render(talk)}
        assert len(talks) >= len(SHAPES) - 1  # but for blanks that some templates remove
        for start in (True, False):
            asked.append({"Template": turns.in_go(start), "Talks": list(talks.values())})
            begun = turns.start if start else ""
            expected.append([begun + render(talk).removeprefix(turns.start) for talk in talks.values()])
    (tmp_path / "main.go").write_text(PROGRAM)
    environment = {"GOCACHE": str(tmp_path / "cache"), "GOPATH": str(tmp_path / "path"), "GOTOOLCHAIN": "local"}
    done = subprocess.run(
        [program, "run", "main.go"], cwd=tmp_path, input=json.dumps(asked), capture_output=True, text=True, timeout=300,
        env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout) == expected

"""What llama.cpp's own server makes of conversations is compared with the training's prompts, token by token."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from transformers import AutoTokenizer

from studio.errors import StudioError
from studio.export.proof.material import compared_prompts
from studio.export.proof.rendering import rendering
from studio.models.catalog.embedded import find_gguf
from tests.install_tokenizers import CACHE, VERSION
from tests.support.processes import gone
from tests.support.programs.llamaserver import llama_server

# With SmolLM2's tokens, which the comparison is not about.
FAMILIES = ("llama3", "qwen2_5", "qwen3", "gemma3", "deepseek_v3", "command_r_plus", "llama3_2")


@pytest.fixture(scope="module")
def program() -> Path:
    found = llama_server()
    if found is None:
        pytest.skip("llama-server is fetched for Linux on x86-64 alone")
    return found


def cases(tokenizer: Any, folder: Path) -> Path:
    prompts = [vars(one) for one in compared_prompts(tokenizer, [])]
    path = folder / "cases.json"
    path.write_text(json.dumps({"prompts": prompts, "template": tokenizer.chat_template or ""}))
    return path


def compared(program: Path, file: Path, cases: Path) -> dict[str, Any]:
    request = {"program": str(program), "file": str(file), "cases": str(cases)}
    return rendering(request, lambda done, total: None)


@pytest.mark.long
def test_the_models_own_file_is_read_as_it_was_trained(program: Path, model_path: Path, tmp_path: Path) -> None:
    found = compared(program, find_gguf(), cases(AutoTokenizer.from_pretrained(model_path), tmp_path))
    assert found["compared"] >= 12 and found["equal"] == found["compared"], found["differences"]
    assert found["rare"] > 0 and found["program"].startswith("version")


@pytest.mark.long
@pytest.mark.parametrize("family", FAMILIES)
def test_the_template_of_a_family_is_rendered_as_in_training(
    family: str, program: Path, model_path: Path, tmp_path: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model_path)
    template = AutoTokenizer.from_pretrained(CACHE / f"{family}-{VERSION}").chat_template
    tokenizer.chat_template = template["default"] if isinstance(template, dict) else template
    file = with_template(tokenizer.chat_template, tmp_path)
    found = compared(program, file, cases(tokenizer, tmp_path))
    assert found["compared"] >= 8 and found["equal"] == found["compared"], found["differences"]


@pytest.mark.long
def test_a_template_that_it_cannot_read_is_told(program: Path, model_path: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model_path)
    template = AutoTokenizer.from_pretrained(CACHE / f"mistral_nemo-{VERSION}").chat_template
    with pytest.raises(StudioError, match="unknown test 'tool_calls'"):
        compared(program, with_template(template, tmp_path), cases(tokenizer, tmp_path))


@pytest.mark.long
def test_another_template_is_seen(program: Path, model_path: Path, tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model_path)
    path = cases(tokenizer, tmp_path)
    file = with_template(tokenizer.chat_template.replace("<|im_start|>assistant", "<|im_start|>user"), tmp_path)
    found = compared(program, file, path)
    assert found["equal"] == 0 and found["compared"] >= 12
    assert "tokens instead of" in found["differences"][0]["what"]


def with_template(template: str, folder: Path) -> Path:
    """The embedded model's GGUF with another chat template."""
    file = folder / "other.gguf"
    command = [sys.executable, "-m", "gguf.scripts.gguf_new_metadata", "--force", "--chat-template", template]
    subprocess.run([*command, str(find_gguf()), str(file)], check=True, capture_output=True, timeout=120)
    return file


def stand_in(folder: Path, body: str) -> Path:
    """A program that is started as llama-server is."""
    program = folder / "llama-server"
    program.write_text(f"#!/bin/sh\n{body}\n")
    program.chmod(0o755)
    return program


def test_a_server_that_ends_is_said(tmp_path: Path) -> None:
    path = tmp_path / "cases.json"
    path.write_text(json.dumps({"prompts": [], "template": ""}))
    with pytest.raises(StudioError, match="llama-server ended with exit status 7: no such file"):
        compared(stand_in(tmp_path, "echo no such file; exit 7"), tmp_path / "x.gguf", path)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux ends a child with its parent")
def test_the_server_ends_with_whoever_asked_for_it(tmp_path: Path) -> None:
    program = stand_in(tmp_path, 'test "$1" = --version || { echo $$ > "$(dirname "$0")/pid"; exec sleep 600; }')
    path = tmp_path / "cases.json"
    path.write_text(json.dumps({"prompts": [], "template": ""}))
    code = (
        "from studio.export.proof.rendering import rendering\n"
        f"rendering({{'program': {str(program)!r}, 'file': 'x', 'cases': {str(path)!r}}}, lambda done, total: None)"
    )
    asking = subprocess.Popen([sys.executable, "-c", code])
    end = time.monotonic() + 60
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text().strip():
        assert time.monotonic() < end and asking.poll() is None
        time.sleep(0.05)
    server = int((tmp_path / "pid").read_text())
    assert psutil.pid_exists(server)
    os.kill(asking.pid, signal.SIGKILL)
    asking.wait()
    while not gone(server):
        assert time.monotonic() < end
        time.sleep(0.05)

"""Prompts of a chat: as transformers and llama.cpp render them, and within bounds whatever a stranger's model holds."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from llama_cpp.llama_chat_format import Jinja2ChatFormatter
from transformers import AutoTokenizer

from studio.chat.gguf import GgufBackend
from studio.chat.hf import HfBackend
from studio.chat.prompting import prompt_ids, prompt_text, turn_end
from studio.chat.protocol import ApiError
from studio.config.jobs import EvaluateConfig
from studio.data.tokens.pretrained import load_tokenizer
from studio.errors import InputError
from studio.export.gguf.tokens import choose
from studio.jobs.store.folder import create_job
from studio.processes import child_environment, module_command
from studio.settings import Settings
from tests.chat.conftest import QUESTIONS
from tests.data.tokens.test_bounded_tokens import hostile
from tests.ui.made_jobs import made_run

EXPONENTIAL = r"([a-z]+)+!|\s"
BOMBS = {
    "loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "one call into C": '{{ "%1000000000d" % 1 }}',
}
ASKED = [{"role": "user", "content": "a"}]


@pytest.fixture(scope="module")
def tokenizer(model_path: Path) -> Any:
    return AutoTokenizer.from_pretrained(model_path)


@pytest.mark.parametrize("number", range(len(QUESTIONS)))
def test_prompts_are_those_of_the_libraries(number: int, tokenizer: Any) -> None:
    messages = QUESTIONS[number]
    wanted = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=True)
    assert prompt_ids(tokenizer, messages) == list(wanted["input_ids"])
    template, tokens = tokenizer.chat_template, {"bos_token": "<b>", "eos_token": "<e>"}
    assert prompt_text(template, messages, tokens) == Jinja2ChatFormatter(template, **tokens)(messages=messages).prompt
    bare = AutoTokenizer.from_pretrained(tokenizer.name_or_path)
    bare.chat_template = None
    joined = "\n".join(message["content"] for message in messages)
    assert prompt_ids(bare, messages) == list(bare(joined)["input_ids"])


def test_the_end_of_a_turn(tokenizer: Any) -> None:
    assert turn_end(tokenizer) == tokenizer.convert_tokens_to_ids("<|im_end|>")
    other = AutoTokenizer.from_pretrained(tokenizer.name_or_path)
    other.add_tokens(["<turn_end>"])  # one that is not special, which training takes for the end all the same
    for template in ("<turn_end>", "<turn_end><|im_end|>"):
        other.chat_template = "{% for m in messages %}{{ m.role }}: {{ m.content }}" + template + "{% endfor %}"
        assert turn_end(other) == other.convert_tokens_to_ids(template.removeprefix("<turn_end>") or "<turn_end>")


@pytest.mark.long
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_an_answer(name: str, tokenizer: Any) -> None:
    bomb = AutoTokenizer.from_pretrained(tokenizer.name_or_path)
    bomb.chat_template = BOMBS[name]
    began = time.monotonic()
    for ask in (lambda: prompt_ids(bomb, ASKED), lambda: prompt_text(BOMBS[name], ASKED, {})):
        with pytest.raises(ApiError, match=r"chat template (takes|needs) more") as caught:
            ask()
        assert caught.value.status == 400
    assert turn_end(bomb) is None
    assert time.monotonic() - began < 60


def test_what_a_template_says_is_told(tokenizer: Any) -> None:
    said = "{{ raise_exception('only one system') }}"
    refusing = AutoTokenizer.from_pretrained(tokenizer.name_or_path)
    refusing.chat_template = said
    for ask in (lambda: prompt_ids(refusing, ASKED), lambda: prompt_text(said, ASKED, {})):
        with pytest.raises(ApiError, match="refuses them: only one system"):
            ask()


def test_a_message_that_a_pattern_runs_away_over(model_path: Path, tmp_path: Path) -> None:
    """No repeat of a repeat, so it is loaded; a long word costs its message, and the next one is answered."""
    slow = load_tokenizer(hostile(model_path, tmp_path / "slow", r"(?=a*a*a*a*a*a*c)a|\s"))
    with pytest.raises(ApiError, match=r"tokenizer (gives up on|takes too long on)"):
        prompt_ids(slow, [{"role": "user", "content": "a" * 60}])
    assert prompt_ids(slow, [{"role": "user", "content": "b"}])


def test_a_hostile_tokenizer_is_refused_wherever_it_is_loaded(model_path: Path, tmp_path: Path) -> None:
    folder = hostile(model_path, tmp_path / "bad", EXPONENTIAL)
    for name in ("config.json", "model.safetensors", "generation_config.json"):
        shutil.copyfile(model_path / name, folder / name)
    with pytest.raises(InputError, match="splits text by"):
        HfBackend(folder, dtype="float32")
    for run, base in ((folder, model_path), (model_path, folder)):
        request = {"run": str(run), "base": str(base), "folder": str(tmp_path / f"of-{run.name}")}
        with pytest.raises(InputError, match="splits text by"):
            choose(request, lambda done, total: None)


@pytest.mark.long
def test_an_evaluation_ends_with_the_sentence(model_path: Path, tmp_path: Path, settings: Settings) -> None:
    run = made_run(settings.jobs)
    for file in hostile(model_path, tmp_path / "bad", EXPONENTIAL).iterdir():
        shutil.copyfile(file, run.model / file.name)
    job = create_job(settings.jobs, "evaluate", "x", EvaluateConfig(run=run.id).model_dump(mode="json"))
    environment = child_environment(STUDIO_HOME=str(settings.home))
    subprocess.run(module_command("studio.evaluate", str(job.path)), env=environment, timeout=120, check=False)
    assert (job.state().status, "splits text by" in job.state().reason) == ("failed", True), job.state().reason


def test_a_gguf_file_says_its_prompt(gguf_path: Path) -> None:
    backend = GgufBackend(gguf_path, context=256)
    text = prompt_text(backend._chat_template, QUESTIONS[0], backend._tokens)
    assert backend.prompt("gguf", QUESTIONS[0]) == backend._llama.tokenize(text.encode(), add_bos=False, special=True)
    backend._chat_template = BOMBS["loops"]
    with pytest.raises(ApiError, match="takes more"):
        backend.prompt("gguf", QUESTIONS[0])


def test_a_gguf_files_long_tokens_are_whole(gguf_path: Path) -> None:
    backend = GgufBackend(gguf_path, context=256)
    for text in ("-" * 64, "\n" + " " * 48, "a\n" + " " * 40 + "return \U0001f3a8"):
        ids, maker = backend._llama.tokenize(text.encode(), add_bos=False, special=False), backend.text("gguf")
        assert "".join(map(maker.push, ids)) + maker.finish() == text

"""What cannot become a GGUF is said before the training, from the checkpoint alone, and trained all the same."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from studio.cli.work import results
from studio.errors import StudioError
from studio.export.gguf.rehearsal import architecture, known_architectures
from studio.export.gguf.toolchain import find_toolchain
from studio.export.job import export
from studio.jobs.run.worker import JobContext
from studio.jobs.store.files import write_json
from studio.jobs.store.folder import create_job
from studio.jobs.store.state import JobState
from studio.models.inspect import takeaway
from studio.models.inspect.headers import read_config, read_tensors
from studio.models.inspect.takeaway import COMPUTING, LOADED, LOADING, Obstacle, gguf_obstacle
from studio.settings import Settings
from tests.models.tiny import save_tiny


@pytest.fixture(autouse=True)
def nothing_is_untold(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a while nobody asks again for what could not be told: in another test, of the same small model."""
    monkeypatch.setattr(takeaway, "_UNTOLD", {})


@pytest.fixture(scope="session")
def with_tokenizer(model_path: Path):
    """Give a checkpoint the embedded model's tokenizer, changed or not."""

    def give(folder: Path, **changes: Any) -> Path:
        for name in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(model_path / name, folder / name)
        if changes:
            values = json.loads((folder / "tokenizer.json").read_text())
            values.update(changes)
            (folder / "tokenizer.json").write_text(json.dumps(values))
        return folder

    return give


VOCABULARY = 49152


def told(folder: Path, settings: Settings) -> Obstacle | None:
    return gguf_obstacle(folder, read_config(folder), read_tensors(folder), settings)


@pytest.mark.long
@pytest.mark.parametrize(
    ("model_type", "sizes", "reason"),
    [
        ("llama", {}, None),
        ("gpt_neox", {}, None),
        ("falcon", {}, None),
        ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2}, None),
        ("deepseek_v2", {}, None),
        ("opt", {}, "architecture"),
        ("phi", {"num_key_value_heads": 2}, "load"),
        ("qwen3_moe", {"norm_topk_prob": True}, None),
        ("qwen3_moe", {"norm_topk_prob": False}, "arithmetic"),
        ("qwen2_moe", {"norm_topk_prob": True}, "arithmetic"),
    ],
    ids=str,
)
def test_each_model_is_told_of(
    model_type: str, sizes: dict[str, Any], reason: str | None, tmp_path: Path, settings: Settings, with_tokenizer
) -> None:
    folder = with_tokenizer(save_tiny(tmp_path / "model", model_type, vocab_size=VOCABULARY, **sizes))
    found = told(folder, settings)
    assert (found.reason if found else None) == reason, found
    assert found is None or (found.what and found.fix)


@pytest.mark.long
def test_a_tokenizer_that_llama_cpp_does_not_know_and_one_that_is_missing(
    tmp_path: Path, settings: Settings, with_tokenizer
) -> None:
    folder = with_tokenizer(save_tiny(tmp_path / "model", "llama", vocab_size=VOCABULARY), pre_tokenizer=WORDS)
    found = told(folder, settings)
    assert found is not None and found.reason == "tokenizer"
    gemma = with_tokenizer(save_tiny(tmp_path / "gemma", "gemma2", vocab_size=VOCABULARY))
    lacking = told(gemma, settings)
    assert lacking is not None and lacking.reason == "tokenizer_file" and "tokenizer.model" in lacking.fix


@pytest.mark.long
def test_tokens_that_llama_cpp_cuts_otherwise_are_told(tmp_path: Path, settings: Settings, with_tokenizer) -> None:
    folder = save_tiny(tmp_path / "model", "llama", vocab_size=VOCABULARY)
    # What the converter knows tokenizers by has no such letter.
    other = {"type": "Replace", "pattern": {"String": "\u00bb"}, "content": "x"}
    found = told(with_tokenizer(folder, normalizer=other), settings)
    assert found is not None and found.reason == "tokens" and "\u00bb" in found.what and found.fix


def test_what_is_known_of_a_process_that_crashes_is_where_it_was(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save_tiny(tmp_path / "model", "llama")
    reasons = []
    for number, said in enumerate((LOADING, f"{LOADING}\n{LOADED}", f"{LOADING}\n{LOADED}\n{COMPUTING}")):
        ending = f"import os; print({said!r}, flush=True); os.abort()"
        monkeypatch.setattr(takeaway, "module_command", lambda name, ending=ending: [sys.executable, "-c", ending])
        monkeypatch.setattr(takeaway, "_places", lambda settings, number=number: (tmp_path / str(number),))
        found = told(folder, settings)
        reasons.append(found.reason if found else None)
    assert reasons == ["load", None, "computing"]


WORDS = {"type": "Sequence", "pretokenizers": [
    {"type": "Split", "pattern": {"Regex": "[a-z]{1,3}"}, "behavior": "Isolated", "invert": False},
    {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False},
]}  # fmt: skip


def test_the_architectures_are_read_from_the_converter(settings: Settings) -> None:
    tools = find_toolchain(settings)
    assert tools is not None
    known = known_architectures(tools)
    assert {"LlamaForCausalLM", "GPTNeoXForCausalLM", "Gemma3ForCausalLM"} <= known
    assert "OPTForCausalLM" not in known
    assert architecture({"architectures": ["A"], "text_config": {"architectures": ["B"]}}) == "B"


def test_an_answer_is_kept_for_the_same_checkpoint_only(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[dict[str, Any]] = []

    def answer(request: dict[str, Any]) -> dict[str, str]:
        asked.append(request)
        return {"reason": "load", "what": "it does not load", "fix": "Choose another"}

    monkeypatch.setattr(takeaway, "_asked", answer)
    monkeypatch.setattr(takeaway, "_places", lambda settings: (tmp_path / "no" / "place", settings.home / "kept"))
    (tmp_path / "no").write_text("a file, so nothing can be kept there")
    folder = save_tiny(tmp_path / "model", "llama")
    (folder / "tokenizer.json").write_text("{}")
    first = told(folder, settings)
    assert first == told(shutil.copytree(folder, tmp_path / "copy"), settings) and len(asked) == 1
    (folder / "tokenizer.json").write_text('{"changed": true}')
    told(folder, settings)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"rope_theta": 5.0}))
    told(folder, settings)
    assert len(asked) == 3


def test_without_an_answer_nothing_is_claimed(
    tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(takeaway, "_MODULE", "studio.no_such_module")
    folder = save_tiny(tmp_path / "model", "llama")
    assert told(folder, settings) is None
    assert not list((settings.home / "tools").rglob("*.json"))


def test_an_export_refuses_at_once_with_the_same_words_and_what_to_do(
    tmp_path: Path, home: Path, settings: Settings, with_tokenizer
) -> None:
    base = with_tokenizer(save_tiny(tmp_path / "model", "opt", vocab_size=VOCABULARY))
    found = told(base, settings)
    run = create_job(settings.jobs, "train", "trained", {})
    run.model.mkdir()
    (run.model / "adapter_config.json").write_text("{}")
    write_json(run.environment_path, {"base_model": {"name": "opt", "path": str(base)}})
    job = create_job(settings.jobs, "export", "gguf", {"run": run.id, "types": ["f16"]})
    with pytest.raises(StudioError) as refused:
        export(JobContext(job, settings))
    assert found is not None and found.what in refused.value.what and refused.value.fix == found.fix
    assert not (job.path / "work").exists() and not job.exports.exists(), "nothing was begun"


def test_the_terminal_says_what_to_do_when_an_export_is_refused(
    settings: Settings, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = create_job(settings.jobs, "train", "trained", {})
    run.model.mkdir()
    (run.model / "model.safetensors").touch()  # what is exported is looked for before the job is made
    made = create_job(settings.jobs, "export", "gguf", {"run": run.id})
    made.report.mkdir()
    (made.report / "export.json").write_text(json.dumps({"files": []}))
    failed = JobState(status="failed", reason="it cannot be taken away", fix="Choose another model", exit_code=1)
    monkeypatch.setattr(results, "submit", lambda *given: made)
    monkeypatch.setattr(results, "follow", lambda job: failed)
    with pytest.raises(StudioError) as refused:
        results.run_export(settings, results.export_config(settings, run.id, {"types": ["f16"]}))
    assert "Choose another model" in refused.value.sentence

"""From names to targets, on job folders without a model; one question through the whole chain."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from studio.chat.ask import ask, resolve_target
from studio.chat.manager import ChatManager
from studio.chat.target import Target
from studio.errors import InputError
from studio.jobs.store.folder import JobFolder, create_job
from studio.settings import Settings
from tests.chat.conftest import make_settings


@pytest.fixture
def base(tmp_path: Path) -> Path:
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


@pytest.fixture
def own(tmp_path: Path) -> Settings:
    return make_settings(tmp_path / "home")


def make_run(own: Settings, base: Path, name: str, file: str | None) -> JobFolder:
    job = create_job(own.jobs, "train", name, {"model": {"path": "x", "dtype": "bfloat16"}})
    job.environment_path.write_text(json.dumps({"base_model": {"name": "x", "path": str(base)}}))
    if file:
        job.model.mkdir()
        (job.model / file).write_text("{}")
    return job


def test_a_run_by_name_id_and_folder(own: Settings, base: Path) -> None:
    job = make_run(own, base, "my run", "adapter_config.json")
    create_job(own.jobs, "evaluate", "my run", {"run": job.id})  # newer, same name: the run still wins
    wanted = Target("run", "my run", model=base, adapter=job.model, dtype="bfloat16")
    for name in ("my run", job.id, str(job.path)):
        assert resolve_target(name, own) == wanted
    assert wanted.models == ("base", "tuned") and wanted.answering == "tuned"


def test_a_full_run_is_a_second_model(own: Settings, base: Path) -> None:
    job = make_run(own, base, "full", "config.json")
    target = resolve_target("full", own)
    assert (target.adapter, target.tuned, target.models) == (None, job.model, ("base", "tuned"))
    assert target.arguments()[:4] == ["--model", str(base), "--tuned-model", str(job.model)]


def test_an_unfinished_run_says_so(own: Settings, base: Path) -> None:
    make_run(own, base, "young", None)
    with pytest.raises(InputError, match=r"no model to chat with \(it is queued\)"):
        resolve_target("young", own)


def test_an_export_is_its_gguf(own: Settings) -> None:
    job = create_job(own.jobs, "export", "out", {"run": "x"})
    with pytest.raises(InputError, match="no file"):
        resolve_target("out", own)
    job.exports.mkdir()
    (job.exports / "a.gguf").write_bytes(b"GGUF")
    assert resolve_target("out", own).gguf == job.exports / "a.gguf"
    (job.exports / "b.gguf").write_bytes(b"GGUF")
    with pytest.raises(InputError, match=r"a\.gguf"):
        resolve_target("out", own)


@pytest.mark.parametrize(
    "made", [{"to": "adapter"}, {"to": "gguf-lora"}, {"to": "folder", "what": "adapter"},
             {"to": "hub", "what": "adapter"}, {"to": "vllm", "serve": "adapter"}, {"to": "tgi", "serve": "adapter"}],
)  # fmt: skip
def test_an_exported_adapter_is_none_to_chat_with(own: Settings, made: dict[str, str]) -> None:
    """Also where it is put somewhere or served, and where its tokenizer needs a config.json beside it."""
    job = create_job(own.jobs, "export", "out", {"run": "x"} | made)
    folder = job.exports / "out-adapter"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    with pytest.raises(InputError, match="an adapter, which cannot answer on its own"):
        resolve_target("out", own)


@pytest.mark.parametrize("made", [{"to": "folder"}, {"to": "hub", "what": "merged"}, {"to": "vllm", "serve": "merged"},
                                  {"to": "merged", "what": "adapter", "serve": "adapter"}])  # fmt: skip
def test_an_exported_checkpoint_answers(own: Settings, made: dict[str, str]) -> None:
    job = create_job(own.jobs, "export", "out", {"run": "x"} | made)
    folder = job.exports / "out-merged"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    assert resolve_target("out", own).model == folder


def test_files_and_unknown_names(own: Settings, tmp_path: Path, gguf_path: Path) -> None:
    assert resolve_target(str(gguf_path), own) == Target("gguf", gguf_path.name, gguf=gguf_path)
    with pytest.raises(InputError, match="no such GGUF file"):
        resolve_target(str(tmp_path / "none.gguf"), own)
    with pytest.raises(InputError, match="no run, model or GGUF file 'nobody'"):
        resolve_target("nobody", own)


def test_a_checkpoint_folder_is_a_model(own: Settings, model_path: Path) -> None:
    target = resolve_target(str(model_path), own)
    assert (target.kind, target.model, target.models) == ("model", model_path, ("base",))


def test_an_adapter_folder_names_its_base(own: Settings, model_path: Path, adapter_path: Path) -> None:
    target = resolve_target(str(adapter_path), own)
    assert (target.model, target.adapter) == (model_path, adapter_path)


def test_ask_answers_with_figures(manager: ChatManager, run_target: Target) -> None:
    pieces: list[str] = []
    question = [{"role": "user", "content": "What is the capital of France?"}]
    answer = ask(manager, run_target, question, on_text=pieces.append, temperature=0, max_tokens=8)
    assert answer.model == "tuned" and answer.text == "".join(pieces)
    assert answer.as_dict()["completion_tokens"] == answer.stats.completion_tokens <= 8
    with pytest.raises(InputError, match="Choose base or tuned"):
        ask(manager, run_target, question, model="gguf")


@pytest.mark.long
def test_a_full_fine_tune_answers_beside_its_base(manager: ChatManager, model_path: Path) -> None:
    target = Target("run", "full", model=model_path, tuned=model_path, dtype="float32")
    question = [{"role": "user", "content": "What is the capital of France?"}]
    texts = {ask(manager, target, question, model=m, temperature=0, max_tokens=8).text for m in ("base", "tuned")}
    assert len(texts) == 1  # the same weights twice
    manager.close(target)

"""Names become folders that are whole, or a sentence; and the page's paths stay inside."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from studio.errors import InputError
from studio.models.catalog.names import check_folder, confine, confine_model, known_models, resolve_model
from studio.settings import Settings, read_settings
from tests.models.checkpoints import tensor_shapes, write_checkpoint, write_safetensors


def test_local_checkpoints_are_found(tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    one = write_checkpoint(tmp_path / "one")
    many = write_checkpoint(tmp_path / "org" / "many", shards=3)
    for folder in (one, many):
        found = resolve_model(str(folder), settings)
        assert (found.path, found.source, found.name) == (folder, "local", str(folder))
    monkeypatch.chdir(tmp_path)
    assert resolve_model("org/many", settings).source == "local", "a folder wins over a Hub id of the same form"


def _pickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").touch()


def _adapter(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "org/base"}))


def _cut(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-10])


def _pointer(folder: Path) -> None:
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 9\n")


def _shard_gone(folder: Path) -> None:
    write_checkpoint(folder, shards=3)
    (folder / "model.safetensors").unlink()
    (folder / "model-00002-of-00003.safetensors").unlink()


def _index_of(name: str) -> Callable[[Path], None]:
    """The weights in another file, and an index that names `name` for it."""

    def damage(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / "x.safetensors")
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": name}}) if name else "[]")

    return damage


def _gguf(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "model.gguf").touch()


def _inner(folder: Path) -> None:
    (folder / "config.json").unlink()
    write_checkpoint(folder / "checkpoint-7")


DAMAGE = {
    "pickled": (_pickled, ["pickled", ".safetensors"]),
    "adapter": (_adapter, ["adapter", "org/base"]),
    "cut": (_cut, ["was interrupted", "again"]),
    "pointer": (_pointer, ["git lfs pull"]),
    "shard gone": (_shard_gone, ["1 of 3", "model-00002-of-00003.safetensors"]),
    "index broken": (_index_of(""), ["index"]),
    "index leads out": (_index_of("../model/x.safetensors"), ["index", "'../model/x.safetensors'", "in this folder"]),
    "index names a pickle": (
        _index_of("pytorch_model.bin"),
        ["index", "'pytorch_model.bin'", "not a .safetensors file"],
    ),
    "weights of no name that is loaded": (
        lambda folder: (folder / "model.safetensors").rename(folder / "model-x.safetensors"),
        ["no .safetensors weights"],
    ),
    "gguf": (_gguf, ["GGUF", "original"]),
    "inner": (_inner, ["checkpoint-7"]),
    "no config": (lambda folder: (folder / "config.json").unlink(), ["config.json"]),
    "config not JSON": (lambda folder: (folder / "config.json").write_text("{"), ["config.json", "JSON"]),
    "config a list": (lambda folder: (folder / "config.json").write_text("[]"), ["JSON object"]),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), ["no .safetensors weights"]),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), ["tokenizer.json"]),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_damage_is_refused_with_its_cause(case: str, tmp_path: Path, settings: Settings) -> None:
    damage, words = DAMAGE[case]
    folder = write_checkpoint(tmp_path / "model")
    damage(folder)
    with pytest.raises(InputError) as caught:
        resolve_model(str(folder), settings)
    for word in (*words, "model"):
        assert word in caught.value.sentence
    assert caught.value.fix


def test_gguf_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.touch()
    with pytest.raises(InputError, match="not trained"):
        check_folder(file)


def test_a_model_of_openai_is_trained_there(settings: Settings) -> None:
    with pytest.raises(InputError, match="is trained at OpenAI") as raised:
        resolve_model("openai:gpt-4o-mini-2024-07-18", settings)
    assert raised.value.where == "model.path" and "--set model=openai:gpt-4o-mini-2024-07-18" in raised.value.fix


def test_unknown_name_suggests_the_nearest(settings: Settings) -> None:
    with pytest.raises(InputError, match="Did you mean smollm2-135m-instruct"):
        resolve_model("smollm-135m-instruct", settings)
    with pytest.raises(InputError, match="no such folder"):
        resolve_model("/nowhere/at/all", settings)


def test_known_models_lists_whole_ones(settings: Settings) -> None:
    assert [(info.name, info.ready) for info in known_models(settings)] == [("smollm2-135m-instruct", False)]
    folder = write_checkpoint(settings.models / "mine")
    (settings.models / "notes").mkdir()
    mine = known_models(settings)[1:]
    assert [(info.path, info.source, info.ready) for info in mine] == [(folder, "local", True)]
    assert mine[0].parameters == sum(a * (b[0] if b else 1) for a, *b in tensor_shapes().values())


def test_page_reads_only_inside(tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = write_checkpoint(settings.home / "models" / "mine")
    outside = write_checkpoint(tmp_path / "outside")
    assert confine(inside, settings) == inside.resolve()
    (settings.home / "link").symlink_to(outside)
    traps = (outside, settings.home / "link", settings.home / ".." / "outside", "/etc/passwd", "~", "a\0b")
    for path in traps:
        with pytest.raises(InputError):
            confine(path, settings)
    with pytest.raises(InputError, match="STUDIO_ROOTS"):
        confine(outside, settings)
    sibling = settings.home.with_name(settings.home.name + "-2")
    sibling.mkdir()
    with pytest.raises(InputError):
        confine(sibling, settings)
    # What the sentence names makes it go.
    monkeypatch.setenv("STUDIO_ROOTS", str(outside.parent))
    assert confine(outside, read_settings()) == outside.resolve()


def test_page_may_name_models_that_are_no_paths(tmp_path: Path, settings: Settings) -> None:
    assert confine_model(" smollm2-135m-instruct ", settings) == "smollm2-135m-instruct"
    assert confine_model("Qwen/Qwen3-0.6B", settings) == "Qwen/Qwen3-0.6B"
    with pytest.raises(InputError):
        confine_model(str(tmp_path / "elsewhere"), settings)


def test_one_odd_file_beside_the_weights_does_not_count(tmp_path: Path, settings: Settings) -> None:
    folder = write_checkpoint(tmp_path / "model")
    write_safetensors(folder / "other.safetensors", {"x": (1,)})
    assert resolve_model(str(folder), settings).path == folder

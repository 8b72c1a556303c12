"""An adapter alone is the trained model beside its base, under the name that others know the base by."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from studio.config.jobs import ExportConfig
from studio.errors import InputError, StudioError
from studio.export.adapter import AdapterExport, named_base, require_exportable
from studio.export.card import model_card, unserved
from studio.export.job import export
from studio.export.origins.run import RunOrigin
from studio.export.source import source_of
from studio.jobs import JobFolder
from studio.jobs.store.files import write_json
from studio.models.inspect.tokenizerfiles import tokenizer_files
from studio.settings import Settings
from tests.export.conftest import export_of, line_of

HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"


@pytest.fixture(scope="module")
def run(adapter: Path, make_run: Callable[[Path], JobFolder]) -> JobFolder:
    return make_run(adapter)


make = partial(export_of, to="adapter")


@pytest.mark.long
def test_it_answers_as_trained_and_names_its_base(
    session_settings: Settings, run: JobFolder, rows_file: Path, adapter: Path, model_path: Path
) -> None:
    context = make(session_settings, run, base=HUB_ID, evaluate=str(rows_file))
    export(context)
    entry, folder = line_of(context), context.job.exports / "stand-in-adapter"
    assert (entry["type"], entry["verdict"], entry["top1"]) == ("adapter", "as trained", 1.0)
    assert entry["mean_kl"] < 1e-6 and entry["prompt_ids_equal"] and entry["end_of_turn_stops"]
    assert (entry["greedy"]["equal"], entry["greedy"]["total"]) == (8, 8)
    assert entry["exact_match"]["total"] == 3
    assert entry["notes"] == [
        f"it was compared on {model_path}; whether {HUB_ID} is the same model was not checked"
    ]  # fmt: skip
    names = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    own = {Path(name) for name in ("adapter_config.json", "adapter_model.safetensors", "README.md")}
    assert names == own | set(tokenizer_files(adapter))
    assert (folder / "adapter_model.safetensors").read_bytes() == (adapter / "adapter_model.safetensors").read_bytes()
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == HUB_ID
    card = (folder / "README.md").read_text()
    assert f'base_model: "{HUB_ID}"' in card and "base_model_relation: adapter" in card
    assert f"vllm serve {HUB_ID} --enable-lora --max-lora-rank 8 --lora-modules stand-in=" in card


@pytest.mark.long
@pytest.mark.parametrize("what", ["an adapter scaled twice", "a dropped adapter"])
def test_damage_is_caught(
    what: str, session_settings: Settings, run: JobFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = AdapterExport.write

    def write(self: AdapterExport) -> None:
        written(self)
        file = self.folder / "adapter_model.safetensors"
        factor = 2 if what == "an adapter scaled twice" else 0
        held = {name: one * factor if "lora_B" in name else one for name, one in load_file(file).items()}
        save_file(held, file, metadata={"format": "pt"})

    monkeypatch.setattr(AdapterExport, "write", write)
    context = make(session_settings, run)
    with pytest.raises(StudioError, match="1 of 1 adapters differ"):
        export(context)
    assert "no closer to the trained model than the base model is" in " ".join(line_of(context)["notes"])
    shutil.rmtree(context.job.exports)


def recorded(run: JobFolder, folder: Path, **base: str) -> JobFolder:
    """The run with another record of its base model."""
    shutil.copytree(run.path, folder)
    write_json(folder / "environment.json", {"base_model": base})
    return JobFolder(folder)


def test_the_base_is_named_as_it_was_loaded(run: JobFolder, tmp_path: Path, model_path: Path) -> None:
    hub = recorded(run, tmp_path / "hub", name=f"{HUB_ID}@main", path="/models/x", source="hub")
    assert named_base(None, RunOrigin(hub)) == HUB_ID
    local = recorded(run, tmp_path / "local", name="a model", path="/models/x", source="local")
    assert named_base(None, RunOrigin(local)) == "/models/x"
    assert named_base("owner/name", RunOrigin(local)) == "owner/name"
    assert named_base(str(model_path), RunOrigin(local)) == str(model_path)
    for wrong in ("", "no such name", "/nowhere", "../x"):
        with pytest.raises(InputError, match="neither a Hub id nor the folder of a model"):
            named_base(wrong, RunOrigin(local))


def test_a_full_fine_tune_has_none(run: JobFolder, tmp_path: Path) -> None:
    whole = recorded(run, tmp_path / "whole", name="a", path="/models/x", source="local")
    (whole.model / "adapter_config.json").unlink()
    (whole.model / "model.safetensors").touch()
    with pytest.raises(InputError, match=r"has no adapter: all of its weights were trained.*Export it to merged"):
        require_exportable(source_of(whole), ExportConfig(run=whole.id, to="adapter"))
    require_exportable(source_of(whole), ExportConfig(run=whole.id, to="merged"))


@pytest.mark.parametrize(
    ("option", "reason"),
    [({"use_dora": True}, "DoRA"), ({"modules_to_save": ["lm_head"]}, "fully trained layers"),
     ({"alpha_pattern": {"q_proj": 4}}, "ranks or scales"), ({"use_dora": False, "rank_pattern": {}}, "")],
)  # fmt: skip
def test_what_servers_refuse_is_known(option: dict[str, Any], reason: str, run: JobFolder, tmp_path: Path) -> None:
    assert unserved(option).startswith(reason) and bool(unserved(option)) == bool(reason)
    other = recorded(run, tmp_path / "run", name="a")
    config = json.loads((other.model / "adapter_config.json").read_text())
    write_json(other.model / "adapter_config.json", config | option)
    entry = {
        "type": "adapter", "dtype": "float32", "greedy": None, "prompts_compared": 1, "prompt_ids_equal": True,
        "top1": 1.0, "mean_kl": 0.0, "exact_match": None, "verdict": "as trained", "notes": [],
    }  # fmt: skip
    report = {"name": "x", "base_model": HUB_ID, "reference": {"positions": 512}}
    assert ("vllm serve" in model_card(RunOrigin(other), report, entry)) == (not reason)

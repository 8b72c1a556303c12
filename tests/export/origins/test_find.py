"""What can be exported by its name: runs, folders, adapters, Hub models; and what is refused, with what to do."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from studio.config.jobs import ExportConfig
from studio.errors import InputError, StudioError
from studio.export import files
from studio.export.adapter import require_exportable
from studio.export.card import model_card
from studio.export.delivery.earlier import same_export
from studio.export.job import export
from studio.export.origins.find import Found, find
from studio.export.source import open_source
from studio.jobs import JobFolder
from studio.jobs.run.worker import JobContext
from studio.jobs.store.files import write_json
from studio.jobs.store.folder import create_job
from studio.jobs.store.state import JobState, write_state
from studio.models.catalog.hub import hub_folder
from studio.reach import reading_for
from studio.settings import Settings


def linked(folder: Path, target: Path) -> Path:
    """A copy to break."""
    return shutil.copytree(folder, target, copy_function=lambda a, b: Path(b).symlink_to(a))


def without(folder: Path, pattern: str) -> None:
    for path in folder.glob(pattern):
        path.unlink()


def changed(folder: Path, **values: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").unlink()
    write_json(folder / "config.json", config | values)


def pickled(folder: Path) -> None:
    without(folder, "*.safetensors")
    (folder / "pytorch_model.bin").write_bytes(b"pickle")


def broken(folder: Path) -> None:
    (folder / "config.json").unlink()
    (folder / "config.json").write_text("{")


# What is done to a whole folder, a word of what is said of it, and of what to do.
BROKEN: dict[str, tuple[Any, str, str]] = {
    "no config": (lambda one: without(one, "config.json"), "has no config.json", "folder of a Hugging Face"),
    "no weights": (lambda one: without(one, "*.safetensors"), "no .safetensors weights", "Copy or download"),
    "pickled": (pickled, "only pickled weights", "Get the model as .safetensors"),
    "no tokenizer": (lambda one: without(one, "tokenizer*"), "has no tokenizer", "Copy the tokenizer files"),
    "unreadable": (broken, "not valid JSON", "download the model again"),
    "scores": (lambda one: changed(one, architectures=["LlamaForSequenceClassification"]), "scores", "writes"),
    "fills gaps": (lambda one: changed(one, architectures=["BertForMaskedLM"]), "not a causal", "ForCausalLM"),
    "quantized": (lambda one: changed(one, quantization_config={"quant_method": "gptq"}), "gptq", "it was made from"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_folder_that_is_no_model_is_refused(what: str, folder: Path, settings: Settings, tmp_path: Path) -> None:
    damage, said, fix = BROKEN[what]
    copy = linked(folder, tmp_path / "copy")
    damage(copy)
    with pytest.raises(InputError) as raised:
        open_source(settings, str(copy))
    assert said in raised.value.what and fix in raised.value.fix and raised.value.where
    assert "\n" not in raised.value.sentence


@pytest.mark.parametrize(
    ("wanted", "said", "fix"),
    [
        ("lab/never", "is not on this machine yet", "studio models download lab/never"),
        ("/nowhere/at/all", "there is no folder", "Give a run, a model's folder, or a Hub id"),
        ("nothing", "there is no run 'nothing'", "studio jobs list"),
        ("/etc/hostname", "and no model's folder", "Hugging Face checkpoint"),
    ],
)
def test_what_is_not_there_is_said(wanted: str, said: str, fix: str, settings: Settings) -> None:
    with pytest.raises(InputError) as raised:
        open_source(settings, wanted)
    assert said in raised.value.what and fix in raised.value.fix


@pytest.mark.parametrize(
    ("change", "said", "fix"),
    [
        ({"base_model_name_or_path": "lab/never"}, "'lab/never' is not on this machine", "studio models download"),
        ({"base_model_name_or_path": "/gone/base"}, "'/gone/base' is not on this machine", "adapter_config.json"),
        ({"base_model_name_or_path": None}, "names no base model", "Add it there"),
        ({"r": 5}, "has rank 5", "Copy the adapter again"),
    ],
)
def test_an_adapter_whose_base_is_missing_is_refused(
    change: dict[str, Any], said: str, fix: str, adapter_folder: Path, settings: Settings, tmp_path: Path
) -> None:
    copy = shutil.copytree(adapter_folder, tmp_path / "copy")
    config = json.loads((copy / "adapter_config.json").read_text())
    write_json(copy / "adapter_config.json", config | change)
    with pytest.raises(InputError) as raised:
        open_source(settings, str(copy))
    assert said in raised.value.what and fix in raised.value.fix
    (copy / "adapter_model.safetensors").rename(copy / "adapter_model.bin")
    with pytest.raises(InputError, match="only pickled weights"):
        open_source(settings, str(copy))


def test_a_whole_model_has_no_adapter_and_no_checkpoints(folder: Path, settings: Settings) -> None:
    source = open_source(settings, str(folder))
    assert (source.name, source.adapter, source.weights, source.origin.id) == ("lab-model", None, folder, str(folder))
    for to in ("adapter", "gguf-lora"):
        with pytest.raises(InputError, match="model 'lab-model' has no adapter: it is a whole model"):
            require_exportable(source, ExportConfig(run=str(folder), to=to))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="has no checkpoints"):
        open_source(settings, str(folder), 5)


def test_an_adapter_is_found_with_its_base_and_the_bases_tokenizer(
    adapter_folder: Path, folder: Path, settings: Settings
) -> None:
    source = open_source(settings, str(adapter_folder))
    assert (source.base, source.weights, source.tokenizer) == (folder, folder, folder)
    assert (source.model, source.adapter, source.name) == (adapter_folder, adapter_folder, "lab-adapter")
    require_exportable(source, ExportConfig(run="x", to="gguf-lora"))
    assert source.origin.descent("lab/base", "adapter") == ("lab/base", "adapter")


@pytest.mark.parametrize("origin", ["folder", "adapter", "hub"])
def test_the_disk_is_asked_for_as_much_as_is_written(
    origin: str, folder: Path, adapter_folder: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = (folder / "model.safetensors").stat().st_size
    lora = (adapter_folder / "adapter_model.safetensors").stat().st_size
    wanted = {"folder": str(folder), "adapter": str(adapter_folder), "hub": "lab/tiny-model"}[origin]
    if origin == "hub":
        shutil.copytree(folder, place := hub_folder(settings, wanted))
        (place / "studio.json").write_text(json.dumps({"hub": wanted, "commit": "c"}))
    merged = weights if origin == "adapter" else 0
    cases: list[tuple[dict[str, Any], float]] = [
        ({"to": "gguf", "types": ["f16"]}, merged + weights),
        ({"to": "gguf", "types": ["f16", "f32"]}, 2 * merged + 3 * weights),
        ({"to": "merged", "dtype": "bfloat16"}, weights),
    ]
    cases += [({"to": "adapter"}, 2 * lora), ({"to": "gguf-lora"}, 1.2 * weights)] if origin == "adapter" else []
    monkeypatch.setattr(files, "free_bytes", lambda folder: 1_000_000)
    for asked, needed in cases:
        job = create_job(settings.jobs, "export", "lab", {"run": wanted, **asked})
        with pytest.raises(StudioError, match=r"needs ([\d.]+) MB of disk space, but only 1.0 MB is free") as caught:
            export(JobContext(job, settings))
        told = re.search(r"needs ([\d.]+) MB", caught.value.what)
        assert told and float(told[1]) * 1e6 - files.SPARE_BYTES == pytest.approx(needed, abs=150_000), asked
        assert not job.exports.exists() or list(job.exports.iterdir()) == []


def test_a_model_of_the_hub_is_taken_by_its_name(folder: Path, settings: Settings) -> None:
    place = hub_folder(settings, "lab/tiny-model")
    shutil.copytree(folder, place)
    (place / "studio.json").write_text(json.dumps({"hub": "lab/tiny-model", "commit": "c", "license": "mit"}))
    for wanted in ("lab/tiny-model", str(place)):
        source = open_source(settings, wanted)
        assert (source.name, source.origin.base_model["source"]) == ("tiny-model", "hub")
        assert source.origin.descent("lab/tiny-model", "finetune") == ("lab/tiny-model", "quantized")
    assert open_source(settings, "lab/tiny-model").origin.id == "lab/tiny-model"
    cached = settings.home / "models--lab--cached" / "snapshots" / "0abc"
    cached.parent.mkdir(parents=True)
    shutil.copytree(folder, cached)
    assert open_source(settings, str(cached)).name == "cached"


def test_the_embedded_model_is_taken_by_its_name(settings: Settings) -> None:
    source = open_source(settings, "smollm2-135m-instruct")
    assert (source.name, source.origin.id) == ("smollm2-135m-instruct", "smollm2-135m-instruct")


def test_the_folders_card_says_where_it_comes_from(folder: Path, settings: Settings, tmp_path: Path) -> None:
    assert open_source(settings, str(folder)).origin.descent("x", "finetune") == ("lab/parent", "finetune")
    bare = linked(folder, tmp_path / "bare")
    (bare / "README.md").unlink()
    assert open_source(settings, str(bare)).origin.descent("x", "finetune") == ("", "quantized")


def test_a_run_comes_before_a_folder_of_its_name(
    folder: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    linked(folder, tmp_path / "orders")
    with pytest.raises(InputError, match=r"no run 'orders'.*Write \./orders for the folder"):
        find("orders", settings)
    run = create_job(settings.jobs, "train", "orders", {})
    assert find("orders", settings) == run == find(str(run.path), settings)
    found = find("./orders", settings)
    assert isinstance(found, Found) and found.base == tmp_path / "orders"


def test_the_page_reads_only_its_folders(folder: Path, adapter_folder: Path, settings: Settings) -> None:
    inside = settings.home / "mine"
    shutil.copytree(adapter_folder, inside)
    with reading_for(settings):
        for wanted in (folder, adapter_folder, inside, "/etc/passwd"):
            with pytest.raises(InputError, match="the page may not read"):
                find(str(wanted), settings)


def test_what_was_made_of_a_folder_is_taken_again_unless_it_changed(
    folder: Path, settings: Settings, tmp_path: Path
) -> None:
    copy = shutil.copytree(folder, tmp_path / "copy")
    asked = {"run": str(copy), "to": "merged"}
    made = create_job(settings.jobs, "export", "made", asked)
    made.report.mkdir()
    write_json(made.report / "export.json", {"run": str(copy), "files": [{"verdict": "as the original"}]})
    write_state(made.state_path, JobState(status="completed", started=2**33))
    config = ExportConfig.model_validate({"run": str(copy), "to": "merged"})
    waiting = create_job(settings.jobs, "export", "waiting", asked)
    assert _again(waiting, settings, config, copy) == made
    write_state(made.state_path, JobState(status="completed", started=1.0))
    assert _again(waiting, settings, config, copy) is None


def _again(job: JobFolder, settings: Settings, config: ExportConfig, folder: Path) -> JobFolder | None:
    return same_export(JobContext(job, settings), config, open_source(settings, str(folder)))


def test_the_card_tells_nothing_of_a_training(folder: Path, adapter_folder: Path, settings: Settings) -> None:
    entry = {
        "type": "merged", "dtype": "nf4", "greedy": None, "prompts_compared": 1, "prompt_ids_equal": True, "top1": 1.0,
        "mean_kl": 0.0, "exact_match": None, "verdict": "as expected", "notes": [f"compared on {folder}"],
    }  # fmt: skip
    report = {"name": "x", "base_model": str(folder), "reference": {"positions": 512}}
    whole = model_card(open_source(settings, str(folder)).origin, report | {"license": {"license": "mit"}}, entry)
    assert "This is lab-model, exported from the folder lab-model, weights in 4 bits (NF4 of bitsandbytes)." in whole
    assert "The license (mit) and the limitations of the original model apply." in whole
    assert 'base_model: "lab/parent"' in whole and "## Compared with the original model" in whole
    adapted = model_card(open_source(settings, str(adapter_folder)).origin, report, entry | {"dtype": "float16"})
    assert "lab-model, changed by the adapter of the folder lab-adapter, base model and adapter merged" in adapted
    for card in (whole, adapted):
        assert str(folder) not in card and "fine-tuned" not in card and "## Data" not in card
        assert "the trained model" not in card

"""Every preset that ships loads, and every kind of run that the presets name is run, for two steps on a tiny model."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from studio.config import RunConfig
from studio.config.load import build
from studio.config.presets import load_named, preset_names
from studio.data.files.datafiles import resolve_path
from studio.jobs import read_events
from studio.jobs.run.worker import JobContext
from studio.jobs.store.folder import JobFolder, create_job
from studio.methods import METHODS
from studio.models.inspect.families import family_of
from studio.models.inspect.headers import read_header
from studio.settings import ASSETS, PRESETS, Settings
from studio.train.worker import train
from studio.tunings import TUNINGS
from tests.models.tiny import save_tiny
from tests.support.everyday import everyday
from tests.support.known import PUBLISHED

NAMES = preset_names()
MODELS = [name for name in NAMES if name.startswith("models/")]
OF_METHODS = [name for name in NAMES if name.startswith("methods/")]
OF_METHODS_EVERYDAY = ("methods/sft-lora",)
COUNTS = {"demo": len(METHODS), "methods": len(METHODS) + 5, "models": 22}  # one each; five with other tunings
STEPS, ROWS_KEPT, BATCH = 2, 8, 4
EVERYDAY = ("llama",)  # of the architectures


def architecture(name: str) -> str:
    return str(PUBLISHED[name.removeprefix("models/")].config["model_type"])


def one_of_each() -> Iterator[tuple[str, str]]:
    """(architecture, the first of the model presets that has it with this tuning): the others differ in size only."""
    seen = set()
    for name in MODELS:
        config = load_named(name)
        kind = (architecture(name), config.tuning.name, str(config.tuning.target_modules))
        if kind not in seen:
            seen.add(kind)
            yield kind[0], name


@pytest.fixture(scope="session")
def tiny_models(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny model of each architecture, with SmolLM2's tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(model_path)
    folders = {}
    for kind in {architecture(name) for name in MODELS}:
        folder = tmp_path_factory.mktemp(kind)
        save_tiny(
            folder, kind, vocab_size=len(tokenizer), max_position_embeddings=4096, bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
        )  # fmt: skip
        tokenizer.save_pretrained(folder)
        folders[kind] = folder
    return folders


def few_rows(path: str, settings: Settings, folder: Path) -> str:
    """The first rows of a demo file: what is tested is the preset, not the data."""
    lines = resolve_path(path, settings).read_text(encoding="utf-8").splitlines()[:ROWS_KEPT]
    file = folder / f"few-{Path(path).name}"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(file)


def run(name: str, tiny: Path, settings: Settings, folder: Path) -> JobFolder:
    """Train the preset on the tiny model for two steps of half a batch; the vocabulary is the real one."""
    raw = load_named(name).model_dump(mode="json")
    raw["model"]["path"] = str(tiny)
    raw["training"] |= {"max_steps": STEPS, "batch_size": BATCH}
    # A rank above the tiny model's 8 to 32 columns is refused.
    raw["tuning"]["rank"] = 4
    for source in raw["data"]["train"]:
        source["path"] = few_rows(source["path"], settings, folder)
    if isinstance(raw["data"]["validation"], str):
        raw["data"]["validation"] = few_rows(raw["data"]["validation"], settings, folder)
    job = create_job(settings.jobs, "train", "preset", build(RunConfig, raw).model_dump(mode="json"))
    train(JobContext(job, settings))
    return job


def check(job: JobFolder, config: RunConfig) -> None:
    events, _ = read_events(job.events_path)
    steps = [event for event in events if event["kind"] == "metric" and "loss" in event["values"]]
    assert [event["step"] for event in steps] == [1, 2]
    assert all(isinstance(event["values"]["loss"], float) for event in steps)
    plan: dict[str, Any] = job.environment()["plan"]
    assert plan["fits"] and plan["steps"] == STEPS and plan["tuning"] == config.tuning.name
    saved = {path.name for path in job.model.iterdir()}
    assert ("model.safetensors" if not config.tuning.kind.adapter else "adapter_model.safetensors") in saved


def test_the_shipped_presets_are_these() -> None:
    folders = [name.split("/")[0] for name in NAMES]
    assert {folder: folders.count(folder) for folder in folders} == COUNTS
    assert len(set(NAMES)) == len({name.rpartition("/")[2] for name in NAMES}) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_every_preset_loads_and_says_what_it_is_for(name: str, settings: Settings) -> None:
    config = load_named(name)
    text = (PRESETS / f"{name}.yaml").read_text(encoding="utf-8")
    assert text.startswith("# ") and text.splitlines()[0].endswith(".")
    sources = [source.path for source in config.data.train]
    sources += [config.data.validation] if isinstance(config.data.validation, str) else []
    for source in sources:
        assert resolve_path(source, settings).is_relative_to(ASSETS)
    assert not config.tuning.kind.adapter or config.tuning.rank == 16
    assert 8 <= config.training.batch_size <= 16


def test_methods_are_named_after_what_they_do() -> None:
    for name in OF_METHODS:
        config = load_named(name)
        assert name == f"methods/{config.method.name}-{config.tuning.name}"
    assert {load_named(name).method.name for name in OF_METHODS} == set(METHODS)
    assert {load_named(name).tuning.name for name in OF_METHODS} == set(TUNINGS)


@pytest.mark.parametrize("name", everyday(OF_METHODS, *OF_METHODS_EVERYDAY))
def test_method_presets_run(name: str, tiny_models: dict[str, Path], settings: Settings, tmp_path: Path) -> None:
    check(run(name, tiny_models["llama"], settings, tmp_path), load_named(name))


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        pytest.param(kind, name, id=name, marks=[] if kind in EVERYDAY else [pytest.mark.long])
        for kind, name in one_of_each()
    ],
)
def test_model_presets_run(
    kind: str, name: str, tiny_models: dict[str, Path], settings: Settings, tmp_path: Path
) -> None:
    job = run(name, tiny_models[kind], settings, tmp_path)
    check(job, load_named(name))
    saved = sum(tensor.size for tensor in read_header(job.model / "adapter_model.safetensors"))
    assert saved == job.environment()["plan"]["trainable"]


def test_adapters_of_mixtures_go_where_a_name_reaches() -> None:
    for name in MODELS:
        config, raw = load_named(name), PUBLISHED[name.removeprefix("models/")].config
        family = family_of(raw)
        assert family is not None
        mixture = "num_experts_per_tok" in raw
        assert config.tuning.target_modules == (list(family.targets) if mixture else "all-linear")

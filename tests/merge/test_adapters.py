"""Adapters of one base model: `cat` is the weighted sum of their changes, the others are what PEFT makes of A and B."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, LlamaConfig

from studio.chat.ask import job_target
from studio.export.source import open_source
from studio.jobs.run.worker import JobContext
from studio.jobs.store.folder import create_job
from studio.merge.asking import prepare
from studio.merge.job import merge
from studio.merge.work.adapters import combine, laid_out
from studio.settings import Settings
from tests.merge.made import SIZES, put_run

WEIGHTS = {"a": 0.7, "b": -0.4}
# Of one rank; of another rank and with rsLoRA; on other layers.
OPTIONS: dict[str, dict[str, Any]] = {
    "a": {}, "b": {}, "c": {"r": 2, "use_rslora": True}, "d": {"target_modules": ["q_proj", "gate_proj"]},
    "e": {"target_modules": ["q_proj"]},
}  # fmt: skip
RANKS = {"a": 4, "b": 4, "c": 2, "d": 4, "e": 4}
LAYER = "model.layers.0.mlp.up_proj.weight"
Changes = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def adapters(base: Path, make_adapter: Callable[..., Path]) -> dict[str, Path]:
    return {name: make_adapter(seed, base, **options) for seed, (name, options) in enumerate(OPTIONS.items())}


@pytest.fixture(scope="module")
def parents(base: Path, adapters: dict[str, Path]) -> dict[str, Changes]:
    return {name: changes(base, folder) for name, folder in adapters.items()}


@pytest.fixture
def combined(base: Path, adapters: dict[str, Path], tmp_path: Path) -> Callable[..., Path]:
    """Combine adapters, as the step does; returns the folder of the new one."""

    def call(kind: str, weights: dict[str, float], density: float | None = None) -> Path:
        request = {
            "base": str(base), "adapters": [str(adapters[name]) for name in weights], "kind": kind,
            "weights": list(weights.values()), "density": density, "seed": 42, "target": str(tmp_path / "child"),
            "folder": str(tmp_path),
        }  # fmt: skip
        combine(request, lambda done, total: None)
        return tmp_path / "child"

    return call


def changes(base: Path, adapter: Path) -> Changes:
    """What PEFT adds to each weight of the base model for an adapter."""
    loaded = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    before = {name: tensor.clone() for name, tensor in loaded.state_dict().items()}
    after = PeftModel.from_pretrained(loaded, str(adapter)).merge_and_unload().state_dict()
    return {name: (after[name] - before[name]).double() for name in before}


def total(parents: dict[str, Changes], weights: dict[str, float], name: str) -> torch.Tensor:
    return torch.stack([weight * parents[one][name] for one, weight in weights.items()]).sum(0)


def test_a_base_model_without_weights_takes_no_memory(tmp_path: Path) -> None:
    sizes = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 8, "dtype": "bfloat16"}
    LlamaConfig(**(SIZES | sizes)).save_pretrained(tmp_path)
    before = psutil.Process().memory_info().rss
    model = laid_out(str(tmp_path))
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert psutil.Process().memory_info().rss - before < 0.1 * 4 * model.num_parameters()


CASES = [WEIGHTS, {"a": 0.5, "c": 2.0}, {"c": 1.0, "a": 0.5}, {"d": 1.0, "e": 0.5}, {"a": 1.0, "b": 1.0, "c": 1.0}]


@pytest.mark.parametrize("weights", CASES, ids=str)
def test_cat_is_the_weighted_sum(
    weights: dict[str, float], combined: Callable[..., Path], parents: dict[str, Changes], base: Path
) -> None:
    child = combined("cat", weights)
    made = changes(base, child)
    for name, tensor in made.items():
        torch.testing.assert_close(tensor, total(parents, weights, name), rtol=1e-4, atol=1e-6)
    assert any(float(tensor.abs().max()) > 1e-3 for tensor in made.values())
    assert json.loads((child / "adapter_config.json").read_text())["r"] == sum(RANKS[name] for name in weights)


def test_linear_mixes_a_and_b_each_for_itself(
    combined: Callable[..., Path], parents: dict[str, Changes], base: Path
) -> None:
    """PEFT weights A and B by the root each, so that the product has terms of both adapters: no sum of the changes."""
    made = changes(base, combined("linear", WEIGHTS))
    exact = total(parents, WEIGHTS, LAYER)
    assert float((made[LAYER] - exact).norm()) > 0.1 * float(exact.norm())


def test_svd_is_the_best_approximation(
    combined: Callable[..., Path], parents: dict[str, Changes], base: Path
) -> None:  # fmt: skip
    made = changes(base, combined("svd", WEIGHTS))
    u, s, v = torch.linalg.svd(total(parents, WEIGHTS, LAYER))
    torch.testing.assert_close(made[LAYER], u[:, :4] @ torch.diag(s[:4]) @ v[:4], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", ["ties", "dare_linear", "dare_ties", "magnitude_prune"])
def test_the_others_give_an_adapter_of_the_same_rank(kind: str, combined: Callable[..., Path], base: Path) -> None:
    child = combined(kind, WEIGHTS, density=0.5)
    assert json.loads((child / "adapter_config.json").read_text())["r"] == 4
    assert any(float(tensor.abs().max()) > 1e-4 for tensor in changes(base, child).values())


@pytest.mark.long
def test_the_child_is_an_adapter_run(
    settings: Settings, adapters: dict[str, Path], parents: dict[str, Changes], base: Path
) -> None:
    for name in WEIGHTS:
        put_run(settings, name, adapters[name], base)
    models = [{"model": name, "parameters": {"weight": weight}} for name, weight in WEIGHTS.items()]
    config = prepare(json.dumps({"merge_method": "adapter_cat", "models": models}), settings).config
    job = create_job(settings.jobs, "merge", "both", config.model_dump(mode="json"))
    merge(JobContext(job, settings))
    torch.testing.assert_close(changes(base, job.model)[LAYER], total(parents, WEIGHTS, LAYER), rtol=1e-4, atol=1e-6)
    target, source = job_target(job, settings), open_source(settings, "both")
    assert (target.adapter, target.model, source.adapter, source.base) == (job.model, base, job.model, base)
    card = (job.model / "README.md").read_text()
    assert (job.model / "tokenizer.json").is_file() and "library_name: peft" in card
    assert "Exact: the weighted sum of the changes" in card
    report = json.loads((job.report / "merge.json").read_text())
    assert report["note"].startswith("Exact") and [one["word"] for one in report["parents"]] == ["a", "b"]

"""The engine `unsloth`, held against the signatures of a release; Unsloth itself needs an NVIDIA GPU and was not run.

A stand-in takes Unsloth's place: it refuses what the release's functions do not take (contracts/unsloth.json), writes
down the calls, and answers with plain transformers and PEFT, so that the run after it is a real one.
"""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM

from studio.config import RunConfig
from studio.config.load import build
from studio.errors import InputErrors
from studio.models.catalog import available
from studio.models.device.machine import DeviceInfo
from studio.settings import Settings
from studio.train import checks
from studio.train.checks.model import unsloth_lacks
from tests.parity.made import demo_rows, logged, make_trainer, trained_weights, write_rows

CONTRACT = json.loads((Path(__file__).parent / "contracts" / "unsloth.json").read_text())
GPU = DeviceInfo("cuda", "A GPU", 8, 24 * 10**9, 24 * 10**9, 10**12, {"float32": 1.0, "bfloat16": 2.0}, True)


class FastLanguageModel:
    """Unsloth's class as the contract has it."""

    calls: dict[str, dict[str, Any]]

    @classmethod
    def from_pretrained(cls, **given: Any) -> tuple[Any, Any]:
        cls.calls["from_pretrained"] = cls.fitting("from_pretrained", given)
        return AutoModelForCausalLM.from_pretrained(given["model_name"], dtype=given["dtype"]), None

    @classmethod
    def get_peft_model(cls, model: Any, **given: Any) -> Any:
        cls.calls["get_peft_model"] = cls.fitting("get_peft_model", given)
        names = ("r", "target_modules", "lora_alpha", "lora_dropout", "bias", "layers_to_transform", "use_rslora",
                 "modules_to_save")  # fmt: skip
        return get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **{name: given[name] for name in names}))

    @staticmethod
    def fitting(name: str, given: dict[str, Any]) -> dict[str, Any]:
        unknown = set(given) - set(CONTRACT[f"FastLanguageModel.{name}"])
        assert not unknown, f"unsloth {CONTRACT['version']}: {name} takes no {unknown}"
        return given


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """Put the stand-in in Unsloth's place; what it was called with."""
    module = types.ModuleType("unsloth")
    FastLanguageModel.calls = {}
    module.FastLanguageModel = FastLanguageModel  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "unsloth", module)
    return FastLanguageModel.calls


def raw(rows: Path, tiny: Path, method: str, **tuning: Any) -> dict[str, Any]:
    return {
        "model": {"path": str(tiny), "dtype": "float32"},
        "data": {"train": [{"path": str(rows)}], "validation": 0, "max_length": 256},
        "method": {"name": method},
        "tuning": {"name": "lora", "rank": 4, **tuning},
        "training": {"engine": "unsloth", "max_steps": 3, "batch_size": 4, "learning_rate": 1e-3, "seed": 7},
    }


@pytest.mark.parametrize(("method", "file"), [("sft", "train.jsonl"), ("dpo", "pairs_train.jsonl")])
def test_a_run_through_its_calls(
    calls: dict[str, dict[str, Any]], settings: Settings, tiny: Path, tmp_path: Path, method: str, file: str
) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", demo_rows(file, 12))
    made = make_trainer(raw(rows, tiny, method, dropout=0.1, rslora=True), tiny, tmp_path / "out", settings)
    assert not made.setup.engine_loss  # the forward pass is Unsloth's
    before = trained_weights(made.trainer)
    made.trainer.train()

    load, adapter = calls["from_pretrained"], calls["get_peft_model"]
    assert (load["model_name"], load["max_seq_length"], load["random_state"]) == (str(tiny), 256, 7)
    assert (load["load_in_4bit"], load["load_in_8bit"], load["load_in_16bit"]) == (False, False, True)
    assert (adapter["r"], adapter["lora_alpha"], adapter["lora_dropout"]) == (4, 8.0, 0.1)
    assert (adapter["target_modules"], adapter["use_rslora"], adapter["random_state"]) == ("all-linear", True, 7)

    losses, after = logged(made.trainer), trained_weights(made.trainer)
    assert len(losses) == 3
    assert all(0 < loss < 20 for loss in losses)
    assert any(not before[name].equal(after[name]) for name in before)
    made.trainer.save_model(str(tmp_path / "model"))
    PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny), tmp_path / "model")


@pytest.mark.parametrize(("bits", "loads"), [("4", (True, False, False)), ("8", (False, True, False))])
def test_qlora_asks_for_its_bits(
    calls: dict[str, dict[str, Any]], settings: Settings, tiny: Path, tmp_path: Path, bits: str, loads: tuple[bool, ...]
) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", demo_rows("train.jsonl", 4))
    make_trainer(raw(rows, tiny, "sft", name="qlora", bits=bits), tiny, tmp_path / "out", settings)
    load = calls["from_pretrained"]
    assert (load["load_in_4bit"], load["load_in_8bit"], load["load_in_16bit"]) == loads


def refused(tiny: Path, settings: Settings, sections: dict[str, Any]) -> str:
    config = build(RunConfig, sections)
    try:
        checks.check_model(checks.Known.of(config, tiny, settings))
    except InputErrors as wrong:
        return "\n".join(error.sentence for error in wrong.errors)
    return ""


def test_what_it_does_not_take_is_refused_on_a_gpu(
    monkeypatch: pytest.MonkeyPatch, settings: Settings, tiny: Path
) -> None:
    gpu = DeviceInfo(**{**vars(GPU), "capability": (8, 0)})
    monkeypatch.setattr("studio.train.checks.model.device_info", lambda settings, **wanted: gpu)
    monkeypatch.setattr(available, "find_spec", lambda name: True)
    engine = {"training": {"engine": "unsloth"}}
    assert refused(tiny, settings, {**engine, "tuning": {"name": "lora"}}) == ""
    assert "does not train sft with full" in refused(tiny, settings, {**engine, "tuning": {"name": "full"}})
    assert "does not train ppo with lora" in refused(tiny, settings, {**engine, "method": {"name": "ppo"}})
    cases = {
        "tuning.init": {"tuning": {"init": "pissa"}},
        "tuning.rank_pattern": {"tuning": {"rank_pattern": "q_proj=8"}},
        "tuning.alpha_pattern": {"tuning": {"alpha_pattern": "q_proj=8"}},
        "tuning.dora": {"tuning": {"name": "qlora", "dora": True}},
        "model.rope_scaling": {"model": {"rope_scaling": "linear"}},
        "model.attention": {"model": {"attention": "sdpa"}},
    }
    assert {*cases, "tuning.adapter"} == {path for path, _ in unsloth_lacks(build(RunConfig, {}))}
    for path, sections in cases.items():
        assert f"the engine unsloth does not take {path}" in refused(tiny, settings, engine | sections)


def test_without_a_gpu_it_is_refused_with_the_install_line(settings: Settings, tiny: Path) -> None:
    sentence = refused(tiny, settings, {"training": {"engine": "unsloth"}})
    assert "unsloth: it needs an NVIDIA GPU" in sentence
    assert "pip install --no-deps unsloth" in sentence


@pytest.mark.parametrize(
    ("path", "word", "capability", "installed", "said"),
    [
        ("model.attention", "flash_attention_2", (8, 0), True, None),
        ("model.attention", "flash_attention_2", (7, 5), True, "compute capability 8.0 or later, and A GPU has 7.5"),
        ("model.attention", "flash_attention_2", (8, 0), False, "needs the package flash_attn"),
        ("model.attention", "flash_attention_3", (9, 0), True, None),
        ("model.attention", "flash_attention_3", (8, 9), True, "compute capability 9.0 to 9.99"),
        ("model.attention", "flash_attention_3", (10, 0), True, "compute capability 9.0 to 9.99"),
        ("model.attention", "flex_attention", (7, 0), False, None),
        ("training.engine", "unsloth", (7, 0), True, None),
        ("training.engine", "unsloth", (6, 1), True, "compute capability 7.0 or later"),
        ("model.attention", "sdpa", (0, 0), False, None),
    ],
)
def test_what_a_gpu_must_have(
    monkeypatch: pytest.MonkeyPatch, path: str, word: str, capability: tuple[int, int], installed: bool,
    said: str | None,
) -> None:  # fmt: skip
    monkeypatch.setattr(available, "find_spec", lambda name: True if installed else None)
    found = available.lack(path, word, DeviceInfo(**{**vars(GPU), "capability": capability}))
    assert (found is None) if said is None else (found is not None and said in found.sentence)


def test_auto_takes_the_fastest_attention_that_is_here(monkeypatch: pytest.MonkeyPatch) -> None:
    hopper, ampere = (DeviceInfo(**{**vars(GPU), "capability": one}) for one in ((9, 0), (8, 6)))
    assert available.best_attention(ampere, half=True) == "auto"  # the packages are not installed here
    monkeypatch.setattr(available, "find_spec", lambda name: True)
    assert available.best_attention(hopper, half=True) == "flash_attention_3"
    assert available.best_attention(ampere, half=True) == "flash_attention_2"
    assert available.best_attention(ampere, half=False) == "auto"  # it computes in 16 bits only
    cpu = DeviceInfo(**{**vars(GPU), "kind": "cpu"})
    assert available.best_attention(cpu, half=True) == "auto"


def test_disagreeing_versions_are_named() -> None:
    assert available.disagreements("no-such-package") == []
    assert available.disagreements("peft") == []  # what is installed here fits together

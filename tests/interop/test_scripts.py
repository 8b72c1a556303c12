"""A run as a script: it compiles for every method and tuning, and trains what the studio trains."""

from __future__ import annotations

import ast
import itertools
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from studio.config import RunConfig
from studio.config.load import build
from studio.config.presets import load_named
from studio.errors import InputError
from studio.interop.scripts import TRL_SCRIPT, UNSLOTH_SCRIPT
from studio.interop.tool import Tool
from studio.methods import METHODS
from studio.tunings import TUNINGS
from tests.parity.made import demo_rows, logged, make_trainer, one_thread, write_rows

STEPS = 3
# Both sides add up the same numbers in another order; fp32 keeps seven digits.
TOLERANCE = 1e-3
CELLS = list(itertools.product(METHODS, TUNINGS))
# Of Unsloth's API, as its documentation has it.
UNSLOTH = {"from_pretrained", "get_peft_model"}


def script(tool: Tool, raw: dict[str, Any]) -> str:
    assert tool.write is not None
    (text,) = tool.write(build(RunConfig, raw)).files.values()
    return text


def imports_of(text: str) -> dict[str, str]:
    """Names and the modules that they are imported from."""
    nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)]
    return {alias.name: node.module or "" for node in nodes for alias in node.names}


def test_the_demos_script_names_files_that_are_there() -> None:
    files = re.findall(r'data_files="(.*?)"', script(TRL_SCRIPT, {"data": {"validation": "demo/validation.jsonl"}}))
    assert len(files) == 2 and all(Path(file).is_file() for file in files)


@pytest.mark.parametrize(("method", "tuning"), CELLS)
@pytest.mark.parametrize("tool", [TRL_SCRIPT, UNSLOTH_SCRIPT], ids=lambda tool: tool.name)
def test_every_method_with_every_tuning_is_a_script_or_refused(tool: Tool, method: str, tuning: str) -> None:
    raw = {"method": {"name": method}, "tuning": {"name": tuning}, "data": {"train": [{"path": "org/rows"}]}}
    has = METHODS[method].unsloth and TUNINGS[tuning].unsloth if tool is UNSLOTH_SCRIPT else method != "ppo"
    if not has:
        with pytest.raises(InputError, match="has no"):
            script(tool, raw)
        return
    text = script(tool, raw)
    compile(text, "train.py", "exec")
    names = imports_of(text)
    (trainer,) = [name for name in names if name.endswith("Trainer")]
    assert f"trainer = {trainer}(" in text and max(map(len, text.splitlines())) < 130
    if tool is UNSLOTH_SCRIPT:
        assert set(re.findall(r"FastLanguageModel\.(\w+)", text)) == UNSLOTH
        assert text.index("from unsloth") < text.index("import torch")  # it patches what is imported later
    else:
        assert ("LoraConfig" in names) == TUNINGS[tuning].adapter
        assert ("BitsAndBytesConfig" in names) == TUNINGS[tuning].quantized


@pytest.mark.long
def test_the_names_and_options_of_every_script_exist_in_trl() -> None:
    import importlib
    import inspect

    looked_at = 0
    for method, tuning in CELLS:
        if method == "ppo":
            continue
        raw = {"method": {"name": method}, "tuning": {"name": tuning}, "data": {"train": [{"path": "org/rows"}]}}
        text = script(TRL_SCRIPT, raw)
        names = {name: getattr(importlib.import_module(module), name) for name, module in imports_of(text).items()}
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "").endswith(("Config", "Trainer")):
                known = inspect.signature(names[node.func.id]).parameters  # type: ignore[attr-defined]
                assert {word.arg for word in node.keywords} <= set(known), (method, tuning)
                looked_at += 1
    assert looked_at > 2 * (len(CELLS) - len(TUNINGS))


def test_what_differs_is_said_at_the_top_and_a_name_is_no_code() -> None:
    raw = {
        "model": {"path": 'x"); import os #', "revision": "it's"}, "data": {"validation": 0.1},
        "method": {"name": "sft"}, "tuning": {"name": "lora", "merge_adapter": True, "adapter": "old"},
    }  # fmt: skip
    text = script(TRL_SCRIPT, raw)
    assert "- tuning.merge_adapter: It is not in this script." in text.split('"""')[1]
    assert "- data.validation: The same share of the rows, but others of them." in text.split('"""')[1]
    assert "os" not in imports_of(text)
    with pytest.raises(InputError, match="cannot be imported"):
        script(TRL_SCRIPT, {"method": {"name": "grpo", "rewards": ["python"], "reward_python": "a b.py:f"}})


@pytest.mark.long
@pytest.mark.parametrize("method", [name for name in METHODS if name != "ppo"])
def test_the_script_of_every_method_trains(
    method: str, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_named(f"demo/{method}").model_dump(mode="json")
    config["model"] |= {"path": str(tiny), "dtype": "float32"}
    config["data"] |= {"validation": 0, "max_length": "auto"}
    config["training"] |= {"max_steps": 2, "batch_size": 4, "micro_batch_size": 4, "save_steps": "auto"}
    config["method"] |= {"max_completion_length": 4}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    values: dict[str, Any] = {"__name__": "train"}
    exec(compile(script(TRL_SCRIPT, config), "train.py", "exec"), values)
    assert len(logged(values["trainer"])) == 2
    assert (tmp_path / "outputs/model/adapter_model.safetensors").is_file()


@pytest.mark.long
def test_the_script_has_the_losses_of_the_studio(model_path: Path, tmp_path: Path, settings: Any) -> None:
    rows = write_rows(tmp_path / "rows.jsonl", demo_rows("train.jsonl", 12))
    raw = {
        "model": {"path": str(model_path), "dtype": "float32"},
        "data": {"train": [{"path": str(rows)}], "validation": 0},
        "training": {"max_steps": STEPS, "batch_size": 4, "micro_batch_size": 2, "learning_rate": 1e-3},
    }  # fmt: skip
    (tmp_path / "train.py").write_text(script(TRL_SCRIPT, raw), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "train.py"], cwd=tmp_path, capture_output=True, text=True, timeout=500,
        env={**os.environ, "OMP_NUM_THREADS": "1", "HF_HOME": str(tmp_path / "cache")},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    theirs = [float(one) for one in re.findall(r"'loss': '?([\d.e+-]+)", done.stdout + done.stderr)]
    with one_thread():
        made = make_trainer(raw, model_path, tmp_path / "studio", settings)
        made.trainer.train()
    ours = logged(made.trainer)
    assert len(theirs) == len(ours) == STEPS
    assert (tmp_path / "outputs/model/adapter_model.safetensors").is_file()
    assert max(abs(a - b) / a for a, b in zip(ours, theirs, strict=True)) <= TOLERANCE
    assert ours[-1] < ours[0]

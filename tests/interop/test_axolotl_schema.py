"""Axolotl's own schema, in an environment of its own, accepts each export: `make test-axolotl`."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings

from studio.config import RunConfig
from studio.config.load import build, load_run
from studio.config.presets import preset_names
from studio.errors import InputError
from studio.interop.axolotl.writing import write
from studio.methods import METHODS
from studio.methods.method import Asked
from studio.settings import PRESETS
from tests.interop.test_axolotl_out import RUNS, made

PYTHON = os.environ.get("STUDIO_AXOLOTL_PYTHON", "")
READS = Path(__file__).with_name("axolotl_reads.py")
RANDOM = 100
# Everything that is said of a set.
SOURCE = {
    "path": "org/rows",
    "subset": "part",
    "split": "test",
    "revision": "v1",
    "rows": 9,
    "tags": {"role": "from", "content": "value", "user": "human"},
}
COLUMNS = {"messages": "talk", "prompt": "asked", "chosen": "good", "rejected": "bad", "completion": "said",
           "label": "right", "text": "body", "instruction": "task", "output": "done"}  # fmt: skip
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not PYTHON, reason="make test-axolotl installs Axolotl and runs this"),
]


def trains(config: RunConfig) -> bool:
    """Whether the studio's own check of the method lets the run start."""
    try:
        asked = Asked(config.training.batch_size, config.training.micro_batch_size)
        config.method.kind.check(config.method, asked)
    except InputError:
        return False
    return True


def sourced() -> dict[str, RunConfig]:
    """A run of each method with each reading of a set that its options name."""
    found = {}
    names = [name for name, kind in METHODS.items() if kind.trainer != "ppo"]
    for method, reading, columns in itertools.product(names, ("raw", "conversation"), ({}, COLUMNS)):
        data = {"train": [{**SOURCE, "reading": reading, "columns": columns}], "validation": "org/rows"}
        found[f"{method} {reading} {len(columns)}"] = build(RunConfig, {"method": {"name": method}, "data": data})
    return found


def test_every_preset_and_random_runs_are_configs_of_axolotl(tmp_path: Path) -> None:
    presets = {name: load_run(PRESETS / f"{name}.yaml") for name in preset_names()}
    exported = {name: config for name, config in presets.items() if METHODS[config.method.name].trainer != "ppo"}
    random: list[RunConfig] = []

    @given(RUNS)
    @settings(max_examples=2 * RANDOM, database=None, derandomize=True)
    def draw(run: dict[str, Any]) -> None:
        config = made(run)
        if trains(config):
            random.append(config)

    draw()
    configs = {**exported, **sourced(), **{f"random {at}": config for at, config in enumerate(random)}}
    texts = {name: "".join(write(config).files.values()) for name, config in configs.items()}
    orpo = texts["demo/orpo"]
    broken = {
        "unknown key no_such_key": orpo + "no_such_key: 1\n",
        "no strategy chat_template.default": orpo.replace(".dpo.", ""),
        "ValidationError": orpo.replace("rl: orpo", "rl: nothing"),
    }
    for name, text in (texts | broken).items():
        (tmp_path / f"{name.replace('/', ' ')}.yml").write_text(text, encoding="utf-8")
    done = subprocess.run(
        [PYTHON, str(READS), str(tmp_path)], capture_output=True, text=True, timeout=900,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "AXOLOTL_DO_NOT_TRACK": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    problems = json.loads(done.stdout.splitlines()[-1])
    for said in broken:  # what is wrong is seen
        assert any(one.startswith(said) for one in problems.pop(f"{said}.yml"))
    assert len(problems) == len(configs) and len(exported) >= 40 and len(random) >= RANDOM
    assert {name: found for name, found in problems.items() if found} == {}

"""Liger's kernels are put where they give what a model's own layers give, and taken back.

`make test-liger`: Liger and Triton have an environment of their own, where Triton's interpreter stands in for a GPU.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from studio.train.engine import liger

PYTHON = os.environ.get("STUDIO_LIGER_PYTHON", "")
SCRIPT = Path(__file__).with_name("interpreted.py")
ROOT = Path(__file__).parents[4]
# Five norms in two layers, and two more in each where queries and keys have some.
REPLACED = {
    "llama": "5 norms, 2 gates, rotary positions", "qwen3": "9 norms, 2 gates, rotary positions",
    "gemma": "5 norms, 2 gates, rotary positions", "phi3": "5 norms, 2 gates, rotary positions",
    "glm": "5 norms, 2 gates",  # it turns neighbours, not halves
}  # fmt: skip


@pytest.fixture(scope="module")
def found() -> dict[str, dict[str, Any]]:
    done = subprocess.run(
        [PYTHON, str(SCRIPT), *REPLACED], capture_output=True, text=True, timeout=1100, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.long
@pytest.mark.skipif(not PYTHON, reason="make test-liger")
@pytest.mark.parametrize("family", REPLACED)
def test_a_family_gives_the_same_with_them_and_after_them(family: str, found: dict[str, dict[str, Any]]) -> None:
    assert found[family]["line"] == f"Liger's kernels: {REPLACED[family]}"
    outputs, gradients = found[family]["far"]
    assert 0 < outputs < 1e-4 and 0 < gradients < 1e-3
    assert found[family]["back"] == [0, 0]


def test_a_run_says_that_they_are_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liger, "find_spec", lambda name: None)
    line = liger.fuse(SimpleNamespace(), SimpleNamespace()).line()  # type: ignore[arg-type]
    assert line == "Liger's kernels: none (they are not installed; studio doctor says how)"

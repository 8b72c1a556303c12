"""LLaMA-Factory in an environment of its own (`make test-llama-factory` and `make bench-peer` install it)."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


def environment_in(folder: Path, python: str) -> dict[str, str]:
    """What it finds in its environment: no GPU, no network, its caches in `folder`.

    It imports torchaudio, of which no build may load beside its torch; where none does, an empty module stands in for
    it: nothing here has sound.
    """
    env = {
        **os.environ, "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "MPLBACKEND": "Agg",
        "HF_HOME": str(folder / "hf"), "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1",
    }  # fmt: skip
    if subprocess.run([python, "-c", "import torchaudio"], env=env, capture_output=True).returncode:
        (folder / "instead").mkdir(exist_ok=True)
        (folder / "instead" / "torchaudio.py").write_text('"""Stands in for a torchaudio that does not load."""\n')
        env["PYTHONPATH"] = str(folder / "instead")
    return env

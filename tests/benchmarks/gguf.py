"""An export to GGUF beside the same by llama.cpp's own tools and our proof: wall time, in alternating pairs.

    python -m tests.benchmarks.gguf HOME RUN [PAIRS]

Theirs: PEFT merges and saves, convert_hf_to_gguf.py writes f16, llama_model_quantize writes the type, each in a process
of its own as a person would do by hand; then our own proof of the file. Ours: `studio export`, from the start of its
worker to its end, the disk, the report and the checksum included. On a machine that others use, only the ratio of a
pair means something, and the median of several.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from studio.export.gguf.toolchain import find_toolchain
from studio.export.source import Source, cpu_threads, open_source, texts_from
from studio.export.steps import QUIET, QuietWatcher, require, run_own_step
from studio.jobs import find_job
from studio.settings import Settings, read_settings
from tests.conftest import run_studio

TYPE, CONSTANT = "q4_k_m", "LLAMA_FTYPE_MOSTLY_Q4_K_M"
GOAL = 1.1
MERGE = """
import sys, torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
base, adapter, target = sys.argv[1:]
model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float16)
PeftModel.from_pretrained(model, adapter).merge_and_unload().save_pretrained(target)
AutoTokenizer.from_pretrained(adapter).save_pretrained(target)
"""
QUANTIZE = """
import ctypes, sys, llama_cpp
params = llama_cpp.llama_model_quantize_default_params()
params.ftype, params.nthread = getattr(llama_cpp, sys.argv[3]), int(sys.argv[4])
sys.exit(llama_cpp.llama_model_quantize(sys.argv[1].encode(), sys.argv[2].encode(), ctypes.byref(params)))
"""


@dataclass(frozen=True)
class Pair:
    """Seconds of the two, by step."""

    ours: dict[str, float]
    theirs: dict[str, float]

    @property
    def ratio(self) -> float:
        """Ours in times of theirs."""
        return sum(self.ours.values()) / sum(self.theirs.values())


def pairs(home: Path, run: str, count: int) -> list[Pair]:
    """Measure `count` pairs, the other one first each time.

    Args:
        home: STUDIO_HOME with the run.
        run: its id or name.
        count: of pairs.
    """
    found: list[Pair] = []
    for number in range(count):
        order = (ours, theirs) if number % 2 == 0 else (theirs, ours)
        seconds = {work.__name__: work(home, run) for work in order}
        found.append(Pair(seconds["ours"], seconds["theirs"]))
    return found


def ours(home: Path, run: str) -> dict[str, float]:
    """Export the run; its phases, and what is between them."""
    done = run_studio("export", run, "--to", "gguf", "--type", TYPE, "--json", home=home)
    assert done.code == 0, done.stderr
    job = find_job(home / "jobs", done.json["id"])
    state = job.state()
    assert state.started is not None and state.finished is not None
    seconds = {phase["phase"]: phase["seconds"] for phase in done.json["phases"]}
    for file in job.exports.glob("*.gguf"):
        file.unlink()
    return seconds | {"between": state.finished - state.started - sum(seconds.values())}


def theirs(home: Path, run: str) -> dict[str, float]:
    """Do by hand what an export does, and prove the file as it does."""
    settings = Settings(home, "127.0.0.1", 7860, (home,), None, 600)
    source = open_source(settings, run)
    tools = find_toolchain(read_settings())
    assert tools is not None and source.base is not None and source.adapter is not None
    with tempfile.TemporaryDirectory(dir=home) as name:
        work = Path(name)
        merged, wide, small = work / "model", work / "wide.gguf", work / "small.gguf"
        converter = str(tools.path / "convert_hf_to_gguf.py")
        seconds = {
            "merging": _run(["-c", MERGE, str(source.base), str(source.adapter), str(merged)]),
            "converting": _run([converter, str(merged), "--outtype", "f16", "--outfile", str(wide)]),
            "quantizing": _run(["-c", QUANTIZE, str(wide), str(small), CONSTANT, str(cpu_threads())]),
        }
        return seconds | _proved(source, small, work, settings)


def _proved(source: Source, file: Path, work: Path, settings: Settings) -> dict[str, float]:
    texts = texts_from(source.run, None, settings)
    asked = {
        "base": str(source.base), "adapter": str(source.adapter), "tokenizer": str(source.tokenizer), "limit": None,
        "texts_from": texts.model_dump(mode="json") if texts else None, "rows_from": None, "folder": str(work),
    }  # fmt: skip
    verified = {"file": str(file), "folder": str(work), "threads": cpu_threads()}
    steps = {"running the trained model": ("reference", asked), f"verifying {TYPE}": ("verify", verified)}
    return {
        name: require(run_own_step(f"studio.export.proof.{step}", request, work, QuietWatcher()), name).seconds
        for name, (step, request) in steps.items()
    }


def _run(arguments: list[str]) -> float:
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, env={**os.environ, **QUIET}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return time.monotonic() - began


def main() -> int:
    """Print each pair and the median of their ratios; returns 1 where that misses the goal."""
    home, run = Path(sys.argv[1]).absolute(), sys.argv[2]
    found = pairs(home, run, int(sys.argv[3]) if len(sys.argv) > 3 else 3)
    for pair in found:
        for name, seconds in (("ours", pair.ours), ("theirs", pair.theirs)):
            steps = json.dumps({step: round(value, 1) for step, value in seconds.items()})
            print(f"{name}: {sum(seconds.values()):.1f} s {steps}")
        print(f"ratio {pair.ratio:.2f}, load {os.getloadavg()[0]:.1f}", flush=True)
    middle = median(pair.ratio for pair in found)
    print(f"median ratio {middle:.2f}, goal {GOAL}")
    return int(middle > GOAL)


if __name__ == "__main__":
    raise SystemExit(main())

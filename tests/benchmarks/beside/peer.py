"""A LoRA training on rows like Alpaca's beside LLaMA-Factory's, run turn about on this machine.

    python -m tests.benchmarks.beside.peer PYTHON [PAIRS] [STEPS] [KERNELS]      3 pairs of 4 steps; `make bench-peer`
PYTHON is that of an environment with LLaMA-Factory. It gets its best settings for a CPU (`BEST`: bfloat16, packed rows
that do not attend to each other, no checkpointing), then its own for a CPU (`DEFAULT`), and the studio everything on
auto, `training.kernels` as named. An update has about 8,000 tokens, 1,700 where rows are not packed. Tokens are those
of rows, without padding; seconds those of the training loop, without loading and saving; memory is the largest resident
set of the process that trains. Exits with 1 where a goal is missed.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from studio.jobs import JobFolder, read_events
from tests.benchmarks.auto import BATCH, config_of, like_alpaca, write
from tests.benchmarks.beside.sides import peak_of
from tests.conftest import run_studio
from tests.support.prepared import copy_model
from tests.support.programs.llama_factory import environment_in

PAIRS, STEPS, KERNELS = 3, 4, "auto"
GOALS, MOST_MEMORY = {"best": 2.0, "default": 6.0}, 0.75  # times as fast; of the memory of its best
TAIL = 3000  # characters of the output of a training that failed
BEST = {
    "stage": "sft", "do_train": True, "finetuning_type": "lora", "lora_rank": 16, "lora_target": "all",
    "template": "smollm2", "cutoff_len": 1024, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 4,
    "learning_rate": 1e-4, "lr_scheduler_type": "constant", "logging_steps": 1, "save_strategy": "no",
    "report_to": "none", "overwrite_output_dir": True, "disable_shuffling": True, "bf16": True, "use_cpu": True,
    "packing": True, "neat_packing": True, "disable_gradient_checkpointing": True,
}  # fmt: skip
DEFAULT = {"bf16": False, "packing": False, "neat_packing": False, "disable_gradient_checkpointing": False}
SETTINGS: dict[str, dict[str, Any]] = {"best": {}, "default": DEFAULT}


@dataclass(frozen=True)
class Training:
    """What one training took.

    Attributes:
        tokens: of the rows, without padding.
        seconds: of the training loop.
        peak: resident bytes.
        losses: of each step.
    """

    tokens: int
    seconds: float
    peak: int
    losses: list[float]

    @property
    def speed(self) -> float:
        """Tokens a second."""
        return self.tokens / self.seconds


def ours(home: Path, steps: int, kernels: str) -> Training:
    """Train on auto, from the command line."""
    raw = config_of(write(home, BATCH * steps), max_steps=steps, kernels=kernels)
    (home / "run.yaml").write_text(json.dumps(raw))
    done = run_studio("train", str(home / "run.yaml"), "--json", home=home, seconds=3600)
    assert done.code == 0, done.stderr
    job = JobFolder(Path(done.json["path"]))
    metrics = [event for event in read_events(job.events_path)[0] if event["kind"] == "metric"]
    losses = [event["values"]["loss"] for event in metrics]
    peak = job.environment()["peak_memory_bytes"]
    return Training(metrics[-1]["tokens"], metrics[-1]["training_seconds"], peak, losses)


def theirs(
    folder: Path, python: str, rows: list[dict[str, str]], settings: dict[str, Any], device: str = "cpu"
) -> Training:
    """Train there, from the command line too.

    Args:
        folder: for what it reads and writes; created.
        python: of its environment.
        rows: as Alpaca has them.
        settings: beside `BEST`: the checkpoint, the number of updates, and what else differs.
        device: cpu or cuda.
    """
    folder.mkdir()
    (folder / "rows.json").write_text(json.dumps(rows))
    (folder / "dataset_info.json").write_text(json.dumps({"rows": {"file_name": "rows.json"}}))
    places = {
        "dataset": "rows", "dataset_dir": str(folder), "output_dir": str(folder / "out"),
        "tokenized_path": str(folder / "tokens"),
    }  # fmt: skip
    chosen = BEST | places | settings
    (folder / "train.yaml").write_text(json.dumps(chosen))
    words = [str(Path(python).parent / "llamafactory-cli"), "train", str(folder / "train.yaml")]
    env = environment_in(folder, python)
    if device == "cuda":
        env["CUDA_VISIBLE_DEVICES"] = os.environ.get("CUDA_VISIBLE_DEVICES", "0")
    with (folder / "log.txt").open("wb") as log:
        process = psutil.Popen(words, cwd=folder, env=env, stdout=log, stderr=log)
        peak = peak_of(process, device)
    assert process.wait() == 0, (folder / "log.txt").read_text()[-TAIL:]
    state = json.loads((folder / "out" / "trainer_state.json").read_text())
    losses = [entry["loss"] for entry in state["log_history"] if "loss" in entry]
    seconds = json.loads((folder / "out" / "train_results.json").read_text())["train_runtime"]
    batch = chosen["per_device_train_batch_size"] * chosen["gradient_accumulation_steps"]
    return Training(_seen(folder / "tokens", chosen["max_steps"] * batch), seconds, peak, losses)


def _seen(tokens: Path, count: int) -> int:
    """Tokens of so many rows, in the order of the training; a packed row holds 0 where it is filled up."""
    from datasets import load_from_disk

    rows = load_from_disk(str(tokens))["train"]["attention_mask"]
    assert len(rows) >= 1
    return sum(sum(1 for one in rows[at % len(rows)] if one) for at in range(count))


def main(python: str, pairs: int, steps: int, kernels: str) -> int:
    """Measure and print; returns 1 where a goal is missed."""
    print(f"load before {os.getloadavg()[0]:.2f}")
    found: dict[str, list[Training]] = {name: [] for name in ("studio", *SETTINGS)}
    with tempfile.TemporaryDirectory() as name:
        home = Path(name) / "home"
        home.mkdir()
        model = copy_model(home)
        run_studio("doctor", home=home)  # measured once, as on any machine that has trained before
        for pair in range(pairs):
            rows, there = list(like_alpaca(BATCH * steps)), {"model_name_or_path": str(model), "max_steps": steps}
            found["studio"].append(ours(home, steps, kernels))
            _show("studio", found["studio"][-1])
            for kind, settings in SETTINGS.items():
                folder = Path(name) / f"there-{kind}-{pair}"
                found[kind].append(theirs(folder, python, rows, there | settings))
                _show(f"LLaMA-Factory, {kind}", found[kind][-1])
    missed = False
    for kind, goal in GOALS.items():
        both = list(zip(found["studio"], found[kind], strict=True))
        ratios = [here.speed / other.speed for here, other in both]
        memory = median(here.peak / other.peak for here, other in both)
        speeds = [median(one.speed for one in found[name]) for name in ("studio", kind)]
        print(
            f"median {speeds[0]:.0f} and, {kind}, {speeds[1]:.0f} tokens/s; ratio {median(ratios):.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f}), memory {memory:.2f}"
        )
        missed |= median(ratios) < goal or (kind == "best" and memory > MOST_MEMORY)
    return int(missed)


def _show(who: str, one: Training) -> None:
    shown = ", ".join(f"{loss:.3f}" for loss in one.losses)
    speed = f"{one.speed:.0f} tokens/s ({one.tokens} in {one.seconds:.0f} s)"
    print(f"{who}: {speed}, {one.peak / 1e9:.2f} GB; losses {shown}", flush=True)


if __name__ == "__main__":
    asked = sys.argv[1:]
    numbers = [int(word) for word in asked[1:3]]
    raise SystemExit(
        main(asked[0], *(numbers + [PAIRS, STEPS][len(numbers) :]), asked[3] if len(asked) > 3 else KERNELS)
    )

"""Measure the chain on this machine: demo, export, methods, memory plan, auto, rows beside TRL, the page's cold start.

    make bench            all of it, in a home of its own; about an hour on two cores
Prints a Markdown table that docs/benchmarks.md can take over, and exits with 1 when a goal is missed.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import psutil

from tests.benchmarks import auto, generation, gguf, memory, merging, preparation
from tests.benchmarks.methods import RISES, SEEDS, WATCHED, learn
from tests.benchmarks.page import first
from tests.benchmarks.page.clicks import waits
from tests.benchmarks.page.start import cold_start
from tests.conftest import run_studio


def main() -> int:
    """Run all measurements; returns the exit code."""
    load = os.getloadavg()[0]
    print(f"{_machine()}; load before {load:.2f}" + (" (busy: times are too high)" if load > 1 else ""))
    missed: list[str] = []
    rows: list[tuple[str, str, str]] = []

    def measure(name: str, value: float, unit: str, goal: float, at_least: bool = False) -> None:
        good = value >= goal if at_least else value <= goal
        rows.append((name, f"{value:.4g} {unit}", f"{'≥' if at_least else '≤'} {goal:g} {unit}"))
        if not good:
            missed.append(name)

    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "home"
        started = time.monotonic()
        done = run_studio("demo", "--json", home=home, seconds=1800)
        seconds = time.monotonic() - started
        if done.code not in (0, 1):
            print(done.stderr)
            return 1
        result = done.json
        measure("exact match before", 100 * result["exact_match"]["before"], "%", 5)
        measure("exact match after", 100 * result["exact_match"]["after"], "%", 97, at_least=True)
        for kind, value in result["exact_match"]["gguf"].items():
            measure(f"exact match {kind}", 100 * value, "%", 100 * result["exact_match"]["after"] - 3, at_least=True)
        for kind, value in result["agreement"].items():
            rows.append((f"{kind}: same next token, mean KL", f"{value['top1']:.2%}, {value['mean_kl']:.3g}", ""))
        measure("training, validations included", result["seconds"]["train.training"], "s", 180)
        rows.append(("tokens per second", f"{result['training']['tokens'] / result['training']['seconds']:.0f}", ""))
        measure("whole demo, cold", seconds, "s", 480)
        measure("peak memory", result["peak_memory_gb"], "GB", 6)
        for name, value in result["seconds"].items():
            rows.append((f"phase {name}", f"{value:.1f} s", ""))
        beside = gguf.pairs(home, result["run"], 3)
        ratio = median(pair.ratio for pair in beside)
        measure("GGUF export, times llama.cpp's own tools with our proof", ratio, "", gguf.GOAL)
        both = [
            median(sum(side.values()) for side in sides)
            for sides in zip(*((one.ours, one.theirs) for one in beside), strict=True)
        ]
        rows.append(("… seconds, ours and theirs", f"{both[0]:.1f}, {both[1]:.1f} s", ""))
        for method, seed in ((name, seed) for name, seeds in SEEDS.items() for seed in seeds):
            name, goal = WATCHED[method]
            learned = learn(method, home, seed)
            what = f"{method}, seed {seed}"
            measure(f"{what}: {name}" + (", rise" if method in RISES else ""), learned.reached, "", goal, at_least=True)
            kl = "" if learned.kl is None else f", KL {learned.kl:.3g}"
            rows.append(
                (f"{what}: from, to", f"{learned.first:.3g}, {learned.last:.3g}{kl} in {learned.seconds:.0f} s", "")
            )
            off = learned.planned / learned.measured - 1
            rows.append(
                (
                    f"{what}: memory planned, measured",
                    f"{learned.planned / 1e9:.2f}, {learned.measured / 1e9:.2f} GB ({off:+.0%})",
                    "",
                )
            )
        for peak in memory.peaks(home, memory.CELLS):
            found = f"{peak.planned / 1e9:.2f}, {peak.measured / 1e9:.2f} GB ({peak.off:+.0%})"
            what = f"{peak.method} × {peak.tuning}, {peak.micro_batch} at a time: memory planned, measured"
            rows.append((what, found, f"± {peak.bound:.0%}"))
            if peak.missed:
                missed.append(what)
        (model,) = (home / "models").iterdir()
        speeds = auto.speeds(model)
        best = max(speeds.by_hand.values())
        measure("alpaca-like rows on auto", speeds.auto, "tokens/s", 0.95 * best, at_least=True)
        rows.append(("what auto chose", speeds.chosen, ""))
        rows += [(f"… {size} rows at a time", f"{speed:.0f} tokens/s", "") for size, speed in speeds.by_hand.items()]
        rows.append(("… 4 rows in the order of the data", f"{speeds.unsorted:.0f} tokens/s", ""))
        peak = auto.memory(home)
        measure("alpaca-like rows on auto: peak memory", peak.measured / 1e9, "GB", 6)
        measure("… off its plan", 100 * abs(peak.planned / peak.measured - 1), "%", 10)
        for case, goal in generation.GOALS.items():
            written = generation.pairs(case)
            what = f"answers, {case}: times the speed of plain transformers or TRL"
            measure(what, median(one.ratio for one in written), "", goal, at_least=True)
            rows.append((f"… {case}", generation.line(case, written), ""))
        prepared = measure_preparation(home)
        rows.append(("preparation: rows a second, studio", f"{prepared.first:,.0f}; again {prepared.again:,.0f}", ""))
        rows.append(("preparation: rows a second, TRL", f"{prepared.trl:,.0f}; packed {prepared.trl_packed:,.0f}", ""))
        measure("preparation, times TRL's speed", prepared.first / prepared.trl, "", 3, at_least=True)
        measure(
            "preparation, times TRL's speed with packing", prepared.first / prepared.trl_packed, "", 3, at_least=True
        )
        measure("preparation: rows that differ from TRL's", prepared.different, "", 0)
        rows.append(("data inspect: rows a second", f"{prepared.inspected:,.0f}", ""))
        measure("data inspect, times preparation's speed", prepared.inspected / prepared.first, "", 0.8, at_least=True)
        measure("data inspect: memory of all its processes", prepared.inspected_bytes / 1e6, "MB", 300)
        if shutil.disk_usage(folder).free < merging.DISK_BYTES:
            rows.append((f"merging 15 GB: not measured, needs {merging.DISK_BYTES / 1e9:.0f} GB of disk", "", ""))
        else:
            merged = merging.measure(Path(folder) / "merging")
            what = f"merging {merged.base_bytes / 1e9:.1f} GB in {merged.seconds:.0f} s: peak memory"
            measure(what, merged.peak / 1e9, "GB", merged.bound / 1e9)
        page = cold_start(home)
        measure("page: start to HTTP 200", page.seconds, "s", 4)
        measure("page: memory", page.megabytes, "MB", 250)
        rows.append(("page: torch among its modules", str(page.has_torch), "False"))
        if page.has_torch:
            missed.append("page without torch")
        waited = waits(home)
        measure("page: first contentful paint", waited.paint, "s", 1.5)
        measure("page: a click to its effect, median", median(waited.clicks.values()), "ms", 100)
        rows += [(f"… {what}", f"{time:.0f} ms", "") for what, time in waited.clicks.items()]
        begun = first.first_steps(home)
        measure("page: a click on Start to the end of the demo's first step", begun.ready, "s", first.GOAL)
        rows.append(("… at once, with nothing imported", f"{begun.at_once:.1f} s", ""))
    print("\n| measure | here | goal |\n|---|---|---|")
    print("\n".join(f"| {name} | {value} | {goal} |" for name, value, goal in rows))
    for name in missed:
        print(f"missed: {name}", file=sys.stderr)
    return 1 if missed else 0


def measure_preparation(home: Path) -> preparation.Measured:
    """Prepare 100,000 rows with the demo's tokenizer."""
    (model,) = (home / "models").iterdir()
    return preparation.measure(model)


def _machine() -> str:
    try:
        name = subprocess.run(["lscpu"], capture_output=True, text=True, check=True).stdout
        model = next(line.split(":")[1].strip() for line in name.splitlines() if line.startswith("Model name"))
    except (OSError, StopIteration, subprocess.CalledProcessError):
        model = platform.processor()
    total = psutil.virtual_memory().total / 1e9
    return f"{model}, {os.cpu_count()} cores, {total:.0f} GB, {platform.system()}, Python {platform.python_version()}"


if __name__ == "__main__":
    raise SystemExit(main())

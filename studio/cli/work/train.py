"""`studio train` and `studio plan`."""

from __future__ import annotations

import contextlib
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from studio.cli.jobs.sweep import queue_sweep
from studio.cli.jobs.watch import follow, raise_unless_completed
from studio.cli.output import answer, phase_line, say, stderr
from studio.config import RunConfig
from studio.config.load import run_of
from studio.config.model import EMBEDDED_MODEL
from studio.config.presets import load_named, preset_names
from studio.data.worker.client import DataWorker
from studio.jobs import JobFolder, Summaries, submit
from studio.models.catalog.hubaccess import is_hub_id
from studio.settings import read_settings
from studio.train.preflight import Checked, check, sentence
from studio.train.sketch import sketch

Sets = Annotated[
    list[str], typer.Option("--set", help="Change one option: --set training.epochs=3", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
Job = Annotated[str, typer.Argument(metavar="ID", help="A job's id or name.")]
Name = Annotated[str, typer.Option("--name", help="Name of the new run; by default made from the old one's.")]
Detach = Annotated[bool, typer.Option("--detach", help="Return at once; 'studio jobs show ID --follow' follows it.")]
File = Annotated[str, typer.Argument(metavar="FILE|PRESET", help="A run's YAML file, or a preset such as demo/sft.")]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command("train")(train)
    app.command("plan")(plan)


def train(
    file: File,
    sets: Sets = [],  # noqa: B006 - typer's way to declare a repeatable option
    name: Annotated[str, typer.Option("--name", help="Name of the run; by default the file's.")] = "",
    detach: Detach = False,
    sweeps: Annotated[
        list[str],
        typer.Option("--sweep", help="Queue a run for each value: --sweep tuning.rank=8,16", show_default=False),
    ] = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """Train a model as a YAML file or preset says."""
    if sweeps:
        queue_sweep(load_named(file, sets, say), name or default_name(file), sweeps, as_json)
        return
    checked = checked_run(load_named(file, sets, say))
    say_plan(checked)
    job = submit(read_settings(), "train", name or default_name(file), checked.config.model_dump(mode="json"))
    if detach:
        answer_queued(as_json, job, checked)
        return
    state = follow(job)
    raise_unless_completed(job, state)
    result = trained_summary(job)
    best = result["best_eval_loss"]
    losses = f"loss {result['loss']:.4g}" + (f", best validation loss {best:.4g}" if best is not None else "")
    answer(as_json, {**result, "warnings": checked.warnings}, f"{job.request.name} trained: {losses}\n{job.model}")


def plan(
    file: Annotated[
        str,
        typer.Argument(metavar="FILE|PRESET|MODEL", help="A run, or a model: a folder, config.json, GGUF or Hub id."),
    ],
    sets: Sets = [],  # noqa: B006
    as_json: Json = False,
) -> None:
    """Show steps, tokens, parameters, memory and time of a run without starting it; the weights may be elsewhere."""
    config = _of_model(file, sets) if _is_model(file) else load_named(file, sets, say)
    checked = checked_run(config, sketched=True)
    values: dict[str, Any] = {
        "line": checked.plan.line(),
        "plan": checked.plan.as_dict(),
        "lengths": {name: value for name, value in asdict(checked.lengths).items() if name != "each"},
    }
    values |= {"findings": checked.findings, "warnings": checked.warnings}
    answer(as_json, values, plan_text(checked))


def _is_model(text: str) -> bool:
    """Whether a model is named where a run could be: presets and YAML files come first."""
    path = Path(text).expanduser()
    if text in preset_names() or path.suffix in (".yaml", ".yml"):
        return False
    if path.exists():
        return path.is_dir() or path.suffix == ".gguf" or path.name == "config.json"
    near_a_preset = text.partition("/")[0] in {name.partition("/")[0] for name in preset_names()}
    return text == EMBEDDED_MODEL or (is_hub_id(text) and not near_a_preset)


def _of_model(text: str, sets: list[str]) -> RunConfig:
    """A run of a model with the defaults of everything else."""
    return run_of({"model": {"path": text}}, sets)


def checked_run(config: RunConfig, sketched: bool = False) -> Checked:
    """Run every check that can be made before the start.

    Args:
        config: the run.
        sketched: a model whose weights are not here is planned without them; otherwise they are fetched.

    Raises:
        InputError, StudioError: something is wrong with the run or the computer.
    """
    settings = read_settings()
    with stderr.status("checking …") as status, contextlib.closing(DataWorker(settings)) as worker:

        def show(*phase: Any) -> None:
            status.update(phase_line(*phase))

        found = sketch(config, settings, worker, show) if sketched else None
        return found or check(config, settings, worker, fetch=True, on_progress=show)


def answer_queued(as_json: bool, job: JobFolder, checked: Checked, word: str = "is queued") -> None:
    """Tell that a checked run waits in the line now.

    Args:
        as_json: the command's --json.
        job: now in the queue.
        checked: the run, with its warnings.
        word: end of the sentence that begins with the id.
    """
    values = {"id": job.id, "path": str(job.path), "status": "queued", "warnings": checked.warnings}
    answer(as_json, values, f"{job.id} {word}")


def say_plan(checked: Checked, before: str = "") -> None:
    """Tell what will happen, and what a person should know of it, beside the answer."""
    say(before + checked.plan.line())
    for warning in checked.warnings:
        say(f"warning: {warning}")


def plan_text(checked: Checked) -> str:
    """The plan as lines for a terminal."""
    plan = checked.plan
    lines = [plan.line(), ""]
    lines += [f"  {name:<12} {size / 1e9:7.3f} GB" for name, size in plan.memory.items()]
    lines += ["", *(f"  {name} = {choice.value}: {choice.reason}" for name, choice in plan.choices.items())]
    lines += [f"  {finding['level']}: {sentence(finding)}" for finding in checked.findings if finding.get("text")]
    return "\n".join(lines)


def trained_summary(job: JobFolder) -> dict[str, Any]:
    """What a finished run reports to a script."""
    summary = Summaries().of(job)
    environment = job.environment()
    return {
        "id": job.id,
        "name": job.request.name,
        "status": job.state().status,
        "path": str(job.path),
        "model": str(job.model),
        "steps": summary.step,
        "tokens": summary.tokens,
        "loss": summary.values.get("loss"),
        "best_eval_loss": summary.best[0] if summary.best else None,
        "seconds": summary.elapsed,
        "peak_memory_gb": round(environment.get("peak_memory_bytes", 0) / 1e9, 3),
    }


def default_name(file: str) -> str:
    """Name of a run made from a file or preset: its last part without the ending."""
    return file.rstrip("/").split("/")[-1].removesuffix(".yaml").removesuffix(".yml")

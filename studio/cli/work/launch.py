"""`studio launch` and `studio watch`: a run on another machine, and any job wherever its folder lies."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from typing import Annotated, Any

import typer
from pydantic import BaseModel

from studio.cli.jobs.watch import follow, raise_unless_completed
from studio.cli.output import answer, phase_line, say, stderr
from studio.cli.work.train import Detach, File, Json, Sets, default_name, say_plan, trained_summary
from studio.config import RunConfig
from studio.config.launch import SKYPILOT, SLURM, TORCHRUN, SkyConfig, SlurmConfig, SshConfig, TorchrunConfig
from studio.config.load import apply_set
from studio.config.presets import load_named
from studio.errors import InputError, StudioError
from studio.jobs import JobFolder, Summaries
from studio.launch.sky.asking import prepare as prepare_sky
from studio.launch.slurm.asking import launch as launch_on_slurm
from studio.launch.slurm.cluster import script_path
from studio.launch.ssh.address import SCHEME
from studio.launch.ssh.asking import launch as launch_by_ssh
from studio.launch.torchrun.asking import launch as launch_by_torchrun
from studio.launch.watching import opened
from studio.settings import Settings, read_settings

To = Annotated[
    str, typer.Option("--to", metavar="WHERE", help="ssh://[user@]host[:port][/folder], slurm, torchrun or skypilot.")
]
With = Annotated[
    list[str], typer.Option("--with", help="Change an option of the place: --with partition=gpu", show_default=False)
]


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command("launch")(launch)
    app.command("watch")(watch)


def launch(
    file: File,
    to: To,
    sets: Sets = [],  # noqa: B006 - typer's way to declare a repeatable option
    withs: With = [],  # noqa: B006
    python: Annotated[
        str, typer.Option("--python", help="A Python there that has the studio; nothing is installed then.")
    ] = "",
    name: Annotated[str, typer.Option("--name", help="Name of the run; by default the file's.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only write the script or task.")] = False,
    detach: Detach = False,
    as_json: Json = False,
) -> None:
    """Train on another machine, where the studio installs itself; the run is shown here like any other."""
    settings = read_settings()
    run = load_named(file, sets, say)
    name = name or default_name(file)
    if to.startswith(SCHEME):
        if dry_run:
            raise InputError("by ssh nothing is written before the start", where="--dry-run", fix="Omit it")
        job = launch_by_ssh(settings, name, run, _given(SshConfig, withs, to=to, python=python))
    elif to == SLURM:
        job = _by_slurm(settings, name, run, _given(SlurmConfig, withs, python=python), dry_run)
    elif to == TORCHRUN:
        job = _by_torchrun(settings, name, run, _given(TorchrunConfig, withs), dry_run)
    elif to == SKYPILOT:
        return _by_sky(settings, name, run, _given(SkyConfig, withs), dry_run, as_json)
    else:
        fix = f"Write ssh://[user@]host[:port][/folder], {SLURM}, {TORCHRUN} or {SKYPILOT}"
        raise InputError(f"'{to}' is not a place for a run", where="--to", fix=fix)
    if job.state().final:
        answer(as_json, {"id": job.id, "path": str(job.path), "status": "written"}, f"{job.id} is written")
        return
    if detach:
        answer(as_json, {"id": job.id, "path": str(job.path), "status": "queued"}, f"{job.id} is queued")
        return
    state = follow(job)
    raise_unless_completed(job, state)
    result = trained_summary(job)
    answer(as_json, result, f"{job.request.name} trained on {_place(run, job)}\n{job.model}")


def _place(run: RunConfig, job: JobFolder) -> str:
    return job.request.machine or f"{run.training.nodes} machines"


def _given(model: type[BaseModel], withs: list[str], **more: str) -> dict[str, Any]:
    given: dict[str, Any] = {key: value for key, value in more.items() if value}
    for one in withs:
        apply_set(given, one, model)
    return given


def _by_slurm(settings: Settings, name: str, run: RunConfig, given: dict[str, Any], dry_run: bool) -> JobFolder:
    """Write the script, say how it is submitted, and submit it where that is possible."""
    here = shutil.which("sbatch") is not None
    job = launch_on_slurm(settings, name, run, given, submit=here and not dry_run)
    say(f"sbatch {shlex.quote(str(script_path(job)))}")
    if not here and not dry_run:
        say("the program sbatch is not on this machine, so nothing was submitted: run the line on a login node")
    return job


def _by_torchrun(settings: Settings, name: str, run: RunConfig, given: dict[str, Any], dry_run: bool) -> JobFolder:
    """Start the first machine's part here, and say how those of the others are started."""
    with stderr.status("checking …") as shown:
        job, checked, lines = launch_by_torchrun(
            settings, name, run, given, not dry_run, lambda *phase: shown.update(phase_line(*phase))
        )
    say_plan(checked)
    for number, line in enumerate(lines, 1):
        say(f"on machine {number}: {line}")
    return job


def _by_sky(
    settings: Settings, name: str, run: RunConfig, given: dict[str, Any], dry_run: bool, as_json: bool
) -> None:  # fmt: skip
    """Write the task, say how it is started and watched, and start it where that is possible."""
    with stderr.status("planning …") as shown:
        task, plan = prepare_sky(settings, name, run, given, lambda *phase: shown.update(phase_line(*phase)))
    say(plan.line())
    line = shlex.join(task.command)
    starts = shutil.which(task.command[0]) is not None and not dry_run
    status = "started" if starts else "written"
    values = {"task": str(task.file), "command": line, "watch": task.watch, "status": status}
    if starts and (code := subprocess.call(task.command, stdout=sys.stderr)) != 0:
        raise StudioError(f"SkyPilot did not start it (exit status {code})", where=str(task.file), fix=f"Try: {line}")
    if not starts and not dry_run:
        say("the program sky is not on this machine, so nothing was started: pip install skypilot, then run the line")
    answer(as_json, values, f"{task.file}\n{line}\nstudio watch {task.watch}")


def watch(
    place: Annotated[str, typer.Argument(metavar="RUN|FOLDER|URL", help="A job, its folder, or ssh://host/folder.")],
    as_json: Json = False,
) -> None:
    """Show the progress of a job until it ends, wherever its folder lies; Ctrl-C only ends the showing."""
    with opened(place, read_settings(), say) as job:
        say(f"{job.request.kind} {job.shown}")
        state, summary = follow(job, stops=False), Summaries().of(job)
    raise_unless_completed(job, state)
    loss = summary.values.get("loss")
    values = {"status": state.status, "name": job.request.name, "step": summary.step, "loss": loss}
    answer(as_json, values, f"{job.request.name} is done" + (f": loss {loss:.4g}" if isinstance(loss, float) else ""))

"""`studio serve EXPORT`: a server of another maker answers with what was exported, until Ctrl-C."""

from __future__ import annotations

from typing import Annotated

import typer

from studio.cli.output import answer, say
from studio.cli.work.train import Json
from studio.errors import InputError, StoppedError, StudioError
from studio.export.trying.offers import servers_for
from studio.export.trying.programs import PROGRAMS, Tried
from studio.export.trying.running import Trials, wait, why_failed
from studio.jobs import JobFolder, find_job
from studio.settings import read_settings


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("serve")(serve)


def serve(
    export: Annotated[str, typer.Argument(metavar="EXPORT", help="An export's id or name.")],
    server: Annotated[
        str, typer.Option("--with", help=f"Server: {' or '.join(PROGRAMS)}; the one that fits if not given.")
    ] = "",
    port: Annotated[int, typer.Option("--port", help="Port of 127.0.0.1; a free one if not given.")] = 0,
    as_json: Json = False,
) -> None:
    """Serve an export on this machine with vLLM or llama.cpp's server; Ctrl-C ends it."""
    if not 0 <= port < 65536:
        raise InputError(f"{port} is not a port", where="--port", fix="Give a number from 1 to 65535")
    settings = read_settings()
    job = find_job(settings.jobs, export, "export")
    chosen = _chosen(server, job)
    trials = Trials(settings)
    try:
        # Without a key, as the script beside the export: whoever is to ask is at this terminal.
        trial = trials.start(job, chosen, port, keyed=False)
        title = trial.offer.program.title
        say(f"{title} is starting with {trial.offer.path}; its log is {trial.log}")
        wait(trial)
        told = {
            "url": trial.url, "model": trial.offer.served.asked, "server": chosen, "log": str(trial.log),
            "path": str(trial.offer.path), "seconds": round(trial.seconds, 1),
        }  # fmt: skip
        answer(
            as_json, told, f"{title} answers at {trial.url}; clients ask for the model {told['model']}. Ctrl-C ends it."
        )
        trial.process.wait()
        raise StudioError(f"{title} {why_failed(trial)}", fix=f"Its log is {trial.log}")
    except KeyboardInterrupt:
        say(f"{PROGRAMS[chosen].title} is stopped")
        raise typer.Exit(StoppedError.exit_code) from None
    finally:
        trials.close_all()


def _chosen(server: str, job: JobFolder) -> Tried:
    if not server:
        fits = servers_for(job)
        if not fits:
            raise InputError(
                "it has made nothing that a server can load by itself", where=job.id,
                fix="Export the run to gguf, merged or vllm",
            )  # fmt: skip
        return fits[0]
    if server not in PROGRAMS:
        raise InputError(f"'{server}' is not a server", where="--with", fix=f"Give {' or '.join(PROGRAMS)}")
    return server

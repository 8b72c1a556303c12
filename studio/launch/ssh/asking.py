"""Sending a run to a machine: what is refused at once, and the job here that does the rest."""

from __future__ import annotations

from typing import Any

from studio.config import RunConfig
from studio.config.launch import SshConfig
from studio.config.load import build
from studio.jobs import JobFolder, ensure_supervisor
from studio.jobs.store.folder import create_job
from studio.launch.ssh.address import parse_address
from studio.launch.ssh.machine import Machine
from studio.launch.ssh.setup import probe, ready
from studio.settings import Settings
from studio.train.preflight import with_absolute_paths


def launch(settings: Settings, name: str, run: RunConfig, given: dict[str, Any]) -> JobFolder:
    """Reach the machine once, so that what is wrong is said at once, and queue the job that follows the run.

    Nothing is installed or copied yet: that is the job's, which needs no terminal.

    Args:
        settings: of this home.
        name: of the run.
        run: what is trained; its paths are of this machine.
        given: options of `SshConfig`.

    Raises:
        InputError, StudioError: the run names a file that is not here, or the machine cannot be used.
    """
    config = build(SshConfig, given, "studio launch")
    address = parse_address(config.to)
    raw = with_absolute_paths(run, settings).model_dump(mode="json")
    with Machine(address) as machine:
        found = probe(machine, config.python)
        if config.python:
            ready(machine, found, config.python, lambda text: None)
    place = {**config.model_dump(exclude_defaults=True), "to": address.text, "machine": address.shown}
    job = create_job(settings.jobs, "train", name, raw, place=place)
    ensure_supervisor(settings)
    return job

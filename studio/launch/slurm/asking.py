"""Sending a run to a cluster with Slurm: the script is written, and the job here submits and follows it."""

from __future__ import annotations

from typing import Any

from studio.config import RunConfig
from studio.config.launch import SLURM, SlurmConfig
from studio.config.load import build
from studio.jobs import JobFolder
from studio.jobs.store.files import write_atomic
from studio.jobs.store.request import JobRequest, write_request
from studio.jobs.store.state import JobState, write_state
from studio.launch.named import named_paths
from studio.launch.queueing import queue_run
from studio.launch.slurm.cluster import node_folder, script_path
from studio.launch.slurm.script import container_mounts, require_room, script
from studio.models.catalog.names import resolve_model
from studio.settings import Settings
from studio.train.preflight import with_absolute_paths
from studio.train.ranks.machines import Asked, write_asked


def launch(settings: Settings, name: str, run: RunConfig, given: dict[str, Any], submit: bool) -> JobFolder:
    """Write the script and the node's folder, and queue the job that submits it.

    The memory of the nodes is not known here, so the plan is checked on the node.

    Args:
        settings: of this home, which the nodes must see under the same path.
        name: of the run.
        run: what is trained.
        given: options of `SlurmConfig`.
        submit: False leaves the job stopped: resuming it submits it.

    Raises:
        InputError, StudioError: the run names a file that is not here, its model cannot be fetched, or less is asked
            of the cluster than it needs.
    """
    config = build(SlurmConfig, {**given, "to": SLURM, "machine": "Slurm"}, "studio launch")
    require_room(config, run.training)
    machines = run.training.nodes
    run = with_absolute_paths(run, settings)
    resolve_model(run.model.path, settings, revision=run.model.revision)  # nodes often have no network
    raw = run.model_dump(mode="json")
    mounts = container_mounts(settings.home, named_paths(run, settings)) if config.container else []

    def fill(job: JobFolder) -> None:
        node = node_folder(job)
        node.path.mkdir(parents=True)
        write_request(node.path, JobRequest("train", name, raw))
        write_atomic(node.events_path, "")
        write_state(node.state_path, JobState(status="queued"))
        if machines > 1:
            write_asked(node.path, Asked(wait=config.wait))
        write_atomic(script_path(job), script(config, name, node.path, settings.home, machines, mounts))

    place = {**config.model_dump(exclude_defaults=True), "to": SLURM, "machine": "Slurm"}
    held = {"reason": "its script was written and not submitted", "fix": "Resume the run, which submits it"}
    return queue_run(settings, name, raw, fill=fill, place=place, held=None if submit else held)

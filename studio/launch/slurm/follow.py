"""The process here of a run on a cluster: hands the script to sbatch, and brings what the node writes into the job."""

from __future__ import annotations

import os
import shutil
from typing import Any

from studio.config.launch import SlurmConfig
from studio.config.load import build
from studio.jobs import JobFolder
from studio.jobs.run.worker import JobContext
from studio.launch.following import Following
from studio.launch.record import update_record
from studio.launch.slurm.cluster import Cluster
from studio.launch.ssh.mirror import remove_absent, stamp_of, wanted


def follow(context: JobContext) -> None:
    """Run the job of `context` on the cluster.

    Raises:
        InputError, StudioError: sbatch refuses it, or it failed there.
        StoppedError: it was stopped.
    """
    config = build(SlurmConfig, context.job.request.place or {}, "job.yaml")
    OnCluster(context, config.machine, config.poll).run()


class OnCluster(Following[Cluster]):
    """The following of a job on a cluster."""

    _waits = ""

    def connect(self) -> Cluster:
        """Slurm is asked by its own programs."""
        return Cluster(self.context.job)

    def begin(self, far: Cluster) -> None:
        """Submit it, unless somebody has done that by hand."""
        number = self.steadily(lambda: far.number or far.submit())
        self.context.log(f"job {number} of Slurm")
        update_record(self.context.job, begun=True, folder=str(far.node.path))

    def copies(self, far: Cluster) -> Links:
        """Files lie on the same file system."""
        return Links(self.context.job, far.node)

    def heard(self, found: dict[str, Any]) -> None:
        """Say that it waits in Slurm's line, and when that is over."""
        now = str(found["waiting"])
        if now != self._waits:
            for name, state in ((self._waits, "end"), (now, "begin")):
                if name:
                    self.context.event("phase", phase=name, state=state, done=0, total=None, unit="")
            self._waits = now


class Links:
    """Gives a job's folder the files of another one on the same file system, without copying them.

    Args:
        job: the folder here.
        node: the folder that the node writes.
    """

    def __init__(self, job: JobFolder, node: JobFolder) -> None:
        self._job, self._node = job, node

    def update(self, listed: list[Any]) -> bool:
        """As `Copies.update`."""
        files = wanted(listed, "all")
        remove_absent(self._job, files)
        whole = True
        for path, stamp in files.items():
            target = self._job.path / path
            if stamp_of(target) == stamp:
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            made = target.with_name(f".{target.name}.new")
            made.unlink(missing_ok=True)
            try:
                _link_or_copy(self._node.path / path, made)
            except FileNotFoundError:  # removed since it was listed
                whole = False
                continue
            os.replace(made, target)
        return whole

    def close(self) -> None:
        """Nothing is under way."""


def _link_or_copy(source: os.PathLike[str], target: os.PathLike[str]) -> None:
    try:
        os.link(source, target)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copy2(source, target)

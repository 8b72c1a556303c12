"""The process here of a run that is reached by ssh: installs the studio there, sends the run, starts it."""

from __future__ import annotations

from studio.config.launch import SshConfig
from studio.config.load import build
from studio.jobs.run.worker import JobContext
from studio.launch.following import Following
from studio.launch.record import read_record, update_record
from studio.launch.ssh.address import parse_address
from studio.launch.ssh.cargo import pack
from studio.launch.ssh.machine import Machine
from studio.launch.ssh.mirror import Mirror
from studio.launch.ssh.sending import send_parcels
from studio.launch.ssh.setup import Found, Studio, probe, ready

# The check there reads all rows and may fetch a model from the Hub.
_CHECK_SECONDS = 24 * 3600.0


def follow(context: JobContext) -> None:
    """Run the job of `context` on its machine.

    Raises:
        InputError, StudioError: the machine or the run cannot be used, or it failed there.
        StoppedError: it was stopped.
    """
    config = build(SshConfig, context.job.request.place or {}, "job.yaml")
    with Machine(parse_address(config.to)) as machine:
        ByMachine(context, config, machine).run()


class ByMachine(Following[Studio]):
    """The following of a job on a machine.

    Args:
        context: of the job here.
        config: where it runs.
        machine: that machine.
    """

    def __init__(self, context: JobContext, config: SshConfig, machine: Machine) -> None:
        super().__init__(context, machine.shown, config.poll)
        self.config, self.machine = config, machine

    def connect(self) -> Studio:
        """Reach the machine, and have the studio there; of a run that has begun it is that which works on it."""
        record = read_record(self.context.job)
        with self.context.reporter() as report:
            report(f"connecting to {self.machine.shown}")
            found: Found = self.steadily(lambda: probe(self.machine, self.config.python))
            if record.python:
                return Studio(self.machine, found, record.python)
            return self.steadily(lambda: ready(self.machine, found, self.config.python, report))

    def begin(self, far: Studio) -> None:
        """Send what is not there yet, and start the run once it was checked there."""
        context, job = self.context, self.context.job
        with context.reporter("MB") as report:
            report("reading the files to copy")
            cargo = pack(context.config, context.settings, far.found.files, job.path / ".launch")
            sent = self.steadily(lambda: send_parcels(far, cargo.parcels, report, self.meanwhile))
            if cargo.parcels:
                context.log(f"{sent / 1e6:,.1f} of {cargo.bytes / 1e6:,.1f} MB were copied, the rest was there already")
            report(f"checking the run on {self.machine.shown}")
            given = {"id": job.id, "name": job.request.name, "config": cargo.config}
            answer = self.steadily(lambda: far.ask("start", given, seconds=_CHECK_SECONDS, meanwhile=self.meanwhile))
        for text in answer["warnings"]:
            context.notice("warning", str(text))
        paths = {**cargo.paths, far.found.home: str(context.settings.home)}
        update_record(job, begun=True, folder=f"{far.found.home}/jobs/{job.id}", python=far.python, paths=paths)

    def copies(self, far: Studio) -> Mirror:
        """Files come by rsync, or as archives."""
        return Mirror(far, self.context.job, read_record(self.context.job).folder, self.config.checkpoints)

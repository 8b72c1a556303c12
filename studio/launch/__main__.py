"""`python -m studio.launch JOB_DIR`: the process here of a run that is worked on elsewhere."""

from studio.config.launch import SLURM
from studio.jobs.run.worker import JobContext, run_worker
from studio.launch.slurm.follow import follow as follow_slurm
from studio.launch.ssh.follow import follow as follow_ssh


def follow(context: JobContext) -> None:
    """Follow the job of `context` where it runs."""
    place = context.job.request.place or {}
    return follow_slurm(context) if place.get("to") == SLURM else follow_ssh(context)


if __name__ == "__main__":
    raise SystemExit(run_worker("train", follow))

"""`python -m studio.export JOB_DIR`: the process of an export job."""

from studio.export.job import export
from studio.jobs.run.worker import run_worker

if __name__ == "__main__":
    raise SystemExit(run_worker("export", export))

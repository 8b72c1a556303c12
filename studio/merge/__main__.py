"""`python -m studio.merge JOB_DIR`: the process of a merge job."""

from studio.jobs.run.worker import run_worker
from studio.merge.job import merge

if __name__ == "__main__":
    raise SystemExit(run_worker("merge", merge))

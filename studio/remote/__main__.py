"""`python -m studio.remote JOB_DIR`: the process of a job at OpenAI."""

from studio.jobs.run.worker import run_worker
from studio.remote.job import follow

if __name__ == "__main__":
    raise SystemExit(run_worker("openai", follow))

"""`python -m studio.evaluate JOB_DIR`: the process of an evaluation job."""

from studio.jobs.run.worker import JobContext, run_worker


def _work(context: JobContext) -> None:
    with context.phase("loading libraries"):
        from studio.evaluate.worker import evaluate
    evaluate(context)


if __name__ == "__main__":
    raise SystemExit(run_worker("evaluate", _work))

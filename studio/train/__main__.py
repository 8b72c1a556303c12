"""`python -m studio.train JOB_DIR`: the process of a training job."""

from studio.config import RunConfig
from studio.config.load import build
from studio.jobs.run.worker import JobContext, run_worker


def _work(context: JobContext) -> None:
    training = build(RunConfig, context.config, "job.yaml").training
    if training.ranks > 1:
        from studio.train.ranks.launching import run_ranks

        return run_ranks(context, training.ranks_here, training.nodes)
    # torch and transformers take seconds to import: that too is a phase the person sees.
    with context.phase("loading libraries"):
        if context.config.get("training", {}).get("engine") == "unsloth":
            import unsloth  # noqa: F401 - replaces parts of the libraries, so it comes before them
        from studio.train.worker import train
    return train(context)


if __name__ == "__main__":
    raise SystemExit(run_worker("train", _work))

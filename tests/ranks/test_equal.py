"""A run on several ranks is the run of one process: the same losses, counts and weights, for each method and tuning."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from studio.config import RunConfig
from studio.config.load import build
from studio.jobs import JobFolder, wait
from studio.jobs.actions.branching import branch, find_checkpoint
from studio.jobs.run.worker import JobContext
from studio.jobs.store.checkpoints import last_whole
from studio.jobs.store.folder import create_job
from studio.settings import Settings
from studio.train.ranks.launching import run_ranks
from studio.train.worker import train
from tests.ranks.made import SECONDS, TOLERANCE, apart, apart_as_a_whole, config, curve, events, once, ran


def counted(job: JobFolder) -> list[tuple[int, int, int]]:
    """Step, tokens and supervised tokens of each metric."""
    found = [event for event in events(job) if event["kind"] == "metric"]
    return [(event["step"], event["tokens"], event["supervised_tokens"]) for event in found]


def samples(job: JobFolder) -> list[tuple[int, str, dict[str, float]]]:
    """Step, text and rewards of each answer that was shown, if the run writes answers."""
    return [(event["step"], event["text"], event["rewards"]) for event in events(job) if event["kind"] == "sample"]


def equal(
    several: JobFolder, one: JobFolder, norms: float = TOLERANCE, far_weights: Callable[..., float] = apart
) -> None:
    """Compare two runs.

    Args:
        several, one: on several ranks, and on one.
        norms: relative difference of the gradients' norms.
        far_weights: how far their weights are from each other.
    """
    names = sorted({name for event in events(one) if event["kind"] == "metric" for name in event["values"]})
    assert {"loss", "grad_norm"} <= set(names) and any(name.startswith("eval_") for name in names)
    for name in names:
        if name != "tokens_per_second":
            # Rewards and margins are small differences of sums of hundreds, times a beta of 0.1; kto's KL is without.
            near = 1e-7 if "loss" in name and not samples(one) else TOLERANCE
            near = 10 * TOLERANCE if name.endswith("kl") and not samples(one) else near
            far = norms if name == "grad_norm" else TOLERANCE
            assert curve(several, name) == pytest.approx(curve(one, name), rel=far, abs=near), name
    assert counted(several) == counted(one)
    assert samples(several) == samples(one)
    assert far_weights(several, one) <= TOLERANCE
    numbers = [event["seq"] for event in events(several)]
    assert numbers == list(range(1, len(numbers) + 1))


def test_two_ranks_are_one_process(
    tiny: Path, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The quick one: the launcher is this process, which has imported everything."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    values, jobs = config(tiny, tmp_path, epochs=1, batch_size=4), []
    values["data"]["validation"] = 0.25  # 5 rows, so that the last batch of the validation has fewer, too
    for ranks in (1, 2):
        raw = {**values, "training": {**values["training"], "devices": ranks}}
        job = create_job(settings.jobs, "train", f"ranks-{ranks}", build(RunConfig, raw).model_dump(mode="json"))
        jobs.append(job)
        context = JobContext(job, settings)
        if ranks == 1:
            train(context)
        else:
            run_ranks(context, ranks)
    equal(jobs[1], jobs[0])
    assert sorted(curve(jobs[1], "loss")) == [1, 2, 3, 4]
    assert last_whole(jobs[1].checkpoints) is not None


@pytest.mark.long
@pytest.mark.parametrize(
    ("method", "tuning", "ranks"),
    [
        ("sft", "lora", 2), ("sft", "full", 3), ("sft", "dora", 2), ("dpo", "lora", 3), ("dpo", "full", 2),
        ("reward", "lora", 2), ("pretrain", "full", 2), ("grpo", "lora", 2), ("grpo", "full", 3), ("rloo", "lora", 2),
        ("ppo", "lora", 2), ("ppo", "full", 2), ("kto", "lora", 2), ("kto", "full", 3), ("orpo", "lora", 2),
        ("cpo", "lora", 2), ("simpo", "full", 3), ("sft", "qlora", 2), ("dpo", "qlora", 3),
    ],
)  # fmt: skip
def test_every_number_is_that_of_one_process(
    tiny: Path, session_settings: Settings, tmp_path: Path, method: str, tuning: str, ranks: int
) -> None:
    # 16 rows in batches of 6 leave 4 for the last update of an epoch; in batches of 3 one, for 3 ranks.
    batch = 3 if ranks == 3 and method != "grpo" else 6
    one = once(session_settings, tiny, f"alone-{batch}", method, tuning, batch_size=batch)
    values = config(tiny, tmp_path, method, tuning, batch_size=batch)
    several = ran(session_settings, f"{method}-{tuning}-{ranks}", values, devices=ranks)
    equal(several, one)
    log = several.path / "ranks" / "rank-1.log"
    assert "loading model" in log.read_text() and "loading model" in several.log_path.read_text()


@pytest.mark.long
def test_token_bounds_and_recomputed_activations_change_nothing(
    tiny: Path, session_settings: Settings, tmp_path: Path
) -> None:
    values = config(tiny, tmp_path, batch_size=8)
    one = ran(session_settings, "whole", values)
    several = ran(session_settings, "small", values, devices=2, micro_batch_size=1, activation_checkpointing=True)
    equal(several, one)


@pytest.mark.long
def test_the_best_model_and_the_early_stop_are_the_same(tiny: Path, session_settings: Settings, tmp_path: Path) -> None:
    values = config(
        tiny, tmp_path, epochs=10, learning_rate=0.1, eval_steps=1, early_stopping=2, load_best_model_at_end=True
    )
    one = ran(session_settings, "best-one", values)
    several = ran(session_settings, "best", values, devices=2)
    ends = [[event["values"] for event in events(job) if event["kind"] == "result"][-1] for job in (one, several)]
    assert ends[0]["stopped_early"] and ends[0]["saved_step"] < ends[0]["steps"]
    assert [(end["steps"], end["saved_step"]) for end in ends] == [(ends[0]["steps"], ends[0]["saved_step"])] * 2
    assert apart(several, one) <= TOLERANCE


@pytest.mark.long
@pytest.mark.parametrize(
    ("method", "tuning", "ranks"),
    [
        ("sft", "lora", "auto"), ("sft", "lora", "3"), ("sft", "full", "auto"), ("dpo", "lora", "3"),
        ("grpo", "lora", "auto"), ("grpo", "full", "3"), ("ppo", "lora", "auto"), ("ppo", "lora", "3"),
    ],
)  # fmt: skip
def test_a_branch_goes_on_with_another_number_of_ranks(
    tiny: Path, session_settings: Settings, method: str, tuning: str, ranks: str
) -> None:
    one, begun = (
        once(session_settings, tiny, name, method, tuning, epochs=4, save_steps=3, save_total_limit=9, devices=many)
        for name, many in (("unbranched", "auto"), ("begun-by-two", 2))
    )
    raw = dict(begun.request.config)
    changed = build(RunConfig, {**raw, "training": {**raw["training"], "devices": ranks}})
    steps, at = max(curve(one, "loss")), 3 if method == "ppo" else 6  # between two updates from the same answers
    child = branch(session_settings, begun, find_checkpoint(begun, at), f"{method}-{tuning}-by-{ranks}", changed, steps)
    assert wait(child, seconds=SECONDS).status == "completed", child.log_path.read_text()
    assert curve(child, "loss") == pytest.approx(curve(one, "loss"), rel=TOLERANCE, abs=TOLERANCE)
    assert samples(child) == samples(one)
    assert apart(child, one) <= TOLERANCE


@pytest.mark.long
@pytest.mark.parametrize("method", ["sft", "dpo", "grpo"])
def test_the_real_model_trains_on_two_ranks_as_on_one(
    model_path: Path, session_settings: Settings, tmp_path: Path, method: str
) -> None:
    steps = 4 if method == "sft" else 3
    values = config(model_path, tmp_path, method, max_steps=steps, batch_size=4, learning_rate=2e-4)
    one = ran(session_settings, f"real-{method}-one", values)
    several = ran(session_settings, f"real-{method}", values, devices=2)
    # Of a million numbers some have a gradient that is rounding alone, of which Adam makes a whole step.
    equal(several, one, far_weights=apart_as_a_whole)
    assert sorted(curve(one, "loss")) == list(range(1, steps + 1))
    if method != "grpo":  # whose loss does not say how well it does
        assert curve(one, "loss")[steps] < curve(one, "loss")[1]

"""The rules of health on numbers: what ends a run, what is told once, and what is nothing to tell."""

from __future__ import annotations

import math
import random

import pytest

from studio.config import RunConfig
from studio.config.describe import options_of
from studio.config.load import build
from studio.jobs.store.request import changed_config
from studio.train.loop.health import Facts, Finding, Health

PATHS = {spec.path for spec in options_of(RunConfig)}


def health(**facts: object) -> Health:
    return Health(Facts(**{"learning_rate": 1e-3, **facts}))  # type: ignore[arg-type]


def usable(found: Finding | None) -> Finding:
    """A finding says something, and what it changes are options that the schema takes."""
    assert found is not None and found.text and found.fix
    assert set(found.change) <= PATHS
    build(RunConfig, changed_config(RunConfig().model_dump(), found.change))
    return found


def losses(watch: Health, values: list[float], norm: float = 1.0, first: int = 1) -> list[Finding]:
    found = []
    for step, value in enumerate(values, first):
        assert watch.broken(step, value, norm) is None
        found.append(watch.loss(step, value, norm))
    return [one for one in found if one is not None]


@pytest.mark.parametrize(
    ("facts", "step", "loss", "norm", "change"),
    [
        ({}, 7, math.nan, 1.0, {"training.learning_rate": 2e-4}),
        ({}, 7, math.inf, None, {"training.learning_rate": 2e-4}),
        ({}, 7, 1.0, math.nan, {"training.learning_rate": 2e-4}),
        ({"max_grad_norm": 0}, 7, math.nan, 1.0, {"training.max_grad_norm": 1.0}),
        ({"half": True}, 1, math.nan, 1.0, {"model.dtype": "float32"}),
        ({}, 1, math.nan, 1.0, {}),
    ],
)
def test_numbers_that_are_none_end_the_run(facts, step, loss, norm, change) -> None:
    found = usable(health(**facts).broken(step, loss, norm))
    assert f"at step {step}" in found.text
    assert found.change == change


def test_an_exploding_loss_ends_the_run_and_an_odd_batch_does_not() -> None:
    watch = health()
    losses(watch, [2.0 + 0.01 * step for step in range(20)])
    for step, value in enumerate([30.0, 2.0, 30.0, 30.0], 21):
        assert watch.broken(step, value, 1.0) is None
        assert watch.suspicious == (value > 3)
    found = usable(watch.broken(25, 31.0, 1.0))
    assert "exploded: 31 at step 25" in found.text and found.change == {"training.learning_rate": 2e-4}
    small = health()
    losses(small, [0.01] * 20)
    assert all(small.broken(step, 3.0, 1.0) is None for step in range(21, 40)), "new rows, not an explosion"


def test_losses_as_trainings_have_them_are_nothing_to_tell() -> None:
    rng = random.Random(3)
    watch = health(warmup=10)
    falling = [2.5 * math.exp(-step / 150) + 0.05 + rng.gauss(0, 0.08) for step in range(400)]
    assert losses(watch, falling) == []
    assert losses(health(online=True), [0.0, *(rng.gauss(0, 0.01) for _ in range(200))]) == [], "grpo begins at 0"


@pytest.mark.parametrize(
    ("values", "norm", "part", "change"),
    [
        ([0.0] * 5, 1.0, "0 since the first step", {}),
        ([1.0, 0.5, 0.1, 0.0, 0.0, 0.0, 0.0], 1.0, "0 since step 4: every row is memorized", {}),
        ([1.5] * 50, 1.0, "has not fallen in the first 40 steps", {"training.learning_rate": 5e-3}),
        ([1.5 + 0.02 * step for step in range(50)], 1.0, "has not fallen", {"training.learning_rate": 2e-4}),
        ([1.5] * 50, 0.0, "has not fallen", {}),
    ],
)
def test_a_loss_of_0_and_a_flat_one_are_told_once(values, norm, part, change) -> None:
    (found,) = losses(health(), values, norm)
    assert part in usable(found).text and found.change == change


def test_a_run_that_goes_on_is_not_flat() -> None:
    assert losses(health(), [1.5] * 60, first=41) == []


@pytest.mark.parametrize(("higher", "sign"), [(False, 1.0), (True, -1.0)])
def test_a_validation_that_gets_worse_is_told_once(higher: bool, sign: float) -> None:
    watch = health(higher=higher, metric="eval_reward" if higher else "eval_loss")
    values = [2.0, 1.5, 1.2, 1.3, 1.4, 1.5, 1.6]
    told = []
    for count in range(1, len(values) + 1):
        told.append(watch.validation([(10 * n, sign * value) for n, value in enumerate(values[:count], 1)]))
    assert told[:5] == [None] * 5 and told[6] is None
    found = usable(told[5])
    assert "3 times in a row" in found.text and "at step 60" in found.text and "at step 30" in found.text
    assert found.change == {"training.early_stopping": 3, "training.load_best_model_at_end": True}
    bouncing = health(higher=higher)
    values = [2.0, 1.5, 1.6, 1.7, 1.4, 1.5, 1.6, 1.59]
    for count in range(1, len(values) + 1):
        assert bouncing.validation([(n, sign * value) for n, value in enumerate(values[:count])]) is None


def test_a_validation_that_is_no_number_is_told() -> None:
    assert "is nan" in usable(health(half=True).validation([(5, math.nan)])).text


def test_half_the_speed_for_long_is_told_and_a_slow_step_is_not() -> None:
    watch, rng = health(), random.Random(1)
    steps = [1000 + rng.gauss(0, 100) for _ in range(60)]
    steps[40] = 100.0
    assert [watch.speed(step, value) for step, value in enumerate(steps, 1)] == [None] * 60
    told = [watch.speed(step, 400.0) for step in range(61, 90)]
    assert told[:7] == [None] * 7 and all(one is None for one in told[8:])
    assert "400 tokens per second since step 61" in usable(told[7]).text
    slower = health()
    for step in range(1, 300):  # batches become longer, never suddenly
        assert slower.speed(step, 1000.0 - 2 * step) is None


GB = 10**9


def test_a_nearly_full_disk_is_told_once() -> None:
    watch = health(save_total_limit=2)
    assert watch.disk(5 * GB, 500 * GB, 3 * GB) is None
    found = usable(watch.disk(2 * GB, 500 * GB, 3 * GB))
    assert "2 of 500 GB are free, and the next checkpoint takes 3 GB" in found.text
    assert found.change == {"training.save_total_limit": 1}
    assert watch.disk(1 * GB, 500 * GB, 3 * GB) is None
    few = usable(health().disk(int(0.9 * GB), 500 * GB, 1000))
    assert "0.9 of 500 GB" in few.text and not few.change
    assert health().disk(GB // 10, 2 * GB, 1000) is None, "a small disk that has room"


def test_nearly_full_memory_is_told_with_the_cheapest_change() -> None:
    watch = health(cures=({"training.micro_batch_size": 1}, {"tuning.name": "qlora"}))
    assert watch.memory(2 * GB, 16 * GB) is None
    found = usable(watch.memory(GB // 2, 16 * GB))
    assert "0.5 of 16 GB" in found.text and found.change == {"training.micro_batch_size": 1}
    assert watch.memory(GB // 2, 16 * GB) is None
    assert watch.gpu(20 * GB, 24 * GB) is None
    assert "GPU" in usable(watch.gpu(int(23.9 * GB), 24 * GB)).text
    assert "data.max_length" in usable(health().memory(1, 16 * GB)).fix


WORDS = 49152  # of a vocabulary; its logarithm is 10.8


def end_of(watch: Health, values: list[float], first: int = 1) -> int | None:
    """The step at which the losses end a run."""
    for step, value in enumerate(values, first):
        if watch.broken(step, value, 1.0) is not None:
            return step
    return None


@pytest.mark.parametrize(
    ("vocabulary", "values", "step"),
    [
        (0, [8.3, 50.0, 400.0, 900.0, 1500.0], 5),
        (0, [2.0, 19.0, 25.0, 38.0, 40.0], 5),
        (WORDS, [2.8, 19.0, 25.0, 38.0, 40.0], 4),
        (WORDS, [2.8, 17.0, 9.0, 17.0, 17.0, 17.0], 6),
        (4096, [8.33, 9.0, 20.0, 31.0, 30.0], 5),
        (WORDS, [10.9, 11.0, 10.9, *(10.8 - 0.1 * step for step in range(60))], None),
        (WORDS, [14.0, 17.0, 18.0, 17.0, 15.0, 14.0], None),  # new tokens: it begins above
        (WORDS, [2.8, 15.0, 30.0, 14.0, 12.0, 9.0], None),
        (WORDS, [0.02, 3.0, 4.0, 2.0, 3.0], None),
        (0, [0.0, 5.0, 8.0, 9.0], None),
    ],
)
def test_a_loss_that_explodes_at_once_ends_the_run(vocabulary: int, values: list[float], step: int | None) -> None:
    assert end_of(health(vocabulary=vocabulary), values) == step


def test_the_level_of_an_earlier_attempt_counts() -> None:
    watch = health(vocabulary=WORDS)
    watch.go_on([2.8, 2.5, math.nan, 2.4])
    assert end_of(watch, [17.0, 18.0, 19.0], first=41) == 43
    online = health(online=True)
    online.go_on([0.1, 0.1])
    assert end_of(online, [30.0, 40.0, 50.0, 60.0], first=3) is None, "the answers of so few steps have no level"


def test_a_loss_that_the_first_steps_ruined_has_not_fallen() -> None:
    ruined = [2.8, 14.0, 13.0, *(12.0 - 0.1 * step for step in range(57))]
    (found,) = losses(health(vocabulary=WORDS), ruined)
    assert "has not fallen" in usable(found).text and found.change == {"training.learning_rate": 2e-4}
    assert "(2.8, now" in found.text
    assert losses(health(), [0.3, *(1.9 - 0.005 * step for step in range(60))]) == [], "an easy first batch"

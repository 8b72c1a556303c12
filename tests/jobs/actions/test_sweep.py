"""Several runs from one: what they are, what they are called, and that a wrong value queues nothing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.config import RunConfig
from studio.config.load import build
from studio.errors import InputError, InputErrors
from studio.jobs import list_jobs
from studio.jobs.actions.sweep import MOST_RUNS, check_all, expand, free_variants, parse_values, submit_all
from studio.jobs.store.folder import create_job
from studio.jobs.store.request import changed_config
from studio.settings import Settings

BASE = RunConfig()
RATE, RANK = "training.learning_rate", "tuning.rank"


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1e-4, 2e-4", [1e-4, 2e-4]),
        ("8,16,", [8, 16]),
        ("auto, 0.5", ["auto", 0.5]),
        ("true, false", [True, False]),
        ("'a, b', c", ["a, b", "c"]),
        ("[q_proj, v_proj], all-linear", [["q_proj", "v_proj"], "all-linear"]),
        ("cuda:0, cuda:1", ["cuda:0", "cuda:1"]),
        ("'4', 8", ["4", 8]),
    ],
)
def test_values_are_read_as_set_reads_them(text: str, values: list[Any]) -> None:
    assert parse_values(RATE, text) == values


@pytest.mark.parametrize("text", ["", "  ", "[1", "a: b: c", "1]]"])
def test_what_is_no_list_is_a_sentence(text: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_values(RATE, text)
    assert caught.value.where == RATE and "1e-4, 2e-4" in caught.value.fix


def test_several_options_make_a_grid() -> None:
    found = expand(BASE, "demo", {RATE: [1e-4, 2e-4], RANK: [8, 16, 32]})
    assert [one.name for one in found] == [
        f"demo-learning_rate-{rate}-rank-{rank}" for rate in ("0.0001", "0.0002") for rank in (8, 16, 32)
    ]
    assert [(one.config.training.learning_rate, one.config.tuning.rank) for one in found] == [
        (rate, rank) for rate in (1e-4, 2e-4) for rank in (8, 16, 32)
    ]
    assert found[1].changes == {RATE: 1e-4, RANK: 16}
    for one in found:  # nothing else differs
        plain = changed_config(one.config.model_dump(), {RATE: "auto", RANK: 16})
        assert build(RunConfig, plain) == BASE


@given(
    st.lists(st.floats(1e-9, 1.0), min_size=1, max_size=8, unique=True),
    st.lists(st.integers(1, 1024), min_size=1, max_size=8, unique=True),
    st.text("ab-_.", min_size=1, max_size=70),
)
def test_names_tell_the_runs_apart(rates: list[float], ranks: list[int], name: str) -> None:
    found = expand(BASE, name, {RATE: rates, RANK: ranks})
    assert len(found) == len(rates) * len(ranks) == len({one.name for one in found})
    assert all(len(one.name) <= 60 for one in found)


def test_all_wrong_values_are_said_at_once() -> None:
    with pytest.raises(InputErrors) as caught:
        expand(BASE, "demo", {RATE: ["abc", 1e-4, 7.0], RANK: [8, 5000]})
    said = [error.sentence for error in caught.value.errors]
    assert len(said) == len(set(said))  # though each wrong value is in several runs
    for words in ("'abc'", "7.0", "5000"):
        assert any(words in sentence for sentence in said)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"training.learning_rat": [1]}, "Did you mean 'training.learning_rate'?"),
        ({"training": [1]}, "training"),
        ({RANK: [8, 16, 8]}, "two of the runs are the same"),
        ({"training.padding_free": [False, "off"]}, "two of the runs are the same"),
        ({"tuning.name": ["lora", "full"], RANK: [8, 16]}, "sft with full does not use it"),
        ({RANK: list(range(1, MOST_RUNS + 2))}, f"make {MOST_RUNS + 1} runs"),
        ({"training.micro_batch_size": [3]}, "does not divide"),
    ],
)
def test_what_makes_no_sense_is_refused(values: dict[str, list[Any]], words: str) -> None:
    with pytest.raises(InputErrors) as caught:
        expand(BASE, "demo", values)
    assert words in caught.value.sentence


def test_a_run_that_fails_its_check_is_named_and_all_are_checked() -> None:
    variants = expand(BASE, "demo", {RANK: [8, 16, 32]})

    def check(config: RunConfig) -> int:
        if config.tuning.rank > 8:
            raise InputError("too much memory", where="training", fix="Lower it")
        return config.tuning.rank

    assert check_all(variants[:1], check) == [8]
    with pytest.raises(InputErrors) as caught:
        check_all(variants, check)
    assert [error.where for error in caught.value.errors] == ["demo-rank-16: training", "demo-rank-32: training"]


def test_runs_of_a_sweep_share_a_group_and_take_no_name(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("studio.jobs.actions.client.ensure_supervisor", lambda settings: None)
    create_job(settings.jobs, "train", "demo-rank-8", {})
    variants = free_variants(settings.jobs, BASE, "demo", {RANK: [8, 16]})
    assert [one.name for one in variants] == ["demo-2-rank-8", "demo-2-rank-16"]
    create_job(settings.jobs, "train", "my run rank 8", {})
    assert free_variants(settings.jobs, BASE, "my run", {RANK: [8]})[0].name == "my run-2-rank-8"
    made = submit_all(settings, "demo", [(one.name, one.config) for one in variants])
    assert len({job.request.group for job in made}) == 1 and made[0].request.group.startswith("demo-sweep-")
    assert len(list_jobs(settings.jobs)) == 4


def test_a_changed_copy_leaves_the_first_alone() -> None:
    config = {"training": {"epochs": 1}}
    assert changed_config(config, {"training.epochs": 2, "tuning.rank": 4}) == {
        "training": {"epochs": 2}, "tuning": {"rank": 4},
    }  # fmt: skip
    assert config == {"training": {"epochs": 1}}


def test_a_name_below_an_option_is_refused() -> None:
    with pytest.raises(InputError, match=r"there is no option 'training\.epochs\.x'"):
        changed_config({"training": {"epochs": 1}}, {"training.epochs.x": 2})

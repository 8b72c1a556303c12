"""One bar for a whole job: it never goes back, and it goes by time and not by phases."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.jobs.views.progress import MOST, Progress

START = 1e9


def phase(
    time: float, name: str, state: str = "begin", done: float = 0.0, total: float | None = None
) -> dict[str, Any]:
    return {"kind": "phase", "time": time, "phase": name, "state": state, "done": done, "total": total}


def told(*events: dict[str, Any]) -> tuple[Progress, list[float]]:
    progress, shares = Progress(), []
    for event in events:
        progress.add({**event, "time": event["time"] + START})
        shares.append(progress.share)
    return progress, shares


def outline(time: float, **seconds: float) -> dict[str, Any]:
    return {"kind": "outline", "time": time, "seconds": {name.replace("_", " "): one for name, one in seconds.items()}}


def metric(time: float, eta: float) -> dict[str, Any]:
    return {"kind": "metric", "time": time, "step": 1, "values": {}, "eta": eta}


def test_a_training_goes_by_the_plan_first_and_then_by_its_pace() -> None:
    progress, shares = told(
        {"kind": "begin", "time": 100.0},
        phase(100, "loading libraries"), phase(110, "loading libraries", "end"),
        outline(110, loading_model=5, training=80, saving=5),
        phase(110, "loading model"), phase(115, "loading model", "end"),
        phase(115, "training", total=10),
        metric(125, 145),  # slower than planned: 10 s a step
        phase(130, "validating", total=4), phase(140, "validating", "progress", 4, 4),
        metric(270, 0), phase(270, "training", "end", 10, 10),
        phase(270, "saving"), phase(272, "saving", "end"),
    )  # fmt: skip
    assert shares[:3] == [0, 0, 0], "nobody knows yet how long it takes"
    assert shares[3] == pytest.approx(10 / 100)
    assert shares[6] == shares[7] == pytest.approx(15 / 100), "25 s of 175 would be less, and it does not go back"
    assert shares[9] == pytest.approx(40 / 175), (
        "a validation counts as time that passes, not as a phase from 0 to 100 %"
    )
    assert shares == sorted(shares) and shares[-1] == MOST
    assert progress.ends == START + 272


def test_a_run_that_goes_on_begins_where_it_was() -> None:
    first = [{"kind": "begin", "time": 0.0}, outline(0, training=100), phase(0, "training", total=10), metric(50, 50)]
    again = [
        {"kind": "begin", "time": 9000.0}, phase(9000, "loading libraries"), outline(9010, training=50),
        phase(9010, "training", total=10), metric(9030, 30),
    ]  # fmt: skip
    _, shares = told(*first, *again)
    assert shares[3] == pytest.approx(0.5)
    assert shares[4:6] == [0.5, 0.5], "the hours between the attempts are no progress"
    assert shares[-1] == pytest.approx(0.5 + 0.5 * 30 / 60)


def test_an_export_goes_by_the_pace_of_its_step() -> None:
    progress, shares = told(
        {"kind": "begin", "time": 0.0},
        outline(0, merging=10, converting=10, verifying_f16=10),
        phase(0, "merging", total=100), phase(10, "merging", "progress", 25, 100),
    )  # fmt: skip
    assert shares[-1] == pytest.approx(10 / (10 + 30 + 20)) and progress.ends == START + 60
    progress.add(phase(START + 50, "merging", "end", 100, 100))
    assert progress.share == pytest.approx(50 / 70)


def test_a_job_of_before_has_no_share_and_odd_outlines_are_passed_over() -> None:
    progress, shares = told(phase(1, "merging", total=10), phase(9, "merging", "end", 10, 10))
    assert shares == [0, 0] and progress.ends is None
    for odd in ("x", [], {"training": "soon"}, {"training": True}, {"training": 1e300}, {"training": -1}, None):
        progress.add({"kind": "outline", "time": START, "seconds": odd})
        assert progress.expected == {} and progress.share == 0


EVENTS = st.one_of(
    st.builds(
        phase,
        st.just(0.0),
        st.sampled_from(["loading model", "training", "validating", "saving"]),
        st.sampled_from(["begin", "progress", "end", "broken"]),
        st.floats(0, 200),
        st.one_of(st.none(), st.floats(0, 100)),
    ),
    st.builds(metric, st.just(0.0), st.floats(-10, 1e6)),
    st.builds(outline, st.just(0.0), training=st.floats(0, 1e6), saving=st.floats(0, 10)),
    st.just({"kind": "begin"}),
)


@given(st.lists(st.tuples(st.floats(-5, 1000), EVENTS), max_size=30))
def test_it_never_goes_back_whatever_is_told(steps: list[tuple[float, dict[str, Any]]]) -> None:
    now, progress, last = START, Progress(), 0.0
    for passed, event in steps:
        now += passed  # clocks are set back as well
        progress.add({**event, "time": now})
        assert last <= progress.share <= MOST
        last = progress.share

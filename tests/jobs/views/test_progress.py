"""One bar for a whole job: it never goes back, and it goes by time and not by phases."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from studio.jobs.views.progress import MOST, Progress


def phase(
    time: float, name: str, state: str = "begin", done: float = 0.0, total: float | None = None
) -> dict[str, Any]:
    return {"kind": "phase", "passed": time, "phase": name, "state": state, "done": done, "total": total}


def told(*events: dict[str, Any]) -> tuple[Progress, list[float]]:
    progress, shares = Progress(), []
    for event in events:
        progress.add(event)
        shares.append(progress.share)
    return progress, shares


def outline(time: float, validations: int = 1, **seconds: float) -> dict[str, Any]:
    named = {name.replace("_", " "): one for name, one in seconds.items()}
    return {"kind": "outline", "passed": time, "seconds": named, "validations": validations}


def metric(time: float, eta: float) -> dict[str, Any]:
    return {"kind": "metric", "passed": time, "step": 1, "values": {}, "eta": eta}


def test_a_training_is_as_far_as_its_work_whatever_the_pace() -> None:
    progress, shares = told(
        {"kind": "begin", "passed": 0.0},
        phase(0, "loading libraries"), phase(70, "loading libraries", "end"),  # ten times slower than a usual machine
        outline(100, validations=2, loading_model=5, training=60, validating=20, saving=5),
        phase(100, "loading model"), phase(150, "loading model", "end"),
        phase(150, "training", total=10),
        phase(150, "validating", total=4), phase(200, "validating", "progress", 2, 4),
        phase(250, "validating", "end", 4, 4),
        phase(310, "training", "progress", 1, 10), metric(310, 640),
        phase(850, "training", "progress", 10, 10),
        phase(850, "validating", total=4), phase(950, "validating", "end", 4, 4),
        phase(950, "training", "end", 10, 10), phase(950, "saving"), phase(1000, "saving", "end"),
    )  # fmt: skip
    whole = 10 + 5 + 60 + 20 + 5
    assert shares[:3] == [0, 0, 0], "nobody knows yet how long it takes"
    assert shares[3] == pytest.approx(10 / whole), "the time before counts as on a machine of usual pace"
    assert shares[8] == pytest.approx((15 + 5) / whole) and shares[9] == pytest.approx((15 + 10) / whole)
    assert shares[10] == pytest.approx((15 + 10 + 6) / whole)
    assert shares == sorted(shares) and shares[-1] == MOST
    assert progress.left == 0


def test_what_is_left_goes_by_the_pace() -> None:
    events = [
        {"kind": "begin", "passed": 0.0}, phase(0, "loading libraries"), phase(14, "loading libraries", "end"),
        outline(20, training=80, saving=5), phase(20, "training", total=10), metric(30, 200),
        phase(40, "training", "progress", 1, 10),
    ]  # fmt: skip
    assert told(*events[:4])[0].left == 2 * 85, "as slow as the libraries were"
    assert told(*events[:6])[0].left == 200 + 2 * 5
    assert told(*events)[0].left == 190 + 2 * 5


def test_a_run_that_goes_on_begins_where_it_was() -> None:
    first = [{"kind": "begin", "passed": 0.0}, outline(0, training=100), phase(0, "training", "progress", 5, 10)]
    again = [
        {"kind": "begin", "passed": 0.0}, phase(0, "loading libraries"), {"kind": "resume", "passed": 5.0, "step": 4},
        outline(10, training=50), phase(10, "training", total=10), phase(12, "training", "progress", 4, 10),
        phase(40, "training", "progress", 7, 10),
    ]  # fmt: skip
    _, shares = told(*first, *again)
    assert shares[2:5] == [0.5, 0.5, 0.5], "the hours between the attempts are no progress"
    assert shares[-1] == pytest.approx(0.5 + 0.5 * (10 + 25) / 60), "half of the steps that were left at its start"


def test_an_export_goes_by_the_pace_of_its_step() -> None:
    progress, shares = told(
        {"kind": "begin", "passed": 0.0},
        outline(0, merging=10, converting=10, verifying_f16=10),
        phase(0, "merging", total=100), phase(10, "merging", "progress", 25, 100),
    )  # fmt: skip
    assert shares[-1] == pytest.approx(2.5 / 30) and progress.left == 30 + 20
    progress.add(phase(50, "merging", "end", 100, 100))
    assert progress.share == pytest.approx(1 / 3)


def test_a_job_of_before_has_no_share_and_odd_outlines_are_passed_over() -> None:
    progress, shares = told(phase(1, "merging", total=10), phase(9, "merging", "end", 10, 10))
    assert shares == [0, 0] and progress.left is None
    for odd in ("x", [], {"training": "soon"}, {"training": True}, {"training": 1e300}, {"training": -1}, None):
        progress.add({"kind": "outline", "passed": 0.0, "seconds": odd, "validations": "many"})
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
    st.builds(lambda step: {"kind": "resume", "step": step}, st.integers(0, 200)),
)


@given(st.lists(st.tuples(st.floats(-5, 1000), EVENTS), max_size=30))
def test_it_never_goes_back_whatever_is_told(steps: list[tuple[float, dict[str, Any]]]) -> None:
    now, progress, last = 0.0, Progress(), 0.0
    for passed, event in steps:
        now += passed
        progress.add({**event, "passed": now})
        assert last <= progress.share <= MOST
        last = progress.share

"""What the plan promised, beside what a real training job took."""

from __future__ import annotations

import sys

import pytest

from studio.jobs import JobFolder

# docs/memory.md: -7 to +7 % in 29 runs by the plan of then, -3 to +9 % in five since; allocators differ.
TOLERANCE = 0.15


@pytest.mark.long
def test_the_demo_takes_the_memory_that_was_planned(trained_run: JobFolder) -> None:
    environment = trained_run.environment()
    measured, planned = environment["peak_memory_bytes"], environment["plan"]
    assert sum(planned["memory"].values()) == planned["total_bytes"]
    if sys.platform != "linux" or environment.get("peak_gpu_bytes"):
        pytest.skip("the plan's runtime part was measured for CPU processes on Linux")
    assert measured == pytest.approx(planned["total_bytes"], rel=TOLERANCE)

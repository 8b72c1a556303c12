"""The page is up quickly, small, and without torch."""

from __future__ import annotations

import pytest

from tests.benchmarks.page.start import cold_start

# The goal of 4 s is for a quiet machine (docs/benchmarks.md); a test machine may be busy with other tests.
SECONDS = 20.0


@pytest.mark.long
def test_cold_start_memory_and_modules(session_home, model_path) -> None:
    page = cold_start(session_home)
    print(f"\npage: {page.seconds:.2f} s, {page.megabytes:.0f} MB")
    assert page.seconds <= SECONDS
    assert page.megabytes <= 250
    assert not page.has_torch

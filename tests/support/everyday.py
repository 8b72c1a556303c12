"""Which of a test's cases `make test` tries; `make test-all` tries the others as well."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def everyday(cases: Iterable[Any], *daily: Any) -> list[Any]:
    """Return the cases, marked `long` but for the daily ones.

    Raises:
        LookupError: a daily case is none of them.
    """
    known = list(cases)
    if missing := [one for one in daily if one not in known]:
        raise LookupError(f"no such cases: {missing}")
    return [one if one in daily else pytest.param(one, marks=pytest.mark.long) for one in known]

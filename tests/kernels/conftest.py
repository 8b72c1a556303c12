"""The compiled functions, loaded once."""

from __future__ import annotations

import pytest

from studio.kernels.building import load
from studio.kernels.calls import Kernels
from studio.models.device.compiled import place


@pytest.fixture(scope="session")
def kernels() -> Kernels:
    return Kernels(load(place()))

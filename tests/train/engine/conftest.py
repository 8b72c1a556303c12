"""The engine's compiled functions, loaded once."""

from __future__ import annotations

import pytest

from studio.models.device.compiled import place
from studio.train.engine.native.building import load
from studio.train.engine.native.calls import Kernels


@pytest.fixture(scope="session")
def kernels() -> Kernels:
    return Kernels(load(place()))

"""Fixtures of the parity and the training tests; their conftests take them from here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from studio.models.catalog.quiet import quiet_libraries
from tests.parity.made import make_tiny, one_thread


@pytest.fixture(scope="session")
def tiny(model_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A two-layer random Llama with the first 4,096 ids of SmolLM2's tokenizer."""
    return make_tiny(model_path, tmp_path_factory.mktemp("tiny"))


@pytest.fixture(autouse=True)
def quick_and_quiet() -> Iterator[None]:
    """One thread, and libraries that print nothing."""
    quiet_libraries()
    with one_thread():
        yield

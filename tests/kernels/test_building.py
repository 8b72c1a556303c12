"""The C++ sources are compiled once, and what hinders it is said."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from studio.errors import StudioError
from studio.kernels import building
from studio.kernels.calls import Kernels
from studio.models.device import compiled


def test_it_is_compiled_once_and_without_a_compiler_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    building.load(compiled.place())
    ready = compiled.place() / compiled.file_name()
    shutil.copy(ready, tmp_path / ready.name)
    before = (tmp_path / ready.name).stat().st_mtime_ns
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert Kernels(building.load(tmp_path)).gated(*torch.ones(1, 32).chunk(2, 1)).shape == (1, 16), (
        "nor is one needed again"
    )
    assert (tmp_path / ready.name).stat().st_mtime_ns == before
    with pytest.raises(StudioError, match=r"C\+\+ compiler"):
        building.load(tmp_path / "elsewhere")
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho 'x.cpp:1: error: no' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("CXX", str(broken))
    with pytest.raises(StudioError, match=r"does not compile here: x\.cpp:1: error: no"):
        building.load(tmp_path / "third")
    assert list((tmp_path / "third").iterdir()) == []

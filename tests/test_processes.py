"""What the studio's children find in their environment."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from studio.processes import KEPT, WAITING, child_environment, for_libraries


@pytest.mark.parametrize("given", [{}, {"OMP_WAIT_POLICY": "ACTIVE"}, {"GOMP_SPINCOUNT": "7"}], ids=str)
def test_threads_wait_as_the_person_says_or_briefly(given: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in WAITING:
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    made = child_environment(MORE="1")
    assert {name: made[name] for name in WAITING if name in made} == (given or WAITING)
    assert made["MORE"] == "1"
    assert made["PATH"] == os.environ["PATH"]


def test_products_are_kept_as_the_person_says_or_few(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in KEPT:
        monkeypatch.delenv(name, raising=False)
    assert KEPT.items() <= child_environment().items()
    monkeypatch.setenv("LRU_CACHE_CAPACITY", "7")
    made = child_environment()
    assert made["LRU_CACHE_CAPACITY"] == "7" and "LRU_CACHE_CAPACITY" not in for_libraries()
    assert made["ONEDNN_PRIMITIVE_CACHE_CAPACITY"] == KEPT["ONEDNN_PRIMITIVE_CACHE_CAPACITY"]


def test_products_of_many_shapes_take_no_more_memory() -> None:
    """In a process of its own, whose caches are filled before; by default it grows by 0.6 MB a shape."""
    code = (
        "import torch, psutil\n"
        "torch.set_num_threads(1)\n"
        "weight = torch.ones(64, 64, dtype=torch.bfloat16)\n"
        "def grown(first):\n"
        "    for rows in range(first, first + 400):\n"
        "        torch.ones(rows, 64, dtype=torch.bfloat16) @ weight\n"
        "    return psutil.Process().memory_info().rss\n"
        "print(grown(1), grown(401))"
    )
    done = subprocess.run([sys.executable, "-c", code], env=child_environment(), capture_output=True, check=True)
    filled, more = map(int, done.stdout.split())
    assert more - filled < 20e6

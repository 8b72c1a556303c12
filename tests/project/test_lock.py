"""The lock names what is needed, in versions that every machine can take, and the check sees where it does not."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest

from tests.project.lock import LOCK, ROOT, declared, needed, problems, read_lock, written

TEXT = LOCK.read_text(encoding="utf-8")


@pytest.fixture
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_the_lock_is_whole_and_is_that_of_what_is_installed(project: dict[str, Any]) -> None:
    assert list(problems(project, TEXT)) == []


def test_it_holds_a_version_of_each_thing_and_neither_a_place_nor_a_build(project: dict[str, Any]) -> None:
    lock = read_lock(TEXT)
    assert lock.pop("torch") == "torch>=2.9"
    assert all(re.fullmatch(r"[a-z0-9-]+==[0-9][0-9a-z.]*", line) for line in lock.values())
    # What a requirement asks for in its turn (gradio of starlette) is there, and what only torch asks for is not.
    assert {"starlette", "regex", "fsspec"} <= lock.keys() and not {"sympy", "triton"} & lock.keys()


def test_a_dependency_that_the_lock_lacks_is_said(project: dict[str, Any]) -> None:
    # Installed here, as a new dependency is, but for torch alone.
    project["project"]["dependencies"].append("sympy>=1.13")
    assert {one.split()[0] for one in problems(project, TEXT)} == {"sympy", "mpmath"}


@pytest.mark.parametrize("extra", ["demo", "test"])
def test_so_is_one_that_is_not_even_installed(project: dict[str, Any], extra: str) -> None:
    project["project"]["optional-dependencies"][extra].append("studio-has-no-such-thing")
    assert list(problems(project, TEXT)) == ["studio-has-no-such-thing is needed and not installed"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("torch>=2.9\n", "torch==2.13.0\n"), ("torch>=2.9\n", "torch==2.13.0+cpu\n"), ("torch>=2.9\n", ""),
        ("torch>=2.9\n", "torch>=2.8\n"), (r"regex==.*\n", ""), (r"regex==.*\n", "regex==1.0\n"),
        (r"regex==.*\n", "regex>=2020\n"), (r"regex==(.*)\n", r"regex==\1+local\n"),
        (r"regex==.*\n", "regex @ file:///wheels/regex.whl\n"), (r"regex==", "sympy==1.14.0\nregex=="),
    ],
)  # fmt: skip
def test_each_line_that_is_not_right_is_said_once(project: dict[str, Any], before: str, after: str) -> None:
    changed, count = re.subn(f"^{before}", after, TEXT, flags=re.MULTILINE)
    assert count == 1 and len(list(problems(project, changed))) == 1


def test_a_range_that_the_installed_version_has_left_is_said(project: dict[str, Any]) -> None:
    lines = project["project"]["dependencies"]
    lines[:] = ["numpy>=99" if line.startswith("numpy") else line for line in lines]
    assert len(list(problems(project, TEXT))) == 1


def test_writing_mends_it_and_keeps_what_another_python_needs(project: dict[str, Any]) -> None:
    elsewhere = needed(declared(project)).elsewhere
    without = "".join(f"{line}\n" for name, line in read_lock(TEXT).items() if name in elsewhere)
    assert written(project, f"{without}regex==1.0\nsympy==1.14.0\n") == TEXT

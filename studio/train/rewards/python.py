"""A reward function of the person's own, from a file in an allowed folder. Loaded in the worker only."""

from __future__ import annotations

import ast
import importlib.abc
import importlib.util
import math
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType
from typing import Any

from studio.data.prepare.units import Prompt
from studio.errors import InputError, StudioError
from studio.foreign import as_path
from studio.reach import read_text

_WHERE = "method.reward_python"


class _Checked(importlib.abc.InspectLoader):
    """Loads the code that was checked: neither what the file holds by now, nor compiled code that lies beside it."""

    def __init__(self, path: Path, code: str) -> None:
        self._path, self._code = path, code

    def get_source(self, fullname: str) -> str:
        """The code."""
        return self._code

    def get_code(self, fullname: str) -> CodeType:
        """The code, compiled under the file's name, which errors tell."""
        return self.source_to_code(self._code, str(self._path))


def split_reference(text: str) -> tuple[Path, str]:
    """Split FILE.py:FUNCTION and check, without running it, that the file defines the function.

    Raises:
        InputError: as `read_reference`.
    """
    return read_reference(text)[:2]


def read_reference(text: str) -> tuple[Path, str, str]:
    """Return the file of FILE.py:FUNCTION, the function's name, and the file's code, which defines it.

    Raises:
        InputError: not of that form, no such file, not Python, or no such function.
    """
    file, colon, name = text.rpartition(":")
    if not colon or not name.isidentifier() or not file.endswith(".py"):
        raise InputError(f"'{text}' is not FILE.py:FUNCTION", where=_WHERE, fix="Write it like rewards.py:score")
    path = as_path(file)
    try:
        code = read_text(path)
        tree = ast.parse(code, str(path))
    except OSError as error:
        raise InputError(f"the file cannot be read ({error.strerror})", where=f"{_WHERE}: {path}") from error
    except (SyntaxError, ValueError) as error:
        raise InputError(f"the file is not valid Python: {error}", where=f"{_WHERE}: {path}") from error
    names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    if name not in names:
        have = ", ".join(names) or "none"
        raise InputError(
            f"there is no function '{name}'; the file has: {have}", where=f"{_WHERE}: {path}", fix="Fix it"
        )
    return path, name, code


def load_function(text: str) -> Any:
    """Import the file and return its function as a scorer.

    The function is called with `prompts` and `completions` (texts) and every column of the rows as lists, and returns
    a number for each answer, or None.

    Raises:
        StudioError: importing or calling it fails, or it returns something else, such as infinity; the sentence
            quotes its own error.
    """
    path, name, code = read_reference(text)
    loader = _Checked(path, code)
    spec = ModuleSpec("studio_reward_function", loader, origin=str(path))
    module = importlib.util.module_from_spec(spec)
    module.__file__ = str(path)
    sys.modules[spec.name] = module  # dataclasses look their module up
    try:
        loader.exec_module(module)
    except Exception as error:
        raise StudioError(f"importing it fails: {error!r}", where=f"{_WHERE}: {path}", fix="Fix the file") from error
    function = getattr(module, name)

    def score(prompts: Sequence[Prompt], answers: Sequence[str]) -> list[float | None]:
        columns = {key: [row.columns.get(key) for row in prompts] for key in prompts[0].columns}
        columns["answer"] = [row.answer for row in prompts]
        asked = [row.prompt if isinstance(row.prompt, str) else row.prompt[-1]["content"] for row in prompts]
        try:
            given = function(prompts=asked, completions=list(answers), **columns)
            scores = [None if value is None else float(value) for value in given]
        except Exception as error:
            raise StudioError(f"{name} fails: {error!r}", where=f"{_WHERE}: {path}", fix="Fix it") from error
        if len(scores) != len(answers):
            raise StudioError(
                f"{name} returned {len(scores)} rewards for {len(answers)} answers", where=f"{_WHERE}: {path}",
                fix="Return one number per completion",
            )  # fmt: skip
        bad = next((one for one in scores if one is not None and not math.isfinite(one)), None)
        if bad is not None:
            raise StudioError(
                f"{name} returned {bad}", where=f"{_WHERE}: {path}", fix="Return None for a completion without a reward"
            )
        return scores

    return score

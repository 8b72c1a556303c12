"""Each public function with three parameters or more says in `Args:` what each of them is, and of no other.

The commands of `studio` say it in their options' help instead: typer prints a docstring as it stands.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.main import get_command

from studio.cli.main import app

STUDIO = Path(__file__).parents[2] / "studio"
LEAST = 3
_SECTION = re.compile(r"^Args:\n((?:    .*\n?|\n)+)", re.MULTILINE)
_ENTRY = re.compile(r"^ {4}(\w+(?:, \w+)*): \S", re.MULTILINE)


@dataclass(frozen=True)
class Documented:
    """A function: its parameters, and those its docstring names (None without `Args:`)."""

    place: str
    public: bool
    parameters: frozenset[str]
    named: frozenset[str] | None


def documented(source: str, module: str, *, public: bool = True) -> Iterator[Documented]:
    """Yield the functions of a module and of its classes."""

    def found(body: list[ast.stmt], before: str, open_to_all: bool) -> Iterator[Documented]:
        for node in body:
            if isinstance(node, ast.ClassDef):
                yield from found(node.body, f"{before}.{node.name}", open_to_all and not node.name.startswith("_"))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                has = node.args
                every = [*has.posonlyargs, *has.args, has.vararg, *has.kwonlyargs, has.kwarg]
                names = frozenset(one.arg for one in every if one is not None) - {"self", "cls", "_"}
                section = _SECTION.search(ast.get_docstring(node) or "")
                said = None
                if section is not None:
                    said = frozenset(name for entry in _ENTRY.findall(section[1]) for name in entry.split(", "))
                shown = open_to_all and not node.name.startswith("_")
                yield Documented(f"{before}.{node.name}", shown, names, said)

    yield from found(ast.parse(source).body, module, public)


def commands(group: Any) -> Iterator[tuple[str, Any]]:
    """Yield the place of each command's function, and the command."""
    for one in group.commands.values():
        if hasattr(one, "commands"):
            yield from commands(one)
        else:
            yield f"{one.callback.__module__}.{one.callback.__qualname__}", one


COMMANDS = dict(commands(get_command(app)))


@cache
def of_the_studio() -> list[Documented]:
    found: list[Documented] = []
    for path in sorted(STUDIO.rglob("*.py")):
        module = ".".join(path.relative_to(STUDIO.parent).with_suffix("").parts)
        private = path.name.startswith("_") and path.name != "__init__.py"
        found += documented(path.read_text(encoding="utf-8"), module, public=not private)
    return found


def test_what_has_many_parameters_says_what_they_are() -> None:
    many = [one for one in of_the_studio() if one.public and len(one.parameters) >= LEAST]
    assert len(many) > 300
    assert [one.place for one in many if one.named is None and one.place not in COMMANDS] == []


def test_args_name_each_parameter_and_nothing_else() -> None:
    wrong = [one.place for one in of_the_studio() if one.named is not None and one.named != one.parameters]
    assert wrong == []


def test_a_command_says_in_its_help_what_its_parameters_are() -> None:
    assert len(COMMANDS) > 25
    lacking = [(place, one.name) for place, command in COMMANDS.items() for one in command.params if not one.help]
    assert lacking == []
    assert not any("Args:" in (command.help or "") for command in COMMANDS.values())


@pytest.mark.parametrize(
    ("docstring", "named"),
    [
        ("Do it.", None),
        ("Do it.\n\n    Args:\n        a, b: both.\n            c: so.\n        rest: other.\n", {"a", "b", "rest"}),
        ("Do it.\n\n    Args:\n        a: one.\n        b:\n\n    Raises:\n        rest: no.\n", {"a"}),
    ],
)  # fmt: skip
def test_the_sections_are_read(docstring: str, named: set[str] | None) -> None:
    source = f'class A:\n  def f(self, a, b=1, *, _=0, **rest):\n    """{docstring}"""\n'
    (one,) = documented(source, "m")
    assert (one.place, one.public, one.parameters) == ("m.A.f", True, {"a", "b", "rest"})
    assert one.named == named


def test_typer_prints_a_docstring_as_it_stands() -> None:
    """Why commands are left out."""
    single = typer.Typer()

    @single.command()
    def some(a: str) -> None:
        """Do it.

        Args:
            a: one.
        """

    assert "Args:" in (get_command(single).help or "")

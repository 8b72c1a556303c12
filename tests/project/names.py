"""Finds modules that know a method or a tuning by name: `python -m tests.project.names`, part of `make check`.

What differs between methods is a trait in the method's own file (`studio.methods`, `studio.tunings`), so that a new one
is one new file. A comparison, a `match` or a table by name elsewhere would have to be found and changed for it.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

from studio.methods import METHODS
from studio.tunings import TUNINGS

STUDIO = Path(__file__).resolve().parents[2] / "studio"
OWN = ("methods", "tunings")
NAMES = {*METHODS, *TUNINGS}
# What holds a method's or tuning's name is called so; `method.grpo_loss == "grpo"` is a word of an option.
HOLDERS = {"name", "method", "tuning", "method_name", "tuning_name", "method.name", "tuning.name"}


def names_in(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and text of what compares, matches or tabulates names."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            found = any(_named(side) for side in sides) and any(_holds(side) for side in sides)
        elif isinstance(node, ast.Match):
            found = _holds(node.subject) and any(_named(part) for case in node.cases for part in ast.walk(case.pattern))
        else:
            found = isinstance(node, ast.Dict) and sum(_named(key) for key in node.keys if key is not None) > 1
        if found:
            yield node.lineno, ast.unparse(node).splitlines()[0]


def _named(node: ast.AST) -> bool:
    if isinstance(node, ast.MatchValue):
        return _named(node.value)
    if isinstance(node, ast.Tuple | ast.List | ast.Set):
        return any(_named(one) for one in node.elts)
    return isinstance(node, ast.Constant) and node.value in NAMES


def _holds(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return any(isinstance(one, ast.Constant) and one.value in HOLDERS for one in node.args) or any(
            _holds(one) for one in node.args
        )
    if isinstance(node, ast.Subscript):
        return isinstance(node.slice, ast.Constant) and node.slice.value in HOLDERS
    return (node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")) in HOLDERS


def main() -> int:
    """Print what is found; returns 1 where something is."""
    found = [
        f"{path.relative_to(STUDIO.parent)}:{line}: {text}"
        for path in sorted(STUDIO.rglob("*.py"))
        if path.relative_to(STUDIO).parts[0] not in OWN
        for line, text in names_in(path.read_text(encoding="utf-8"))
    ]
    for one in found:
        print(f"{one}\n  a method or tuning is known by name here; ask a trait of studio.methods or studio.tunings")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())

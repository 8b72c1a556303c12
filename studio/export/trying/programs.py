"""The servers that are started here when they are installed: where each is found, how it is started and asked.

One line of the table for each. A program comes from PATH or from an environment variable of whoever started the studio,
never from a request.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from studio.errors import InputError
from studio.export.serving.servers import TITLES
from studio.settings import Settings

Tried = Literal["vllm", "llama-server"]
_VLLM_MODULE = ("-m", "vllm.entrypoints.openai.api_server", "--model")


@dataclass(frozen=True)
class Program:
    """A server that can be tried.

    Attributes:
        word: its name on PATH, and as an option.
        after: arguments between the program and what it serves.
        variable: environment variable that names another program; for vLLM the Python that has it.
        instead: what stands in place of `after` where that variable is used.
        more: arguments for a quick start, behind all others.
        key: environment variable from which it takes the key that clients must give.
        environment: more of its environment, unless it is set already.
        install: commands that install it and tell the studio where it is.
    """

    word: Tried
    after: tuple[str, ...]
    variable: str
    instead: tuple[str, ...]
    more: tuple[str, ...]
    key: str
    environment: dict[str, str]
    install: str

    @property
    def title(self) -> str:
        """What people call it."""
        return TITLES[self.word]


PROGRAMS: dict[Tried, Program] = {
    "vllm": Program(
        "vllm", ("serve",), "STUDIO_VLLM_PYTHON", _VLLM_MODULE,
        ("--enforce-eager",),  # compiling graphs takes longer than a person who only tries it asks questions
        "VLLM_API_KEY",
        {
            "VLLM_NO_USAGE_STATS": "1", "VLLM_HOST_IP": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo", "HF_HUB_OFFLINE": "1",
        },
        "python3 -m venv ~/vllm && ~/vllm/bin/pip install vllm && export STUDIO_VLLM_PYTHON=~/vllm/bin/python",
    ),
    "llama-server": Program(
        "llama-server", (), "STUDIO_LLAMA_SERVER", (), (), "LLAMA_API_KEY", {}, "brew install llama.cpp",
    ),
}  # fmt: skip


def command_of(program: Program, settings: Settings) -> list[str]:
    """Return how the server is started, up to what it serves.

    Raises:
        InputError: it is not installed, or its variable names nothing that can be run.
    """
    named = settings.vllm_python if program.word == "vllm" else settings.llama_server
    if named is not None:
        if not _runs(named):
            raise InputError(
                f"{program.variable} names no program: {named}",
                where=program.variable,
                fix="Set it to an existing program, and start the studio again",
            )
        return [str(named), *program.instead]
    found = shutil.which(program.word)
    if found is None:
        raise InputError(
            f"{program.title} is not installed on this machine",
            fix=f"Install it ({program.install}) and start the studio again, or use serve.sh on another machine",
        )
    return [found, *program.after]


def _runs(path: Path) -> bool:
    return path.is_file() and shutil.which(str(path)) is not None

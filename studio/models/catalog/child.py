"""Work in a child process that prints JSON lines: what it got ready, how far it is, or the sentence of an error.

So a stop ends a download at once, and what the work loads (torch, datasets) is gone with the process. A child whose
parent was killed ends by itself.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from studio.errors import InputError, StudioError
from studio.private import begin
from studio.processes import child_environment, module_command
from studio.settings import Settings

Progress = Callable[[str, float, float | None], None]
"""Called with the phase's name, how much is done, and the total; bytes for a download, steps otherwise."""


def run_child(
    module: str, arguments: list[str], settings: Settings, report: Progress, task: tuple[str, str], **env: str
) -> None:
    """Run a module that prints JSON lines (phase, path or error) and pass them on.

    Args:
        module: its name, for `python -m`.
        arguments: of its command line.
        settings: whose home it works in.
        report: told each phase. An exception of it ends the child.
        task: (what it does, the option it is for), for the error of a child that died.
        env: more environment variables.

    Raises:
        InputError, StudioError: the child's own, or that it ended without a result.
    """
    what, where = task
    env = child_environment(STUDIO_HOME=str(settings.home), **env)
    last: dict[str, Any] = {}
    with tempfile.TemporaryFile("w+", errors="replace") as errors:
        command = module_command(module, *arguments)
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=env)
        try:
            for line in child.stdout or ():
                if not line.startswith("{"):
                    continue
                last = json.loads(line)
                if "phase" in last:
                    report(last["phase"], last["done"], last["total"])
            code = child.wait()
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
        errors.seek(0)
        tail = [line for line in errors.read().splitlines() if line.strip()][-1:]
    if "error" in last:
        kind = InputError if last["input"] else StudioError
        raise kind(last["error"]["what"], where=last["error"]["where"], fix=last["error"]["fix"])
    if code or "path" not in last:
        detail = tail[0].strip() if tail else "no message"
        raise StudioError(
            f"{what} ended with code {code} ({detail})",
            where=where,
            fix="Check memory and disk space (`studio doctor`), then start again",
        )


def child_main(work: Callable[[Progress], Path]) -> int:
    """The child's side: run `work` with a function that reports phases, print what came of it, return the exit code."""
    begin()
    _end_with_parent()

    def say(**line: Any) -> None:
        print(json.dumps(line), flush=True)

    try:
        path = work(lambda phase, done, total: say(phase=phase, done=done, total=total))
    except StudioError as error:
        say(error=error.as_dict(), input=isinstance(error, InputError))
        return error.exit_code
    say(path=str(path))
    return 0


def _end_with_parent() -> None:
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()

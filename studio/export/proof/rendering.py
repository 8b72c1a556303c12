"""What llama.cpp's own server makes of conversations: the prompts of the training, token by token?

It renders the template in the file with an implementation of Jinja of its own, which neither transformers nor
llama-cpp-python use.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO, Any

from studio.errors import StudioError
from studio.export.steps import Report, serve_step

READY_SECONDS = 300.0
ANSWER_SECONDS = 60.0
SHOWN = 8
_PR_SET_PDEATHSIG = 1


def rendering(request: dict[str, Any], report: Report) -> dict[str, Any]:
    """Compare the server's prompts with the training's.

    Args:
        request: {"program", "file", "cases"}: paths of llama-server, the GGUF, and cases.json.
        report: called with (prompts done, prompts in all).

    Returns:
        {"program": its version, "compared", "equal", "rare_equal", "rare", "differences": [{"prompt", "what"}]}; rare
        texts are counted by themselves and no differences.

    Raises:
        StudioError: the server did not start, or gave no answer.
    """
    cases = json.loads(Path(request["cases"]).read_text(encoding="utf-8"))
    prompts = [prompt for prompt in cases["prompts"] if prompt["messages"] is not None]
    if not cases["template"]:
        prompts = []
    version = subprocess.run([request["program"], "--version"], capture_output=True, text=True, check=False)
    said = (version.stderr + version.stdout).strip().splitlines()
    with tempfile.TemporaryFile() as log:
        server = _Server(request["program"], Path(request["file"]), log)
        try:
            server.wait()
            found = []
            for done, prompt in enumerate(prompts):
                found.append((prompt, server.ids(prompt["messages"])))
                report(done + 1, len(prompts))
        finally:
            server.stop()
    firm, rare = [[one for one in found if one[0]["rare"] is kind] for kind in (False, True)]
    unequal = [(prompt["name"], _part(ids, prompt["ids"])) for prompt, ids in firm if ids != prompt["ids"]]
    return {
        "program": next((line for line in said if line.startswith("version")), "llama-server"),
        "compared": len(firm),
        "equal": len(firm) - len(unequal),
        "rare": len(rare),
        "rare_equal": sum(ids == prompt["ids"] for prompt, ids in rare),
        "differences": [{"prompt": name, "what": what} for name, what in unequal[:SHOWN]],
    }


def _part(ids: list[int], trained: list[int]) -> str:
    place = next((i for i, (a, b) in enumerate(zip(ids, trained, strict=False)) if a != b), min(len(ids), len(trained)))
    return f"from token {place + 1} on, {len(ids)} tokens instead of {len(trained)}"


class _Server:
    """A llama-server on a port of this machine, which ends with this process whatever ends that."""

    def __init__(self, program: str, file: Path, log: IO[bytes]) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url, self.log = f"http://127.0.0.1:{port}", log
        self.opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        command = [program, "--model", str(file), "--jinja", "--ctx-size", "512", "--host", "127.0.0.1"]
        self.process = subprocess.Popen(
            [*command, "--port", str(port)], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            preexec_fn=_end_with_parent if sys.platform == "linux" else None,
        )  # fmt: skip

    def wait(self) -> None:
        """Wait until it answers."""
        end = time.monotonic() + READY_SECONDS
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise StudioError(f"llama-server ended with exit status {self.process.returncode}: {self._last()}")
            # It does not listen yet, or says that it is loading.
            with contextlib.suppress(urllib.error.URLError):
                self.opener.open(f"{self.url}/health", timeout=ANSWER_SECONDS).close()
                return
            time.sleep(0.2)
        raise StudioError(f"llama-server was not ready after {READY_SECONDS:.0f} seconds: {self._last()}")

    def ids(self, messages: list[dict[str, Any]]) -> list[int]:
        """Token ids of a conversation's prompt; [] where its Jinja refuses it."""
        try:
            made = self._post("apply-template", {"messages": messages})
        except urllib.error.HTTPError:
            return []
        asked = {"content": made["prompt"], "add_special": True, "parse_special": True}
        return list(self._post("tokenize", asked)["tokens"])

    def stop(self) -> None:
        """End it."""
        self.process.terminate()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        content, headers = json.dumps(body).encode(), {"Content-Type": "application/json"}
        asked = urllib.request.Request(f"{self.url}/{path}", content, headers)
        with self.opener.open(asked, timeout=ANSWER_SECONDS) as answer:
            value: dict[str, Any] = json.load(answer)
        return value

    def _last(self) -> str:
        self.log.seek(0)
        lines = self.log.read().decode("utf-8", "replace").strip().splitlines()
        # A template that its Jinja cannot read is named on such a line; the last one only says that it ends.
        told = [line for line in lines if line.startswith("Error: ")]
        return (told or lines or ["no output"])[-1][:300]


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


if __name__ == "__main__":
    raise SystemExit(serve_step(rendering))

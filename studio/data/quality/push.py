"""Putting a cleaned copy on the Hugging Face Hub: `python -m studio.data.quality.push NAME OWNER/NAME private|public`.

A process of its own: `datasets` needs torch, which the data worker keeps out. The token comes from HF_TOKEN and is
written nowhere.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any

from studio.data.quality.keep import MANIFEST, require_name
from studio.data.wire import error_from_dict, error_to_dict, to_line
from studio.errors import InputError, StudioError
from studio.private import begin
from studio.processes import child_environment, module_command
from studio.settings import Settings, read_settings

_POLL_SECONDS = 0.5


def push(name: str, repo: str, private: bool, settings: Settings, on_wait: Callable[[], None]) -> dict[str, Any]:
    """Put a cleaned copy on the Hub through `datasets`, in a process of its own.

    Args:
        name: of the set in `settings.home / "data"`.
        repo: OWNER/NAME there.
        private: whether only its owner sees it.
        settings: where the set lies.
        on_wait: called while it waits; what it raises ends the upload.

    Returns:
        repo, splits.

    Raises:
        InputError: there is no such set, no token, or the name is not OWNER/NAME.
        StudioError: the Hub refuses it or cannot be reached.
    """
    require_name(name)
    folder = settings.home / "data" / name
    if not (folder / MANIFEST).is_file():
        raise InputError(
            f"there is no cleaned copy '{name}'", where=str(folder), fix="Write it with `studio data keep`"
        )
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        raise InputError(f"'{repo}' is not a Hub repository name", where="push", fix="Write it as OWNER/NAME")
    if not os.environ.get("HF_TOKEN"):
        raise InputError("there is no Hub token", where="HF_TOKEN", fix="Set it to a token with write access")
    command = module_command("studio.data.quality.push", name, repo, "private" if private else "public")
    environment = child_environment(STUDIO_HOME=str(settings.home))
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment
    ) as process:
        try:
            while True:
                try:
                    out, _ = process.communicate(timeout=_POLL_SECONDS)
                    break
                except subprocess.TimeoutExpired:
                    on_wait()
        except BaseException:
            process.kill()
            raise
    answer = json.loads(out.splitlines()[-1]) if out.strip() else {}
    if "result" not in answer:
        raise error_from_dict(answer["error"]) if answer else StudioError("the upload was cut short", where=repo)
    result: dict[str, Any] = answer["result"]
    return result


def main(name: str, repo: str, visibility: str) -> int:
    """Upload and print {"result": ...} or {"error": ...}; returns the exit code.

    Args:
        name: of the cleaned copy.
        repo: dataset on the Hub, `owner/name`.
        visibility: `private`; anything else makes it public.
    """
    begin()
    try:
        answer = {"result": _upload(name, repo, visibility == "private", read_settings())}
    except StudioError as error:
        answer = {"error": error_to_dict(error)}
    sys.stdout.buffer.write(to_line(answer))
    return 0 if "result" in answer else 1


def _upload(name: str, repo: str, private: bool, settings: Settings) -> dict[str, Any]:
    from datasets import load_dataset
    from huggingface_hub.errors import HfHubHTTPError

    # Which HTTP library huggingface_hub has under it changes with its versions.
    http_error = next(kind for kind in HfHubHTTPError.__mro__ if kind.__name__ == "HTTPError")
    folder = settings.home / "data" / name
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    files = {one["part"]: str(folder / one["file"]) for one in manifest["files"]}
    kind = "json" if manifest["settings"]["format"] == "jsonl" else "parquet"
    settings.temporary.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=settings.temporary) as scratch:
        data = load_dataset(kind, data_files=files, cache_dir=scratch)
        try:
            data.push_to_hub(repo, private=private, token=os.environ["HF_TOKEN"])
        except (http_error, OSError, ValueError) as error:
            # Its own words may quote the token, or the password in a mirror's address.
            status = getattr(getattr(error, "response", None), "status_code", None)
            raise StudioError(
                f"the Hub did not accept the data ({f'status {status}' if status else type(error).__name__})",
                where=repo,
                fix="Check the name, the network, and that HF_TOKEN has write access there",
            ) from error
    return {"repo": repo, "splits": sorted(files)}


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))

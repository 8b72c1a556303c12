"""Where a run is seen in each of its trackers: the address of its page, or the command that shows it on this machine.

Both come from what the tracker says of the run that it has begun; where it says nothing there is neither. An address
leaves without what may be secret in it: user and password, and its query, in which W&B puts keys.
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

TITLES = {"tensorboard": "TensorBoard", "trackio": "Trackio", "wandb": "W&B", "mlflow": "MLflow"}
SPACES = "https://huggingface.co/spaces/"


def place_of(name: str, tracker: Any) -> dict[str, str]:
    """Say where the run is seen that a tracker has begun.

    Args:
        name: of transformers' integration, such as `wandb`.
        tracker: its callback, after `on_train_begin`.

    Returns:
        The tracker's `title` with a `url` or a `command`; empty where neither is known.
    """
    found = _PLACES[name](tracker)
    return {"title": TITLES[name], **found} if found else {}


def public_address(address: str) -> str:
    """The address of a web page without user, password and query; empty if it is none, or holds one of our secrets."""
    try:
        parts = urlsplit(address)
        host, port = parts.hostname, parts.port
    except ValueError:
        return ""
    if parts.scheme not in ("http", "https") or not host:
        return ""
    place = f"[{host}]" if ":" in host else host
    shown = urlunsplit((parts.scheme, f"{place}:{port}" if port else place, parts.path, "", parts.fragment))
    return "" if any(value in shown for value in secrets().values()) else shown


def secrets() -> dict[str, str]:
    """The keys, tokens and passwords in this process's environment, by variable; shorter than 8 letters is none."""
    words = ("KEY", "TOKEN", "PASSWORD", "SECRET")
    named = {name: value for name, value in os.environ.items() if any(word in name for word in words)}
    return {name: value for name, value in named.items() if len(value) >= 8}


def _link(address: object) -> dict[str, str]:
    shown = public_address(address) if isinstance(address, str) else ""
    return {"url": shown} if shown else {}


def _command(program: str, *arguments: str, **variables: str) -> dict[str, str]:
    """A line for a terminal. A program that the studio's own Python brought may not be on the terminal's path."""
    own = Path(sys.executable).parent / program
    if own.exists() and shutil.which(program) != str(own):
        program = str(own)
    before = "".join(f"{name}={shlex.quote(value)} " for name, value in variables.items())
    return {"command": before + shlex.join([program, *arguments])}


def _tensorboard(tracker: Any) -> dict[str, str]:
    writer = tracker.tb_writer
    return _command("tensorboard", "--logdir", str(Path(writer.log_dir).absolute())) if writer is not None else {}


def _wandb(tracker: Any) -> dict[str, str]:
    run = import_module("wandb").run
    if run is None or run.disabled:
        return {}
    if run.offline:
        return _command("wandb", "sync", str(Path(run.dir).absolute().parent))  # its `dir` is the folder of its files
    return _link(run.url)


def _mlflow(tracker: Any) -> dict[str, str]:
    mlflow = import_module("mlflow")
    run, uri = mlflow.active_run(), str(mlflow.get_tracking_uri())
    if run is None:
        return {}
    if uri.startswith(("http://", "https://")):
        path = f"#/experiments/{quote(run.info.experiment_id)}/runs/{quote(run.info.run_id)}"
        return _link(f"{urlunsplit(urlsplit(uri)._replace(query='', fragment='')).rstrip('/')}/{path}")
    # The addresses of other stores may hold a password, and those of Databricks name no page.
    return _command("mlflow", "ui", "--backend-store-uri", uri) if uri.startswith(("sqlite:", "file:")) else {}


def _trackio(tracker: Any) -> dict[str, str]:
    known = import_module("trackio.context_vars")
    space, project = known.current_space_id.get(), known.current_project.get()
    if space:
        return _link(SPACES + quote(space))
    folder = os.environ.get("TRACKIO_DIR")
    if not project or not folder or known.current_server.get():
        return {}
    return _command("trackio", "show", "--project", project, TRACKIO_DIR=folder)


_PLACES: dict[str, Callable[[Any], dict[str, str]]] = {
    "tensorboard": _tensorboard, "trackio": _trackio, "wandb": _wandb, "mlflow": _mlflow,
}  # fmt: skip

"""The embedded model as a checkpoint, made once on this machine: making it takes both cores for twenty seconds.

It lies in the tests' cache, beside the tokenizers, under a name that changes with what it is made by. A session has a
copy, and homes get links to that copy: a test that breaks a file breaks neither the cache nor a later session.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import replace
from pathlib import Path

import transformers
from filelock import FileLock

from studio.config.model import EMBEDDED_MODEL
from studio.models.catalog import embedded
from studio.settings import read_settings
from tests.install_tokenizers import CACHE


def prepared() -> Path:
    """The folder in the cache; made when it is not there, while other processes of the tests wait."""
    made_by = Path(embedded.__file__).read_bytes() + transformers.__version__.encode()
    made_by += str(embedded.find_gguf().stat().st_size).encode()
    home = CACHE.parent / f"model-{hashlib.sha256(made_by).hexdigest()[:12]}"
    # A lock of our own: of the studio's a process that is not the studio's, as ours, may not wait for long.
    home.mkdir(parents=True, exist_ok=True)
    with FileLock(home / "tests.lock"):
        return embedded.prepare(replace(read_settings(), home=home))


def copy_model(home: Path) -> Path:
    """Give a home the model as files of its own, and return their folder."""
    return shutil.copytree(prepared(), home / "models" / EMBEDDED_MODEL)


def link_model(model: Path, home: Path) -> None:
    """Give a home links to a copy on the same file system; not symbolic ones, a page may only read below its home."""
    shutil.copytree(model, home / "models" / EMBEDDED_MODEL, copy_function=os.link)

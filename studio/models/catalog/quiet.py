"""Libraries say in the log what helps a person, and nothing else.

Progress bars of others would fill the log with half lines, and a local model needs no network: looking for one
only delays the start.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import sys
import warnings
from functools import cache


@cache  # registered again behind a library, the last act would come before the library's own
def quiet_imports() -> None:
    """Drop what libraries say while they are imported; to be called before the first of them is.

    bitsandbytes looks for a kernel on the Hub then, and warns in each process of a CPU that it goes on without. Triton,
    which torch imports from 2.15 on, has thirty lines to say when the process has ended.
    """
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    atexit.register(_close_errors)  # the first that is registered runs last


def _close_errors() -> None:
    sys.stderr.flush()
    with contextlib.suppress(OSError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 2)
        os.close(nowhere)


def quiet_libraries() -> None:
    """Switch off bars, telemetry and network look-ups of the Hugging Face libraries in this process."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["TRL_EXPERIMENTAL_SILENCE"] = "1"
    import datasets
    import transformers

    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning, module="torch")


def apply_environment() -> None:
    """Give imported libraries what they read from the environment at their import: it may have been changed since."""
    if (hub := sys.modules.get("huggingface_hub.constants")) and os.environ.get("HF_HUB_OFFLINE"):
        vars(hub)["HF_HUB_OFFLINE"] = os.environ["HF_HUB_OFFLINE"] == "1"
    if (transformers := sys.modules.get("transformers")) and os.environ.get("TRANSFORMERS_VERBOSITY") == "error":
        transformers.utils.logging.set_verbosity_error()
    if "ignore::FutureWarning" in os.environ.get("PYTHONWARNINGS", "").split(","):
        warnings.filterwarnings("ignore", category=FutureWarning)

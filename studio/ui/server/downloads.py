"""Downloads of models that were begun on the page: each goes on while the page does other things, or is closed.

The work is a child process (`models.catalog`), which ends with this one; what is on the disk by then is not fetched
again.
"""

from __future__ import annotations

import threading
from dataclasses import asdict, dataclass
from typing import Any

from studio.errors import StoppedError
from studio.models.catalog.names import resolve_model
from studio.settings import Settings
from studio.ui.errors import told

Model = tuple[str, str]


@dataclass
class Download:
    """How far one is.

    Attributes:
        running: whether it goes on.
        text: what is being done.
        done, total: bytes on the disk and in all; a total of None is not known yet.
        problem: the sentence that ended it; empty for none.
        stopping: whether a person has ended it.
    """

    running: bool = True
    text: str = "starting"
    done: float = 0
    total: float | None = None
    problem: str = ""
    stopping: bool = False


class Downloads:
    """One download for each model and revision, whoever asked for it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._known: dict[Model, Download] = {}

    def begin(self, name: str, revision: str) -> None:
        """Download a model unless that goes on already.

        Args:
            name: Hub id, `owner/name`.
            revision: branch, tag or commit.
        """
        with self._lock:
            known = self._known.get((name, revision))
            if known is not None and known.running:
                return
            made = self._known[name, revision] = Download()
        threading.Thread(target=self._work, args=(name, revision, made), name="download-model", daemon=True).start()

    def stop(self, name: str, revision: str) -> None:
        """End a download; what is there stays, and the next one goes on from it.

        Args:
            name: Hub id, `owner/name`.
            revision: branch, tag or commit.
        """
        known = self._known.get((name, revision))
        if known is not None:
            known.stopping = True

    def value(self, name: str, revision: str) -> dict[str, Any] | None:
        """Return how far a download is, for the page; None where none was begun.

        Args:
            name: Hub id, `owner/name`.
            revision: branch, tag or commit.
        """
        known = self._known.get((name, revision))
        return None if known is None else asdict(known)

    def _work(self, name: str, revision: str, download: Download) -> None:
        def report(text: str, done: float, total: float | None) -> None:
            if download.stopping:
                raise StoppedError("stopped")
            download.text, download.done, download.total = text, done, total

        try:
            resolve_model(name, self._settings, revision=revision, on_progress=report)
        except StoppedError:
            download.text = "stopped"
        except Exception as error:
            download.problem = told(error, "downloading a model")
        finally:
            download.running = False

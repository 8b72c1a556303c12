"""What the studio needs once: the embedded model as a checkpoint, and how fast this computer is."""

from __future__ import annotations

import threading

from studio.config.model import EMBEDDED_MODEL
from studio.jobs import list_jobs
from studio.models.catalog.names import known_models, resolve_model
from studio.models.device.machine import device_info
from studio.settings import Settings
from studio.ui.errors import told


class Preparation:
    """Making the embedded model ready and measuring this computer, once for each web process.

    Attributes:
        text: what is being done now; "" when nothing is.
        error: the sentence of the failure, "" for none.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings, self.text, self.error = settings, "", ""
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    @property
    def needed(self) -> bool:
        """Whether something is missing: the model, or how fast this computer is."""
        return not self._ready() or self._to_measure()

    def _ready(self) -> bool:
        return known_models(self.settings)[0].ready

    def _to_measure(self) -> bool:
        # Beside a running job the figure would be too low, and it is kept for good.
        if device_info(self.settings).measured:
            return False
        return all(job.state().final for job in list_jobs(self.settings.jobs))

    def begin(self) -> None:
        """Start it unless it runs."""
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self.error, self.text = "", "starting"
                self._thread = threading.Thread(target=self._work, name="prepare-model", daemon=True)
                self._thread.start()

    def wait(self) -> None:
        """Wait until it is over, if it runs."""
        thread = self._thread
        if thread is not None:
            thread.join()

    def _work(self) -> None:
        try:
            if not self._ready():
                resolve_model(EMBEDDED_MODEL, self.settings, on_progress=self._tell)
            if self._to_measure():
                self.text = "measuring this computer"
                device_info(self.settings, measure=True)
        except Exception as error:
            self.error = told(error, "preparing the embedded model")
        finally:
            self.text = ""

    def _tell(self, phase: str, done: float, total: float | None) -> None:
        self.text = f"{phase}, {done / total:.0%}" if total else phase

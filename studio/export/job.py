"""An export from request to report: which kind of thing is made for which destination."""

from __future__ import annotations

from studio.config.jobs import Destination, ExportConfig
from studio.config.load import build
from studio.data.files.datafiles import resolve_path
from studio.export.adapter import AdapterExport
from studio.export.ggufadapter import GgufAdapterExport
from studio.export.ggufs import GgufExport
from studio.export.making import Making
from studio.export.merged import MergedExport
from studio.export.ollama import OllamaExport
from studio.export.source import open_source
from studio.jobs.run.worker import JobContext

KINDS: dict[Destination, type[Making]] = {
    "gguf": GgufExport, "ollama": OllamaExport, "merged": MergedExport, "adapter": AdapterExport,
    "gguf-lora": GgufAdapterExport,
}  # fmt: skip


def export(context: JobContext) -> None:
    """Run the export job of `context`.

    Raises:
        InputError: there is no such run, or the rows cannot be used.
        StudioError: a step failed, or a file differs from the trained model.
        StoppedError: a stop was asked for.
    """
    config = build(ExportConfig, context.config, "job.yaml")
    source = open_source(context.settings, config.run)
    rows = resolve_path(config.evaluate, context.settings) if config.evaluate else None
    KINDS[config.to](context, config, source, rows).run()

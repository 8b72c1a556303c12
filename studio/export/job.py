"""An export from request to report: which kind of thing is made for which destination."""

from __future__ import annotations

from studio.config.jobs import SERVERS, Destination, ExportConfig
from studio.config.load import build
from studio.data.files.datafiles import resolve_path
from studio.export.adapter import AdapterExport
from studio.export.destinations.lmstudio import LmStudioExport
from studio.export.destinations.ollama import OllamaExport
from studio.export.destinations.served import ServedAdapter, ServedCheckpoint, ServedFile
from studio.export.ggufadapter import GgufAdapterExport
from studio.export.ggufs import GgufExport
from studio.export.making import Making
from studio.export.merged import MergedExport
from studio.export.source import open_source
from studio.jobs.run.worker import JobContext

KINDS: dict[Destination, type[Making]] = {
    "gguf": GgufExport, "ollama": OllamaExport, "llama-server": ServedFile, "lmstudio": LmStudioExport,
    "gguf-lora": GgufAdapterExport, "merged": MergedExport, "adapter": AdapterExport,
    **dict.fromkeys(SERVERS, ServedCheckpoint),
}  # fmt: skip


def export(context: JobContext) -> None:
    """Run the export job of `context`.

    Raises:
        InputError: there is no such run, or the rows cannot be used.
        StudioError: a step failed, or a file differs from the trained model.
        StoppedError: a stop was asked for.
    """
    config = build(ExportConfig, context.config, "job.yaml")
    source = open_source(context.settings, config.run, config.checkpoint)
    rows = resolve_path(config.evaluate, context.settings) if config.evaluate else None
    kind = ServedAdapter if config.to in SERVERS and config.serve == "adapter" else KINDS[config.to]
    kind(context, config, source, rows).run()

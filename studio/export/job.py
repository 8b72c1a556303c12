"""An export from request to report: which kind of thing is made for which destination, and where it is put."""

from __future__ import annotations

from studio.config.jobs import SERVERS, Destination, ExportConfig
from studio.config.load import build
from studio.data.files.datafiles import resolve_path
from studio.export.adapter import AdapterExport, require_exportable
from studio.export.delivery.delivery import Delivery
from studio.export.delivery.hub import HubDelivery
from studio.export.delivery.local import LocalDelivery
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

DELIVERIES: dict[Destination, type[Delivery]] = {"hub": HubDelivery, "folder": LocalDelivery}


def export(context: JobContext) -> None:
    """Run the export job of `context`.

    Raises:
        InputError: there is no such run, or the rows cannot be used.
        StudioError: a step failed, or a file differs from the trained model.
        StoppedError: a stop was asked for.
    """
    config = build(ExportConfig, context.config, "job.yaml")
    source = open_source(context.settings, config.run, config.checkpoint)
    require_exportable(source, config)
    rows = resolve_path(config.evaluate, context.settings) if config.evaluate else None
    kind = ServedAdapter if config.to in SERVERS and config.serve == "adapter" else KINDS[config.made]
    made = kind(context, config.model_copy(update={"to": config.made}), source, rows)
    made.report["to"] = config.to
    if config.to in DELIVERIES:
        made.delivery = DELIVERIES[config.to](context, config)
    made.run()

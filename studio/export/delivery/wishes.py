"""What is refused of a delivery before a job is made of it: what can be known without a network."""

from __future__ import annotations

from studio.config.jobs import ExportConfig
from studio.errors import InputError
from studio.export.adapter import named_base
from studio.export.delivery.local import WHERE, free_place
from studio.export.delivery.refusals import require_repository, require_shareable, require_token
from studio.export.source import Source
from studio.foreign import as_path
from studio.models.catalog.hubaccess import is_hub_id
from studio.settings import Settings


def settled(config: ExportConfig, source: Source, settings: Settings) -> ExportConfig:
    """Return what is asked for with paths that mean the same in the job's process.

    Args:
        config: what is asked for.
        source: what is exported.
        settings: of the home.

    Raises:
        InputError: no place is named, or one that is taken or that nothing can be put to; there is no token.
    """
    if config.base is not None and not is_hub_id(config.base):  # a folder
        config = config.model_copy(update={"base": str(as_path(config.base).absolute())})
    if config.to == "hub":
        require_repository(config.repo)
        if config.what == "adapter":
            require_shareable(named_base(config.base, source.origin))
        require_token()
    if config.to == "folder":
        if not config.path:
            raise InputError("no folder is named", where=WHERE, fix="Give a folder, or a zip file by its ending .zip")
        return config.model_copy(update={"path": str(free_place(config.path, settings))})
    return config

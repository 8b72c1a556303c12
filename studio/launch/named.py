"""The files and folders that a run's options name: another machine, or a container, must have them.

Names that mean the same everywhere are none of them: the embedded model, models and sets of the Hub, the demo's rows.
"""

from __future__ import annotations

from pathlib import Path

from studio.config import RunConfig
from studio.data.files.datafiles import resolve_path
from studio.data.sources import datasetinfo
from studio.data.sources.locate import is_hub_source
from studio.foreign import as_path
from studio.settings import ASSETS, Settings

# Options that name a folder with a model, beside model.path, and those that name a file.
MODELS = (("tuning", "adapter"), ("method", "reward_model"))
FILES = (("method", "reward_schema"), ("method", "reward_python"))


def named_paths(run: RunConfig, settings: Settings) -> list[Path]:
    """Return what a run's options name, and what those are links to, each once.

    Args:
        run: with absolute paths.
        settings: of the home.

    Raises:
        InputError: a file is gone, or its dataset_info.json cannot be read.
    """
    found: list[Path] = []
    validation = run.data.validation
    for path in [*(one.path for one in run.data.train), *([validation] if isinstance(validation, str) else [])]:
        if is_hub_source(path, settings):
            continue
        if (address := datasetinfo.split_address(path)) is not None:
            found.append(resolve_path(address[0], settings))
            source = datasetinfo.read_entry(found[-1], address[1]).source
            found += [source.absolute()] if isinstance(source, Path) else []
        else:
            found.append(resolve_path(path, settings))
    found += [model] if (model := as_path(run.model.path)).is_absolute() else []
    for section, name in (*MODELS, *FILES):
        options = getattr(run, section)
        if (value := getattr(options, name, None)) and options.reads(name):
            found.append(as_path(value.partition(":")[0] if (section, name) in FILES else value))
    found = [one for one in found if not one.is_relative_to(ASSETS)]
    # A checkpoint in the Hub's cache consists of links to files that lie beside it.
    linked = [
        file.resolve() for one in found for file in (one.rglob("*") if one.is_dir() else [one]) if file.is_symlink()
    ]
    return list(dict.fromkeys([*found, *linked]))

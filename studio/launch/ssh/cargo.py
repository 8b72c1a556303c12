"""What a run takes along: the files that its options name, and the same options with the paths that they have there.

Names that mean the same everywhere stay as they are: the embedded model, models and sets of the Hub, the demo's rows.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from studio.config import RunConfig
from studio.config.load import build
from studio.data.files.datafiles import resolve_path
from studio.data.sources import datasetinfo
from studio.data.sources.locate import is_hub_source
from studio.errors import InputError
from studio.foreign import as_path, read_json_file
from studio.jobs.store.files import write_atomic
from studio.launch.named import FILES, MODELS
from studio.launch.ssh.parcel import Parcel, make_parcel
from studio.settings import ASSETS, Settings


@dataclass
class Cargo:
    """What is sent with a run.

    Attributes:
        config: of the run, with the paths there.
        parcels: files and folders that must be there.
        paths: path here by path there.
    """

    config: dict[str, Any]
    parcels: list[Parcel] = field(default_factory=list)
    paths: dict[str, str] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        """Size of all parcels."""
        return sum(one.bytes for one in self.parcels)


def pack(config: dict[str, Any], settings: Settings, files: str, desk: Path) -> Cargo:
    """Collect what a run needs, and write its options for the other machine.

    Args:
        config: of the job, with paths of this machine.
        settings: of the home.
        files: folder of all parcels there.
        desk: a folder here for files that are written for the other machine.

    Raises:
        InputError: a file is gone or cannot be read.
    """
    run = build(RunConfig, config, "job.yaml")
    raw = run.model_dump(mode="json")
    cargo = Cargo(raw)

    def take(path: Path) -> str:
        try:
            parcel = make_parcel(path)
        except OSError as error:
            raise InputError(
                f"it cannot be read ({error.strerror or error})", where=str(path), fix="Restore the file, or start anew"
            ) from error
        place = parcel.place(files)
        if place not in cargo.paths:
            cargo.parcels.append(parcel)
            cargo.paths[place] = str(path)
        return place

    def rows(path: str) -> str:
        if is_hub_source(path, settings):
            return path
        if (address := datasetinfo.split_address(path)) is not None:
            return _described(resolve_path(address[0], settings), address[1])
        found = resolve_path(path, settings)
        return path if found.is_relative_to(ASSETS) else take(found)

    def _described(file: Path, name: str) -> str:
        entry, told = datasetinfo.read_entry(file, name), read_json_file(file)[name]
        if isinstance(entry.source, Path):
            told = {**told, "file_name": take(entry.source.absolute())}
        written = desk / str(len(cargo.parcels)) / datasetinfo.FILE_NAME
        written.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(written, json.dumps({name: told}, ensure_ascii=False))
        return f"{take(written)}:{name}"

    for source in raw["data"]["train"]:
        source["path"] = rows(source["path"])
    if isinstance(raw["data"]["validation"], str):
        raw["data"]["validation"] = rows(raw["data"]["validation"])
    model = as_path(run.model.path)
    if model.is_absolute():
        raw["model"]["path"] = take(model)
    for section, name in MODELS:
        if raw[section].get(name) and getattr(run, section).reads(name):
            raw[section][name] = take(as_path(raw[section][name]))
    for section, name in FILES:
        if raw[section].get(name) and getattr(run, section).reads(name):
            file, colon, function = raw[section][name].partition(":")
            raw[section][name] = f"{take(as_path(file))}{colon}{function}"
    return cargo


def as_here(value: Any, paths: dict[str, str]) -> Any:
    """A value of JSON from there with the paths of here.

    Args:
        value: anything of JSON.
        paths: path here by path there; a longer one comes before the one that it lies in.
    """
    if isinstance(value, dict):
        return {key: as_here(one, paths) for key, one in value.items()}
    if isinstance(value, list):
        return [as_here(one, paths) for one in value]
    if isinstance(value, str):
        for there, here in paths.items():
            if value == there or value.startswith((f"{there}/", f"{there}:")):
                return here + value[len(there) :]
    return value

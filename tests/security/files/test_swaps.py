"""A file that becomes a link between check and use: a process swaps them all the time, and nothing outside is read.

Each way is read for some seconds while the name stands for a file of the home, then for a link that leads out, then for
the file again. What is inside must have been read meanwhile, and what is outside never.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from fastapi.testclient import TestClient

from studio.config.data import DataSource
from studio.data.files.datafiles import resolve_path
from studio.data.sources.datasetinfo import read_entry
from studio.data.sources.locate import locate
from studio.data.sources.stream import draw
from studio.errors import InputError
from studio.models.catalog.names import confine_folder
from studio.models.inspect.adapters import adapter_config
from studio.models.inspect.headers import read_config, read_header
from studio.reach import entries, held, link_or_copy, reading_for
from studio.settings import Settings
from studio.train.rewards.python import read_reference
from studio.train.rewards.schema import read_schema
from tests.security.conftest import HERE, Handlers
from tests.security.files.swaps import INSIDE, OUTSIDE, rows, swapped, tried
from tests.support.everyday import everyday
from tests.ui.made_jobs import made_export, made_run


def located(settings: Settings, path: Path) -> list[Any]:
    """The rows of a file as the data worker reads them for the page."""
    return list(locate(DataSource(path=str(path)), settings, confined=True).rows(0))


def write_parquet(path: Path, text: str) -> None:
    pyarrow.parquet.write_table(pyarrow.table({"prompt": [text], "completion": [text]}), path)


def write_tensors(path: Path, text: str) -> None:
    header = json.dumps({text: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))


def texts(write: Callable[[str], str]) -> Callable[[Path, str], None]:
    return lambda path, text: path.write_text(write(text)) and None


# Each: the file's name, how it is written with a text in it, and how it is read for the page.
READERS: dict[str, tuple[str, Callable[[Path, str], object], Callable[[Settings, Path], object]]] = {
    "rows": ("rows.jsonl", texts(rows), located),
    "table": ("rows.csv", texts(lambda text: f"prompt,completion\n{text},{text}\n"), located),
    "parquet": ("rows.parquet", write_parquet, located),
    "sample": (
        "rows.jsonl",
        texts(lambda text: rows(text) * 3),
        lambda settings, path: draw(locate(DataSource(path=str(path)), settings, confined=True), 2, 0),
    ),
    "dataset_info": (
        "dataset_info.json",
        texts(lambda text: json.dumps({"x": {"file_name": text}})),
        lambda settings, path: read_entry(resolve_path(str(path), settings, confined=True), "x"),
    ),
    "reward": (
        "reward.py",
        texts(lambda text: f"def score(prompts, completions):\n    return '{text}'\n"),
        lambda settings, path: confine_folder(path, settings) and read_reference(f"{path}:score"),
    ),
    "schema": (
        "schema.json",
        texts(lambda text: json.dumps({"title": text})),
        lambda settings, path: confine_folder(path, settings) and read_schema(path),
    ),
    "config": (
        "config.json",
        texts(lambda text: json.dumps({"model_type": text})),
        lambda settings, path: read_config(confine_folder(path.parent, settings)),
    ),
    "adapter": (
        "adapter_config.json",
        texts(lambda text: json.dumps({"peft_type": text})),
        lambda settings, path: adapter_config(confine_folder(path.parent, settings)),
    ),
    "header": (
        "model.safetensors",
        write_tensors,
        lambda settings, path: read_header(confine_folder(path.parent, settings) / path.name),
    ),
}


@pytest.mark.parametrize("way", everyday(READERS, "rows", "parquet", "sample"))
def test_a_file_that_becomes_a_link(way: str, ours: Settings, tmp_path: Path) -> None:
    name, write, read = READERS[way]
    folder, outside = ours.uploads / "folder", tmp_path / f"outside-{name}"
    folder.mkdir()
    write(folder / name, INSIDE)
    write(outside, OUTSIDE)
    with reading_for(ours), swapped(folder / name, outside):
        inside, leaked = tried(lambda: read(ours, folder / name))
    assert (inside > 0, leaked) == (True, 0)


@pytest.mark.parametrize("way", everyday(["rows", "parquet", "config", "reward"], "rows"))
def test_a_folder_that_becomes_a_link(way: str, ours: Settings, tmp_path: Path) -> None:
    name, write, read = READERS[way]
    folder, outside = ours.uploads / "folder", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    write(folder / name, INSIDE)
    write(outside / name, OUTSIDE)
    with reading_for(ours), swapped(folder, outside):
        inside, leaked = tried(lambda: read(ours, folder / name))
    assert (inside > 0, leaked) == (True, 0)


def test_a_folder_of_files_is_listed_where_it_was(ours: Settings, tmp_path: Path) -> None:
    folder, outside = ours.uploads / "folder", tmp_path / "outside"
    for place, text in ((folder, INSIDE), (outside, OUTSIDE)):
        place.mkdir()
        (place / f"{text}.jsonl").write_text(rows(text))

    def read() -> object:
        try:
            return located(ours, folder), entries(folder)
        except InputError as error:
            return error  # a sentence names no file of elsewhere either

    with reading_for(ours), swapped(folder, outside):
        inside, leaked = tried(read)
        _, told = tried(lambda: located(ours, folder / "nothing.jsonl"))
    assert (inside > 0, leaked, told) == (True, 0, 0)


def test_a_root_that_becomes_a_link(tmp_path: Path, settings: Settings) -> None:
    """Roots are those of the start: a link that takes the place of one leads nowhere."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    for place, text in ((root, INSIDE), (outside, OUTSIDE)):
        place.mkdir()
        (place / "rows.jsonl").write_text(rows(text))
    ours = replace(settings, roots=(root,))
    with reading_for(ours):
        assert INSIDE in str(located(ours, root / "rows.jsonl"))
        root.rename(tmp_path / "gone")
        root.symlink_to(outside)
        with pytest.raises(InputError):
            located(ours, root / "rows.jsonl")


@pytest.mark.long
def test_the_page_itself(handlers: Handlers, page_settings: Settings, outside: Path) -> None:
    """Through the real application and its data worker: rows that are counted, looked at, or named in a sentence."""
    page_settings.uploads.mkdir(exist_ok=True)
    file = page_settings.uploads / "swap.jsonl"
    file.write_text(rows(INSIDE) * 2)
    (outside / "swap.jsonl").write_text(rows(OUTSIDE) * 2)
    model = page_settings.home / "models" / "swapped"
    model.mkdir(parents=True)
    source = [{"path": str(file), "format": "auto"}]
    with swapped(file, outside / "swap.jsonl"):
        for read in (
            lambda: handlers.call("add_path", str(file), [], "0.1").text,
            lambda: handlers.form("preview", data__train=source, model__path=str(model)).text,
            lambda: handlers.form("update", data__train=source, model__path=str(model), meta="").text,
        ):
            assert tried(read)[1] == 0


def test_a_download_that_becomes_a_link(signed_in: TestClient, page_settings: Settings, outside: Path) -> None:
    job = made_export(page_settings.jobs, made_run(page_settings.jobs))
    (outside / "told.txt").write_text(OUTSIDE)
    report = job.exports / "told.txt"
    report.write_text(INSIDE)
    address = f"{HERE}/api/jobs/{job.id}/files/told.txt"
    assert signed_in.get(address).headers["content-disposition"] == 'attachment; filename="told.txt"'
    part = signed_in.get(address, headers={"range": "bytes=7-10"})
    assert (part.status_code, part.text) == (206, INSIDE[7:])
    with swapped(report, outside / "told.txt"):
        inside, leaked = tried(lambda: signed_in.get(address).text)
    assert (inside > 0, leaked) == (True, 0)
    job.log_path.write_text(INSIDE + "\n")
    with swapped(job.log_path, outside / "told.txt"):
        inside, leaked = tried(lambda: signed_in.get(f"{HERE}/api/jobs/{job.id}/log").text)
    assert (inside > 0, leaked) == (True, 0)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        signed_in.get(address)
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 2, "downloads leave descriptors open"


def test_links_inside_lead_on(ours: Settings, tmp_path: Path) -> None:
    """As in the cache of the Hub: a snapshot is links into a folder of blobs."""
    blobs, snapshot = ours.models / "blobs", ours.models / "snapshots" / "main"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    (blobs / "0a1b").write_text(json.dumps({"model_type": INSIDE}))
    (snapshot / "config.json").symlink_to("../../blobs/0a1b")
    (ours.uploads / "here").symlink_to(snapshot.parent)
    with reading_for(ours):
        assert read_config(confine_folder(ours.uploads / "here" / "main", ours))["model_type"] == INSIDE
        with held(snapshot / "config.json") as name:
            assert INSIDE in Path(name).read_text() and name != str(snapshot / "config.json")


def test_a_file_gets_another_name(ours: Settings, tmp_path: Path) -> None:
    """Of the file that was checked, and of no other; through links as well."""
    file, outside, target = ours.uploads / "weights", tmp_path / "outside", ours.uploads / "made"
    file.write_text(INSIDE)
    outside.write_text(OUTSIDE)
    (ours.uploads / "link").symlink_to(file)
    for confined in (ours, None):
        with reading_for(confined):
            link_or_copy(ours.uploads / "link", target)
        assert target.samefile(file) and not target.is_symlink()
        target.unlink()

    def read() -> str:
        target.unlink(missing_ok=True)
        link_or_copy(file, target)
        return target.read_text()

    with reading_for(ours), swapped(file, outside):
        inside, leaked = tried(read)
    assert (inside > 0, leaked) == (True, 0)

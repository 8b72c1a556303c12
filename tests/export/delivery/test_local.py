"""A folder or a zip file gets all files or none, and nothing that was there is touched."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from studio.config.jobs import ExportConfig
from studio.errors import InputError, StoppedError, StudioError
from studio.export import files as space
from studio.export.adapter import AdapterExport
from studio.export.delivery.delivery import files_in
from studio.export.delivery.local import LocalDelivery, free_place
from studio.export.delivery.wishes import settled
from studio.export.job import export
from studio.export.source import open_source, source_of
from studio.jobs import JobFolder
from studio.jobs.store.files import write_json
from studio.reach import reading_for
from studio.settings import Settings
from tests.export.delivery.conftest import contents, context_of


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """What stands in for an export: two files, one of them in a folder of its own."""
    folder = tmp_path / "made"
    (folder / "inner").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(bytes(range(256)) * 40_000)
    (folder / "inner" / "card.md").write_text("é")
    return folder


def deliver(settings: Settings, run: JobFolder, path: Path, made: Path, stop: bool = False) -> dict[str, Any]:
    context = context_of(settings, run, to="folder", what="adapter", path=str(path))
    config = ExportConfig.model_validate(context.config)
    making = AdapterExport(context, config.model_copy(update={"to": "adapter"}), open_source(settings, run.id), None)
    delivery = LocalDelivery(context, config)
    delivery.prepare(making.report, 0)
    if stop:
        write_json(context.job.stop_path, {})
    return delivery.deliver(files_in(made), making)


@pytest.mark.parametrize("there", [False, True])
def test_a_folder_gets_the_files(
    session_settings: Settings, tiny_run: JobFolder, tmp_path: Path, made: Path, there: bool
) -> None:
    path = tmp_path / "a" / "b"
    if there:
        path.mkdir(parents=True)
    told = deliver(session_settings, tiny_run, path, made)
    assert contents(path) == contents(made)
    assert told == {"to": "folder", "where": str(path), "files": 2, "bytes": 10_240_002}
    assert [one.name for one in path.parent.iterdir()] == ["b"], "nothing of ours is left beside it"


def test_a_zip_file_gets_them_in_one_folder(
    session_settings: Settings, tiny_run: JobFolder, tmp_path: Path, made: Path
) -> None:
    path = tmp_path / "model.v1.ZIP"
    deliver(session_settings, tiny_run, path, made)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        archive.extractall(tmp_path / "out")
    assert contents(tmp_path / "out" / "model.v1") == contents(made)
    assert {one.name for one in tmp_path.iterdir()} >= {"model.v1.ZIP"} and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("name", ["out", "out.zip"])
def test_a_stop_leaves_nothing(
    session_settings: Settings, tiny_run: JobFolder, tmp_path: Path, made: Path, name: str
) -> None:
    with pytest.raises(StoppedError):
        deliver(session_settings, tiny_run, tmp_path / "x" / name, made, stop=True)
    assert list((tmp_path / "x").iterdir()) == []


def test_a_full_disk_is_said_before_a_byte_is_copied(
    session_settings: Settings, tiny_run: JobFolder, tmp_path: Path, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(space, "free_bytes", lambda folder: 70_000_000)
    with pytest.raises(StudioError, match="but only 70"):
        deliver(session_settings, tiny_run, tmp_path / "x" / "out", made)
    assert list((tmp_path / "x").iterdir()) == []


@pytest.mark.parametrize(("free", "fits"), [(75_000_000, True), (72_000_000, False)])
def test_a_disk_that_will_be_too_small_is_said_before_anything_is_made(
    session_settings: Settings,
    tiny_run: JobFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    free: int,
    fits: bool,
) -> None:
    """On the home's own disk there must be room for what is made and for its copy."""
    monkeypatch.setattr(space, "free_bytes", lambda folder: free)
    context = context_of(session_settings, tiny_run, to="folder", what="adapter", path=str(tmp_path / "x" / "out"))
    delivery = LocalDelivery(context, ExportConfig.model_validate(context.config))
    for size, said in ((3_500_000, fits), (10_000, True)):
        if said:
            delivery.prepare({}, size)
        else:
            with pytest.raises(StudioError, match=r"with its copy in .*needs 74\.1 MB"):
                delivery.prepare({}, size)
    assert not (tmp_path / "x").exists()


def test_what_is_there_is_refused(session_settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.txt").write_text("mine")
    (tmp_path / "old.zip").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name, words in (
        ("full", r"full is not empty \(mine\.txt\)\. Give another name"), ("old.zip", "old.zip is there already"),
        ("file", "file is there already"), ("link", "link is there already"), ("file/inner", "file is a file"),
        ("\0", "is not a path"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words) as caught:
            free_place(str(tmp_path / name), session_settings)
        assert caught.value.where == "path"
    with pytest.raises(InputError, match="keeps its own jobs there"):
        free_place(str(session_settings.jobs / "mine"), session_settings)
    assert (tmp_path / "full" / "mine.txt").read_text() == "mine"


def test_a_page_writes_only_where_it_may_read(session_settings: Settings, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    (shared / "out").symlink_to(tmp_path)
    settings = replace(session_settings, roots=(session_settings.home, shared))
    with reading_for(settings):
        assert free_place(str(shared / "new"), settings) == shared / "new"
        for path in (tmp_path / "new", shared / "out" / "new", shared / ".." / "new", settings.secrets / "new"):
            with pytest.raises(InputError, match="the page may not write to"):
                free_place(str(path), settings)


def test_no_place_is_no_wish(session_settings: Settings, tiny_run: JobFolder, tmp_path: Path) -> None:
    wish = ExportConfig(run=tiny_run.id, to="folder")
    with pytest.raises(InputError, match="no folder is named"):
        settled(wish, source_of(tiny_run), session_settings)
    found = settled(wish.model_copy(update={"path": f"{tmp_path}/x/../new"}), source_of(tiny_run), session_settings)
    assert found.path == str(tmp_path / "new")


@pytest.mark.long
def test_a_run_becomes_an_adapter_in_a_folder(session_settings: Settings, tiny_run: JobFolder, tmp_path: Path) -> None:
    """All of it, with the real processes: made, proven, put there; a second time it is taken and not made again."""
    context = context_of(session_settings, tiny_run, to="folder", what="adapter", path=str(tmp_path / "first"))
    export(context)
    report = json.loads((context.job.report / "export.json").read_text())
    assert (report["to"], report["files"][0]["type"], report["files"][0]["verdict"]) == (
        "folder",
        "adapter",
        "as trained",
    )
    assert contents(tmp_path / "first") == contents(context.job.exports / "tiny-run-adapter")
    assert report["delivered"]["where"] == str(tmp_path / "first") and "taken_from" not in report
    context.finish("completed")
    again = context_of(session_settings, tiny_run, to="folder", what="adapter", path=str(tmp_path / "second.zip"))
    export(again)
    told = json.loads((again.job.report / "export.json").read_text())
    assert told["taken_from"] == context.job.id and told["phases"] == []
    with zipfile.ZipFile(tmp_path / "second.zip") as archive:
        archive.extractall(tmp_path)
    assert contents(tmp_path / "second") == contents(tmp_path / "first")

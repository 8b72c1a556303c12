"""A file that becomes a link between check and use: a process swaps them all the time, and nothing outside is read.

Each way is read for some seconds while the name stands for a file of the home, then for a link that leads out, then for
the file again. What is inside must have been read meanwhile, and what is outside never.
"""

from __future__ import annotations

import json
import os
import py_compile
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from fastapi.testclient import TestClient

from studio.config.data import DataConfig, DataSource
from studio.data.files.datafiles import file_sha256, resolve_path
from studio.data.prepare.units import Prompt
from studio.data.sources.datasetinfo import read_entry
from studio.data.sources.locate import locate
from studio.data.sources.stream import draw
from studio.errors import InputError
from studio.models.catalog.names import confine_folder
from studio.models.inspect.adapters import adapter_config
from studio.models.inspect.headers import read_config, read_header
from studio.reach import descriptor_path, entries, held, link_or_copy, opened, read_text, reading_for
from studio.settings import ASSETS, Settings
from studio.train.rewards.python import load_function, read_reference
from studio.train.rewards.schema import read_schema
from tests.security.conftest import HERE, Handlers
from tests.support.everyday import everyday
from tests.ui.made_jobs import made_export, made_run

INSIDE, OUTSIDE = "INSIDE-0815", "OUTSIDE-4711"
SECONDS = 1.5
# Names change places by rename, so that there always is one: file, link, file, link.
SWAPPER = """
import os, sys
name, file, link = sys.argv[1:]
while True:
    os.rename(link, name + ".new"); os.rename(name, file); os.rename(name + ".new", name)
    os.rename(file, name + ".new"); os.rename(name, link); os.rename(name + ".new", name)
"""


@contextmanager
def swapped(path: Path, outside: Path) -> Iterator[None]:
    """`path` is itself and a link to `outside` in turn, thousands of times a second."""
    link = path.with_name(f".{path.name}.link")
    link.symlink_to(outside)
    command = [sys.executable, "-c", SWAPPER, str(path), str(path.with_name(f".{path.name}.file")), str(link)]
    swapper = subprocess.Popen(command)
    try:
        yield
    finally:
        swapper.kill()
        swapper.wait()
        for left in path.parent.glob(f".{path.name}.*"):
            left.unlink() if left.is_symlink() or left.is_file() else None


def tried(read: Callable[[], object], seconds: float = SECONDS) -> tuple[int, int]:
    """How often what is inside was read, and what is outside."""
    inside = outside = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            found = str(read())
        except (InputError, OSError) as error:
            found = str(error)
        inside, outside = inside + (INSIDE in found), outside + (OUTSIDE in found)
    return inside, outside


@pytest.fixture
def ours(tmp_path: Path, settings: Settings) -> Settings:
    """A home with a folder of uploads; the demo data are a root too."""
    settings.uploads.mkdir(parents=True)
    return replace(settings, roots=(settings.home, ASSETS))


def rows(text: str) -> str:
    return json.dumps({"prompt": text, "completion": text}) + "\n"


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


@pytest.mark.parametrize("way", ["rows", "parquet", "config", "reward"])
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


@pytest.fixture
def soon() -> Iterator[None]:
    """Ends a test that hangs, as reading a pipe or a device does."""

    def late(*_: object) -> None:
        raise TimeoutError("it hangs")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(10)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("confined", [True, False])
def test_what_is_no_file_is_refused_at_once(confined: bool, tmp_path: Path, settings: Settings, soon: None) -> None:
    """A pipe, a socket, a device, a file of the kernel: also where somebody has made the whole machine a root."""
    folder = tmp_path / "model"
    folder.mkdir()
    os.mkfifo(folder / "config.json")
    os.mkfifo(folder / "adapter_config.json")
    with socket.socket(socket.AF_UNIX) as made:
        os.chdir(tmp_path)  # an address is at most 107 bytes long
        made.bind("some.sock")
    everything = replace(settings, roots=(Path("/"),))
    with reading_for(everything if confined else None):
        for path in (folder / "config.json", tmp_path / "some.sock", Path("/dev/zero"), Path("/dev/tty")):
            with pytest.raises((InputError, OSError)):
                opened(path)
        for path in (Path("/proc/self/environ"), Path("/proc/kmsg"), Path("/sys/kernel/notes")):
            with pytest.raises((InputError, OSError)):
                opened(path)
        with pytest.raises(InputError):
            read_config(folder)
        with pytest.raises(InputError):
            adapter_config(folder)


def test_a_job_folder_with_pipes_does_not_stop_the_list(settings: Settings, soon: None) -> None:
    job = made_run(settings.jobs)
    for name in ("events.jsonl", "log.txt", "job.yaml", "labels.json"):
        (job.path / name).unlink(missing_ok=True)
        os.mkfifo(job.path / name)
    from studio.jobs import Summaries, list_jobs, read_events
    from studio.jobs.store.logs import read_tail

    assert [one.id for one in list_jobs(settings.jobs)] == [job.id]
    assert read_events(job.events_path, 0) == ([], 0) and read_tail(job.log_path).text == ""
    assert Summaries().of(job).step == 0
    job.state_path.unlink()
    os.mkfifo(job.state_path)
    assert job.state().status == "lost"


def test_a_file_that_grows_has_an_end(ours: Settings, soon: None) -> None:
    """Somebody writes to it faster than it is read: a page gets what it had when it was opened."""
    file = ours.uploads / "grows.jsonl"
    file.write_text(rows(INSIDE) * 100)
    size, ended = file.stat().st_size, threading.Event()

    def grow() -> None:
        with file.open("a") as more:
            while not ended.is_set():
                more.write(rows(INSIDE) * 1000)
                more.flush()

    with reading_for(ours), opened(file) as reading:
        writer = threading.Thread(target=grow)
        writer.start()
        try:
            assert len(reading.read()) == size and reading.read() == b""
            assert reading.seek(-5, os.SEEK_END) == size - 5 and len(reading.read()) == 5
        finally:
            ended.set()
            writer.join()
        assert file_sha256(file)


def test_a_file_that_is_read_whole_has_a_bound(ours: Settings) -> None:
    file = ours.uploads / "large.json"
    with file.open("wb") as made:
        made.truncate(10_000_000_000)  # takes no space
    with reading_for(ours), pytest.raises(InputError, match="more than"):
        read_text(file, most=1_000_000)


def test_a_job_of_the_page_reads_what_the_page_may(ours: Settings, tmp_path: Path) -> None:
    """Its request says which folders those are; one of the command line reads what its user may."""
    from studio.jobs.store.folder import JobFolder, create_job

    config = {"data": DataConfig().model_dump(mode="json")}
    with reading_for(ours):
        asked = create_job(ours.jobs, "export", "page", {"run": "x"} | config)
    typed = create_job(ours.jobs, "export", "typed", {"run": "x"} | config)
    assert JobFolder(asked.path).request.roots == tuple(str(root) for root in ours.roots)
    assert JobFolder(typed.path).request.roots is None
    outside = tmp_path / "outside.jsonl"
    outside.write_text(rows(OUTSIDE))
    code = (
        "import sys\nfrom studio.jobs.run.worker import run_worker\nfrom studio.data.files.datafiles import read_rows\n"
        "from pathlib import Path\n"
        "sys.exit(run_worker('export', lambda context: print(list(read_rows(Path(sys.argv[2])))), [sys.argv[1]]))"
    )
    for job, may in ((asked, False), (typed, True)):
        done = subprocess.run(
            [sys.executable, "-c", code, str(job.path), str(outside)],
            env={**os.environ, "STUDIO_HOME": str(ours.home)}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert (OUTSIDE in done.stdout) is may, done.stderr
        assert job.state().status == ("completed" if may else "failed")


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


def test_the_code_of_a_reward_is_the_code_that_was_read(tmp_path: Path) -> None:
    """Compiled code that somebody laid beside the file, which Python would take for it, is not run."""
    good, bad = (f"def score(prompts, completions, **more):\n    return [{one} for _ in prompts]\n" for one in "12")
    file = tmp_path / "reward.py"
    file.write_text(bad)
    py_compile.compile(str(file))
    written = file.stat().st_mtime_ns
    file.write_text(good)
    os.utime(file, ns=(written, written))
    assert list((tmp_path / "__pycache__").iterdir())
    assert load_function(f"{file}:score")([Prompt([], "a", None, 1, "rows")], ["b"]) == [1.0]


def test_a_descriptor_has_a_name(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text(INSIDE)
    with file.open() as held_open:
        file.unlink()
        assert Path(descriptor_path(held_open.fileno())).read_text() == INSIDE

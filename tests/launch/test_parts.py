"""Parts of a launch that need no machine: what is packed, what comes back, and what a job says of its place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from studio.config.load import run_of
from studio.errors import InputError
from studio.jobs.store.folder import JobFolder, create_job
from studio.jobs.store.request import JobRequest
from studio.launch.record import Record, read_record, update_record
from studio.launch.ssh.cargo import as_here, pack
from studio.launch.ssh.mirror import remove_absent, wanted
from studio.launch.ssh.parcel import digest_of, make_parcel
from studio.settings import Settings

FILES = "/there/files"


def config(**sections: dict[str, object]) -> dict[str, object]:
    return run_of(dict(sections), []).model_dump(mode="json")


def test_only_what_is_here_alone_is_packed(settings: Settings, tmp_path: Path) -> None:
    rows, model = tmp_path / "rows.jsonl", tmp_path / "model"
    rows.write_text("{}\n")
    (model / "extra").mkdir(parents=True)
    (model / "config.json").write_text("{}")
    (model / "extra" / "more.txt").write_text("more")
    (model / ".git").write_text("hidden")
    told = config(
        model={"path": str(model)},
        data={
            "train": [{"path": str(rows)}, {"path": "demo/train.jsonl"}, {"path": "org/set"}],
            "validation": str(rows),
        },
    )
    cargo = pack(told, settings, FILES, tmp_path / "desk")
    there = cargo.config["data"]
    assert [one["path"] for one in there["train"][1:]] == ["demo/train.jsonl", "org/set"]
    assert there["train"][0]["path"] == there["validation"] and there["validation"].startswith(f"{FILES}/")
    assert there["validation"].endswith("/rows.jsonl") and cargo.config["model"]["path"].endswith("/model")
    assert len(cargo.parcels) == 2 and cargo.bytes == 3 + 2 + 4
    assert sorted(cargo.paths.values()) == sorted([str(rows), str(model)])
    (packed,) = [one for one in cargo.parcels if one.source == model]
    assert [inner for inner, _ in packed.files] == ["model/config.json", "model/extra/more.txt"]


def test_a_described_set_keeps_its_description(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "rows.json").write_text("[]")
    described = tmp_path / "data" / "dataset_info.json"
    described.write_text(json.dumps({"mine": {"file_name": "rows.json", "columns": {"prompt": "q"}}, "other": {}}))
    told = config(data={"train": [{"path": f"{described}:mine"}], "validation": 0})
    cargo = pack(told, settings, FILES, tmp_path / "desk")
    path = cargo.config["data"]["train"][0]["path"]
    assert path.endswith("/dataset_info.json:mine")
    written = json.loads((tmp_path / "desk").glob("*/dataset_info.json").__next__().read_text())
    assert list(written) == ["mine"] and written["mine"]["columns"] == {"prompt": "q"}
    assert written["mine"]["file_name"] in cargo.paths


def test_a_file_that_is_gone_is_named(settings: Settings, tmp_path: Path) -> None:
    told = config(data={"train": [{"path": str(tmp_path / "gone.jsonl")}], "validation": 0})
    with pytest.raises(InputError, match=r"gone\.jsonl"):
        pack(told, settings, FILES, tmp_path)


def test_a_parcel_has_the_digest_of_what_arrives(tmp_path: Path) -> None:
    source = tmp_path / "model"
    source.mkdir()
    (source / "a").write_text("one")
    (source / "b").symlink_to(source / "a")  # as in the Hub's cache
    parcel = make_parcel(source)
    arrived = tmp_path / "arrived" / "model"
    arrived.mkdir(parents=True)
    for name in ("a", "b"):
        (arrived / name).write_text("one")
    assert digest_of(arrived.parent) == parcel.digest
    (arrived / "b").write_text("two")
    assert digest_of(arrived.parent) != parcel.digest
    assert parcel.place(FILES) == f"{FILES}/{parcel.digest}/model"


def test_paths_of_there_become_paths_of_here() -> None:
    paths = {"/there/files/abc/rows.jsonl": "/my/rows.jsonl", "/there/home": "/home/me/studio"}
    told = {
        "data": ["/there/files/abc/rows.jsonl", 3],
        "base": {"path": "/there/home/models/x"},
        "other": "/there/homes",
    }
    assert as_here(told, paths) == {
        "data": ["/my/rows.jsonl", 3], "base": {"path": "/home/me/studio/models/x"}, "other": "/there/homes",
    }  # fmt: skip
    assert as_here("/there/files/abc/rows.jsonl:mine", paths) == "/my/rows.jsonl:mine"


LISTED = [
    ["model/adapter_config.json", 5, 1], ["checkpoints/best.json", 1, 1],
    *[[f"checkpoints/checkpoint-{step}/{name}", 1, 1] for step in (5, 10) for name in ("model.bin", "studio.json")],
    ["checkpoints/checkpoint-15/model.bin", 1, 1],
]  # fmt: skip


def test_checkpoints_come_once_they_are_sealed() -> None:
    both = {"model/adapter_config.json", "checkpoints/best.json"}
    ten = {f"checkpoints/checkpoint-10/{name}" for name in ("model.bin", "studio.json")}
    five = {path.replace("-10", "-5") for path in ten}
    assert set(wanted(LISTED, "all")) == both | five | ten
    assert set(wanted(LISTED, "last")) == both | ten
    assert set(wanted(LISTED, "none")) == both


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "../state.json", "model/../../x", "state.json", "job.yaml", "events.jsonl", "log.txt", "stop",
     "environment.json", "launch.json", ".launch/x", "model/.hidden", "", "labels.json"],
)  # fmt: skip
def test_a_machine_cannot_write_elsewhere(path: str) -> None:
    assert wanted([[path, 1, 1]], "all") == {}


def test_checkpoints_that_are_gone_there_go_here(tmp_path: Path) -> None:
    job = JobFolder(tmp_path)
    for step in (5, 10):
        (job.checkpoints / f"checkpoint-{step}").mkdir(parents=True)
        (job.checkpoints / f"checkpoint-{step}" / "studio.json").write_text("{}")
    (tmp_path / "precious").mkdir()
    (job.checkpoints / "checkpoint-1").symlink_to(tmp_path / "precious")
    remove_absent(job, wanted(LISTED[4:], "all"))
    assert sorted(one.name for one in job.checkpoints.iterdir()) == ["checkpoint-1", "checkpoint-10"]
    assert (tmp_path / "precious").is_dir()


def test_a_job_says_where_it_runs(tmp_path: Path) -> None:
    place = {"to": "ssh://ada@box", "machine": "ada@box"}
    job = create_job(tmp_path, "train", "far", {"training": {"device": "cuda:0"}}, place=place)
    asked = JobFolder(job.path).request
    assert asked.place == place and asked.machine == "ada@box" and asked.elsewhere
    near = JobRequest("train", "near", {"training": {"device": "cuda:0"}})
    assert not near.elsewhere and near.machine == ""


def test_a_damaged_record_is_an_empty_one(tmp_path: Path) -> None:
    job = JobFolder(tmp_path)
    assert update_record(job, begun=True, events_at=5) == read_record(job) == Record(begun=True, events_at=5)
    (tmp_path / "launch.json").write_text('{"begun": true, "events_at": "five", "other": 1}')
    assert read_record(job) == Record(begun=True)
    (tmp_path / "launch.json").write_text("{")
    assert read_record(job) == Record()

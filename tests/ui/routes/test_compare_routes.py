"""Routes for labels, sizes, comparison and removal, over job folders made without any work."""

from __future__ import annotations

import time

import pytest
from fastapi.testclient import TestClient

from studio.jobs.store.folder import create_job
from studio.jobs.store.state import JobState, write_state
from studio.jobs.views.disk import measure
from studio.settings import Settings
from tests.jobs.made import trained


def test_labels_reach_the_list_at_once(page: TestClient, settings: Settings) -> None:
    job = trained(settings.jobs, "first", [0.5])
    row = page.get("/api/jobs").json()[0]
    assert (row["name"], row["asked_name"], row["tags"], row["note"], row["archived"]) == (
        "first",
        "first",
        [],
        "",
        False,
    )
    body = {"name": "best", "tags": ["a", "b"], "note": "n", "archived": True}
    assert page.post(f"/api/jobs/{job.id}/labels", json=body).json() == body
    row = page.get("/api/jobs").json()[0]
    assert {key: row[key] for key in body} == body and (row["asked_name"], row["best"]) == ("first", 0.5)
    assert page.post(f"/api/jobs/{job.id}/labels", json={"archived": False}).json() == body | {"archived": False}
    assert page.get(f"/api/jobs/{job.id}").json()["name"] == "best"


@pytest.mark.parametrize("body", [{"tags": ["a b"]}, {"name": "x" * 81}, {"note": "x" * 4001}])
def test_refused_labels_are_sentences(page: TestClient, settings: Settings, body: dict[str, object]) -> None:
    job = trained(settings.jobs, "first")
    answer = page.post(f"/api/jobs/{job.id}/labels", json=body)
    assert answer.status_code == 409 and answer.json()["detail"].endswith(".")
    assert not (job.path / "labels.json").exists()


def test_sizes_and_comparison(page: TestClient, settings: Settings) -> None:
    first, second = trained(settings.jobs, "a", [0.5]), trained(settings.jobs, "b", [0.4], tuning={"rank": 4})
    sizes = {job.id: measure(job.path).total for job in (first, second)}
    assert page.get("/api/sizes").json() == {"sizes": sizes, "complete": True}
    assert page.get(f"/api/jobs/{first.id}/disk").json()["total"] == sizes[first.id]
    found = page.get("/api/compare", params={"ids": f"{first.id},{second.id}"}).json()
    assert [row["key"] for row in found["options"]] == ["tuning.rank"]
    assert found["metrics"][0] == {"name": "mean_token_accuracy", "title": "Token accuracy"}
    text = page.get("/api/compare", params={"ids": f"{second.id},{first.id}", "form": "csv"})
    assert text.text.startswith("kind,key,title,b,a,best") and "attachment" in text.headers["content-disposition"]
    assert page.get("/api/compare", params={"ids": first.id}).status_code == 409
    assert page.get("/api/compare", params={"ids": f"{first.id},..%2Fsecret"}).status_code == 404


def test_removal_is_asked_refused_and_done(page: TestClient, settings: Settings) -> None:
    job, live = trained(settings.jobs, "a"), trained(settings.jobs, "b", status="running")
    question = page.post("/api/removal/question", json={"ids": [job.id, live.id]}).json()
    assert "2 jobs" in question["title"] and question["refused"] == ["'b' has not finished (running). Stop it first."]
    assert page.post("/api/removal", json={"ids": [live.id]}).status_code == 409 and live.path.exists()
    checkpoints = {"ids": [job.id], "what": "checkpoints"}
    expected = page.post("/api/removal/question", json=checkpoints).json()["freed"]
    assert page.post("/api/removal", json=checkpoints).json() == {"freed": expected} and job.model.exists()
    assert page.get("/api/removal").status_code == 405
    assert page.post("/api/removal", content=b'{"ids": []}', headers={"content-type": "text/plain"}).status_code == 422
    assert page.post("/api/removal", json={"ids": [job.id]}).status_code == 200 and not job.path.exists()
    for ids in ([job.id], [], ["../jobs"], [".trash-x"]):
        assert page.post("/api/removal", json={"ids": ids}).status_code == 404
    assert [row["id"] for row in page.get("/api/jobs").json()] == [live.id]


def test_labels_cost_the_poll_of_many_jobs_little(page: TestClient, settings: Settings) -> None:
    for number in range(60):
        job = create_job(settings.jobs, "train", f"job-{number}", {})
        write_state(job.state_path, JobState(status="completed"))
        (job.path / "labels.json").write_text('{"name": "", "tags": ["t"], "note": "", "archived": false}')
    assert {tuple(row["tags"]) for row in page.get("/api/jobs").json()} == {("t",)}
    began = time.process_time()
    for _ in range(10):
        page.get("/api/jobs")
    assert (time.process_time() - began) / 10 < 0.1

"""Finished job folders with reports, made without any work, for tests of the tabs that show them."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from studio.config import RunConfig
from studio.config.jobs import DEMO_TEST, MATRIX_ENDING, EvaluateConfig, ExportConfig
from studio.export.serving.servers import Served, write_serving
from studio.jobs import JobFolder
from studio.jobs.store.files import write_json
from studio.jobs.store.folder import create_job
from studio.jobs.store.request import JobRequest, write_request
from studio.jobs.store.state import JobState, write_state
from studio.settings import ASSETS

SCRIPT = (
    '<script>window.pwned=1</script><img src=x onerror="window.pwned=2">${Object.assign(window,{pwned:3})}{{value}}'
)


def finish(job: JobFolder, status: str = "completed", reason: str = "", fix: str = "") -> None:
    now = time.time()
    state = JobState(created=now - 60, started=now - 50, finished=now, reason=reason, fix=fix)
    write_state(job.state_path, state.with_(status=status))


def made_run(
    jobs: Path, name: str = "demo", status: str = "completed", model: bool = True, **sections: Any
) -> JobFolder:  # fmt: skip
    run = create_job(jobs, "train", name, {**RunConfig().model_dump(mode="json"), **sections})
    if model:
        run.model.mkdir()
        (run.model / "adapter_config.json").write_text("{}")
        base = run.path / "base"  # what an export looks for before it is queued
        base.mkdir()
        (base / "config.json").write_text("{}")
        (base / "model.safetensors").touch()
        write_json(run.environment_path, {"base_model": {"path": str(base)}})
    finish(run, status)
    return run


def made_evaluation(jobs: Path, run: JobFolder, rows: int = 25) -> JobFolder:
    job = create_job(
        jobs, "evaluate", run.request.name, EvaluateConfig(run=run.id, data=DEMO_TEST).model_dump(mode="json")
    )
    lines = (ASSETS / "demo" / "test.jsonl").read_text().splitlines()[:rows]
    answers: list[dict[str, Any]] = []
    for number, line in enumerate(lines, 1):
        messages = json.loads(line)["messages"]
        expected, right = messages[-1]["content"], number != 2
        answers.append({
            "row": number, "prompt": messages[:-1], "expected": expected, "before": SCRIPT if number == 1 else "Sure!",
            "after": expected if right else SCRIPT, "before_ok": False, "after_ok": right,
        })  # fmt: skip
    right = sum(answer["after_ok"] for answer in answers)
    before = {"exact_match": 0.0, "correct": 0, "total": rows, "seconds": 61.2}
    after = {"exact_match": right / rows, "correct": right, "total": rows, "seconds": 9.5}
    job.report.mkdir()
    report = {"run": run.id, "data": "demo/test.jsonl", "before": before, "after": after, "rows": answers}
    write_json(job.report / "evaluation.json", report)
    finish(job)
    return job


def made_preference(jobs: Path, run: JobFolder, rows: int = 12) -> JobFolder:
    """An evaluation on pairs, whose second one is still preferred wrongly."""
    config = EvaluateConfig(run=run.id, data="demo/pairs_test.jsonl")
    job = create_job(jobs, "evaluate", run.request.name, config.model_dump(mode="json"))
    lines = [json.loads(line) for line in (ASSETS / "demo" / "pairs_test.jsonl").read_text().splitlines()[:rows]]
    shown = [
        {
            "row": number, "prompt": SCRIPT if number == 1 else "Where is it?", "chosen": line["chosen"][-1]["content"],
            "rejected": line["rejected"][-1]["content"], "before": -0.25, "after": -0.5 if number == 2 else 1.5,
            "before_ok": False, "after_ok": number != 2,
        }
        for number, line in enumerate(lines, 1)
    ]  # fmt: skip
    before = {"preference_accuracy": 0.0, "total": rows, "seconds": 4.2}
    after = {"preference_accuracy": (rows - 1) / rows, "total": rows, "seconds": 4.4}
    report = {
        "run": run.id, "data": "demo/pairs_test.jsonl", "measure": "preference", "of": "pairs", "before": before,
        "after": after, "reward_accuracy": 1.0, "rows": shown,
    }  # fmt: skip
    job.report.mkdir()
    write_json(job.report / "evaluation.json", report)
    finish(job)
    return job


def made_export(jobs: Path, run: JobFolder, types: tuple[str, ...] = ("q4_k_m", "f16")) -> JobFolder:
    config = ExportConfig.model_validate({"run": run.id, "types": list(types)})
    job = create_job(jobs, "export", run.request.name, config.model_dump(mode="json"))
    job.exports.mkdir()
    job.report.mkdir()
    files = []
    for number, kind in enumerate(types):
        name = f"{run.request.name}-{kind}.gguf"
        (job.exports / name).write_bytes(b"GGUF" + kind.encode())
        files.append({
            "type": kind, "file": name, "bytes": 105_454_432 * (number + 1),
            "sha256": f"{number + 10:064x}", "top1": 0.9621, "mean_kl": 0.0123, "p99_kl": 0.1,
            "prompt_ids_equal": True, "prompts_compared": 8, "verdict": "as expected",
            "gate": {"mean_kl": 0.25, "top1": 0.8}, "notes": [f"{SCRIPT} kept at higher precision"],
            "exact_match": {"exact_match": 0.99, "correct": 99, "total": 100}, "seconds": {"convert": 1.0},
            "differences": [{
                "prompts": ["decomposed letters"], "rare": True, "kind": "normalization",
                "example": f"'e\\u0301' {SCRIPT}", "cause": "the tokenizer normalizes text (NFC)",
                "fix": "Normalize prompts to NFC",
            }],
        })  # fmt: skip
    (job.exports / "Modelfile").write_text(f"FROM ./{files[0]['file']}\n")
    told = {"file": "Modelfile", "template": True, "compared": 12, "blanks": ["row 3"], "notes": [f"{SCRIPT} is left"]}
    write_json(job.report / "export.json", {"run": run.id, "files": files, "modelfile": told})
    finish(job)
    return job


def made_differing(jobs: Path, run: JobFolder) -> JobFolder:
    """An export whose report shows where it is farthest from the trained model."""
    job = made_export(jobs, run, ("q4_k_m",))
    report = json.loads((job.report / "export.json").read_text())
    side = {"token": f" Oslo{SCRIPT}", "probability": 0.62, "other": 0.31}
    place = {"text": 1, "position": 9, "answer": True, "kl": 1.25, "context": f"… to{SCRIPT}", "exported": side}
    row = {"row": 7, "prompt": SCRIPT, "expected": '{"city":"Oslo"}', "trained": '{"city":"Oslo"}', "exported": SCRIPT}
    report["files"][0] |= {
        "places": [place | {"trained": side | {"token": " Rome", "other": None}}],
        "rows": {"lost": 3, "gained": 1, "rows": [row]},
    }  # fmt: skip
    (job.report / "report.html").write_text("the page")
    write_json(job.report / "export.json", report | {"page": "report.html"})
    return job


def made_weighted(jobs: Path, run: JobFolder) -> JobFolder:
    """An export to a type of two bits, far from the trained model, with the importance matrix that it was made with."""
    job = made_export(jobs, run, ("iq2_xs", "q8_0"))
    name = f"{run.request.name}{MATRIX_ENDING}"
    (job.exports / name).write_bytes(b"GGUFmatrix")
    report = json.loads((job.report / "export.json").read_text())
    report["files"][0] |= {"verdict": "lossy", "mean_kl": 1.4, "notes": ["mean KL 1.4 is above 1"]}
    made = {"file": name, "bytes": 1_044_000, "sha256": f"{99:064x}", "types": ["iq2_xs"], "rows": 151}
    report["imatrix"] = made | {"tokens": 16384, "sources": ["demo/train.jsonl"], "entries": 210, "unreached": 0}
    write_json(job.report / "export.json", report)
    return job


def made_served(jobs: Path, run: JobFolder) -> JobFolder:
    """A merged checkpoint with what starts vLLM."""
    job = made_merged(jobs, run, to="vllm")
    report = json.loads((job.report / "export.json").read_text())
    served = Served("vllm", run.request.name, report["files"][0]["file"], "", "bfloat16", 4096)
    serving = write_serving(job.exports, served, [f"{SCRIPT} has to be known"])
    write_json(job.report / "export.json", report | {"serving": serving})
    return job


def made_merged(jobs: Path, run: JobFolder, dtype: str = "bfloat16", to: str = "merged") -> JobFolder:
    """A merged checkpoint, one of whose greedy answers parts at a near-tie."""
    config = ExportConfig.model_validate({"run": run.id, "to": to, "dtype": dtype})
    job = create_job(jobs, "export", run.request.name, config.model_dump(mode="json"))
    folder = job.exports / f"{run.request.name}-merged"
    folder.mkdir(parents=True)
    job.report.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (folder / name).write_text(f"the {name}")
    parts = [
        {"file": f"{folder.name}/{path.name}", "bytes": 7, "sha256": f"{number:064x}"}
        for number, path in enumerate(sorted(folder.iterdir()), 1)
    ]
    worst = {"prompt": "row 3", "nats": 0.04, "trained": "Oslo, please.", "exported": SCRIPT}
    entry = {
        "type": "merged", "dtype": dtype, "file": folder.name, "path": str(folder), "bytes": 269_060_552,
        "sha256": None, "top1": 0.998, "mean_kl": 1.6e-4, "p99_kl": 1e-3, "prompt_ids_equal": True,
        "prompts_compared": 13, "verdict": "as trained", "gate": {"mean_kl": 0.003, "top1": 0.96},
        "notes": ["1 of 8 greedy answers diverge where two tokens are near-ties"], "differences": [], "parts": parts,
        "greedy": {"equal": 7, "total": 8, "unsure": 1, "worst": worst}, "seconds": {"proving": 30.0},
        "exact_match": {"exact_match": 0.98, "correct": 98, "total": 100},
    }  # fmt: skip
    write_json(job.report / "export.json", {"run": run.id, "to": to, "files": [entry]})
    finish(job)
    return job


def made_upload(jobs: Path, run: JobFolder, url: str = "https://huggingface.co/ada/tuned") -> JobFolder:
    """A merged checkpoint that was uploaded into a repository which held files."""
    job = made_merged(jobs, run)
    config = ExportConfig.model_validate({"run": run.id, "to": "hub", "repo": "ada/tuned", "overwrite": True})
    write_request(job.path, JobRequest("export", run.request.name, config.model_dump(mode="json")))
    report = json.loads((job.report / "export.json").read_text())
    told = {
        "to": "hub", "where": "ada/tuned", "url": url, "commit": "a" * 40, "private": True, "files": 3,
        "bytes": 269_060_552, "sent": 9_060_552, "replaced": [f"README.md {SCRIPT}"], "removed": ["model.safetensors"],
    }  # fmt: skip
    write_json(job.report / "export.json", report | {"to": "hub", "delivered": told})
    return job

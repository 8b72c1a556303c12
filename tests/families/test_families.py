"""Every family of the list goes all the way: trained, chatted with, evaluated, exported, under two names.

Or the plan has said before that it cannot be taken away, with the reason. Run by `make test-families`.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from studio.chat.hf import HfBackend
from studio.config import RunConfig
from studio.config.load import build
from studio.data.worker.client import DataWorker
from studio.evaluate.worker import evaluate
from studio.export.job import export
from studio.jobs import JobFolder, list_jobs
from studio.jobs.run.worker import JobContext
from studio.jobs.store.files import write_json
from studio.jobs.store.folder import create_job
from studio.jobs.store.state import JobState, write_state
from studio.models.catalog.quiet import quiet_libraries
from studio.settings import Settings
from studio.train.preflight import check
from studio.train.worker import train
from tests.families.made import CASES, make
from tests.support.programs.llamaserver import llama_server

pytestmark = [pytest.mark.families, pytest.mark.usefixtures("forked_steps")]
TYPES = ["f16", "q8_0"]
F16_KL, Q8_KL = 1e-3, 0.02  # the limits of `studio.export.proof.gates`
# Names in which llama.cpp and others read meaning.
NAMES = ("first run", "phi3 llama-2 chatml gemma")
ROWS = [
    {"messages": [
        {"role": "user", "content": f"Name {n} things that float, sink or fly, and say why it's {n * 7} o'clock."},
        {"role": "assistant", "content": f"A boat, {n} stones and a bird: they're light, heavy, quick.\n- one\n- {n}"},
    ]}
    for n in range(24)
]  # fmt: skip


@pytest.fixture(scope="module", params=list(CASES))
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def family_settings(tmp_path_factory: pytest.TempPathFactory, measured: Any) -> Iterator[Settings]:
    """A home of the module's own."""
    from studio.settings import read_settings

    quiet_libraries()
    home = tmp_path_factory.mktemp("families") / "home"
    measured.tell(home)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STUDIO_HOME", str(home))
        yield read_settings()


@dataclass(frozen=True)
class Trained:
    """A family's checkpoint, what the plan said of it, and its two runs."""

    base: Path
    findings: list[dict[str, Any]]
    runs: dict[str, JobFolder]

    @property
    def obstacle(self) -> str:
        return next((one["reason"] for one in self.findings if one.get("reason", "").startswith("gguf.")), "")


@pytest.fixture(scope="module")
def trained(
    family: str, family_settings: Settings, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Trained]:
    """The family's checkpoint, checked and trained two steps with LoRA and in full; its files go when it is done."""
    place = tmp_path_factory.mktemp("family")
    base = make(family, place / "base", lambda: request.getfixturevalue("model_path"))
    rows = place / "rows.jsonl"
    template = AutoTokenizer.from_pretrained(base).chat_template
    plain = [dict(zip(("prompt", "completion"), (m["content"] for m in one["messages"]), strict=True)) for one in ROWS]
    rows.write_text("".join(json.dumps(one) + "\n" for one in (ROWS if template else plain)))
    findings: list[dict[str, Any]] = []
    runs: dict[str, JobFolder] = {}
    for tuning in ("lora", "full"):
        raw = {
            "model": {"path": str(base), "dtype": "float32"}, "tuning": {"name": tuning},
            "data": {"train": [{"path": str(rows)}], "validation": 0.25, "max_length": 256},
            "training": {"max_steps": 2, "batch_size": 4, "learning_rate": 1e-3 if tuning == "lora" else 1e-4},
        }  # fmt: skip
        config = build(RunConfig, raw)
        if not runs:
            worker = DataWorker(family_settings)
            checked = check(config, family_settings, worker)
            worker.close()
            findings = checked.findings
        job = create_job(family_settings.jobs, "train", NAMES[0], config.model_dump(mode="json"))
        train(JobContext(job, family_settings))
        write_state(job.state_path, JobState(status="completed"))
        runs[tuning] = job
    yield Trained(base, findings, runs)
    shutil.rmtree(place)
    for job in list_jobs(family_settings.jobs):
        shutil.rmtree(job.path)


def exported(settings: Settings, run: JobFolder, to: str, types: Sequence[str] = TYPES) -> dict[str, Any]:
    """The report of an export, whatever its verdict, with what was raised as "error"."""
    asked = {"run": run.id, "to": to} | ({"types": types} if to in ("gguf", "llama-server") else {})
    job = create_job(settings.jobs, "export", "file", asked)
    said = ""
    try:
        export(JobContext(job, settings))
    except Exception as error:  # the verdict is in the report; a reader wants both
        said = str(error)
        print(said)
    report: dict[str, Any] = json.loads((job.report / "export.json").read_text())
    return report | {"error": said}


@pytest.fixture(scope="module")
def reports(trained: Trained, family_settings: Settings) -> Callable[[str], dict[str, Any]]:
    """The export of one of the runs, made once; the adapter's goes to llama-server, which is asked for its prompts."""
    made: dict[str, dict[str, Any]] = {}
    program = llama_server()

    def report(tuning: str) -> dict[str, Any]:
        if tuning not in made:
            to = "llama-server" if tuning == "lora" and program is not None else "gguf"
            with pytest.MonkeyPatch.context() as patch:
                if program is not None:
                    patch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
                made[tuning] = exported(family_settings, trained.runs[tuning], to=to)
        return made[tuning]

    return report


def require_way(trained: Trained) -> None:
    """Leave out an export that the plan has refused; every family of the list has a way today."""
    if trained.obstacle:
        pytest.fail(f"the plan said: {trained.findings}")


def test_the_weights_make_the_gates_mean_something(trained: Trained) -> None:
    """What stands before a token is worth far more KL than the limit of either file, so a wrong one is seen."""
    model = AutoModelForCausalLM.from_pretrained(trained.base, dtype=torch.float32).eval()
    ids = torch.arange(40, 104)[None]
    with torch.no_grad():
        whole = torch.log_softmax(model(input_ids=ids).logits, -1)
        turned = torch.log_softmax(model(input_ids=ids.roll(7, 1)).logits.roll(-7, 1), -1)
        near = torch.log_softmax(model(input_ids=ids[:, 32:]).logits, -1)
    ahead = (whole.exp() * (whole - turned)).sum(-1)[0, 8:56].mean()
    before = (whole[:, 32:].exp() * (whole[:, 32:] - near)).sum(-1)[0, 8:].mean()
    assert min(ahead, before) > 2 * Q8_KL, "what stands before a token changes its prediction"


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_it_is_chatted_with_and_evaluated(trained: Trained, tuning: str, family_settings: Settings) -> None:
    run = trained.runs[tuning]
    where = {"adapter": run.model} if tuning == "lora" else {"tuned": run.model}
    backend = HfBackend(trained.base, dtype="float32", **where)
    for voice in backend.models:
        decoder = backend.begin(voice, backend.prompt(voice, ROWS[0]["messages"][:1]))
        while not decoder.prefill():
            pass
        assert torch.from_numpy(decoder.logits()).isfinite().all()
        decoder.advance(int(decoder.logits().argmax()))
    data = run.request.config["data"]["train"][0]["path"]
    job = create_job(family_settings.jobs, "evaluate", "rows", {"run": run.id, "data": data, "limit": 3})
    evaluate(JobContext(job, family_settings))
    report = json.loads((job.report / "evaluation.json").read_text())
    assert report["after"]["total"] == 3


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_it_is_exported_and_proven(trained: Trained, tuning: str, reports: Callable[[str], dict[str, Any]]) -> None:
    require_way(trained)
    files = {file["type"]: file for file in reports(tuning)["files"]}
    assert set(files) == set(TYPES)
    shown = {kind: {name: file[name] for name in ("mean_kl", "top1", "notes")} for kind, file in files.items()}
    print(json.dumps(shown, ensure_ascii=False))
    assert files["f16"]["verdict"] == "as trained", shown
    assert files["f16"]["mean_kl"] <= F16_KL
    assert files["q8_0"]["verdict"] == "as expected", shown


def test_the_name_of_the_run_changes_nothing(
    trained: Trained, family_settings: Settings, reports: Callable[[str], dict[str, Any]]
) -> None:
    require_way(trained)
    first = trained.runs["lora"]
    other = create_job(family_settings.jobs, "train", NAMES[1], first.request.config)
    shutil.copytree(first.model, other.model)
    write_json(other.environment_path, first.environment())
    write_state(other.state_path, JobState(status="completed"))
    found = [
        [{name: file[name] for name in COMPARED} for file in report["files"] if file["type"] == "f16"]
        for report in (reports("lora"), exported(family_settings, other, "gguf", ["f16"]))
    ]
    assert found[0] == found[1] != []


@pytest.mark.parametrize("to", ["merged", "adapter", "gguf-lora"])
def test_it_goes_to_other_destinations(trained: Trained, to: str, family_settings: Settings) -> None:
    run = trained.runs["lora"]
    if to == "gguf-lora":
        require_way(trained)
    report = exported(family_settings, run, to)
    if to == "gguf-lora" and json.loads((run.model / "adapter_config.json").read_text()).get("target_parameters"):
        assert report["files"] == [] and "llama.cpp cannot load this adapter by itself" in report["error"]
        return
    (entry,) = report["files"]
    shown = {name: entry[name] for name in ("mean_kl", "top1", "notes", "differences")}
    assert entry["verdict"] == "as trained", shown


# Templates that the Jinja of that llama-server cannot read, and what it says: it ends at the start.
UNREAD = {"Mistral": "selectattr: unknown test 'tool_calls'"}


def test_llama_server_makes_the_prompts_of_the_training(
    trained: Trained, family: str, reports: Callable[[str], dict[str, Any]]
) -> None:
    require_way(trained)
    if llama_server() is None:
        pytest.skip("llama-server is fetched for Linux on x86-64 alone")
    report = reports("lora")
    if family in UNREAD:
        assert "rendered" not in report
        assert any(UNREAD[family] in note for note in report["serving"]["notes"])
    else:
        found = report["rendered"]
        assert found["equal"] == found["compared"], found["differences"]
    told = report["modelfile"]
    assert told["template"] or told["notes"], "a Modelfile has a template, or says why not"


COMPARED = (
    "type", "mean_kl", "p99_kl", "top1", "prompt_ids_equal", "prompts_compared", "template_carried",
    "end_of_turn_stops", "verdict",
)  # fmt: skip

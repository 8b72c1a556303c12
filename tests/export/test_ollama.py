"""A run's files come with a Modelfile, and become a model where Ollama is."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from studio.config.jobs import ExportConfig
from studio.export.destinations.ollama import OllamaExport
from studio.export.ggufs import GgufExport
from studio.export.proof.material import SHAPES
from studio.export.source import open_source
from studio.jobs import JobFolder
from studio.jobs.run.worker import JobContext
from studio.jobs.store.folder import create_job
from studio.settings import Settings
from tests.export.serving.grammar import read_modelfile

# Stands in for the program: it is in no package that can be installed. It reads what it is given as Ollama would.
PROGRAM = """#!/bin/sh
test -f "$(dirname "$4")/$(sed -n 's#^FROM ./##p' "$4")" || { echo "no such file"; exit 1; }
echo "$@" > "$(dirname "$4")/asked"
echo "success"
"""


def test_an_export_has_a_modelfile_that_was_compared(exported: JobFolder) -> None:
    report = json.loads((exported.report / "export.json").read_text())
    told = report["modelfile"]
    assert told["template"] and told["blanks"] == [] and told["compared"] > len(SHAPES)
    values = dict(read_modelfile((exported.exports / told["file"]).read_text()))
    assert (exported.exports / values["from"]).is_file() and values["parameter stop"] == "<|im_end|>"
    assert '{{ if eq .Role "system" }}<|im_start|>system\n{{ .Content }}<|im_end|>\n{{ else' in values["template"]
    assert "ollama create" in (exported.exports / "README.md").read_text()


@pytest.fixture
def making(
    session_settings: Settings, exported: JobFolder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> OllamaExport:
    """An export whose files are made already."""
    run = str(exported.request.config["run"])
    job = create_job(session_settings.jobs, "export", "to ollama", {"run": run, "to": "ollama"})
    config = ExportConfig(run=run, to="ollama")
    made = OllamaExport(JobContext(job, session_settings), config, open_source(session_settings, run), None)
    job.exports.mkdir()
    job.report.mkdir()

    def make(self: GgufExport) -> None:
        (job.exports / "x.gguf").write_bytes(b"GGUF")
        (job.exports / "Modelfile").write_text("FROM ./x.gguf\n")
        file: dict[str, Any] = {"file": "x.gguf", "bytes": 4, "sha256": "0", "top1": 1.0, "mean_kl": 0.0}
        file |= {"exact_match": None, "verdict": "as trained", "differences": []}
        told: dict[str, Any] = {"file": "Modelfile", "template": True, "compared": 12, "blanks": [], "notes": []}
        self.report |= {"files": [file], "modelfile": told}

    monkeypatch.setattr(GgufExport, "make", make)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return made


def install(folder: Path, text: str = PROGRAM) -> None:
    (folder / "ollama").write_text(text)
    (folder / "ollama").chmod(0o755)


def told_by(made: OllamaExport) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((made.context.job.report / "export.json").read_text())["modelfile"]
    return found | {"notes": found["notes"] or [""]}


def test_ollama_gets_it_where_it_is(making: OllamaExport, tmp_path: Path) -> None:
    install(tmp_path)
    making.make()
    folder = making.context.job.exports
    assert (folder / "asked").read_text() == f"create stand-in -f {folder}/Modelfile\n"
    assert told_by(making)["created"] == "stand-in"


def test_without_ollama_the_command_is_told(making: OllamaExport, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    making.make()
    assert told_by(making)["created"] is None
    assert "ollama create stand-in -f Modelfile" in told_by(making)["notes"][0]


def test_a_failure_is_told_and_fails_nothing(making: OllamaExport, tmp_path: Path) -> None:
    install(tmp_path, "#!/bin/sh\necho 'Error: could not connect to a running Ollama instance' >&2\nexit 1\n")
    making.make()
    assert "could not connect to a running Ollama" in told_by(making)["notes"][0]


def test_what_differs_becomes_no_model(making: OllamaExport, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(tmp_path)
    usual = GgufExport.make

    def make(self: GgufExport) -> None:
        usual(self)
        self.report["files"][0]["verdict"] = "differs"

    monkeypatch.setattr(GgufExport, "make", make)
    making.make()
    assert told_by(making)["created"] is None and not (making.context.job.exports / "asked").exists()

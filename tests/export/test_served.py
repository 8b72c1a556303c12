"""What a server is started with: its arguments, its files, and a folder that it understands."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from studio.config.jobs import SERVERS, ExportConfig
from studio.errors import InputError
from studio.export.adapter import require_exportable
from studio.export.destinations import lmstudio
from studio.export.destinations.lmstudio import LmStudioExport
from studio.export.destinations.served import ServedFile
from studio.export.ggufs import GgufExport
from studio.export.job import export
from studio.export.serving.servers import PROGRAMS, Served, Server, arguments, compose, script
from studio.export.source import open_source, source_of
from studio.jobs import JobFolder
from studio.jobs.run.worker import JobContext
from studio.jobs.store.files import write_json
from studio.settings import Settings
from tests.export.conftest import export_of
from tests.support.programs.composefile import compose_schema

HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"


def report_of(context: JobContext) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((context.job.report / "export.json").read_text())
    return found


def flags(command: list[str]) -> dict[str, str]:
    """Values by flag; every flag here has one but those that are alone."""
    alone = {"--enable-lora", "--jinja"}
    found, place = {}, 0
    while place < len(command):
        one = command[place]
        if one in alone:
            found[one] = ""
        elif one.startswith("--"):
            found[one], place = command[place + 1], place + 1
        else:
            found.setdefault("", one)
        place += 1
    return found


@pytest.mark.long
def test_a_checkpoint_comes_with_what_starts_a_server(session_settings: Settings, small_run: JobFolder) -> None:
    context = export_of(session_settings, small_run, "vllm", dtype="float32", context=512)
    export(context)
    report, exports = report_of(context), context.job.exports
    (entry,) = report["files"]
    assert (entry["type"], entry["file"], entry["verdict"]) == ("merged", "stand-in-merged", "as trained")
    told = report["serving"]
    assert (told["server"], told["name"], told["notes"]) == ("vLLM", "stand-in", [])
    assert (exports / "serve.sh").stat().st_mode & 0o111
    last = shlex.split((exports / "serve.sh").read_text().splitlines()[-1])
    assert last[:4] == ["exec", "vllm", "serve", "./stand-in-merged"]
    given = flags(last[3:])
    assert given["--served-model-name"] == "stand-in" and given["--dtype"] == "float32"
    assert given["--max-model-len"] == "512" and given["--host"] == "127.0.0.1"
    service = YAML(typ="safe").load((exports / "compose.yaml").read_text())["services"]["vllm"]
    assert service["volumes"][0]["source"] == "./stand-in-merged" and service["ports"] == ["127.0.0.1:8000:8000"]
    assert [one["what"] for one in told["commands"]] == ["Where vLLM is installed", "With Docker", "Ask it"]
    config = json.loads((exports / "stand-in-merged" / "config.json").read_text())
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] and config["torch_dtype"] == "float32"


@pytest.mark.long
def test_an_adapter_comes_with_what_starts_a_server(session_settings: Settings, small_run: JobFolder) -> None:
    context = export_of(session_settings, small_run, "sglang", serve="adapter", base=HUB_ID)
    export(context)
    report, exports = report_of(context), context.job.exports
    assert (report["files"][0]["type"], report["files"][0]["verdict"]) == ("adapter", "as trained")
    assert report["serving"]["name"] == f"{HUB_ID}:stand-in"
    given = flags(shlex.split((exports / "serve.sh").read_text().splitlines()[-1])[4:])
    assert given["--model-path"] == HUB_ID and given["--lora-paths"] == "stand-in=./stand-in-adapter"
    assert given["--max-lora-rank"] == "12" and given["--context-length"] == "2048"
    assert "give '<|im_end|>' as stop" in " ".join(report["serving"]["notes"])
    generation = json.loads((exports / "stand-in-adapter" / "generation_config.json").read_text())
    assert generation["eos_token_id"] == 2  # <|im_end|>


@pytest.mark.long
def test_tgi_finds_the_template_where_it_looks(session_settings: Settings, small_run: JobFolder) -> None:
    context = export_of(session_settings, small_run, "tgi")
    export(context)
    folder = context.job.exports / "stand-in-merged"
    template = json.loads((folder / "tokenizer_config.json").read_text())["chat_template"]
    assert template == (folder / "chat_template.jinja").read_text() and "<|im_start|>" in template
    assert "archived" in report_of(context)["serving"]["notes"][0]


@pytest.mark.parametrize("server", [*SERVERS, "llama-server"])
@pytest.mark.parametrize("base", ["", HUB_ID, "/models/a $b"])
def test_a_compose_file_starts_what_the_script_starts(server: Server, base: str) -> None:
    if server == "llama-server" and base:
        return
    served = Served(server, "my-run", "it", base, "bfloat16", 4096, 16 if base else 0)
    document = YAML(typ="safe").load(compose(served))
    service = document["services"][server]
    command = [one.replace("$$", "$") for one in service["command"]]
    assert all(isinstance(one, str) for one in command)
    outside = shlex.split(script(served).splitlines()[-1])[1 + len(PROGRAMS[server]) :]
    inside = [one.replace("/models/it", "./it") for one in command]
    assert [one for one in inside if one not in ("0.0.0.0", "80")] == [
        one for one in outside if one not in ("127.0.0.1", "8080" if server == "tgi" else "")
    ]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    mounts = {mount["source"]: mount for mount in service["volumes"]}
    assert mounts["./it"]["read_only"] is True
    if base == HUB_ID:
        assert service["environment"]["HF_TOKEN"] == "${HF_TOKEN:-}" and "downloads" in document["volumes"]
    elif base:
        assert mounts["/models/a $$b"]["target"] == "/models/a $$b" and service["environment"]["HF_HUB_OFFLINE"] == "1"


@pytest.mark.long
@pytest.mark.parametrize("server", [*SERVERS, "llama-server"])
@pytest.mark.parametrize("base", ["", HUB_ID, "/models/a $b"])
def test_a_compose_file_keeps_to_its_schema(server: Server, base: str) -> None:
    import jsonschema

    served = Served(server, "my-run", "it", base, "bfloat16", 4096, 16 if base else 0)
    document = YAML(typ="safe").load(compose(served))
    assert document.pop("name") == f"{server}-my-run", "the name of a project is younger than this schema"
    jsonschema.validate(document, compose_schema())
    document["services"][server]["prots"] = []
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, compose_schema())


@pytest.mark.parametrize(("rank", "told"), [(1, "1"), (2, "8"), (12, "16"), (300, "320"), (512, "512")])
def test_vllm_is_told_a_rank_that_it_knows(rank: int, told: str) -> None:
    given = flags(arguments(Served("vllm", "x", "a", HUB_ID, "float16", 100, rank), "./a", "127.0.0.1", 8000))
    assert given["--max-lora-rank"] == told and given["--tokenizer"] == "./a" == given["--generation-config"]


def test_tgi_has_two_precisions_and_counts_prompts_apart() -> None:
    given = flags(arguments(Served("tgi", "x", "a", "", "float32", 100), "./a", "0.0.0.0", 80))
    assert (given["--dtype"], given["--max-input-tokens"], given["--max-total-tokens"]) == ("float16", "99", "100")


def changed(run: JobFolder, folder: Path, base: Path | None = None, **option: Any) -> JobFolder:
    """The run with another adapter configuration, and perhaps another base model."""
    shutil.copytree(run.path, folder)
    other = JobFolder(folder)
    config = json.loads((other.model / "adapter_config.json").read_text())
    write_json(other.model / "adapter_config.json", config | option)
    if base is not None:
        write_json(other.environment_path, {"base_model": {"name": "x", "path": str(base), "source": "local"}})
    return other


@pytest.mark.parametrize(
    ("to", "option", "words"),
    [
        ("vllm", {"use_dora": True}, "vLLM cannot serve an adapter with DoRA"),
        ("sglang", {"modules_to_save": ["lm_head"]}, "SGLang cannot serve an adapter with fully trained layers"),
        ("tgi", {"alpha_pattern": {"q_proj": 4}}, "TGI cannot serve an adapter with ranks or scales"),
        ("vllm", {"r": 513}, "vLLM serves adapters up to rank 512; this one has rank 513"),
    ],
)
def test_what_a_server_cannot_serve_is_refused_at_once(
    to: str, option: dict[str, Any], words: str, small_run: JobFolder, tmp_path: Path
) -> None:
    run = changed(small_run, tmp_path / "run", **option)
    with pytest.raises(InputError, match=words) as raised:
        require_exportable(source_of(run), ExportConfig(run=run.id, to=to, serve="adapter"))
    assert (raised.value.where, raised.value.fix) == ("serve", "Serve it as merged")
    require_exportable(source_of(run), ExportConfig(run=run.id, to=to, serve="merged"))


def test_a_base_that_tgi_would_misread_is_refused(small_run: JobFolder, tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    config: dict[str, Any] = {"rope_parameters": {"rope_theta": 100000.0, "rope_type": "default"}}
    write_json(base / "config.json", config)
    (base / "model.safetensors").touch()
    run = changed(small_run, tmp_path / "run", base)
    asked = ExportConfig(run=run.id, to="tgi", serve="adapter")
    with pytest.raises(InputError, match=r"would place the positions of .* wrongly"):
        require_exportable(source_of(run), asked)
    write_json(base / "config.json", config | {"rope_theta": 100000.0})
    require_exportable(source_of(run), asked)


@pytest.mark.parametrize("to", [*SERVERS, "llama-server"])
def test_a_context_that_the_model_cannot_read_is_refused(
    to: str, session_settings: Settings, small_run: JobFolder
) -> None:
    context = export_of(session_settings, small_run, to, context=2049)
    with pytest.raises(InputError, match=r"2049 tokens is more than the model can read \(2048\)"):
        export(context)
    assert not context.job.exports.exists()


# Stands in for LM Studio's program, which is in no package: it takes what `lms import` takes.
PROGRAM = """#!/bin/sh
test "$1" = import && test -f "$2" && test "$3" = --user-repo && test "$5 $6" = "--yes --copy" || exit 3
echo "$4" > "$2.imported"
"""


@pytest.fixture
def finished(session_settings: Settings, small_run: JobFolder, monkeypatch: pytest.MonkeyPatch) -> LmStudioExport:
    """An export whose file is made already."""
    context = export_of(session_settings, small_run, "lmstudio")
    config = ExportConfig(run=small_run.id, to="lmstudio")
    made = LmStudioExport(context, config, open_source(session_settings, small_run.id), None)
    context.job.exports.mkdir()

    def write(self: GgufExport) -> None:
        (context.job.exports / "x.gguf").write_bytes(b"GGUF")
        file: dict[str, Any] = {"file": "x.gguf", "bytes": 4, "sha256": "0", "top1": 1.0, "mean_kl": 0.0}
        self.report["files"] = [file | {"exact_match": None, "verdict": "as trained", "differences": []}]

    monkeypatch.setattr(GgufExport, "make", write)
    return made


@pytest.mark.parametrize("case", ["absent", "present", "failing", "differs"])
def test_lm_studio_is_handed_the_file_where_it_is(
    case: str, finished: LmStudioExport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if case != "absent":
        program = tmp_path / "lms"
        program.write_text(PROGRAM if case != "failing" else "#!/bin/sh\necho no room\nexit 1\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    if case == "differs":
        made = GgufExport.make

        def worse(self: GgufExport) -> None:
            made(self)
            self.report["files"][0]["verdict"] = "differs"

        monkeypatch.setattr(GgufExport, "make", worse)
    finished.make()
    told = report_of(finished.context)["serving"]
    imported = finished.context.job.exports / "x.gguf.imported"
    words = {"absent": "is not on this machine", "present": "has the file now", "failing": "no room"}
    assert words.get(case, "nothing was imported") in told["notes"][0]
    assert imported.exists() == (case == "present")
    assert f"{lmstudio.PUBLISHER}/stand-in" in told["commands"][0]["text"]


def test_a_missing_llama_server_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert "llama-server is not on this machine" in ServedFile.notes(object.__new__(ServedFile))[0]


def test_the_script_is_one(tmp_path: Path) -> None:
    served = Served("llama-server", "my run's", "it's.gguf", "", "", 100)
    (tmp_path / "serve.sh").write_text(script(served))
    assert subprocess.run(["sh", "-n", str(tmp_path / "serve.sh")], check=False).returncode == 0
    assert "./it's.gguf" in shlex.split(script(served).splitlines()[-1])

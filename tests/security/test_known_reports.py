"""What was reported against LLaMA-Factory, a program like this one, tried against ours.

Each test says what the report was (from the public advisories and issues) and what our answer is.
"""

from __future__ import annotations

import ast
import json
import pickle
import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from fastapi.testclient import TestClient

from studio.chat.protocol import ApiError, parse_request
from studio.config.data import DataSource
from studio.data.sources.locate import locate
from studio.errors import InputError
from studio.jobs import submit, wait
from studio.models.catalog.names import resolve_model
from studio.processes import child_environment, module_command
from studio.settings import Settings
from studio.train.rewards.scoring import load_scorer
from tests.parity.fixtures import quick_and_quiet, tiny
from tests.parity.made import demo_rows, make_trainer, write_rows
from tests.security.conftest import Handlers

__all__ = ["quick_and_quiet", "tiny"]

ROOT = Path(__file__).resolve().parents[2]


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.mkdir, (self.target,)


@cache
def calls() -> list[tuple[str, ast.Call]]:
    """Every call in the studio's code, with the place and the called name; read once."""
    return [
        (f"{file.relative_to(ROOT)}:{node.lineno} {ast.unparse(node.func)}", node)
        for file in sorted((ROOT / "studio").rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
    ]


def reads_numbers_only(place: str, node: ast.Call) -> bool:
    """Whether a call reads an optimizer's state as torch does without running what a pickle says."""
    return place.endswith(" torch.load") and ast.unparse(node).endswith("weights_only=True)")


@pytest.mark.long
def test_cve_2024_52803_no_shell_sees_a_path(settings: Settings, tmp_path: Path) -> None:
    """The web page started training by `Popen(f"llamafactory-cli train {path}", shell=True)` with a path of the form.

    Ours starts `[python, -m, studio.KIND, JOB]`, without a shell; a run's name becomes a folder name of letters. Here
    the whole home has a name that a shell would run, and a real job goes through supervisor and worker in it.
    """
    shells = ("os.system", "os.popen", "subprocess.getoutput", "subprocess.getstatusoutput", "pty.spawn")
    found = [place for place, _ in calls()]
    assert len(found) > 3000 and any(place.endswith("subprocess.Popen") for place in found)
    assert [place for place, node in calls() if any(key.arg == "shell" for key in node.keywords)] == []
    assert [place for place in found if place.split(" ", 1)[1] in (*shells, "eval", "exec")] == []
    home = tmp_path / "a b; touch pwned; $(touch pwned) `touch pwned` | touch pwned & 'x' \"y"
    job = submit(replace(settings, home=home), "evaluate", "$(touch pwned);`touch pwned`", {"run": "; touch pwned"})
    state = wait(job, seconds=120)
    assert state.status == "failed" and "there is no run '; touch pwned'" in state.reason
    assert re.fullmatch(r"[\w.-]+", job.id)
    assert list(tmp_path.rglob("pwned")) == [] and not Path("pwned").exists()


def test_a_module_beside_the_data_is_not_run(settings: Settings, tmp_path: Path) -> None:
    """`python -m` looks into the current folder first: a `filelock.py` beside somebody's rows was run by ours."""
    for name in ("filelock", "numpy", "json", "studio"):
        (tmp_path / f"{name}.py").write_text("open('pwned', 'w')\n")
    for module in ("studio.data.worker", "studio.chat.server"):
        done = subprocess.run(
            module_command(module, "--help"), cwd=tmp_path, input="", text=True, capture_output=True, timeout=60,
            env=child_environment(STUDIO_HOME=str(settings.home)), check=False,
        )  # fmt: skip
        assert "pwned" not in done.stderr and not (tmp_path / "pwned").exists(), module
    others = re.compile(r'sys\.executable,\s*"-m"')
    assert [file for file in (ROOT / "studio").rglob("*.py") if others.search(file.read_text(encoding="utf-8"))] == []


def test_cve_2025_46567_pickled_weights_are_never_opened(settings: Settings, tiny: Path, tmp_path: Path) -> None:
    """A script for Baichuan models read weights by `torch.load(file)`, which runs what a pickle says.

    Ours opens safetensors and GGUF only, and of its own checkpoints the optimizer's numbers: nothing in the studio's
    code unpickles, a folder with pickled weights is refused by name, and beside safetensors they are left closed.
    """
    readers = ("pickle.", "torch.load", "joblib.", "dill.", "marshal.", "shelve.", "read_pickle")
    # These pickle what this process has made, for itself or its own child; what the child answers is text.
    own = ("studio/data/sources/held.py", "studio/data/sandbox/process.py", "studio/data/sandbox/child.py")
    assert [
        place
        for place, node in calls()
        if any(one in place for one in readers) and not place.startswith(own) and not reads_numbers_only(place, node)
    ] == []
    assert [place for place, _ in calls() if "pickle.load" in place and "sandbox/process" in place] == []
    # numpy refuses pickles unless it is told to take them.
    assert [place for place, node in calls() if any(key.arg == "allow_pickle" for key in node.keywords)] == []
    target = tmp_path / "pwned"
    for name in ("pytorch_model.bin", "model.pt", "pytorch_model-00001-of-00001.bin"):
        folder = tmp_path / name.replace(".", "-")
        shutil.copytree(tiny, folder)
        torch.save({"weight": Evil(target)}, folder / name)
        resolve_model(str(folder), settings)
        (folder / "model.safetensors").unlink()
        with pytest.raises(InputError, match=r"pickled weights.*can run code"):
            resolve_model(str(folder), settings)
        with pytest.raises(OSError, match="safetensors"):
            load_scorer(folder, tiny, torch.float32)
        # A safetensors file that nobody loads makes no difference.
        shutil.copy(tiny / "model.safetensors", folder / "model-x.safetensors")
        with pytest.raises(InputError, match=r"pickled weights.*can run code"):
            resolve_model(str(folder), settings)
    assert not target.exists()
    with pytest.raises(FileNotFoundError):
        Path(target).stat()
    pickle.loads(pickle.dumps(Evil(target)))  # that the pickle would have done it
    assert target.is_dir()


def test_cve_2025_53002_a_folder_that_the_page_names_is_not_unpickled(
    settings: Settings, tiny: Path, tmp_path: Path
) -> None:  # fmt: skip
    """The page passed a checkpoint's folder to `torch.load(folder/value_head.bin)`: whoever named one ran code.

    Ours takes adapters and reward models as safetensors. A checkpoint that training goes on from holds the optimizer's
    state as torch writes it: read with `weights_only`, so a pickle put there ends the run instead of running.
    """
    from studio.chat.hf import HfBackend

    target = tmp_path / "pwned"
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    values = {"peft_type": "LORA", "base_model_name_or_path": str(tiny), "r": 4, "target_modules": ["q_proj"]}
    (adapter / "adapter_config.json").write_text(json.dumps({**values, "task_type": "CAUSAL_LM"}))
    for name in ("adapter_model.bin", "value_head.bin", "pytorch_model.bin", "training_args.bin"):
        torch.save({"v_head.summary.weight": Evil(target)}, adapter / name)
    with pytest.raises(InputError, match=r"no adapter_model\.safetensors"):
        HfBackend(tiny, adapter=adapter, dtype="float32")
    both = tmp_path / "both"
    shutil.copytree(tiny, both)
    for name in ("value_head.bin", "pytorch_model.bin", "training_args.bin"):
        torch.save({"v_head.summary.weight": Evil(target)}, both / name)
    assert HfBackend(both, dtype="float32").models == ("base",)
    rows = write_rows(tmp_path / "rows.jsonl", demo_rows("train.jsonl", 4))
    raw = {
        "model": {"path": str(tiny), "dtype": "float32"},
        "data": {"train": [{"path": str(rows)}], "validation": 0, "max_length": 512},
        "tuning": {"name": "lora", "rank": 2},
        "training": {"max_steps": 1, "batch_size": 4, "save_steps": 1},
    }
    make_trainer(raw, tiny, tmp_path / "run", settings).trainer.train()
    (checkpoint,) = (tmp_path / "run").glob("checkpoint-*")
    pickled = [file for file in checkpoint.iterdir() if file.suffix in (".pt", ".pth", ".bin")]
    assert {file.name for file in pickled} >= {"optimizer.pt", "scheduler.pt", "rng_state.pth"}
    raw["training"]["max_steps"] = 2
    for file in pickled:
        good = file.read_bytes()
        torch.save({"state": Evil(target)}, file)
        trainer = make_trainer(raw, tiny, tmp_path / "again", settings).trainer
        if file.name == "training_args.bin":
            trainer.train(resume_from_checkpoint=str(checkpoint))  # never opened
        else:
            with pytest.raises(pickle.UnpicklingError, match=r"(?i)weights"):
                trainer.train(resume_from_checkpoint=str(checkpoint))
        file.write_bytes(good)
    assert not target.exists()


@contextmanager
def elsewhere(moved_to: str = "") -> Iterator[tuple[str, list[str]]]:
    """An address that somebody could make us fetch, and what was fetched; with `moved_to` it points there."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(302 if moved_to else 200)
            if moved_to:
                self.send_header("Location", moved_to)
            self.end_headers()
            self.wfile.write(b'{"prompt": "a", "completion": "b"}')

        do_HEAD = do_POST = do_GET  # noqa: N815

        def log_message(self, *_: Any) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def name_everywhere(address: str, handlers: Handlers, signed_in: TestClient, settings: Settings) -> None:
    """Give an address wherever the page takes a text or a file, and to the chat server."""
    file = {"path": f"{address}/x.jsonl", "url": f"{address}/x.jsonl", "meta": {"_type": "gradio.FileData"}}
    for name, more in (("take_upload", ([], "0.1")), ("load_file", ())):
        answer = handlers.call(name, {**file, "orig_name": "x.jsonl"}, *more)
        assert answer.status_code == 500 and "URLs are not downloaded" in answer.text
    assert "URLs are not downloaded" in handlers.call("add_path", "demo/train.jsonl", [file], "0.1").text
    for path in (
        f"/gradio_api/file={address}/x", f"/gradio_api/file/{address}/x", f"/file={address}/x",
        f"/gradio_api/proxy={address}/x", f"/gradio_api/proxy={address.replace('http:', 'https:')}/x",
        f"/gradio_api/file=HTTP{address[4:]}/x", f"/gradio_api/file=http:%2f%2f{address[7:]}/x",
    ):  # fmt: skip
        assert signed_in.get(path).status_code == 403, path
    texts = [f"{address}/x.jsonl", f"{address}/dataset_info.json:x", address.removeprefix("http:"), f"file://{address}"]
    for text in texts:
        assert handlers.call("add_path", text, [], "0.1").json()["data"][3]
        handlers.form("update", data__train=[{"path": text, "format": "auto"}], meta="")
        handlers.form("update", tuning__adapter=text, meta="")
        handlers.call("show", text, "main")
    for option in ("reward_python", "reward_schema"):
        handlers.form("update", method__name="grpo", meta="", **{f"method__{option}": f"{address}/x.py:score"})


def messages(address: str) -> list[Any]:
    """Contents of a chat message that name media."""
    return [
        [{"type": kind, kind: {"url": url}}]
        for kind in ("image_url", "video_url", "audio_url", "input_audio", "file")
        for url in (address, "file:///etc/passwd", "/etc/passwd", "data:image/png;base64,AAAA")
    ]


def test_cve_2025_61784_no_media_address_is_fetched(
    handlers: Handlers, signed_in: TestClient, page_settings: Settings, tmp_path: Path
) -> None:  # fmt: skip
    """The API of the chat fetched `image_url` with requests.get, and opened it as a local file where it was none.

    Ours reads text only: other parts of a message are refused by name, media columns of data too, and no field of the
    page takes an address. gradio itself would fetch one in the value of a file: that is switched off.
    """
    with elsewhere() as (address, asked):
        for content in messages(address):
            body = {"model": "base", "messages": [{"role": "user", "content": content}]}
            with pytest.raises(ApiError, match=r"content\[0\]"):
                parse_request(json.dumps(body).encode())
        described = tmp_path / "dataset_info.json"
        described.write_text(json.dumps({"x": {"file_name": "rows.jsonl", "columns": {"images": "images"}}}))
        write_rows(tmp_path / "rows.jsonl", [{"instruction": "a", "output": "b", "images": [address, "/etc/passwd"]}])
        with pytest.raises(InputError, match="images"):
            locate(DataSource(path=f"{described}:x"), page_settings)
        name_everywhere(address, handlers, signed_in, page_settings)
        assert asked == []


def test_llama_factory_10646_neither_redirects_nor_names_get_around_it(
    handlers: Handlers, signed_in: TestClient, page_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """The fix of CVE-2025-61784 checked the address once and fetched it afterwards: a redirect, or a name that changes
    what it means in between (DNS rebinding), led to inside addresses all the same.

    Ours has no such check, because nothing is fetched: a name is not even looked up.
    """
    looked_up: list[Any] = []
    real = socket.getaddrinfo

    def note(host: Any, *more: Any, **named: Any) -> Any:
        looked_up.append(host)
        return real(host, *more, **named)

    monkeypatch.setattr(socket, "getaddrinfo", note)
    with elsewhere() as (inside, reached), elsewhere(moved_to=f"{inside}/x") as (address, asked):
        name_everywhere(address, handlers, signed_in, page_settings)
        name_everywhere("http://rebinding.example:80", handlers, signed_in, page_settings)
        assert (asked, reached, looked_up) == ([], [], [])


def test_llama_factory_10635_a_report_is_answered() -> None:
    """Four reports, sent by the way that the project's security policy names, had no answer after months.

    What they are about is not public, so there is nothing to try. Our answer is the policy: where to report, in what
    time there is an answer, and that whoever gets none may publish.
    """
    policy = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    for needed in ("## How to report", "## What to expect", "7 days", "90 days", "may publish", "docs/security.md"):
        assert needed in policy, needed
    assert "SECURITY.md" in (ROOT / "docs" / "security.md").read_text(encoding="utf-8")

"""The data worker through its client: answers, errors as objects, crashes, time-outs, threads, no orphan."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from transformers import AutoTokenizer

from studio.config import RunConfig
from studio.config.load import build
from studio.data.prepare.pipeline import prepare_data
from studio.data.wire import error_from_dict, error_to_dict
from studio.data.worker.client import DataWorker
from studio.errors import InputError, InputErrors, StoppedError, StudioError
from studio.settings import Settings
from studio.train.preflight import counted
from studio.train.worker import lengths_of
from tests.data.rows import chat

Write = Callable[..., Path]


@pytest.fixture(scope="module")
def worker(session_settings: Settings) -> Iterator[DataWorker]:
    warm = DataWorker(session_settings)
    yield warm
    warm.close()


@pytest.fixture
def model(model_path: Path) -> str:
    return str(model_path)


def test_preview_shows_every_token(worker: DataWorker, model: str, write: Write) -> None:
    path = write("x.jsonl", [chat("a", "b"), chat("<script>alert(1)</script>", "<b>olá 🙂</b>")])
    shown = worker.call("preview", row=2, data={"train": [{"path": str(path)}], "max_length": 20}, model=model)
    assert (shown["row"], shown["rows"], shown["format"], shown["problem"]) == (2, 2, "messages", None)
    assert shown["raw"] == chat("<script>alert(1)</script>", "<b>olá 🙂</b>")
    assert "".join(token["text"] for token in shown["tokens"] if token["trained"]) == "<b>olá 🙂</b><|im_end|>"
    assert "<script>alert(1)</script>" in "".join(token["text"] for token in shown["tokens"])
    assert shown["length"] == len(shown["tokens"]) == shown["trained"] + shown["context"]
    assert shown["over_limit"]
    assert shown["stop_text"] == "<|im_end|>"
    assert shown["tokens"][0]["special"]


def test_preview_of_a_bad_row_shows_the_row_and_its_problem(worker: DataWorker, model: str, write: Write) -> None:
    path = write("x.jsonl", [chat("a", "b"), {"messages": 5}])
    shown = worker.call("preview", row=2, data={"train": [{"path": str(path)}]}, model=model)
    assert shown["raw"] == {"messages": 5}
    assert shown["problem"]["where"] == "x.jsonl, row 2, field 'messages'"
    assert shown["tokens"] == []


def test_inspect(worker: DataWorker, model: str, write: Write) -> None:
    path = write("x.jsonl", [chat("a", "b" * i) for i in range(1, 40)])
    told: list[tuple[str, float, float | None]] = []
    found = worker.call(
        "inspect", path=str(path), model=model, data={"max_length": 40}, on_progress=lambda *step: told.append(step)
    )
    assert (found["rows"], found["format"], len(found["sha256"])) == (39, "messages", 64)
    assert sum(found["lengths"]["counts"]) == 39
    assert found["tokens"] > found["supervised_tokens"] > 39
    assert told[-1] == ("tokenizing", 39, 39)
    # Without a model it is only read.
    assert "lengths" not in worker.call("inspect", path=str(path))


def test_lengths_are_those_of_a_run(worker: DataWorker, model: str) -> None:
    done = worker.call("lengths", data={"validation": 0.25}, method={"train_on": "last"}, model=model)
    assert len(done["train"]) == len(done["supervised"]) == done["report"]["train_rows"]
    assert len(done["validation"]) == done["report"]["validation_rows"] > 0
    assert sum(done["train"] + done["validation"]) == done["report"]["tokens"]


@pytest.mark.parametrize(
    ("method", "rows"), [("sft", "train"), ("dpo", "pairs_train"), ("kto", "pairs_train"), ("grpo", "sums_train")]
)
def test_the_plan_has_the_same_lengths_before_a_run_and_in_it(
    worker: DataWorker, session_settings: Settings, model_path: Path, method: str, rows: str
) -> None:
    data = {"train": [{"path": f"demo/{rows}.jsonl"}], "validation": 0.1}
    config = build(RunConfig, {"model": {"path": str(model_path)}, "data": data, "method": {"name": method}})
    before, _ = counted(config, worker, model_path, None)
    tokenizer = AutoTokenizer.from_pretrained(model_path)
    known = prepare_data(config.data, config.method, tokenizer, session_settings, seed=config.training.seed)
    assert before == lengths_of(known, config)
    assert before.common > 10, "the template's system prompt"
    assert len(before.repeats) == len(before.each) and any(before.repeats) is (method == "dpo")
    if method == "dpo":
        assert before.common <= min(before.repeats) and before.alone < max(before.sums)
    else:
        assert before.alone == before.max


def test_template(worker: DataWorker, model: str) -> None:
    assert worker.call("template", model=model) == {
        "has_template": True, "exact": True, "stop_text": "<|im_end|>", "reason": "",
        "usable": ["chatml", "mistral", "plain"],
    }  # fmt: skip


def test_a_changed_file_is_read_again(worker: DataWorker, write: Write) -> None:
    path = write("x.jsonl", [chat("a", "b")])
    assert worker.call("inspect", path=str(path))["rows"] == 1
    write("x.jsonl", [chat("a", "b"), chat("c", "d")])
    assert worker.call("inspect", path=str(path))["rows"] == 2


def test_asking_again_is_cheap(worker: DataWorker, model: str) -> None:
    worker.call("lengths", model=model)
    began = time.perf_counter()
    for _ in range(20):
        worker.call("lengths", model=model)
    assert (time.perf_counter() - began) / 20 < 0.05


def test_errors_arrive_as_objects(worker: DataWorker, model: str, write: Write) -> None:
    with pytest.raises(InputError) as caught:
        worker.call("inspect", path="demo/trian.jsonl")
    assert "Did you mean 'train.jsonl'" in caught.value.fix
    with pytest.raises(InputErrors) as several:
        worker.call("inspect", path=str(write("x.jsonl", [chat("a", "b"), {"messages": 1}, {"messages": 2}])))
    assert len(several.value.errors) == 2
    with pytest.raises(InputError, match=r"data\.max_length"):
        worker.call("lengths", data={"max_length": 1}, model=model)
    with pytest.raises(InputError, match="not an operation"):
        worker.call("guess")
    with pytest.raises(InputError, match=r"there is no row 0"):
        worker.call("preview", row=0, model=model)
    with pytest.raises(StudioError, match="data worker failed"):
        worker.call("inspect", nonsense=1)
    assert worker.call("ping")["pid"] == worker.pid


@pytest.mark.parametrize(
    "error",
    [
        StudioError("a", where="b", fix="c"),
        InputError("a"),
        InputErrors([InputError("a", where="b"), InputError("c", fix="d")]),
    ],
)
def test_errors_survive_the_wire(error: StudioError) -> None:
    back = error_from_dict(error_to_dict(error))
    assert type(back) is type(error)
    assert back.sentence == error.sentence
    assert back.exit_code == error.exit_code


def test_confined_worker(session_settings: Settings, model_path: Path, write: Write) -> None:
    path = write("x.jsonl", [chat("a", "b")])
    page = DataWorker(session_settings, confined=True)
    try:
        for op, args in {
            "inspect": {"path": str(path)},
            "lengths": {"data": {"train": [{"path": "demo/train.jsonl"}], "validation": str(path)}},
            "preview": {"data": {"train": [{"path": str(path)}]}},
        }.items():
            with pytest.raises(InputError, match="may not read files there"):
                page.call(op, **args)
        assert page.call("preview", row=1, model=str(model_path))["problem"] is None
        with pytest.raises(InputError, match="may not read"):
            outside = path.parent / "model"
            outside.mkdir()
            (outside / "tokenizer.json").write_text("{}")
            page.call("template", model=str(outside))
    finally:
        page.close()


def test_the_worker_takes_no_more_than_its_share_of_the_memory() -> None:
    code = (
        "from studio.data.worker import __main__ as worker\n"
        "worker.memory = lambda: (10**9, 10**9); worker.LEAST_BYTES = 10**9\n"
        "assert worker.limit_memory() == 10**9\n"
        "bytearray(10**8)\n"
        "try: bytearray(10**9)\n"
        "except MemoryError: print('refused')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "refused\n"


def test_restarts_after_a_crash(session_settings: Settings) -> None:
    worker = DataWorker(session_settings)
    try:
        first = worker.call("ping")["pid"]
        os.kill(first, signal.SIGKILL)
        second = worker.call("ping")["pid"]
        assert second != first
        # Killed while it works: the question is asked once more.
        killer = threading.Timer(0.3, lambda: os.kill(second, signal.SIGKILL))
        killer.start()
        assert worker.call("lengths", model=None, timeout=300)["train"]
        killer.join()
    finally:
        worker.close()
    assert worker.pid is None


def test_close_ends_a_call_that_is_asked_once_more(session_settings: Settings, write: Write) -> None:
    """The first worker died by itself, of a full memory for instance; that the second one ends is no crash either."""
    path = str(write("long.jsonl", [chat(f"a{n}", "b") for n in range(30_000)]))
    worker = DataWorker(session_settings)
    first = worker.call("ping")["pid"]
    threads: list[threading.Thread] = []

    def act(phase: str, done: float, total: float | None) -> None:
        if worker.pid == first:
            os.kill(first, signal.SIGKILL)
        elif not threads:
            threads.extend(threading.Thread(target=worker.close) for _ in range(2))  # closed twice at a time
            for one in threads:
                one.start()

    with pytest.raises(StoppedError, match="shutting down"):
        worker.call("duplicates", data={"train": [{"path": path}]}, on_progress=act)
    for one in threads:
        one.join()
    assert len(threads) == 2 and worker.pid is None


def test_close_ends_the_call_that_runs(session_settings: Settings, write: Write) -> None:
    path = str(write("long.jsonl", [chat(f"a{n}", "b") for n in range(30_000)]))
    worker = DataWorker(session_settings)
    pid = worker.call("ping")["pid"]
    closer: list[threading.Timer] = []

    def close_soon(phase: str, done: float, total: float | None) -> None:
        if not closer:
            closer.append(threading.Timer(0, worker.close))
            closer[0].start()

    with pytest.raises(StoppedError, match="shutting down"):
        worker.call("duplicates", data={"train": [{"path": path}]}, on_progress=close_soon)
    closer[0].join()
    assert worker.pid is None and not psutil.pid_exists(pid)
    assert worker.call("ping")["pid"] != pid
    worker.close()


def test_time_out_ends_it_and_the_next_call_works(session_settings: Settings) -> None:
    worker = DataWorker(session_settings)
    try:
        pid = worker.call("ping")["pid"]
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(StudioError, match="did not answer within"):
            worker.call("ping", timeout=0.5)
        assert not psutil.pid_exists(pid)
        assert worker.call("ping")["pid"] != pid
    finally:
        worker.close()


def test_a_worker_without_a_sign_of_life_is_replaced(
    session_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("studio.data.worker.client._SILENT_WALL_SECONDS", 2.0)
    worker = DataWorker(session_settings)
    try:
        pid = worker.call("ping")["pid"]
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(StudioError, match="was restarted"):
            worker.call("ping")
        assert not psutil.pid_exists(pid)
        monkeypatch.undo()
        assert worker.call("ping")["pid"] != pid
    finally:
        worker.close()


@pytest.mark.long
def test_a_call_may_last_as_long_as_it_makes_progress(worker: DataWorker, write: Write) -> None:
    """There is no clock for a person's own file; one is set where it is asked for."""
    path = str(write("long.jsonl", [chat(f"a{n}", "b") for n in range(20_000)]))
    told: list[float] = []
    args = {"data": {"train": [{"path": path}]}, "on_progress": lambda phase, done, total: told.append(done)}
    with pytest.raises(StudioError, match="did not answer"):
        worker.call("duplicates", timeout=0.01, **args)
    assert worker.call("duplicates", **args)["rows"] == 20_000
    assert told == sorted(told) and len(told) > 10


def test_threads_get_their_own_answers(worker: DataWorker, write: Write) -> None:
    paths = [write(f"{count}.jsonl", [chat("a", "b")] * count) for count in range(1, 9)]
    answers: dict[int, Any] = {}
    threads = [
        threading.Thread(
            target=lambda n=n, path=path: answers.update({n: worker.call("inspect", path=str(path))["rows"]})
        )
        for n, path in enumerate(paths, 1)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {n: n for n in range(1, 9)}


@pytest.mark.long
def test_leaves_when_idle_and_comes_back(session_settings: Settings) -> None:
    worker = DataWorker(session_settings, idle_seconds=0.3)
    try:
        first = worker.call("ping")["pid"]
        deadline = time.monotonic() + 20
        while worker.pid is not None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert worker.pid is None
        assert worker.call("ping")["pid"] != first
    finally:
        worker.close()


def test_is_gone_with_its_parent(session_settings: Settings) -> None:
    code = (
        "import sys, time; from studio.data.worker.client import DataWorker\n"
        "from studio.settings import read_settings\n"
        "print(DataWorker(read_settings()).call('ping')['pid'], flush=True); time.sleep(600)"
    )
    env = {**os.environ, "STUDIO_HOME": str(session_settings.home)}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=env, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert psutil.pid_exists(pid)
        parent.kill()
    with contextlib.suppress(psutil.NoSuchProcess):
        psutil.Process(pid).wait(timeout=20)
    assert not psutil.pid_exists(pid)


def test_the_client_is_light_and_the_worker_has_no_torch(worker: DataWorker, model: str) -> None:
    code = (
        "import sys, studio.data.worker.client, studio.data.files.datafiles\n"
        "import studio.data.formats.answers, studio.data.report\n"
        "print([name for name in ('torch', 'transformers', 'tokenizers', 'numpy') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
    worker.call("template", model=model)
    assert worker.pid is not None
    loaded = {Path(entry.path).name for entry in psutil.Process(worker.pid).memory_maps()}
    assert not [name for name in loaded if name.startswith("libtorch")]
    assert psutil.Process(worker.pid).memory_info().rss < 250 * 2**20

"""A save of a checkpoint that ends at any of its points: the one before it loads, and the training goes on.

The trainer is forked just before its second save. Each child does the whole save and ends at one point of it: before
a file is opened, renamed, removed or synced, a folder is made, or with a file half written. After a power cut, what
was never synced is gone as well.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft.peft_model
import pytest
import torch
from safetensors.torch import load_file

from studio.errors import StoppedError
from studio.jobs.store.checkpoints import Checkpoint, last_whole
from studio.methods import METHODS
from studio.settings import Settings
from studio.train.loop.callbacks import JobCallback
from tests.parity.made import demo_rows, job_for, make_trainer, write_rows

STEPS, SAVE = 4, 2
DONE, RAISED = 0, 3
CHANGES = ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir")


class Points:
    """Counts the points of one save in a forked child, and ends the child at one of them."""

    def __init__(self, last: int, end: Callable[[], None], folder: Path, notes: Path) -> None:
        self.last, self.end, self.folder = last, end, str(folder)
        self.passed = 0
        self.notes = os.open(notes, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    def hit(self, half: str | None = None) -> None:
        self.passed += 1
        if self.passed == self.last:
            if half is not None:
                os.truncate(half, Path(half).stat().st_size // 2)
            self.end()

    def watch(self) -> None:
        """From here on every point counts. Only in a child: an audit hook cannot be removed."""
        sync, save, write = os.fsync, torch.save, peft.peft_model.safe_save_file

        def synced(descriptor: int) -> None:
            self.hit()
            sync(descriptor)
            os.write(self.notes, f"S{Path(f'/proc/self/fd/{descriptor}').readlink()}\n".encode())

        def saved(content: Any, file: Any, *args: Any, **kwargs: Any) -> None:
            self.hit()
            save(content, file, *args, **kwargs)
            self.hit(half=str(file))

        def written(tensors: Any, file: Any, *args: Any, **kwargs: Any) -> None:
            self.hit()
            write(tensors, file, *args, **kwargs)
            self.hit(half=str(file))

        os.fsync, torch.save, peft.peft_model.safe_save_file = synced, saved, written
        sys.addaudithook(self.audit)

    def audit(self, event: str, args: tuple[Any, ...]) -> None:
        if event not in ("open", "os.rename", "os.mkdir", "os.remove", "os.rmdir") or not isinstance(
            args[0], str | Path
        ):
            return
        writes = event != "open" or bool((args[2] or 0) & (os.O_WRONLY | os.O_RDWR))
        if writes and str(args[0]).startswith(self.folder):
            self.hit()
            if event == "os.rename":
                os.write(self.notes, f"R{args[0]}\0{args[1]}\n".encode())


def cut_power(folder: Path, notes: Path) -> None:
    """Empty every file that was not synced, and take back what was renamed without being synced."""
    synced: set[str] = set()
    for line in notes.read_text().splitlines():
        if line.startswith("S"):
            synced.add(line[1:])
        else:
            source, target = line[1:].split("\0")
            synced = synced | {target} if source in synced else synced - {target}
    for path in folder.rglob("*"):
        if path.is_file() and str(path) not in synced:
            os.truncate(path, 0)


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def save_until(trainer: Any, save: Callable[[], None], points: Points) -> int:
    """Save in a child that ends at the point; returns how it ended, negative for a signal."""
    child = os.fork()
    if child == 0:
        code = RAISED
        try:
            signal.alarm(60)
            points.watch()
            save()
            trainer.callback_handler.on_save(trainer.args, trainer.state, trainer.control)
            code = DONE
        except StoppedError:
            pass
        except BaseException:
            traceback.print_exc()
            code = 1
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def stopped(number: int, frame: Any) -> None:
    raise StoppedError("as in a worker")


@pytest.mark.parametrize(
    ("end", "code", "power", "apart"),
    [
        # A power cut is a kill after which less is there: the everyday test, at each fourth point.
        pytest.param(kill, -signal.SIGKILL, True, 4, id="power cut"),
        pytest.param(kill, -signal.SIGKILL, True, 1, id="power cut anywhere", marks=pytest.mark.faults),
        pytest.param(kill, -signal.SIGKILL, False, 1, id="kill", marks=pytest.mark.faults),
        pytest.param(terminate, RAISED, False, 1, id="term", marks=pytest.mark.faults),
    ],
)
def test_a_save_may_end_at_any_point(
    end: Callable[[], None], code: int, power: bool, apart: int, tiny: Path, tmp_path: Path, settings: Settings
) -> None:  # fmt: skip
    rows = write_rows(tmp_path / "rows.jsonl", demo_rows("train.jsonl", 12))
    training = {"max_steps": STEPS, "batch_size": 3, "save_steps": SAVE, "save_total_limit": 2}
    context = job_for(
        settings, tiny, rows, data={"max_length": 256}, tuning={"name": "lora", "rank": 4}, training=training
    )
    folder = context.job.checkpoints
    callback = JobCallback(context, context.phase("training", STEPS, "steps"), 0, METHODS["sft"])
    trainer = make_trainer(context.config, tiny, folder, settings, [callback]).trainer
    callback.watch(trainer)
    original, ends = trainer._save_checkpoint, []

    def whole() -> Checkpoint:
        found = last_whole(folder)
        assert found is not None
        load_file(found.path / "adapter_model.safetensors")
        torch.load(found.path / "optimizer.pt", weights_only=True)
        return found

    def save(*args: Any, **kwargs: Any) -> None:
        if trainer.state.global_step < STEPS:
            return original(*args, **kwargs)
        before = signal.signal(signal.SIGTERM, stopped)
        while True:
            points = Points(apart * len(ends) + 1, end, folder, tmp_path / "notes")
            how = save_until(trainer, lambda: original(*args, **kwargs), points)
            os.close(points.notes)
            if power:
                cut_power(folder / f"checkpoint-{STEPS}", tmp_path / "notes")
            if how == DONE:
                break
            assert how == code, (how, len(ends))
            ends.append(whole().step)
            shutil.rmtree(folder / f"checkpoint-{STEPS}", ignore_errors=True)
        signal.signal(signal.SIGTERM, before)
        assert whole().step == STEPS
        (folder / f"checkpoint-{STEPS}" / "studio.json").unlink()  # as if it had been killed just before the seal
        return original(*args, **kwargs)

    trainer._save_checkpoint = save
    trainer.train()
    print(f"\n{len(ends)} points, {ends.count(SAVE)} of them before the new one counts")
    # Until the last sync or so the old one counts; every point was reached, the seal's own among them.
    assert apart * len(ends) > 25 and ends.count(SAVE) >= len(ends) - 6 and set(ends) <= {SAVE, STEPS}
    # The training went on over what the killed ones had left, and its save is whole.
    assert whole().step == STEPS

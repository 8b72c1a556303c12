"""A tokenizer whose patterns run away over a text: the row is named, and the worker that was stuck is replaced."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from studio.data.worker.client import DataWorker
from studio.errors import InputError
from studio.settings import Settings
from tests.data.rows import chat
from tests.support.everyday import everyday

# Oniguruma gives up after ten million tries at one place, and goes on for ever where each takes a little less.
PATTERNS = {"gives up on": r"(?=a*a*a*a*a*a*c)a|\s", "takes too long on": r"(?=a*a*a*c)a|\s"}
TEXTS = {"gives up on": "a" * 60, "takes too long on": "a" * 2600}


def hostile(model: Path, folder: Path, pattern: str) -> Path:
    """A model folder whose tokenizer cuts texts by a pattern of a stranger."""
    folder.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (model / name).exists():
            shutil.copyfile(model / name, folder / name)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    tokenizer["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, level]}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return folder


@pytest.mark.parametrize("how", everyday(PATTERNS, "gives up on"))
def test_the_row_is_named_and_the_next_question_answered(
    how: str, model_path: Path, tmp_path: Path, write: Callable[..., Path], session_settings: Settings
) -> None:
    model = hostile(model_path, tmp_path / "hostile", PATTERNS[how])
    rows = [chat(f"q {n}", "b") for n in range(40)] + [chat("q", f"{TEXTS[how]}!")] + [chat("q", "b")] * 5
    path = write("x.jsonl", rows)
    worker = DataWorker(session_settings)
    try:
        pid = worker.call("ping")["pid"]
        assert worker.call("inspect", path=str(write("good.jsonl", rows[:5])), model=str(model))["rows"] == 5
        began = time.monotonic()
        with pytest.raises(
            InputError, match=r"x\.jsonl, row 41: the model's tokenizer (gives up on|takes too long on) the row"
        ):
            worker.call("inspect", path=str(path), model=str(model))
        assert time.monotonic() - began < 20
        assert worker.call("ping")["pid"]
        if how == "takes too long on":
            assert worker.pid != pid and not psutil.pid_exists(pid), "its thread would be at work for ever"
    finally:
        worker.close()

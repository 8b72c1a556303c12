"""The commands that a report shows can be run as they stand."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

from studio.export.serving.servers import Served, write_serving


def test_a_question_is_json_whatever_the_base_model_is_called(tmp_path: Path) -> None:
    base = '/models/the "big\\one"'
    told = write_serving(tmp_path, Served("sglang", "mine", "mine-adapter", base, "bfloat16", 512, 8), [])
    body = json.loads(shlex.split(told["commands"][-1]["text"])[-1])
    assert body["model"] == told["name"] == f"{base}:mine"

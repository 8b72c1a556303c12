"""The rows that a model at a service is asked."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from studio.config.jobs import EvaluateConfig
from studio.config.remote import OpenAIConfig
from studio.errors import InputError
from studio.evaluate.elsewhere import _questions
from studio.jobs.run.worker import JobContext
from studio.jobs.store.folder import create_job
from studio.settings import Settings


def test_rows_that_are_left_out_are_told(settings: Settings, tmp_path: Path) -> None:
    asked, told = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    talks: list[Any] = [
        [asked, told], [asked, {"role": "assistant", "content": None, "tool_calls": [call]}], [asked], [asked, told]
    ]  # fmt: skip
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({"messages": talk}) + "\n" for talk in talks))
    job = create_job(settings.jobs, "openai", "own", OpenAIConfig.model_validate({"data": str(file)}).model_dump())
    notices: list[str] = []
    context = cast(JobContext, SimpleNamespace(settings=settings, notice=lambda level, text: notices.append(text)))
    config = EvaluateConfig(run=job.id, data=str(file))
    assert [one.row for one in _questions(context, config, job)[1]] == [1, 4]
    assert len(notices) == 1 and notices[0].startswith("2 of 4 rows") and notices[0].endswith("row 2")
    assert [one.row for one in _questions(context, config.model_copy(update={"limit": 1}), job)[1]] == [1]
    assert len(notices) == 1
    file.write_text(json.dumps({"messages": [asked]}) + "\n")
    with pytest.raises(InputError, match="no row has a question"):
        _questions(context, config, job)

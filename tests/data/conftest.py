"""What the data tests share: the embedded model's tokenizer, settings of a home that has the model, a file writer."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from studio.data.masks.masker import Masker
from studio.settings import ASSETS, Settings
from tests.data.templates import SHAPES, shaped
from tests.support.prepared import link_model


@pytest.fixture(scope="session")
def tokenizer(model_path: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model_path, local_files_only=True)


@pytest.fixture
def settings(tmp_path: Path, model_path: Path) -> Settings:
    home = tmp_path / "home"
    link_model(model_path, home)
    roots = (home.resolve(), ASSETS)
    return Settings(home=home, host="127.0.0.1", port=7860, roots=roots, password=None, chat_idle_seconds=600)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """write(name, content): content is bytes, text, or a list of rows that become JSONL."""

    def writer(name: str, content: bytes | str | list[Any]) -> Path:
        path = tmp_path / name
        if isinstance(content, list):
            content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content)
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
        return path

    return writer


@pytest.fixture(scope="module")
def maskers(tokenizer: Any) -> dict[str, Masker]:
    return {name: Masker(shaped(tokenizer, name)) for name in SHAPES}

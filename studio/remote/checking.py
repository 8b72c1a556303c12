"""Rows checked for a page in a process of their own: `python -m studio.remote.checking ASKED ANSWER`.

A check holds every row and computes for as long as there are rows. In the web process, whose pages wait for one
another, only small files are checked; the others cost it neither memory nor its turn.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import fields
from pathlib import Path
from typing import Any

from studio.config.remote import OpenAIConfig
from studio.data.files.datafiles import resolve_path
from studio.models.catalog.child import Progress, child_main, run_child
from studio.reach import reading_as_asked, roots_of_page
from studio.remote.prepare import Checked, prepare
from studio.settings import Settings, read_settings

# What is checked in a fraction of a second. A table or an archive of this size may hold many times as much.
SMALL_BYTES = 2_000_000
_PLAIN = (".jsonl", ".json", ".csv", ".tsv", ".txt")


def check(config: OpenAIConfig, settings: Settings) -> Checked:
    """Read, check and price what a page asks for, as `prepare` does, without its bytes. Nothing is sent.

    Args:
        config: what is asked for.
        settings: of the home, and of what the page may read.

    Raises:
        InputError: a file cannot be read, or an option is missing.
        StudioError: the process ended without an answer.
    """
    named = [path for path in (config.data, config.validation) if path]
    if all(map(_small, (resolve_path(path, settings, True) for path in named))):
        return prepare(config, settings, confined=True)
    roots = roots_of_page()
    asked = {
        "config": config.model_dump(mode="json"),
        "roots": [str(root) for root in settings.roots] if roots is None else roots,
    }
    with tempfile.TemporaryDirectory(prefix="studio-check-") as folder:
        request, answer = Path(folder) / "asked.json", Path(folder) / "answer.json"
        request.write_text(json.dumps(asked), encoding="utf-8")
        run_child(
            "studio.remote.checking", [str(request), str(answer)], settings, lambda *_: None,
            ("the check of the rows", "data"),
        )  # fmt: skip
        return _from_json(json.loads(answer.read_text(encoding="utf-8")))


def _small(path: Path) -> bool:
    try:
        return path.suffix.lower() in _PLAIN and path.stat().st_size <= SMALL_BYTES
    except OSError:
        return True  # reading it says what is wrong with it


def _as_json(found: Checked) -> dict[str, Any]:
    told = {one.name: getattr(found, one.name) for one in fields(Checked)}
    return told | {"config": found.config.model_dump(mode="json")}


def _from_json(told: dict[str, Any]) -> Checked:
    said = {name: tuple(told[name]) for name in ("problems", "warnings")}
    return Checked(**{**told, **said, "config": OpenAIConfig.model_validate(told["config"])})


def main() -> int:
    """Be the child of `check`."""
    request, answer = map(Path, sys.argv[1:3])
    asked, settings = json.loads(request.read_text(encoding="utf-8")), read_settings()

    def work(_: Progress) -> Path:
        with reading_as_asked(settings, asked["roots"]):
            found = prepare(OpenAIConfig.model_validate(asked["config"]), settings, confined=True)
        answer.write_text(json.dumps(_as_json(found), ensure_ascii=False), encoding="utf-8")
        return answer

    return child_main(work)


if __name__ == "__main__":
    sys.exit(main())

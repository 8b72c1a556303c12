"""Every command of the README is run; those that would take minutes get an option that shortens them, named here."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from studio.jobs import JobFolder
from studio.settings import Settings
from tests.conftest import call_studio, run_studio

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
# They need nothing but a run.
QUICK = ("plan", "data", "models", "jobs", "doctor")
SHORTENED = {
    "train": ["--set", "training.max_steps=2", "--set", "data.validation=0"],
    "evaluate": ["--limit", "2"],
    "chat": ["--max-tokens", "8"],
}


def commands() -> list[str]:
    blocks = re.findall(r"^```\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
    return [line.split("  #")[0].strip() for block in blocks for line in block.splitlines() if line.strip()]


def studio_commands() -> list[list[str]]:
    return [rest for program, *rest in map(shlex.split, commands()) if program == "studio"]


def test_every_quick_command_works(short_run: JobFolder, session_home: Path) -> None:
    quick = [line for line in studio_commands() if line[0] in QUICK and "compare" not in line]
    assert [line[0] for line in quick] == ["plan", "data", "models", "jobs", "jobs", "doctor"]
    for line in quick:
        done = call_studio(*(short_run.id if word == "orders" else word for word in line), home=session_home)
        assert done.code == 0, f"{line}\n{done.stderr}"
        assert done.stdout.strip()


@pytest.mark.long
def test_every_studio_command_works(demo_result, session_home: Path, session_settings: Settings) -> None:
    ran = []
    for arguments in studio_commands():
        ran.append(arguments[0])
        if arguments == ["demo"]:
            assert demo_result["ok"], "the session's demo is this very command with --json"
            continue
        done = run_studio(*arguments, *SHORTENED.get(arguments[0], []), home=session_home)
        assert done.code == 0, f"{arguments}\n{done.stderr}"
        assert done.stdout.strip()
    assert ran == ["demo", "plan", "train", "evaluate", "export", "chat", "data", "models", *["jobs"] * 3, "doctor"]


def test_every_make_target_exists() -> None:
    targets = {line.split()[1] for line in commands() if line.startswith("make ")}
    targets |= set(re.findall(r"`(?:\w+=\S+ )?make (\w+)", README))
    assert targets >= {"run", "test", "install"}
    for target in targets:
        done = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_links_and_pictures_are_there() -> None:
    for page in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"

"""The audit of packages: a hole fails the check, no answer is told apart from it, an exception needs a reason."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.project import audit

HOLE = {"id": "PYSEC-2026-1", "aliases": ["CVE-2026-1"], "fix_versions": ["2.0"]}


def report(*packages: tuple[str, list[Any] | None]) -> dict[str, Any]:
    made: list[dict[str, Any]] = []
    for name, holes in packages:
        made.append(
            {"name": name, "skip_reason": "not found"}
            if holes is None
            else {"name": name, "version": "1.0", "vulns": holes}
        )
    return {"dependencies": made}


def run(text: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """Run it with a program that says `text` in the place of pip-audit."""
    code = audit.main([sys.executable, "-c", text])
    return code, capsys.readouterr().out


def test_a_hole_fails(capsys: pytest.CaptureFixture[str]) -> None:
    shown = report(("good", []), ("bad", [HOLE]), *((f"unknown{number}", None) for number in range(9)))
    code, said = run(f"import json, sys; print({json.dumps(shown)!r}); sys.exit(1)", capsys)
    assert code == 1 and "bad 1.0: PYSEC-2026-1 (mended in: 2.0)" in said


def test_no_hole_passes_and_says_of_how_many() -> None:
    code, said = audit.judge(report(("a", []), ("b", []), ("torch", None)), {})
    assert (code, said) == (0, ["audit: none of 2 packages has a known hole; 1 could not be asked about"])


@pytest.mark.parametrize(
    "shown", [report(), report(("a", None), ("b", None)), report(("a", []), ("b", None), ("c", None))]
)
def test_a_registry_that_knows_nothing_is_no_good_news(shown: dict[str, Any]) -> None:
    code, said = audit.judge(shown, {})
    assert code == 0 and said[0].startswith("audit: SKIPPED")


def test_no_network_is_told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    code, said = run("import sys; sys.exit('ERROR: Temporary failure in name resolution')", capsys)
    assert code == 0 and "SKIPPED" in said and "name resolution" in said
    monkeypatch.setattr(audit, "SECONDS", 0.5)
    code, said = run("import time; time.sleep(60)", capsys)
    assert code == 0 and "SKIPPED" in said and "no answer within" in said


def test_an_exception_has_a_reason(tmp_path: Path) -> None:
    listed = tmp_path / "ignore.txt"
    listed.write_text("# why\n\nCVE-2026-1 only on Windows\nGHSA-x the function is not used\n")
    ignored = audit.read_ignored(listed)
    assert ignored == {"CVE-2026-1": "only on Windows", "GHSA-x": "the function is not used"}
    code, said = audit.judge(report(("bad", [HOLE])), ignored)
    assert code == 0 and said[-1] == "audit: GHSA-x is ignored and not found any more"
    listed.write_text("CVE-2026-1\n")
    with pytest.raises(SystemExit, match="without a reason"):
        audit.read_ignored(listed)
    audit.read_ignored(audit.IGNORED)

"""`python -m tests.project.audit`: has an installed package a known hole? A part of `make check`.

pip-audit asks PyPI about what is installed here. A machine without a network, or one that reaches a registry which
knows the packages but not their holes, gets no answer: then this says so in a sentence and does not fail. pip-audit
itself calls that "no known vulnerabilities", so its answer is counted here, not taken.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

IGNORED = Path(__file__).with_name("audit-ignore.txt")
SECONDS = 60.0
# Below this share of answers nothing can be said. Builds with a local version (torch 2.9+cpu) are never known.
LEAST_SHARE = 0.5


def read_ignored(path: Path) -> dict[str, str]:
    """Return ID → reason of the list of holes that may pass.

    Raises:
        SystemExit: a line has no reason.
    """
    found = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            name, _, reason = line.strip().partition(" ")
            if not reason.strip():
                raise SystemExit(f"{path}, line {number}: {name} is ignored without a reason")
            found[name] = reason.strip()
    return found


def judge(report: dict[str, Any], ignored: dict[str, str]) -> tuple[int, list[str]]:
    """Return the exit code, and what is said, of pip-audit's report."""
    packages = report.get("dependencies", [])
    known = [package for package in packages if "skip_reason" not in package]
    holes, passed = [], set()
    for package in known:
        for hole in package.get("vulns", []):
            names = {hole["id"], *hole.get("aliases", [])}
            if names & ignored.keys():
                passed |= names & ignored.keys()
                continue
            fixes = ", ".join(hole.get("fix_versions", [])) or "none yet"
            holes.append(f"{package['name']} {package['version']}: {hole['id']} (mended in: {fixes})")
    if holes:
        advice = f"Take a newer version, or add the ID with a reason to {IGNORED.name}"
        return 1, [f"audit: {len(holes)} known holes. {advice}", *(f"  {hole}" for hole in holes)]
    if len(known) < LEAST_SHARE * len(packages) or not packages:
        return 0, skipped(f"only {len(known)} of {len(packages)} packages are known where it asks")
    said = [
        f"audit: none of {len(known)} packages has a known hole; {len(packages) - len(known)} could not be asked about"
    ]
    said += [f"audit: {name} is ignored and not found any more" for name in sorted(ignored.keys() - passed)]
    return 0, said


def skipped(why: str) -> list[str]:
    """What is said where there is no answer."""
    return [f"audit: SKIPPED, known holes of the packages could not be asked for ({why})"]


def main(command: list[str] | None = None) -> int:
    """Ask, say what came of it, and return the exit code: 1 for a hole, 0 otherwise."""
    ignored = read_ignored(IGNORED)
    asks = [sys.executable, "-m", "pip_audit", "--local", "--format", "json", "--progress-spinner", "off"]
    try:
        done = subprocess.run(
            command or [*asks, "--timeout", "10"], stdin=subprocess.DEVNULL, capture_output=True, text=True,
            timeout=SECONDS,
        )  # fmt: skip
        code, said = judge(json.loads(done.stdout), ignored)
    except subprocess.TimeoutExpired:
        code, said = 0, skipped(f"no answer within {SECONDS:.0f} s")
    except ValueError:  # it ended with an error of its network, and no report
        last = (done.stderr.strip().splitlines() or ["no report"])[-1]
        code, said = 0, skipped(last[:200])
    print("\n".join(said))
    return code


if __name__ == "__main__":
    sys.exit(main())

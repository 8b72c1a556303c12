"""What the kernel says of processes that it ended because memory was full."""

from __future__ import annotations

from pathlib import Path

CGROUPS = Path("/sys/fs/cgroup")
PROC = Path("/proc")


def oom_kills(proc: Path = PROC, cgroups: Path = CGROUPS) -> dict[str, int]:
    """Return how many processes were ended so far, by the file that counts: of this machine, and of this container.

    Only a difference means something: whoever asks keeps an earlier answer for `rose`.
    """
    places = [proc / "vmstat"]
    for line in _lines(proc / "self" / "cgroup"):
        _, controllers, path = (*line.split(":", 2), "", "")[:3]
        inside = path.strip("/")
        if not controllers:  # version 2: one tree for all
            places += [cgroups / inside / "memory.events", cgroups / "unified" / inside / "memory.events"]
        elif "memory" in controllers.split(","):
            places.append(cgroups / "memory" / inside / "memory.oom_control")
    return {str(place): int(words[1]) for place in places for line in _lines(place) if _counts(words := line.split())}


def rose(before: dict[str, int], now: dict[str, int]) -> bool | None:
    """Whether a process was ended since `before`; None where nobody counted both times. A restart begins at 0."""
    both = before.keys() & now.keys()
    return any(now[place] > before[place] for place in both) if both else None


def _counts(words: list[str]) -> bool:
    return len(words) == 2 and words[0] == "oom_kill" and words[1].isdigit()


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []

"""What was held to a limit, with what was measured and whether it holds; and the versions with which it was measured.

Pure but for the versions: an entry of the report goes in. The limits are those of `proof.gates` and `export.folder`.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from studio.export.readme import in_percent, matched, short_number

_PACKAGES = ("finetune-studio", "llama-cpp-python", "transformers", "peft", "torch")


@dataclass(frozen=True)
class Check:
    """One line of what a file was held to.

    Attributes:
        what: was measured.
        found: value, in words.
        limit: in words.
        kept: whether the limit holds; None where nothing depends on it.
    """

    what: str
    found: str
    limit: str
    kept: bool | None


def versions() -> dict[str, str]:
    """Versions of what an export is made and compared with, by package; those that are not installed are left out."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def checks(entry: dict[str, Any], trained: dict[str, Any] | None) -> list[Check]:
    """Return what a file was held to.

    Args:
        entry: its line of the report.
        trained: what the trained model's evaluation on the same rows found; None without one.
    """
    gate, kl, top1 = entry["gate"] or {}, entry["mean_kl"], entry["top1"]
    beyond = "" if gate.get("firm", True) else " (few bits: beyond it the file is called lossy)"
    compared, equal = entry["prompts_compared"], entry.get("prompts_equal")
    if equal is None:  # a report of an older version
        equal = compared if entry["prompt_ids_equal"] else 0
    limits = [
        Check(
            "Mean KL divergence, nats per token", short_number(kl), f"at most {gate['mean_kl']:g}{beyond}",
            kl is not None and kl <= gate["mean_kl"],
        ),
        Check(
            "Same next token", in_percent(top1), f"at least {100 * gate['top1']:g} %{beyond}",
            top1 is not None and top1 >= gate["top1"],
        ),
    ] if gate else []  # fmt: skip
    found = [
        *limits,
        Check(
            "Conversations read as the same tokens", f"{equal} of {compared}", "all", 0 < compared == equal,
        ),
        *_either("Chat template", entry.get("template_carried"), "identical", "differs"),
        *_either("The end of a turn ends the answer", entry.get("end_of_turn_stops"), "yes", "no"),
    ]  # fmt: skip
    if (greedy := entry.get("greedy")) is not None:
        broken = greedy["total"] - greedy["equal"] - greedy["unsure"]
        said = f"{greedy['equal']} of {greedy['total']} equal, {greedy['unsure']} part at a near-tie"
        limit = "none parts where the trained model was sure of its token"
        found.append(Check("Greedy answers", said, limit, not broken))
    if (moved := entry.get("moved")) is not None:
        said = f"{short_number(kl)} from the trained model, the base model {short_number(moved['mean_kl'])}"
        limit = f"below {moved['at_most']:.2g}"
        found.append(Check("The training is in it: mean KL", said, limit, kl is not None and kl < moved["at_most"]))
    if (match := entry.get("exact_match")) is not None:
        beside = f"; the trained model {matched(trained)}" if trained else ""
        kept = None if entry.get("task") is None else entry["task"] == "kept"
        limit = "at most 3 points below the trained model, noted only" if trained else "none: told only"
        found.append(Check("Rows answered exactly as expected", matched(match) + beside, limit, kept))
    return found


def _either(what: str, value: bool | None, good: str, bad: str) -> list[Check]:
    """A check that holds or not; none where it was not made."""
    return [] if value is None else [Check(what, good if value else bad, good, value)]

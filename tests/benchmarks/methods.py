"""What each method learns of its demo, and how much memory it took beside the plan."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from studio.jobs import JobFolder, read_events
from tests.conftest import run_studio

# method: (number that is watched, at least this much at the end; for rewards: this much more than at the start)
WATCHED = {
    "dpo": ("eval_rewards/accuracies", 0.9),
    "orpo": ("eval_rewards/accuracies", 0.9),
    "simpo": ("eval_rewards/accuracies", 0.9),
    "kto": ("eval_rewards/accuracies", 0.9),
    "reward": ("eval_accuracy", 0.9),
    "ppo": ("reward", 0.3),
    "grpo": ("reward", 0.3),
}
RISES = ("ppo", "grpo")
SEEDS = {method: (42, 43, 44) if method in RISES else (42,) for method in WATCHED}
KL = {"ppo": "objective/kl", "grpo": "kl"}
ENDS = 5


@dataclass(frozen=True)
class Learned:
    """One run.

    Attributes:
        first, last: the watched number in the first and last reports (of a reward, the mean of five).
        reached: what is compared with the goal.
        kl: from the start, an answer (ppo) or a token (grpo) of the last reports; None for other methods.
        planned, measured: peak memory in bytes.
        seconds: of the run.
    """

    first: float
    last: float
    reached: float
    kl: float | None
    planned: int
    measured: int
    seconds: float


def learn(method: str, home: Path, seed: int) -> Learned:
    """Train a method's demo and read what it reported."""
    done = run_studio(
        "train", f"demo/{method}", "--name", f"bench-{method}-{seed}", "--set", f"training.seed={seed}", "--json",
        home=home, seconds=3600,
    )  # fmt: skip
    assert done.code == 0, done.stderr
    job = JobFolder(Path(done.json["path"]))
    values = reported(job, WATCHED[method][0])
    kl = reported(job, KL[method])[-ENDS:] if method in KL else []
    many = ENDS if method in RISES else 1
    first, last = mean(values[:many]), mean(values[-many:])
    environment = job.environment()
    return Learned(
        first=first,
        last=last,
        reached=last - first if method in RISES else last,
        kl=mean(kl) if kl else None,
        planned=environment["plan"]["total_bytes"],
        measured=environment["peak_memory_bytes"],
        seconds=done.json["seconds"],
    )


def reported(job: JobFolder, name: str) -> list[float]:
    """A number as the job's events tell it, in the order of the steps."""
    offset, following, values = -1, 0, []
    while following != offset:
        offset = following
        events, following = read_events(job.events_path, offset)
        values += [event["values"][name] for event in events if event["kind"] == "metric" and name in event["values"]]
    return values

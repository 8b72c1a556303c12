"""How a run goes to another machine: what `studio launch` is told beside the run itself."""

from __future__ import annotations

import re
from typing import Literal

from pydantic import field_validator

from studio.option import Options, option

# Options that nobody types.
FILLED_IN = ("to", "machine")
SLURM, SKYPILOT, TORCHRUN = "slurm", "skypilot", "torchrun"
_TIME = re.compile(r"(?:\d{1,3}-)?\d{1,3}:[0-5]\d:[0-5]\d")
# What stands in a line of the script as it is.
_WORD = re.compile(r"[A-Za-z0-9_.,:@+-]*")


class SshConfig(Options):
    """A run on a machine that is reached by ssh."""

    to: str = option(
        ..., "Address of the machine, as ssh://[user@]host[:port][/folder].", title="Machine", min_length=1
    )
    machine: str = option("", "The machine as lists name it; the studio fills it in.", title="Shown as")
    python: str | None = option(
        None,
        "A Python there that has this version of the studio; nothing is installed then. Empty: the studio installs "
        "itself in an environment of its own.",
        title="Python there", min_length=1,
    )  # fmt: skip
    checkpoints: Literal["all", "last", "none"] = option(
        "all",
        "Which checkpoints come back while it runs: all, the last one, or none. The run resumes there in any case; to "
        "branch from a checkpoint here, it must have come back.",
        title="Checkpoints",
    )  # fmt: skip
    poll: float = option(
        3.0, "How often the machine is asked what is new.", title="Interval", unit="seconds", ge=0.2, le=600
    )  # fmt: skip


class SlurmConfig(Options):
    """A run on a cluster with Slurm, from one of its login nodes."""

    to: str = option(SLURM, "slurm.", title="Place")
    machine: str = option("", "The place as lists name it; the studio fills it in.", title="Shown as")
    partition: str = option("", "Partition to run in; empty for the cluster's default.", title="Partition")
    account: str = option("", "Account that is charged; empty for your default.", title="Account")
    qos: str = option("", "Quality of service; empty for the cluster's default.", title="Quality of service")
    gpus: int = option(
        1, "GPUs on each node; 0 trains on the processor.", title="GPUs", unit="GPUs", ge=0, le=16
    )  # fmt: skip
    cpus: int = option(4, "Cores for each task.", title="Cores", unit="cores", ge=1, le=1024)
    memory: float | None = option(
        None, "Memory on each node; empty for the cluster's default.", title="Memory", unit="GB", ge=1, le=100_000
    )  # fmt: skip
    tasks: int = option(
        1, "Tasks on each node, each of which is one of training.nodes machines. More than one: without GPUs only.",
        title="Tasks on a node", unit="tasks", ge=1, le=64,
    )  # fmt: skip
    wait: float = option(
        600.0, "So long tasks wait for each other when a run of several nodes starts.", title="Time to meet",
        unit="seconds", ge=10, le=86_400,
    )  # fmt: skip
    time: str = option(
        "24:00:00",
        "Time limit, as hours:minutes:seconds or days-hours:minutes:seconds. Before it ends the run is stopped and "
        "saved, so that it can be resumed.",
        title="Time limit",
    )  # fmt: skip
    save_seconds: int = option(
        180, "So long before the time limit the run is told to finish its step and save.", title="Time to save",
        unit="seconds", ge=10, le=7200,
    )  # fmt: skip
    requeue: bool = option(
        True, "A preempted job waits again, and the run resumes from its last checkpoint.", title="Requeue"
    )  # fmt: skip
    container: str = option(
        "", "Image for srun's --container-image (Pyxis), which must have the studio; empty for none.", title="Container"
    )  # fmt: skip
    python: str = option(
        "", "Python on the node that has the studio; empty for the one that runs this command.", title="Python"
    )  # fmt: skip
    poll: float = option(5.0, "How often the run is looked at.", title="Interval", unit="seconds", ge=0.2, le=600)

    @field_validator("time")
    @classmethod
    def _a_time(cls, value: str) -> str:
        if not _TIME.fullmatch(value):
            raise ValueError("a time such as 8:00:00 or 2-12:00:00 is needed")
        return value

    @field_validator("partition", "account", "qos")
    @classmethod
    def _a_word(cls, value: str) -> str:
        if not _WORD.fullmatch(value):
            raise ValueError("only letters, digits and . , : @ + _ - are possible")
        return value

    @field_validator("container", "python")
    @classmethod
    def _one_line(cls, value: str) -> str:
        if any(ord(letter) < 32 for letter in value):
            raise ValueError("one line is needed")
        return value


class TorchrunConfig(Options):
    """A run on several machines that you start yourself, and that share STUDIO_HOME; this is the first of them."""

    to: str = option(TORCHRUN, "torchrun.", title="Place")
    host: str = option(
        ..., "Address of this machine at which the others reach it, such as 10.0.0.1.", title="Address", min_length=1
    )
    port: int = option(0, "Port at which they meet; 0 takes a free one.", title="Port", ge=0, le=65_535)
    wait: float = option(
        600.0, "So long the machines wait for each other.", title="Time to meet", unit="seconds", ge=1, le=86_400
    )  # fmt: skip

    @field_validator("host")
    @classmethod
    def _a_host(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9_.:%-]+", value):
            raise ValueError("a name or an address such as 10.0.0.1 is needed")
        return value


class SkyConfig(Options):
    """A run on a rented machine, by SkyPilot."""

    to: str = option(SKYPILOT, "skypilot.", title="Place")
    infra: str = option(
        "", "Cloud, region or cluster, such as aws, gcp/us-central1 or k8s; empty for the cheapest that you have.",
        title="Infrastructure",
    )  # fmt: skip
    gpu: str = option(
        "", "GPU by SkyPilot's name, such as H100; empty for the smallest that the memory plan fits on.", title="GPU"
    )  # fmt: skip
    spot: bool = option(
        False, "A spot machine, which is cheaper and may vanish: the run resumes on the next one. Needs a bucket.",
        title="Spot machine",
    )  # fmt: skip
    bucket: str = option(
        "", "Bucket for the job's folder, such as s3://name or gs://name; empty for the machine's disk.",
        title="Bucket",
    )  # fmt: skip
    disk: int = option(256, "Disk of the machine.", title="Disk", unit="GB", ge=50, le=16_000)

    @field_validator("infra", "gpu")
    @classmethod
    def _a_name(cls, value: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9_./*-]*", value):
            raise ValueError("only letters, digits and _ . / * - are possible")
        return value

    @field_validator("bucket")
    @classmethod
    def _a_bucket(cls, value: str) -> str:
        if value and not re.fullmatch(r"[a-z0-9]+://[A-Za-z0-9._/-]+", value):
            raise ValueError("an address such as s3://name is needed")
        return value.rstrip("/")

"""Starts the ranks of a run by torch's elastic launcher, watches them, and says how they ended.

This is the job's own process, which computes nothing then. Every rank ends with it, whatever happens: the launcher ends
them, each watches its launcher, and the supervisor looks for what carries the job's mark.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

from studio.errors import StoppedError, StudioError
from studio.jobs.run.worker import JobContext
from studio.models.device.machine import cores
from studio.processes import child_environment, module_command
from studio.train.ranks.ends import FOLDER, verdict
from studio.train.ranks.hanging import Watch

LOOPBACK = "127.0.0.1"
# A rank that does not end when asked is killed after so many seconds.
SHUTDOWN_SECONDS = 3


def run_ranks(context: JobContext, count: int) -> None:
    """Run a training on `count` ranks and wait for its end.

    Raises:
        StoppedError: it was stopped on request.
        StudioError: it failed; the sentence names the rank where one is to blame.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    folder = context.job.path / FOLDER
    folder.mkdir(exist_ok=True)
    for old in folder.glob("rank-*.json"):
        old.unlink()
    context.log(f"starting {count} ranks; their logs are log.txt and {FOLDER}/rank-1.log and so on")
    meeting = Path(tempfile.mkdtemp(prefix="studio-ranks-"))
    command = module_command("studio.train.ranks", str(context.job.path), str(meeting / "store"))
    codes: dict[int, int] = {}
    watch = Watch(context.job.path, count)
    others = set(psutil.Process().children())
    try:
        with context.lend_events(), _environment(count), watch:
            config = LaunchConfig(
                min_nodes=1, max_nodes=1, nproc_per_node=count, run_id=context.job.id, max_restarts=0,
                rdzv_backend="c10d", rdzv_endpoint=f"{LOOPBACK}:0", local_addr=LOOPBACK, monitor_interval=0.1,
                shutdown_timeout=SHUTDOWN_SECONDS,
            )  # fmt: skip
            try:
                elastic_launch(config, command[0])(*command[1:])
            except ChildFailedError as error:
                codes = {rank: failure.exitcode for rank, failure in error.failures.items()}
            except SignalException as error:
                raise StoppedError("it was stopped before it could save its last step") from error
            finally:
                end_children(but=others)
    finally:
        shutil.rmtree(meeting, ignore_errors=True)
    found: StudioError | None = watch.found or verdict(context.job.path, count, codes)
    if found is not None:
        raise found


@contextlib.contextmanager
def _environment(count: int) -> Iterator[None]:
    """What ranks find in their environment: their share of the cores, an interface that no other machine reaches."""
    wanted = {
        **child_environment(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(max(1, cores() // count)),
        "TOKENIZERS_PARALLELISM": "false",
    }
    loopback = [name for name, found in psutil.net_if_addrs().items() if any(one.address == LOOPBACK for one in found)]
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        if loopback and name not in os.environ:
            wanted[name] = loopback[0]
    before = dict(os.environ)
    os.environ.update(wanted)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def end_children(but: set[psutil.Process]) -> None:
    """End every process that this one has begun but some, and what they began; ranks lead sessions of their own."""
    found = [child for child in psutil.Process().children() if child not in but]
    for child in tuple(found):
        with contextlib.suppress(psutil.Error):
            found += child.children(recursive=True)
    for child in found:
        with contextlib.suppress(psutil.Error):
            child.kill()
    psutil.wait_procs(found, timeout=5)

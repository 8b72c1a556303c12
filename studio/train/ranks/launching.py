"""Starts the ranks of a run by torch's elastic launcher, watches them, and says how they ended.

This is the job's own process, which computes nothing then. Every rank ends with it, whatever happens: the launcher ends
them, each watches its launcher, and the supervisor looks for what carries the job's mark. In a run of several machines
this is the first one's launcher; the others are `joining`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

from studio.errors import StoppedError, StudioError
from studio.jobs.run.worker import JobContext
from studio.models.device.machine import cores
from studio.processes import child_environment, module_command
from studio.train.ranks.ends import FOLDER, RankError, verdict
from studio.train.ranks.hanging import Watch
from studio.train.ranks.machines import LOOPBACK, interface_towards

# A rank that does not end when asked is killed after so many seconds.
SHUTDOWN_SECONDS = 3


def run_ranks(context: JobContext, count: int, nodes: int = 1) -> None:
    """Run a training on several ranks and wait for its end.

    Args:
        context: of the job.
        count: ranks on each machine.
        nodes: machines.

    Raises:
        StoppedError: it was stopped on request.
        StudioError: it failed; the sentence names the rank or the machine where one is to blame.
    """
    folder = context.job.path / FOLDER
    folder.mkdir(exist_ok=True)
    for old in (*folder.glob("rank-*.json"), *folder.glob("machine-*.log")):
        old.unlink()
    if nodes > 1:
        return _run_first(context, count, nodes)
    context.log(f"starting {count} ranks; their logs are log.txt and {FOLDER}/rank-1.log and so on")
    meeting = Path(tempfile.mkdtemp(prefix="studio-ranks-"))
    watch = Watch(context.job.path, count)
    try:
        with context.lend_events(), environment(count, LOOPBACK), watch:
            codes = launch(
                context.job.path, count, f"file://{meeting / 'store'}", max_nodes=1, run_id=context.job.id,
                rdzv_backend="c10d", rdzv_endpoint=f"{LOOPBACK}:0", local_addr=LOOPBACK,
            )  # fmt: skip
    finally:
        shutil.rmtree(meeting, ignore_errors=True)
    found: StudioError | None = watch.found or verdict(context.job.path, count, codes)
    if found is not None:
        raise found


def _run_first(context: JobContext, count: int, nodes: int) -> None:
    """Be the first machine of several."""
    from torch.distributed import DistError

    from studio.config import RunConfig
    from studio.config.load import build
    from studio.jobs.run.devices import require_devices
    from studio.train.ranks.bond import Bond
    from studio.train.ranks.meeting import called

    job = context.job.path
    training = build(RunConfig, context.config, "job.yaml").training
    require_devices(training, context.settings, one_of_several=True)
    with called(context, nodes) as meeting:
        context.log(f"starting {count} ranks on each of {nodes} machines; their logs are log.txt and in {FOLDER}")
        bond = Bond(meeting)
        watch = Watch(job, count, bond)
        codes: dict[int, int] = {}
        with context.lend_events(), environment(count, meeting.host), watch, bond:
            try:
                codes = launch(job, count, "env://", **where(meeting))
            except DistError as error:  # a machine went away before its ranks began
                raise RankError(f"the machines lost contact with each other ({error})", fix="Start it again") from error
        lost = bond.gather(job, count * nodes)
        codes = {rank: code for rank, code in codes.items() if rank not in bond.ended}
        found: StudioError | None = watch.found or lost or verdict(job, count * nodes, codes)
        if found is None and bond.ended:
            found = RankError(
                "ranks on other machines ended without an explanation", fix="Look at the logs of the ranks"
            )
        if found is not None:
            raise found


def where(meeting: Any) -> dict[str, Any]:
    """What torch's launcher is told of a meeting of several machines."""
    return {
        "max_nodes": meeting.nodes, "run_id": meeting.name, "rdzv_backend": meeting.register(),
        "rdzv_endpoint": f"{meeting.host}:{meeting.port}", "local_addr": meeting.host,
    }  # fmt: skip


def launch(job: Path, count: int, store: str, *, max_nodes: int, **more: Any) -> dict[int, int]:
    """Run this machine's ranks by torch's launcher, and wait until they are over.

    Args:
        job: the job's folder.
        count: ranks here.
        store: where all ranks meet, as torch's `init_method`.
        max_nodes: machines.
        more: of torch's `LaunchConfig`: where the launchers meet.

    Returns:
        exit status of the ranks here that failed, negative for a signal.

    Raises:
        StoppedError: this process was told to end.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    command = module_command("studio.train.ranks", str(job), store)
    others = set(psutil.Process().children())
    config = LaunchConfig(
        min_nodes=max_nodes, max_nodes=max_nodes, nproc_per_node=count, max_restarts=0, monitor_interval=0.1,
        shutdown_timeout=SHUTDOWN_SECONDS, **more,
    )  # fmt: skip
    try:
        elastic_launch(config, command[0])(*command[1:])
    except ChildFailedError as error:
        return {rank: failure.exitcode for rank, failure in error.failures.items()}
    except SignalException as error:
        raise StoppedError("it was stopped before it could save its last step") from error
    finally:
        end_children(but=others)
    return {}


@contextlib.contextmanager
def environment(count: int, host: str) -> Iterator[None]:
    """What ranks find in their environment: their share of the cores, and by which interface they reach each other.

    Args:
        count: ranks on this machine.
        host: address of the first machine; the loopback's where there is no other, which no other machine reaches.
    """
    wanted = {
        **child_environment(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(max(1, cores() // count)),
        "TOKENIZERS_PARALLELISM": "false",
    }
    interface = interface_towards(host)
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        if interface and name not in os.environ:
            wanted[name] = interface
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

"""A cluster of one node with Slurm's own daemons, in a folder of its own and on free ports."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.ports import free_port

_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
DAEMONS = [shutil.which(name, path=_PATH) for name in ("slurmctld", "slurmd")]
needs_slurm = pytest.mark.skipif(
    None in DAEMONS or shutil.which("sbatch") is None or os.geteuid() != 0,
    reason="Slurm's daemons are missing or may not be started: as root, apt-get install slurmctld slurmd slurm-client",
)
# Jobs of `low` make room for those of `high`; what was put back in line starts again soon.
_CONFIG = """\
ClusterName=studio
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/none
AuthInfo=cred_expire=5
CredType=cred/none
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmdParameters=config_overrides
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=low Nodes={host} Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE
PartitionName=high Nodes={host} MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""


class Slurm:
    """The cluster.

    Args:
        folder: is made; it holds everything of the daemons.
    """

    def __init__(self, folder: Path) -> None:
        for name in ("state", "spool"):
            (folder / name).mkdir(parents=True)
        self.config = folder / "slurm.conf"
        ports = (free_port(), free_port())
        self.config.write_text(_CONFIG.format(host=socket.gethostname().partition(".")[0], ports=ports, folder=folder))
        self._environment = {**os.environ, "SLURM_CONF": str(self.config)}
        self._processes = []
        for daemon in DAEMONS:
            assert daemon is not None
            with (folder / "daemons.log").open("ab") as log:
                command = [daemon, "-D", "-f", str(self.config)]
                process = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=self._environment
                )
                self._processes.append(process)
        end = time.monotonic() + 30
        while "idle" not in self.call("sinfo", "--noheader", "--format", "%T"):
            assert time.monotonic() < end, (folder / "slurmctld.log").read_text()[-2000:]
            time.sleep(0.2)

    def call(self, *command: str) -> str:
        """Run one of Slurm's programs and return what it prints."""
        done = subprocess.run(command, capture_output=True, text=True, env=self._environment, timeout=60)
        return done.stdout

    def close(self) -> None:
        """End jobs and daemons."""
        self.call("scancel", "--user", "root")
        end = time.monotonic() + 20
        while self.call("squeue", "--noheader").strip() and time.monotonic() < end:
            time.sleep(0.2)
        for process in reversed(self._processes):
            process.terminate()
            process.wait(timeout=30)

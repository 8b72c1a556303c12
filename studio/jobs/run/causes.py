"""What logs of dead processes say, and what a person can do about it: one table, the most particular rows first.

The words are those of Python, torch, CUDA, the Hub and the kernel; tests/jobs/run/test_causes.py has a real log for
each row. `{0}` is what the pattern's first group found.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass

LESS_MEMORY = "Lower training.micro_batch_size or data.max_length, or set training.activation_checkpointing to true"
_DISK = "Free some space, or point STUDIO_HOME to another disk, and start again"
_DOCTOR = "'studio doctor' shows how to install it"
_GPU = (
    "Resume it from its last checkpoint; if it happens again, set model.attention to sdpa and training.engine to "
    "studio, update the driver, and check the GPU with nvidia-smi"
)


@dataclass(frozen=True)
class Cause:
    """A row of the table.

    Attributes:
        name: of the row, for tests and docs.
        pattern: regular expression, searched in the end of the log; several lines are one text.
        reason: one sentence without its full stop.
        fix: what to do.
        memory: whether less memory is the cure, so that the plan's breakdown belongs to it.
    """

    name: str
    pattern: str
    reason: str
    fix: str
    memory: bool = False


CAUSES: tuple[Cause, ...] = (
    Cause("gpu memory", r"CUDA out of memory|torch\.(?:cuda\.)?OutOfMemoryError|CU\w+_STATUS_ALLOC_FAILED",
          "the GPU's memory was full", LESS_MEMORY, memory=True),
    Cause("memory", r"\bMemoryError\b|DefaultCPUAllocator|std::bad_alloc|_ArrayMemoryError|"
          r"Cannot allocate memory|could not create a (?:primitive|memory)|Unable to allocate [\d.]+ \wiB",
          "the computer's memory was full", LESS_MEMORY, memory=True),
    Cause("disk", r"No space left on device|Errno 28\b|os error 28\b",
          "the disk was full", _DISK),
    Cause("quota", r"Disk quota exceeded|Errno 122\b",
          "your disk quota was used up", _DISK),
    Cause("half a file", r"inline_container\.cc:\d+\] \. (?:unexpected pos|PytorchStreamWriter failed)",
          "a file could not be written completely, most often because the disk was full", _DISK),
    Cause("gpu assert", r"device-side assert triggered",
          "a device-side assert failed on the GPU",
          "Most often a token id is outside the model's vocabulary: use the model's own tokenizer. With "
          "CUDA_LAUNCH_BLOCKING=1 in the environment, the log shows where"),
    Cause("gpu fault", r"CUDA error: (an illegal memory access was encountered|misaligned address|unspecified launch "
          r"failure|uncorrectable ECC error encountered|an illegal instruction was encountered)",
          "the GPU failed: {0}", _GPU),
    Cause("gpu driver", r"(?:NVIDIA driver on your system is too old|CUDA driver version is insufficient)",
          "the NVIDIA driver is older than torch needs",
          "Update the driver, or install torch for its CUDA version"),
    Cause("no gpu", r"Found no NVIDIA driver|Torch not compiled with CUDA|no CUDA-capable device is detected|"
          r"No CUDA GPUs are available",
          "there is no NVIDIA GPU that torch can use",
          "Check that nvidia-smi lists one and that torch is a CUDA build: 'studio doctor' shows both"),
    Cause("gpu kind", r"no kernel image is available for execution",
          "torch was not built for this kind of GPU", "Install a torch build for it: 'studio doctor' shows the GPU"),
    Cause("package", r"ModuleNotFoundError: No module named '([^']+)'",
          "the Python package '{0}' is missing", _DOCTOR),
    Cause("versions", r"ImportError: cannot import name '[^']+' from '(\w+)",
          "the installed version of '{0}' is not compatible with the studio",
          "Install the versions of constraints.txt: make install"),
    Cause("library", r"(?:OSError|ImportError): (\S+\.so[.\d]*): cannot open shared object file",
          "the library {0} is missing on this computer",
          "Install the package that provides it (libcudart, libcublas and libcudnn come with torch's CUDA build)"),
    Cause("library version", r"version `?(\w+_[\d.]+)'? not found|undefined symbol: (\w+)",
          "a compiled library is incompatible with this system ({0})", "Install the versions of constraints.txt: make "
          "install"),
    Cause("gated", r"GatedRepoError[^\n]*[\s\S]*?for url:? \S+?://[^/]+/(?:api/models/|datasets/)?([^/\s]+/[^/\s]+)|"
          r"Access to model (\S+) is restricted|You are trying to access a gated repo",
          "{0} is gated on the Hub",
          "Accept its terms on its page, then log in: hf auth login"),
    Cause("revision", r"RevisionNotFoundError[\s\S]*?for url: \S+?://[^/]+/(?:datasets/)?([^/\s]+/[^/\s]+)",
          "the Hub has {0}, but not this revision of it", "Check model.revision"),
    Cause("missing file", r"(?:EntryNotFoundError: 404|Entry Not Found for url)[\s\S]*?/resolve/[^/]+/(\S+?)\.?\n",
          "the Hub has no file {0} there", "Choose another model.path: this one is incomplete"),
    Cause("not found", r"RepositoryNotFoundError[\s\S]*?for url: \S+?://[^/]+/(?:api/models/|datasets/)?([^/\s]+/[^/\s]+)|"
          r"OSError: (\S+) is not a local folder and is not a valid model identifier",
          "the Hub has no {0}, or hides it from you",
          "Check the name in model.path or data.train; for a private one, log in: hf auth login"),
    Cause("no access", r"40[13] Client Error[^\n]*\n?[^\n]*for url:? (\S+)",
          "the Hub refused {0}", "Log in (hf auth login) with a token that has access to it"),
    Cause("no network", r"LocalEntryNotFoundError|We couldn't connect to '|Temporary failure in name resolution|"
          r"Max retries exceeded|Name or service not known|Network is unreachable",
          "the network did not respond",
          "Check the connection, or choose a local model and local data"),
    Cause("broken model file", r"SafetensorError: Error while deserializing header: (.+)",
          "a model file is corrupted ({0})",
          "Download the model again: remove its folder under the studio's models and start again"),
    Cause("other model", r"size mismatch for (\S+):",
          "the weights do not match the model: {0} has a different size",
          "The adapter or checkpoint was trained with another model.path: choose that one"),
    Cause("bad json", r"JSONDecodeError: (.+)", "a file is not valid JSON ({0})",
          "Fix the data there: the Data tab shows file and row"),
    Cause("bad text", r"UnicodeDecodeError: '(\S+)' codec can't decode byte \w+ in position (\d+)",
          "a file is not {0} text", "Save the data as UTF-8"),
    Cause("bad table", r"ArrowInvalid: (.+)", "a table cannot be read ({0})",
          "Write the file again, or choose another in data.train"),
    Cause("token id", r"IndexError: index out of range in self",
          "a token id is outside the model's vocabulary",
          "Use the model's own tokenizer; an added token needs a resized embedding"),
    Cause("shared memory", r"DataLoader worker \(pid\D*\d+\) is killed by signal: Bus error|unable to open shared mem",
          "shared memory was full", "Give the container more: docker run --shm-size=8g"),
    Cause("open files", r"Errno 24\b|Too many open files",
          "too many files were open", "Raise the limit before the start: ulimit -n 65536"),
    Cause("threads", r"can't start new thread|Resource temporarily unavailable",
          "the system ran out of threads or processes", "Close other programs, or raise the limit: ulimit -u"),
    Cause("read-only", r"Errno 30\b|Read-only file system", "the disk is read-only",
          "Point STUDIO_HOME to a writable disk"),
    Cause("permission", r"PermissionError: .*?'([^']+)'", "'{0}' cannot be written or read", "Check who owns it"),
)  # fmt: skip

# What a signal says where the log says nothing.
SIGNALS: dict[int, tuple[str, str]] = {
    signal.SIGSEGV: (
        "a compiled library crashed (SIGSEGV, segmentation fault)",
        "Set training.engine to studio and model.attention to sdpa, and install the versions of constraints.txt; the "
        "log shows the Python line where it happened",
    ),
    signal.SIGBUS: (
        "a memory-mapped file could not be read (SIGBUS): the file was truncated or the disk is full",
        "Free some space, make sure that nothing changes the model files, and start again",
    ),
    signal.SIGILL: (
        "a library uses an instruction that this CPU does not support (SIGILL)",
        "Install builds for this CPU: torch from PyPI, llama-cpp-python compiled here (make install)",
    ),
    signal.SIGFPE: ("a compiled library divided by zero (SIGFPE)", "The log shows what it did last"),
    signal.SIGABRT: ("a compiled library aborted (SIGABRT)", "The log shows what it said last"),
    signal.SIGTERM: (
        "the process was asked to end (SIGTERM), by a shutdown or a job scheduler",
        "Resume it from its last checkpoint",
    ),
    signal.SIGHUP: ("its terminal was closed (SIGHUP)", "Resume it from its last checkpoint"),
    signal.SIGINT: ("it was interrupted (SIGINT)", "Resume it from its last checkpoint"),
    signal.SIGXCPU: (
        "it exceeded its CPU time limit (SIGXCPU)",
        "Raise the limit before the start: ulimit -t",
    ),
}
# These say more than the log: a message before them is seldom the cause.
CERTAIN_SIGNALS = (signal.SIGSEGV, signal.SIGILL, signal.SIGFPE)

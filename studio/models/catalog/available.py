"""What some choices need that a machine may lack: attention kernels and the Unsloth engine.

One table: by it a check refuses, the page greys, `auto` chooses and `studio doctor` tells. It looks only whether a
package is there and what the GPU is; nothing is imported.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec

from packaging.requirements import Requirement

from studio.models.device.machine import DeviceInfo

Capability = tuple[int, int]
ATTENTION, ENGINE = "model.attention", "training.engine"


@dataclass(frozen=True)
class Need:
    """What a choice needs.

    Attributes:
        module: that must be importable, "" for none beside torch.
        install: the line that installs it.
        oldest, newest: CUDA compute capability of the GPU, both included; None for no limit.
        half: whether it computes in 16 bits only.
    """

    module: str
    install: str
    oldest: Capability
    newest: Capability | None = None
    half: bool = False


# Compute capability: 7.0 Volta, 8.0 Ampere, 9.0 Hopper. FlashAttention 2 is made for Ampere and later, 3 for Hopper
# (their READMEs); flex attention is compiled by Triton, and its backward pass does not exist for CPUs (torch 2.13).
NEEDS: dict[tuple[str, str], Need] = {
    (ATTENTION, "flash_attention_3"): Need(
        "flash_attn_interface", f"{sys.executable} -m pip install flash-attn-3", (9, 0), (9, 99), half=True
    ),
    (ATTENTION, "flash_attention_2"): Need(
        "flash_attn", f"{sys.executable} -m pip install flash-attn --no-build-isolation", (8, 0), half=True
    ),
    (ATTENTION, "flex_attention"): Need("", "", (7, 0)),
    (ENGINE, "unsloth"): Need("unsloth", f"{sys.executable} -m pip install --no-deps unsloth unsloth_zoo", (7, 0)),
}


@dataclass(frozen=True)
class Lack:
    """Why a choice cannot be taken here, and what to do."""

    what: str
    fix: str

    @property
    def sentence(self) -> str:
        """Both, for a page."""
        return f"{self.what[:1].upper()}{self.what[1:]}. {self.fix}."


def lack(path: str, word: str, device: DeviceInfo) -> Lack | None:
    """Say what a choice lacks on this machine; None if it can be taken.

    Args:
        path: dotted name of the option.
        word: the choice.
        device: before the first measurement a GPU is not known, and nothing is claimed of it.
    """
    need = NEEDS.get((path, word))
    if need is None:
        return None
    others = "Leave it at auto" if path == ATTENTION else "Leave it at studio"
    if device.lacks_gpu:
        return Lack("it needs an NVIDIA GPU", f"{others}; with a GPU: {need.install}" if need.install else others)
    if need.module and find_spec(need.module) is None:
        return Lack(f"it needs the package {need.module}", f"Install it ({need.install}), or {_lower(others)}")
    if device.kind == "cuda" and not need.oldest <= device.capability <= (need.newest or device.capability):
        wanted = f"{_dotted(need.oldest)}" + (f" to {_dotted(need.newest)}" if need.newest else " or later")
        have = _dotted(device.capability)
        return Lack(f"it needs a GPU of compute capability {wanted}, and {device.name} has {have}", others)
    return None


def best_attention(device: DeviceInfo, half: bool) -> str:
    """Return the fastest attention that this machine has; "auto" leaves it to transformers, which takes sdpa.

    Args:
        device: the machine.
        half: whether products are computed in 16 bits.
    """
    for (path, word), need in NEEDS.items():
        if path == ATTENTION and need.half and half and device.kind == "cuda" and lack(path, word, device) is None:
            return word
    return "auto"


def disagreements(package: str) -> list[str]:
    """Return what an installed package asks of others and does not get, such as "transformers 5.23.0, asks <=5.17"."""
    try:
        asked = [Requirement(text) for text in requires(package) or []]
    except PackageNotFoundError:
        return []
    found = []
    for one in asked:
        if one.marker is not None and not one.marker.evaluate({"extra": ""}):
            continue
        try:
            have = version(one.name)
        except PackageNotFoundError:
            found.append(f"{one.name} is missing")
            continue
        if not one.specifier.contains(have, prereleases=True):
            found.append(f"{one.name} {have}, needs {one.specifier}")
    return found


def _dotted(capability: Capability) -> str:
    return ".".join(map(str, capability))


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:]

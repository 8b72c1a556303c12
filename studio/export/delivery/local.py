"""A folder or a zip file where the person wants it: written beside its place under a name of ours, then renamed.

So what has the final name is whole. Nothing that is there already is touched: a folder must be empty or not there, a
zip file not there.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studio import reach
from studio.errors import InputError, StudioError
from studio.export.delivery.delivery import Delivery
from studio.export.files import HASH_BLOCK, require_space
from studio.foreign import as_path
from studio.jobs.run.worker import Phase
from studio.models.catalog.names import require_path
from studio.settings import Settings

if TYPE_CHECKING:
    from studio.export.making import Making

ZIP = ".zip"
WHERE = "path"
ELSEWHERE = "Free some space, or give a folder on a larger disk"


def free_place(text: str, settings: Settings) -> Path:
    """Return where something new may be written.

    Args:
        text: of a folder, or of a zip file by its ending.
        settings: of the home.

    Raises:
        InputError: something is there already, or it must not lie there.
    """
    path = Path(os.path.normpath(as_path(require_path(text, WHERE)).absolute()))
    asking = reach.page()
    if asking is not None and reach.allowed(path, asking) is None:
        raise InputError(
            f"the page may not write to '{path!s:.200}', which is outside the studio's folders", where=WHERE,
            fix=f"Give a folder below {settings.home}, or start the studio with its parent in STUDIO_ROOTS",
        )  # fmt: skip
    if path.resolve().is_relative_to(settings.jobs.resolve()):
        raise InputError(
            "the studio keeps its own jobs there", where=WHERE, fix="Give another folder, such as ~/exports/demo"
        )
    _require_free(path)
    above = _above(path)
    if not above.is_dir():
        raise InputError(f"{above} is a file", where=WHERE, fix="Give a folder")
    if not os.access(above, os.W_OK | os.X_OK):
        raise InputError(f"you may not write to {above}", where=WHERE, fix="Give a folder of your own")
    return path


class LocalDelivery(Delivery):
    """Into a folder, or into a zip file."""

    phase = "copying"

    def prepare(self, report: dict[str, Any], size: int) -> None:
        """Refuse a place that is taken, or has no room.

        Args:
            report: of the export so far.
            size: bytes that will be made; 0 where they are there already.
        """
        path = free_place(str(self.config.path), self.context.settings)
        above, made = _above(path), self.context.job.path
        if above.stat().st_dev == made.stat().st_dev:
            require_space(above, 2 * size, f"the export, with its copy in {path},", ELSEWHERE)
        else:
            require_space(above, size, f"the copy in {path}", ELSEWHERE)

    def deliver(self, files: Mapping[str, Path], making: Making) -> dict[str, Any]:
        """Copy the files, and rename the whole.

        Args:
            files: by the name they have there.
            making: the export that made them.
        """
        path = free_place(str(self.config.path), self.context.settings)
        total = sum(file.stat().st_size for file in files.values())
        path.parent.mkdir(parents=True, exist_ok=True)
        require_space(path.parent, total, f"the copy in {path}", ELSEWHERE)
        part = path.with_name(f".{path.name}.{self.context.job.id}.part")
        _remove(part)
        try:
            with self.context.phase(self.phase, total, "bytes") as phase, _disk(path):
                self._write(part, path, files, phase)
                _put(part, path)
        finally:
            _remove(part)
        return {"to": "folder", "where": str(path), "files": len(files), "bytes": total}

    def _write(self, part: Path, path: Path, files: Mapping[str, Path], phase: Phase) -> None:
        if path.suffix.lower() != ZIP:
            for name, source in files.items():
                (part / name).parent.mkdir(parents=True, exist_ok=True)
                with (part / name).open("xb") as target:
                    for block in self._blocks(source, phase):
                        target.write(block)
            return
        # Weights do not get smaller, so nothing is compressed; one folder in it, so that unpacking scatters nothing.
        with zipfile.ZipFile(part, "x", zipfile.ZIP_STORED) as archive:
            for name, source in files.items():
                entry = zipfile.ZipInfo.from_file(source, f"{path.stem}/{name}")
                with archive.open(entry, "w", force_zip64=True) as target:
                    for block in self._blocks(source, phase):
                        target.write(block)

    def _blocks(self, source: Path, phase: Phase) -> Iterator[bytes]:
        with source.open("rb") as file:
            while block := file.read(HASH_BLOCK):
                self.context.check_stop()
                yield block
                phase.advance(len(block))


def _above(path: Path) -> Path:
    """The nearest folder above that is there."""
    return next(parent for parent in path.parents if parent.exists())


def _require_free(path: Path) -> None:
    is_zip = path.suffix.lower() == ZIP
    if path.is_symlink() or (path.exists() and (is_zip or not path.is_dir())):
        raise InputError(
            f"{path} is there already", where=WHERE, fix="Give another name, or remove it; nothing is overwritten"
        )
    if path.is_dir() and (held := os.listdir(path)):  # noqa: PTH208 - the names alone
        raise InputError(
            f"{path} is not empty ({', '.join(sorted(held)[:3])}{', …' if len(held) > 3 else ''})", where=WHERE,
            fix="Give another name, or an empty folder; nothing is overwritten",
        )  # fmt: skip


def _put(part: Path, path: Path) -> None:
    """Give what is whole its name, unless somebody has taken it meanwhile."""
    _require_free(path)
    if part.is_dir():
        part.rename(path)  # over an empty folder or none: the system refuses any other
    else:
        try:
            os.link(part, path)  # which, unlike a renaming, never replaces
        except FileExistsError:
            _require_free(path)
            raise
        except OSError:  # a file system without hard links
            part.rename(path)


def _remove(part: Path) -> None:
    if part.is_dir() and not part.is_symlink():
        shutil.rmtree(part, ignore_errors=True)
    else:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def _disk(path: Path) -> Iterator[None]:
    """Say what a disk does in a sentence."""
    try:
        yield
    except OSError as error:
        raise StudioError(
            f"{path} could not be written ({error.strerror or error})", where=WHERE,
            fix="Free some space or give another folder; what was made is in the export's own folder",
        ) from error  # fmt: skip

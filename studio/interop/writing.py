"""What goes to disk: a run as YAML with what a person should know of it, or the files of another tool's config.

Nothing that is there is overwritten, and nothing stands under its name before it is whole.
"""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from pathlib import Path

from ruamel.yaml import YAML

from studio.errors import InputError
from studio.escaping import for_terminal
from studio.interop.report import Exported, Imported

# What of a report stands in the file, too: whoever starts the run should know it.
_TOLD = ("refused", "unknown", "approximated")


def run_text(imported: Imported) -> str:
    """The run as YAML, under comments that say what did not come over as it was; "" where nothing is trained."""
    if not imported.run:
        return ""
    told = [
        f"# {line.status}: {line.key}" + (f" - {line.why}" if line.why else "")
        for line in sorted(imported.report, key=lambda one: _TOLD.index(one.status) if one.status in _TOLD else 9)
        if line.status in _TOLD
    ]
    head = [f"# From {imported.tool}.", *(for_terminal(" ".join(line.split())) for line in told)]
    yaml = YAML()
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    stream = io.StringIO()
    yaml.dump(imported.run, stream)
    return "\n".join(head) + "\n" + stream.getvalue()


def write_new(path: Path, text: str) -> None:
    """Write a file that is not there yet.

    Raises:
        InputError: it is there, or its folder is not.
        OSError: the disk is full, or the folder cannot be written.
    """
    if not path.parent.is_dir():
        raise InputError("there is no such folder", where=str(path.parent), fix="Create it, or choose another one")
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        os.link(name, path)
    except FileExistsError as error:
        raise InputError("the file exists already", where=str(path), fix="Choose another name") from error
    finally:
        Path(name).unlink(missing_ok=True)


def write_folder(folder: Path, exported: Exported) -> None:
    """Write a config and its data into a folder that is new or empty.

    Args:
        folder: it is created; the folder above it must be there.
        exported: what is written.

    Raises:
        InputError: it holds something, or there is no folder above it.
        OSError: the disk is full, or the folder cannot be written.
    """
    if not folder.parent.is_dir():
        raise InputError("there is no such folder", where=str(folder.parent), fix="Create it, or choose another one")
    made = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        for name, text in exported.files.items():
            (made / name).write_text(text, encoding="utf-8")
        for name, lines in exported.data.items():
            with (made / name).open("w", encoding="utf-8") as file:
                file.writelines(lines())
        made.rename(folder)  # an empty folder is replaced, one that holds something is not
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError("it is not an empty folder", where=str(folder), fix="Choose another one") from error
    except OSError as error:
        if folder.is_dir() and any(folder.iterdir()):
            raise InputError("it is not an empty folder", where=str(folder), fix="Choose another one") from error
        raise
    finally:
        shutil.rmtree(made, ignore_errors=True)

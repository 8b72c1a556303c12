"""Fetches one split of a set from the Hub, as a process of its own: `python -m studio.data.files.hubfetch JSON`.

`datasets` finds the subsets, splits and files, downloads them and writes the rows as Arrow. Only its readers of JSON,
CSV, Parquet, Arrow and text are let through, and only files of the repository itself: no loading script, no archive,
no address elsewhere. An interrupted download keeps the files that were whole; all are removed once the rows are made.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from glob import escape
from pathlib import Path
from typing import Any

from studio.data.files.hubsets import MARKER, WORK, HubSet, download_folder, fetched, set_folder
from studio.errors import InputError
from studio.locks import locked
from studio.models.catalog.child import Progress, child_main
from studio.models.catalog.hubaccess import Asked, bytes_in, counted_bytes, endpoint, hub_api, require_space, sentence
from studio.settings import Settings, read_settings

_READERS = ("json", "csv", "parquet", "arrow", "text")
_WHERE = "data.train"
_ROWS = "rows"


def fetch_here(asked: HubSet, settings: Settings, say: Progress) -> Path:
    """Fetch a set in this process and return its folder.

    Args:
        asked: name, subset, split and revision.
        settings: of the home that keeps it; nothing is fetched where it is there already.
        say: told the phase, how much is done, and the total, None while unknown.

    Raises:
        InputError, StudioError: as `hubsets.fetch`.
    """
    folder = set_folder(asked, settings)
    folder.mkdir(parents=True, exist_ok=True)
    what = f"{asked.name} cannot be downloaded now"
    with locked(settings.datasets / f".{folder.name}.lock", what, lambda text: say(text, 0, None)):
        if fetched(asked, settings) is None:
            _fetch(asked, folder, say)
    return folder


def _fetch(asked: HubSet, folder: Path, say: Progress) -> None:
    from datasets.data_files import DataFilesDict, DataFilesList
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    # Which HTTP library huggingface_hub has under it changes with its versions.
    http_error = next(kind for kind in HfHubHTTPError.__mro__ if kind.__name__ == "HTTPError")
    known = Asked(
        asked.name, asked.revision, "data set", _WHERE, f"{_WHERE}.revision", "give a data file on this machine"
    )
    downloads = download_folder(folder)
    phase = f"downloading {asked.name}"
    try:
        api = hub_api()
        info = api.dataset_info(asked.name, revision=asked.revision, files_metadata=True)
        api.auth_check(info.id, repo_type="dataset")  # A gated set may be described to everybody and not be read.
        builder = _builder(asked, info.id, info.sha)
        files = _files(asked, builder, f"hf://datasets/{info.id}@{info.sha}/")
        sizes = {item.rfilename: int(item.size or 0) for item in info.siblings or []}
        total = sum(sizes.get(file, 0) for file in files)
        for left in downloads.rglob("*.incomplete"):
            left.unlink()  # huggingface_hub begins a file anew, and its bytes would be counted as progress
        require_space(asked.name, total - bytes_in(downloads), folder)
        with counted_bytes(downloads, total, lambda done, _: say(phase, done, total)):
            snapshot_download(
                info.id, repo_type="dataset", revision=info.sha, local_dir=downloads, endpoint=endpoint(),
                allow_patterns=[escape(file) for file in files],
            )  # fmt: skip
        say(phase, total, total)
    except (http_error, OSError) as error:
        raise sentence(error, known) from error
    local = [str(downloads / file) for file in files]
    builder.config.data_files = DataFilesDict({asked.split: DataFilesList(local, [(file,) for file in local])})
    shutil.rmtree(folder / _ROWS, ignore_errors=True)
    _prepare(asked, builder, folder / _ROWS)
    made = builder.as_dataset(split=asked.split)
    names = [str(Path(one["filename"]).relative_to(folder)) for one in made.cache_files]
    marker = {"hub": info.id, "commit": info.sha, "rows": len(made), "files": names}
    temporary = folder / f"{MARKER}.new"
    temporary.write_text(json.dumps(marker) + "\n")
    temporary.replace(folder / MARKER)
    shutil.rmtree(downloads, ignore_errors=True)
    shutil.rmtree(folder / WORK, ignore_errors=True)


def _builder(asked: HubSet, name: str, commit: str) -> Any:
    """The reader that `datasets` chooses for the set.

    Raises:
        InputError: no such subset (those there are are named), a script, or no files of rows.
    """
    import datasets

    address = f"hf://datasets/{name}"
    try:
        builder: Any = datasets.load_dataset_builder(
            address, asked.subset, data_dir=asked.folder, revision=commit, cache_dir=os.environ["HF_DATASETS_CACHE"]
        )
    except RuntimeError as error:
        if "script" not in str(error):
            raise
        raise InputError(
            f"{asked.name} has a loading script, and the studio never runs a dataset's code", where=_WHERE,
            fix="Set revision to refs/convert/parquet, where the Hub has many of them as Parquet, or choose another "
            "dataset",
        ) from error  # fmt: skip
    except FileNotFoundError as error:
        within = f" in its folder '{asked.folder}'" if asked.folder else ""
        raise _no_rows(asked, f"has no data files{within}") from error
    except ValueError as error:
        try:
            names = datasets.get_dataset_config_names(address, revision=commit)
        except ValueError:
            names = []
        if not names or asked.subset in names or (asked.subset is None and len(names) == 1):
            raise _not_as_needed(asked, error) from error
        what = f"has no subset '{asked.subset}'" if asked.subset else "has several subsets"
        raise InputError(
            f"{asked.name} {what}", where=f"{_WHERE}.subset", fix=f"Choose one of: {', '.join(names)}"
        ) from error
    reader = type(builder).__module__.rpartition(".")[2]
    if reader not in _READERS:
        raise _no_rows(asked, f"has an unsupported format ({reader})")
    return builder


def _files(asked: HubSet, builder: Any, own: str) -> list[str]:
    """Files of the split, as the repository names them; `own` is how their addresses begin.

    Raises:
        InputError: no such split, or a file that is an archive.
    """
    splits = builder.config.data_files or {}
    if asked.split not in splits:
        raise InputError(
            f"{asked.name} has no split '{asked.split}'", where=f"{_WHERE}.split",
            fix=f"Choose one of: {', '.join(map(str, splits))}",
        )  # fmt: skip
    # `datasets` refuses files of other places itself.
    files = [str(file).removeprefix(own) for file in splits[asked.split]]
    for file in files:
        if file.lower().endswith((".zip", ".tar", ".tar.gz", ".tgz")):
            raise _no_rows(asked, f"has its rows in an archive ({file})")
    return files


def _prepare(asked: HubSet, builder: Any, rows: Path) -> None:
    from datasets.exceptions import DatasetGenerationError

    try:
        # The sizes that a repository declares are of all its splits, and only one is made.
        builder.download_and_prepare(output_dir=str(rows), verification_mode="no_checks")
    except DatasetGenerationError as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        if isinstance(cause, OSError) and cause.errno == 28:
            raise cause from error
        raise _not_as_needed(asked, cause) from error


def _not_as_needed(asked: HubSet, cause: BaseException) -> InputError:
    said = next((line.strip() for line in str(cause).splitlines() if line.strip()), type(cause).__name__)
    return InputError(
        f"the files of {asked.name} cannot be read as rows: {said[:200]}", where=_WHERE,
        fix="Choose another subset or revision, or download the files, fix them and give their path here",
    )  # fmt: skip


def _no_rows(asked: HubSet, what: str) -> InputError:
    return InputError(
        f"{asked.name} {what}", where=_WHERE, fix="Choose a dataset of JSON, CSV, Parquet, Arrow or text files"
    )


def main() -> int:
    """`python -m studio.data.files.hubfetch JSON`: fetch the HubSet that it says, as a child of `catalog.child`.

    `hubsets.fetch` sets the environment in which the libraries are imported.
    """
    os.environ |= {
        "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
        "USE_TORCH": "0",  # datasets would import it, for formats that are not used here
    }  # fmt: skip
    asked = HubSet(**json.loads(sys.argv[1]))
    return child_main(lambda say: fetch_here(asked, read_settings(), say))


if __name__ == "__main__":
    sys.exit(main())

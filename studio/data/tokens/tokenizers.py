"""The tokenizers that the data worker was asked about: found by the model's name, loaded once, kept by folder."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from studio.config.data import DataConfig
from studio.config.model import EMBEDDED_MODEL, ModelConfig
from studio.data.files.datafiles import Stamp
from studio.data.masks.masker import Masker
from studio.data.masks.templates import with_template
from studio.data.sources.reading import in_turns
from studio.data.wire import Values
from studio.errors import InputError, StudioError
from studio.methods import MethodConfig
from studio.models.catalog.child import Progress
from studio.models.inspect.vocabulary import require_linear_splits
from studio.reach import entries, page, read_bytes
from studio.settings import Settings

# What a tokenizer is read from; weights are not.
_COPIED = (".json", ".jinja", ".model", ".txt", ".tiktoken", ".py")
_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")


class Tokenizers:
    """Tokenizers by the folder they lie in."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._loaded: dict[str, Any] = {}

    def find(self, model: Values | str | None, confined: bool, progress: Progress) -> tuple[Path, ModelConfig]:
        """Return the folder of a model whose tokenizer is asked for; one with a tokenizer and no weights will do.

        Args:
            model: section `model`, or its path alone; None for the default model.
            confined: refuse folders outside the readable ones, as the page does.
            progress: told phase, done and total while the embedded model is prepared; nothing else is downloaded.
        """
        config = section(ModelConfig, {"path": model} if isinstance(model, str) else model, "model")
        from studio.models.catalog.names import confine_model, resolve_model

        if confined:  # first of all: what is wrong with a folder tells of what lies in it
            confine_model(config.path, self.settings)
        folder = Path(config.path).expanduser()
        if (folder / "tokenizer.json").is_file():
            return (folder.resolve() if confined else folder.absolute()), config
        # The embedded model is made in seconds from a package that is here; a download is for the run to start.
        here = config.path.strip() == EMBEDDED_MODEL
        found = resolve_model(config.path, self.settings, revision=config.revision, on_progress=progress, fetch=here)
        return found.path, config

    def masker(self, folder: Path, model: ModelConfig, config: DataConfig, method: MethodConfig) -> Masker:
        """Return the masker that a run would have.

        Args:
            folder: with the tokenizer.
            model, config, method: sections of the run; `config` is `data`, whose template and system prompt win over
                the model's.
        """
        own = self.load(folder, model.trust_remote_code)
        return Masker(
            with_template(own, config.template, config.system), method.kind.train_on(method), config.control_tokens
        )

    def in_turns(self, folder: Path, model: ModelConfig, config: DataConfig, method: MethodConfig) -> bool:
        """Whether a run with this model reads plain questions and answers as conversations (`reading.in_turns`).

        Args:
            folder: with the tokenizer.
            model, config, method: sections of the run; `config` is `data`.
        """
        own = self.load(folder, model.trust_remote_code)
        return in_turns(with_template(own, config.template, config.system).chat_template, config, method)

    def load(self, folder: Path, trust_remote_code: bool) -> Any:
        """Return the tokenizer of a model folder.

        Raises:
            InputError: there is no fast tokenizer.
            StudioError: it cannot be loaded.
        """
        from transformers import AutoTokenizer

        if not (folder / "tokenizer.json").is_file():
            raise InputError(
                "the model has no tokenizer.json", where=str(folder), fix="Use a model folder with a fast tokenizer"
            )
        key = json.dumps([str(folder), tokenizer_stamp(folder), trust_remote_code])
        if key not in self._loaded:
            require_linear_splits(folder / "tokenizer.json")
            try:
                with _readable(folder) as read:
                    self._loaded[key] = AutoTokenizer.from_pretrained(
                        read, local_files_only=True, trust_remote_code=trust_remote_code
                    )
            except (OSError, ValueError, KeyError, ImportError) as error:
                raise StudioError(
                    f"the model's tokenizer cannot be loaded: {error}",
                    where=str(folder),
                    fix="Check model.path; the folder must hold a complete Hugging Face checkpoint",
                ) from error
        return self._loaded[key]


@contextmanager
def _readable(folder: Path) -> Iterator[Path]:
    """Yield a folder from which transformers may read: for a page a copy, since it opens the files itself, by name."""
    if page() is None:
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="studio-tokenizer-") as above:
        copy = Path(above) / folder.name
        copy.mkdir()
        for name in entries(folder):
            if name.endswith(_COPIED) and (folder / name).is_file():
                (copy / name).write_bytes(read_bytes(folder / name))
        yield copy


def section(kind: Any, values: Values | None, name: str) -> Any:
    """Return values of the page as a checked section of the configuration.

    Args:
        kind: pydantic class of the section.
        values: plain ones; None for the defaults.
        name: of the section, for the error.

    Raises:
        InputError: a value is wrong; the first one is named.
    """
    try:
        return kind.model_validate(values or {})
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join([name, *map(str, first["loc"])])
        raise InputError(str(first["msg"]), where=where, fix="Fix the value") from error


def tokenizer_stamp(folder: Path) -> list[list[int]]:
    """What differs once the tokenizer's files in a folder have changed."""
    return [_stamp(folder / name) for name in _FILES]


def _stamp(file: Path) -> list[int]:
    stamp = Stamp.of(file) if file.exists() else Stamp(0, 0)
    return [stamp.size, stamp.mtime_ns]

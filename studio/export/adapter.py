"""An adapter alone, for PEFT, vLLM and SGLang, which load it beside its base model by the name that it carries."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from studio.config.jobs import SERVERS, Destination, ExportConfig
from studio.errors import InputError
from studio.export.card import unserved
from studio.export.files import require_space
from studio.export.folder import GATES, FolderExport
from studio.export.gguf.checkpoint import read_object, write_object
from studio.export.origins.origin import Origin
from studio.export.serving.older import unread_by_older
from studio.export.serving.servers import TITLES, VLLM_RANKS, Server
from studio.export.source import Source
from studio.foreign import as_path
from studio.jobs.views.expected import folder_seconds
from studio.models.catalog.hubaccess import is_hub_id
from studio.models.inspect.adapters import WEIGHTS, highest_rank
from studio.models.inspect.headers import read_header
from studio.models.inspect.tokenizerfiles import copy_tokenizer
from studio.reach import read_bytes

CONFIG = "adapter_config.json"
_DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


class AdapterExport(FolderExport):
    """The run's adapter with its tokenizer, under a base model's name that other machines know."""

    noun = "adapters"

    @property
    def dtype(self) -> str:
        """Name of the dtype that its matrices have; the arithmetic is the trained model's own."""
        kinds = {_DTYPES.get(tensor.dtype, "float32") for tensor in read_header(self.source.model / WEIGHTS)}
        return next((name for name in GATES if name in kinds), "float32")

    @property
    def base(self) -> Path | None:
        """Folder of the base model."""
        return self.source.base

    def expected(self) -> dict[str, float]:
        """Return the seconds that each phase should take."""
        return folder_seconds("adapter", self.source.half_bytes, self.rows is not None)

    @property
    def size(self) -> int:
        """Bytes that what is made may take: the adapter, its tokenizer and papers."""
        return 2 * (self.source.model / WEIGHTS).stat().st_size

    def prepare(self) -> None:
        """Refuse what has no room."""
        require_space(self.context.job.path, self.size, "the adapter")

    def write(self) -> None:
        """Copy weights and tokenizer, and name the base model."""
        self.folder.mkdir()
        (self.folder / WEIGHTS).write_bytes(read_bytes(self.source.model / WEIGHTS))
        copy_tokenizer(self.source.tokenizer, self.folder)
        # A run puts this beside an adapter where its tokenizer cannot be read without it.
        if (self.source.model / "config.json").is_file():
            (self.folder / "config.json").write_bytes(read_bytes(self.source.model / "config.json"))
        name = named_base(self.config.base, self.source.origin)
        values = read_object(self.source.model / CONFIG)
        values |= {"base_model_name_or_path": name, "revision": None, "inference_mode": True}
        write_object(self.folder / CONFIG, values)
        self.report["base_model"] = name

    def told(self, found: dict[str, Any]) -> list[str]:
        """What is true of the adapter and fails nothing: also what its users have to do by themselves.

        Args:
            found: the answer of `proof.checkpoint`.
        """
        said, config = super().told(found), read_object(self.folder / CONFIG)
        name = config["base_model_name_or_path"]
        if not is_hub_id(name):
            said.append(f"its base model is a folder on this machine ({name}): give the Hub id with --base to share it")
        elif self.config.base is not None:
            said.append(f"it was compared on {self.source.base}; whether {name} is the same model was not checked")
        if not found["generation_ends"]:
            said.append(
                f"the base model's own settings do not end an answer at '{self.reference['end']}': "
                "generate() needs it in eos_token_id, a server in stop"
            )
        if reason := unserved(config):
            said.append(f"vLLM and SGLang cannot serve an adapter with {reason}: serve the merged checkpoint")
        return said


def require_exportable(source: Source, config: ExportConfig) -> None:
    """Refuse, before a job is made of it, what the destination cannot be given.

    Args:
        source: what is exported.
        config: what is asked for.

    Raises:
        InputError: an adapter is asked for of a run that has none, or with a base model of no possible name.
    """
    served = config.to in SERVERS and config.serve == "adapter"
    if config.made not in ("adapter", "gguf-lora") and not served:
        return
    name = named_base(config.base, source.origin)
    if source.adapter is None:
        raise InputError(
            f"{source.origin.said} has no adapter: {source.origin.lacks_adapter}",
            where="serve" if served else "to" if config.to == config.made else "what",
            fix="Serve it as merged" if served else "Export it to merged or gguf",
        )
    if served and (reason := _unserved_by(config.to, source, name)):
        raise InputError(reason, where="serve", fix="Serve it as merged")


def _unserved_by(to: Destination, source: Source, base: str) -> str:
    """Why a server cannot serve an adapter; "" where it can."""
    title, config = TITLES[cast(Server, to)], read_object(source.model / CONFIG)
    if what := unserved(config):
        return f"{title} cannot serve an adapter with {what}"
    if to == "vllm" and highest_rank(config) > VLLM_RANKS[-1]:
        return f"{title} serves adapters up to rank {VLLM_RANKS[-1]}; this one has rank {highest_rank(config)}"
    folder = source.weights
    if to == "tgi" and (folder / "config.json").is_file() and unread_by_older(read_object(folder / "config.json")):
        return f"{title} would place the positions of {base} wrongly: its config.json has no rope_theta"
    return ""


def named_base(asked: str | None, origin: Origin) -> str:
    """Return the name under which programs find the base model.

    Args:
        asked: what the person gave; None for the Hub id or folder that is known.
        origin: what the adapter comes from.

    Raises:
        InputError: it is neither a Hub id nor a folder with a model.
    """
    if asked is None:
        recorded = origin.base_model
        name = str(recorded.get("name") or "").partition("@")[0]
        return name if recorded.get("source") == "hub" else str(recorded.get("path") or name)
    if not is_hub_id(asked) and not (as_path(asked) / "config.json").is_file():
        raise InputError(
            f"'{asked}' is neither a Hub id nor the folder of a model", where="base", fix="Give owner/name, or a folder"
        )
    return asked

"""How large a model is where its weights are not here: by config.json, the safetensors index, a GGUF header, the Hub.

What is laid out from config.json is the same as that of the known models (`known_shapes`), so it covers their families.
Of a Hub model the headers of its weight files are read, some hundred kilobytes, which name every tensor; where the Hub
cannot be asked, a known model is planned from the figures that the studio has of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from studio.config.model import EMBEDDED_MODEL, ModelConfig
from studio.errors import InputError
from studio.foreign import read_json_file, unusable_path
from studio.models.catalog import hub
from studio.models.catalog.hubaccess import endpoint, hub_api, is_hub_id
from studio.models.inspect.ggufheader import read_gguf
from studio.models.inspect.headers import TENSORS, Tensor, read_config, weight_files
from studio.models.inspect.known_shapes import KNOWN, KnownModel, tensors
from studio.models.inspect.shape import MOST_BLOCKS, ModelShape
from studio.settings import Settings

# What the layout of a family has beside Llama's, and whether its head is the embedding where config.json is silent.
_LAYOUTS: dict[str, dict[str, Any]] = {
    "llama": {}, "mistral": {}, "mixtral": {}, "phi3": {}, "qwen2": {"biases": "qkv"}, "qwen3": {"head_norms": True},
    "gemma2": {"norms": 4}, "gemma3_text": {"norms": 4, "head_norms": True}, "deepseek_v2": {}, "deepseek_v3": {},
}  # fmt: skip
_TIED = ("gemma2", "gemma3_text")
_TOKENIZER = ("config.json", "tokenizer*", "*.jinja", "vocab*", "merges*", "special_tokens*", "added_tokens*")


@dataclass(frozen=True)
class Outline:
    """A model without its weights.

    Attributes:
        shape: its size.
        config: its config.json, or what stands for it.
        tensors: what its weight files hold, or would.
        folder: with its tokenizer, where there is one.
        source: what the size was read from, in words.
        tokens_by: the model whose tokenizer stands for this one's, empty where none does.
    """

    shape: ModelShape
    config: dict[str, Any]
    tensors: tuple[Tensor, ...]
    folder: Path | None
    source: str
    tokens_by: str = ""


def outline(model: ModelConfig, settings: Settings) -> Outline | None:
    """Return what is known of a model whose weights are not here; None where they are, or nothing is known.

    Raises:
        InputError: config.json or the header of a GGUF file cannot be used; there is no such model on the Hub.
        StudioError: the Hub cannot be reached.
    """
    text = model.path.strip()
    place = Path(text).expanduser()
    if text == EMBEDDED_MODEL or unusable_path(text):
        return None
    if place.suffix == ".gguf" and place.is_file():
        config, found = read_gguf(place)
        return _told(config, found, str(place), None, "the header of the GGUF file")
    place = place.parent if place.name == "config.json" and place.is_file() else place
    if place.exists():
        return _of_folder(place) if (place / "config.json").is_file() else None
    if not is_hub_id(text) or hub.hub_name(hub.hub_folder(settings, text, model.revision)) is not None:
        return None
    return _of_hub(text, model.revision, settings)


def _of_folder(folder: Path) -> Outline | None:
    index = folder / "model.safetensors.index.json"
    try:
        if weight_files(folder):
            return None
    except InputError:
        if not index.is_file():
            raise
    config, names = read_config(folder), set[str]()
    if index.is_file():
        names = _names(index)
    source = "config.json and the index of the weight files" if names else "config.json"
    return _told(config, laid_out(config, names, str(folder)), str(folder), folder, source)


def _told(config: dict[str, Any], found: list[Tensor], where: str, folder: Path | None, source: str) -> Outline:
    shape = ModelShape.from_parts(config, found, where=where)
    here = folder if folder is not None and (folder / "tokenizer.json").is_file() else None
    return Outline(shape, config, tuple(found), here, source)


def _names(index: Path) -> set[str]:
    try:
        return {str(name) for name in read_json_file(index)["weight_map"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            "the index of the weight files cannot be read", where=str(index), fix="Copy or download it again"
        ) from error


def laid_out(config: dict[str, Any], names: set[str], where: str) -> list[Tensor]:
    """The tensors of a model by its config.json; `names` of the index, where there are any, say which exist.

    Args:
        config: the model's config.json.
        names: of the tensors in the weight index; empty: the family's usual biases, norms and tied head are assumed.
        where: folder or Hub id, for errors.

    Raises:
        InputError: a family whose tensors are not known, or a figure is missing.
    """
    kind = str(config.get("model_type"))
    if kind not in _LAYOUTS:
        raise InputError(
            f"the size of a {kind:.60} model cannot be computed from config.json alone", where=where,
            fix=f"Give its Hub id or a folder with the weights; supported without them: {', '.join(_LAYOUTS)}",
        )  # fmt: skip
    heads = config.get("num_attention_heads")
    full = {"num_key_value_heads": heads, "tie_word_embeddings": kind in _TIED, **config}
    layers, experts = (full.get(one) for one in ("num_hidden_layers", "num_local_experts"))
    experts = full.get("n_routed_experts") if experts is None else experts
    figures = [one for one in (layers, experts) if one is not None]
    if not all(type(one) is int and 0 <= one <= MOST_BLOCKS for one in figures) or math.prod(figures) > TENSORS // 3:
        raise InputError(
            "config.json has more blocks or experts than any model", where=where,
            fix="Give the model's original config.json",
        )  # fmt: skip
    layout = dict(_LAYOUTS[kind])
    if full["num_key_value_heads"] is None:
        full["num_key_value_heads"] = heads
    if config.get("attention_bias"):
        layout["biases"] = "qkvo"
    if names:
        block = "model.layers.0.self_attn."
        layout["biases"] = "".join(letter for letter in "qkvo" if f"{block}{letter}_proj.bias" in names)
        layout["head_norms"] = f"{block}q_norm.weight" in names
        full["tie_word_embeddings"] = "lm_head.weight" not in names
    try:
        return tensors(KnownModel("", where, 0, full, **layout))
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise InputError(
            f"config.json lacks a value needed to compute the size ({error})", where=where,
            fix="Give the model's original config.json",
        ) from error  # fmt: skip


def _of_hub(name: str, revision: str, settings: Settings) -> Outline:
    from huggingface_hub import errors, snapshot_download
    from huggingface_hub.utils import disable_progress_bars

    disable_progress_bars()
    folder = settings.home / "outlines" / hub.hub_folder(settings, name, revision).name
    try:
        api = hub_api()
        api.model_info(name, revision=revision)  # what is missing or closed fails here, with its own error
        stored = api.get_safetensors_metadata(name, revision=revision)
        snapshot_download(
            name, revision=revision, local_dir=folder, allow_patterns=list(_TOKENIZER), ignore_patterns=["*/*"],
            endpoint=endpoint(),
        )  # fmt: skip
    except errors.NotASafetensorsRepoError as error:
        raise InputError(
            f"{name} has no .safetensors weights", where="model.path",
            fix="Choose a model that has them, or give a GGUF file or a config.json",
        ) from error  # fmt: skip
    except Exception as error:
        reason = hub.said(error, name, revision, "look up")
        if (known := next((one for one in KNOWN if one.hub == name), None)) is None or revision != "main":
            raise reason from error
        source = f"what the studio knows of it ({reason.what})"
        return replace(_told(known.config, tensors(known), name, None, source), tokens_by=EMBEDDED_MODEL)
    found = [
        Tensor(tensor, info.dtype, tuple(info.shape))
        for _, file in sorted(stored.files_metadata.items())
        for tensor, info in file.tensors.items()
    ]
    return _told(read_config(folder), found, name, folder, "the headers of its files on the Hub")

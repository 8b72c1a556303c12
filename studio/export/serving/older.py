"""A checkpoint's settings as transformers 4 reads them too, beside the names of transformers 5.

Programs that still load models with transformers 4 (TGI 3.3.7 has 4.51) do not know `rope_parameters`: they take a base
of 10000 for the rotary positions without a word, and the model writes nonsense.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from studio.export.gguf.checkpoint import read_object, write_object

CONFIG, TOKENIZER, TEMPLATE = "config.json", "tokenizer_config.json", "chat_template.jinja"
# transformers 4's names, by the kind of layer that transformers 5 tells apart.
_BASES = {"full_attention": "rope_theta", "sliding_attention": "rope_local_base_freq"}
_USUAL_BASE = 10000.0


def with_older_names(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config.json with the older names added; what is there already stays.

    Args:
        config: its values; those of a text model inside it are done, too.
    """
    values = dict(config)
    if isinstance(values.get("text_config"), dict):
        values["text_config"] = with_older_names(values["text_config"])
    if isinstance(values.get("dtype"), str):
        values.setdefault("torch_dtype", values["dtype"])
    rope = values.get("rope_parameters")
    if not isinstance(rope, dict):
        return values
    layered = {kind: one for kind, one in rope.items() if isinstance(one, dict)}
    for kind, one in (layered or {"full_attention": rope}).items():
        if kind in _BASES and "rope_theta" in one:
            values.setdefault(_BASES[kind], one["rope_theta"])
        if kind == "full_attention" and one.get("rope_type", "default") != "default":
            scaling = {key: value for key, value in one.items() if key not in ("rope_theta", "partial_rotary_factor")}
            values.setdefault("rope_scaling", scaling)
        if "partial_rotary_factor" in one:
            values.setdefault("partial_rotary_factor", one["partial_rotary_factor"])
    return values


def unread_by_older(config: Mapping[str, Any]) -> bool:
    """Whether transformers 4 would place positions of this config.json wrongly, because it lacks the older names."""
    text = config.get("text_config")
    if isinstance(text, dict):
        return unread_by_older(text)
    added = with_older_names(config)
    lacks = {name for name in (*_BASES.values(), "rope_scaling") if name in added and name not in config}
    return any(name == "rope_scaling" or float(added[name]) != _USUAL_BASE for name in lacks)


def write_older_config(folder: Path) -> None:
    """Add the older names to a checkpoint's config.json."""
    write_object(folder / CONFIG, with_older_names(read_object(folder / CONFIG)))


def write_older_template(folder: Path) -> None:
    """Put the chat template into tokenizer_config.json too, where transformers 4 and TGI look for it.

    Args:
        folder: of a checkpoint or an adapter; one without a template file stays as it is.
    """
    if (folder / TEMPLATE).is_file():
        values = read_object(folder / TOKENIZER)
        values["chat_template"] = (folder / TEMPLATE).read_text(encoding="utf-8")
        write_object(folder / TOKENIZER, values)

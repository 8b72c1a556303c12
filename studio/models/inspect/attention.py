"""Which attention code a model is loaded with: chosen here for training, chat, evaluation and the export's reference.

Left to itself transformers takes sdpa where the model's class has it, else eager; asked by name for one that the class
lacks, it raises. What a class has is read from the text of its module, so that checks can tell without torch.
"""

from __future__ import annotations

import ast
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# What the class must say of itself; eager is what every class has.
_FLAGS = {
    "sdpa": "_supports_sdpa", "flash_attention_2": "_supports_flash_attn", "flash_attention_3": "_supports_flash_attn",
    "flex_attention": "_supports_flex_attn",
}  # fmt: skip

ROUTER_SWITCH = "output_router_logits"


def attention_options(raw: dict[str, Any], wanted: str = "auto", fastest: str = "auto") -> dict[str, str]:
    """Return the options of `from_pretrained` that choose the attention; none leaves the choice to transformers.

    Args:
        raw: the model's config.json.
        wanted: `model.attention` of the run; a check refuses before the start what the model's class lacks.
        fastest: what this machine computes fastest; taken for auto where the class has it.
    """
    if wanted == "auto":
        wanted = fastest if has_attention(raw, fastest) else "auto"
    return {} if wanted == "auto" else {"attn_implementation": wanted}


def answer_options(raw: dict[str, Any]) -> dict[str, Any]:
    """Return the options of `from_pretrained` for a model that is only asked, and not trained.

    A mixture of experts may say in its config that it returns what its routers gave, for the balancing loss. While
    text is generated transformers fails at that: the mask is longer than what is read.

    Args:
        raw: the model's config.json.
    """
    quiet = {ROUTER_SWITCH: False} if raw.get(ROUTER_SWITCH) else {}
    return {**attention_options(raw), **quiet}


def has_attention(raw: dict[str, Any], word: str) -> bool | None:
    """Say whether transformers' class of a model has this attention; None where that is not known.

    Args:
        raw: the model's config.json.
        word: a value of `model.attention`.
    """
    if word not in _FLAGS:
        return True
    kind, names = raw.get("model_type"), raw.get("architectures")
    classes = _classes(kind) if isinstance(kind, str) else {}
    if not classes:
        return None
    named = next((str(name) for name in names if name in classes), "") if isinstance(names, list) else ""
    name = named or next((name for name in classes if name.endswith("PreTrainedModel")), "")
    return _flag(classes, name, _FLAGS[word])


def _flag(classes: dict[str, ast.ClassDef], name: str, flag: str) -> bool | None:
    """The value of a class attribute, looked for in the class and its bases; None behind a base of another module."""
    if name in ("PreTrainedModel", "nn.Module"):
        return False
    if name not in classes:
        return None
    for line in classes[name].body:
        if isinstance(line, ast.Assign) and any(ast.unparse(target) == flag for target in line.targets):
            return isinstance(line.value, ast.Constant) and bool(line.value.value)
    found = [_flag(classes, ast.unparse(base), flag) for base in classes[name].bases]
    return next((value for value in found if value is not None), None)


@cache
def _classes(model_type: str) -> dict[str, ast.ClassDef]:
    """The classes of a model's module in transformers, by name; empty where there is none."""
    from transformers.models.auto.auto_mappings import (  # without torch, but half a second
        CONFIG_MAPPING_NAMES,
        SPECIAL_MODEL_TYPE_TO_MODULE_NAME,
    )

    found = find_spec("transformers")
    if model_type not in CONFIG_MAPPING_NAMES or found is None or found.origin is None:
        return {}
    module = SPECIAL_MODEL_TYPE_TO_MODULE_NAME.get(model_type, model_type.replace("-", "_"))
    file = Path(found.origin).parent / "models" / module / f"modeling_{module}.py"
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (OSError, SyntaxError):
        return {}
    return {one.name: one for one in tree.body if isinstance(one, ast.ClassDef)}

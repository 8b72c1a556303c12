"""An adapter as llama.cpp reads one: the scale lora_alpha / rank for every layer, with the rank of its matrices.

What PEFT multiplies by another factor (rsLoRA, patterns of rank and alpha) is put into the B matrices first; the
converter would leave it out without a word. What cannot be said in that form is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from studio.errors import InputError
from studio.export.gguf.checkpoint import read_object, write_object
from studio.export.gguf.merge import UncoveredError, read_delta
from studio.export.steps import Report, serve_step
from studio.models.inspect.adapters import WEIGHTS, adapter_config

INSTEAD = "Export to gguf, where it is merged into the model"


def prescale(adapter: Path, base: Path, target: Path) -> dict[str, Any]:
    """Write an adapter that needs one scale.

    Args:
        adapter: PEFT folder.
        base: folder of its base model.
        target: folder to make.

    Returns:
        {"layers", "rescaled": how many of them had another scale}.

    Raises:
        InputError: it does more than add B·A to matrices, or llama.cpp has no place for one of its layers.
    """
    config, model = (
        adapter_config(adapter) or read_object(adapter / "adapter_config.json"),
        read_object(base / "config.json"),
    )
    try:
        delta = read_delta(adapter, config, model)
    except UncoveredError as error:
        raise refused(str(error), adapter) from error
    if delta.replaced or any(part.magnitude is not None for part in delta.modules.values()):
        raise refused("it has more than LoRA matrices (DoRA's lengths, or biases)", adapter)
    if model.get("tie_word_embeddings") and any(name.endswith("lm_head") for name in delta.modules):
        raise refused("it changes lm_head, whose weights this model shares with its embeddings", adapter)
    tensors, rescaled = {}, 0
    for name, part in delta.modules.items():
        if part.a is None or part.b is None:
            raise refused(f"{name} lacks one of its two matrices", adapter)
        factor = part.scale * part.a.shape[0] / config["lora_alpha"]
        rescaled += abs(factor - 1) > 1e-6
        tensors[f"base_model.model.{name}.lora_A.weight"] = part.a.float().contiguous()
        tensors[f"base_model.model.{name}.lora_B.weight"] = (part.b.float() * factor).contiguous()
    target.mkdir()
    save_file(tensors, target / WEIGHTS, metadata={"format": "pt"})
    plain = {"peft_type": "LORA", "r": config["r"], "lora_alpha": config["lora_alpha"], "base_model_name_or_path": ""}
    write_object(target / "adapter_config.json", plain)
    return {"layers": len(delta.modules), "rescaled": int(rescaled)}


def refused(reason: str, adapter: Path) -> InputError:
    """Return the sentence for an adapter that llama.cpp cannot load beside its base model.

    Args:
        reason: a clause about "it".
        adapter: its folder.
    """
    return InputError(f"llama.cpp cannot load this adapter by itself: {reason}", where=str(adapter), fix=INSTEAD)


def _work(request: dict[str, Any], report: Report) -> dict[str, Any]:
    return prescale(Path(request["adapter"]), Path(request["base"]), Path(request["target"]))


if __name__ == "__main__":
    raise SystemExit(serve_step(_work))

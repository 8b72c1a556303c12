"""Adapters of one base model combined into one, by PEFT's `add_weighted_adapter`, in a process of its own.

Only A and B are read: the base model is laid out without its weights, in float32 so that nothing is rounded on the way.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoConfig, AutoModelForCausalLM, set_seed
from transformers.initialization import no_init_weights

from studio.errors import InputError, StudioError
from studio.export.gguf.checkpoint import read_object, write_object
from studio.export.steps import Report, serve_step
from studio.models.inspect.adapters import WEIGHTS, require_quick_adapter
from studio.models.inspect.headers import read_header

CONFIG = "adapter_config.json"
_NAME = "studio_child"


def laid_out(folder: str) -> Any:
    """Return a model without weights, in float32 at once: converting it would write every number of it.

    Args:
        folder: with its config.json.
    """
    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    with no_init_weights():
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def combine(request: dict[str, Any], report: Report) -> dict[str, Any]:
    """Make one adapter of several.

    Args:
        request: {"base", "adapters" (folders), "weights", "kind" (PEFT's combination_type), "density" (None for
            none), "seed", "target", "folder" (for what is written on the way)}.
        report: called with (adapters read, adapters in all).

    Returns:
        {"rank": of the new one}.

    Raises:
        InputError: PEFT cannot combine them.
    """
    set_seed(request["seed"])
    model = laid_out(request["base"])
    # No part of a layer's name, as a number would be: PEFT drops what is called like another adapter when it saves.
    names = [f"parent_{number}" for number in range(len(request["adapters"]))]
    peft_model: Any = None
    for done, (name, folder) in enumerate(zip(names, request["adapters"], strict=True), 1):
        require_quick_adapter(Path(folder), model)
        if peft_model is None:
            peft_model = PeftModel.from_pretrained(model, folder, adapter_name=name, local_files_only=True)
        else:
            peft_model.load_adapter(folder, adapter_name=name, local_files_only=True)
        report(done, len(names))
    density = {} if request["density"] is None else {"density": request["density"]}
    try:
        peft_model.add_weighted_adapter(
            names, request["weights"], _NAME, combination_type=request["kind"], svd_full_matrices=False, **density
        )
    except (ValueError, RuntimeError) as error:
        raise InputError(
            f"PEFT cannot combine these adapters: {' '.join(str(error).split())[:300]}", where="recipe",
            fix="Use adapter_cat, which takes adapters of any rank",
        ) from error  # fmt: skip
    made, target = Path(request["folder"]) / "made", Path(request["target"])
    peft_model.save_pretrained(made, selected_adapters=[_NAME], save_embedding_layers=False)
    target.mkdir(exist_ok=True)
    for name in (WEIGHTS, CONFIG):
        shutil.move(made / _NAME / name, target / name)
    if not read_header(target / WEIGHTS):
        raise StudioError("PEFT wrote an adapter without weights", fix="Merge the runs as whole models")
    values = read_object(target / CONFIG)
    # PEFT has put the scales into A and keeps these two of the first adapter, which would scale once more.
    values |= {"base_model_name_or_path": request["base"], "use_rslora": False, "lora_alpha": values["r"]}
    write_object(target / CONFIG, values)
    return {"rank": values["r"]}


if __name__ == "__main__":
    raise SystemExit(serve_step(combine))

"""A checkpoint in 4 bits (NF4, Dettmers et al. 2023, arXiv:2305.14314) as bitsandbytes keeps it, in its own process.

transformers loads such a folder as it is: its config.json says how the weights are packed. Linear layers are packed,
embeddings and norms stay in 16 bits. Weights are packed one after the other while they are read. Nothing is computed
here: on some CPUs the first product would pack a weight anew.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from studio.errors import StudioError
from studio.export.steps import Report, serve_step
from studio.models.inspect.headers import SAFE


def pack(request: dict[str, Any], report: Report) -> dict[str, Any]:
    """Write a checkpoint's weights in 4 bits.

    Args:
        request: {"source" (folder of the checkpoint), "target" (folder that is made), "shard_bytes"}.
        report: not called.

    Returns:
        {"layers": how many were packed}.

    Raises:
        StudioError: none could be, or bitsandbytes cannot work here.
    """
    import torch
    from bitsandbytes.nn.modules import Linear4bit
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    # On a CPU it looks for a kernel on the Hub and says, as an error, that it goes on without.
    logging.getLogger("bitsandbytes").setLevel(logging.CRITICAL)
    form = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )  # fmt: skip
    try:
        model = AutoModelForCausalLM.from_pretrained(
            Path(request["source"]), quantization_config=form, dtype=torch.bfloat16,
            device_map={"": "cuda" if torch.cuda.is_available() else "cpu"}, **SAFE,
        )  # fmt: skip
    except (RuntimeError, ValueError, ImportError) as error:
        said = str(error).strip().partition("\n")[0][:200]
        raise StudioError(f"bitsandbytes cannot pack the weights: {said}", fix="Choose bfloat16") from error
    layers = sum(isinstance(module, Linear4bit) for module in model.modules())
    if layers == 0:
        raise StudioError("the model has no linear layers that bitsandbytes packs", fix="Choose bfloat16")
    model.save_pretrained(Path(request["target"]), max_shard_size=int(request["shard_bytes"]))
    return {"layers": layers}


if __name__ == "__main__":
    raise SystemExit(serve_step(pack))

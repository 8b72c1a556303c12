"""Whether the weight files hold the model that config.json tells of, unquantised.

Read from the headers, so that it is said before the start; families whose names are not known here are looked at
when they are loaded (`pretrained`).
"""

from __future__ import annotations

import re
from importlib.util import find_spec

from studio.errors import InputError
from studio.models.inspect.families import family_of
from studio.models.inspect.shape import EMBEDDINGS
from studio.train.checks.known import Known

BLOCK = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.(.+)")
_AGAIN = "Copy or download the model again; its config.json must be the one saved with the weights"
# What torch.compile, DataParallel and PEFT put in front of every name when the wrapped model is saved.
_WRAPPERS = ("_orig_mod.", "module.", "base_model.model.")
_EMBEDDINGS = tuple(f"{name}.weight" for name in EMBEDDINGS)


def _wrapped(known: Known) -> None:
    for prefix in _WRAPPERS:
        if known.tensors and all(tensor.name.startswith(prefix) for tensor in known.tensors):
            raise InputError(
                f"every weight name begins with '{prefix}', so none of them would be found",
                where=f"model.path: {known.folder}",
                fix="Save the model itself, not its wrapper"
                + (", or merge the adapter first" if prefix == "base_model.model." else ""),
            )


def _blocks(known: Known) -> None:
    """Every block is there, and in families that are known every layer of it that an adapter goes on."""
    blocks: dict[int, set[str]] = {}
    for tensor in known.tensors:
        if found := BLOCK.search(tensor.name):
            blocks.setdefault(int(found[1]), set()).update(found[2].split("."))
    if not blocks:
        return
    family = family_of(known.raw)
    # Some blocks of a mixture are dense; what all have is attention.
    wanted = set(family.targets) & set().union(*blocks.values()) if family else set()
    for block in range(known.shape.layers):
        lacking = sorted(wanted - blocks.get(block, set()))
        if block in blocks and not lacking:
            continue
        what = f"block {block} has no {lacking[0]}" if block in blocks else f"there is no block {block}"
        raise InputError(
            f"config.json has {known.shape.layers} blocks, but in the weight files {what}",
            where=f"model.path: {known.folder}", fix=_AGAIN,
        )  # fmt: skip


def _embedding(known: Known) -> None:
    if not known.tensors or family_of(known.raw) is None:
        return
    shapes = [one.shape for one in known.tensors if one.name.endswith(_EMBEDDINGS)]
    if not shapes:
        raise InputError("the weight files have no embedding", where=f"model.path: {known.folder}", fix=_AGAIN)
    stored = dict(zip(("vocab_size", "hidden_size"), shapes[0], strict=False))
    for name, told in (("vocab_size", known.shape.vocab), ("hidden_size", known.shape.hidden)):
        if stored.get(name, told) != told:
            raise InputError(
                f"config.json has {name} {told:,}, but the embedding in the weight files has {stored[name]:,}",
                where=f"model.path: {known.folder}", fix=_AGAIN,
            )  # fmt: skip


def _quantised(known: Known) -> None:
    quantised = known.raw.get("quantization_config")
    if known.config.tuning.kind.quantized and find_spec("bitsandbytes") is None:
        raise InputError(
            "qlora needs the package bitsandbytes, which is not installed", where="tuning.name",
            fix="Install it (pip install bitsandbytes), or use lora",
        )  # fmt: skip
    if isinstance(quantised, dict):
        # Packed weights have other shapes than their layers, and what reads them often cannot pass gradients.
        kind = quantised.get("quant_method", "unknown format")
        raise InputError(
            f"this checkpoint is already quantized ({kind}), and training needs unquantized "
            f"weights", where="model.path",
            fix="Choose the unquantized model; tuning.name qlora quantizes it to 4 or 8 bits",
        )  # fmt: skip


WEIGHT_CHECKS = (_wrapped, _blocks, _embedding, _quantised)

"""mergekit, in a process of its own: it is LGPL, imports torch, and is told to stop by ending it.

It works in the job's work folder with relative names, since it reads `@` and `+` in a path as revision and adapter.
Every model lies there as links to its weights and copies of its small files, so that mergekit finds neither code nor
pickled weights, and looks nothing up on the Hub.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any, TextIO

import torch
from mergekit.architecture import get_architecture_info
from mergekit.architecture.auto import get_transformers_info
from mergekit.config import MergeConfiguration
from mergekit.merge import run_merge
from mergekit.options import MergeOptions
from safetensors import SafetensorError

from studio.errors import InputError, StudioError
from studio.export.gguf.checkpoint import weight_files
from studio.export.gguf.shards import parts_of, tensors_of
from studio.export.steps import Report, serve_step
from studio.merge.recipe import write_recipe
from studio.models.inspect.headers import read_tensors

# mergekit's own bar, the only thing that says how far it is.
_BAR = re.compile(r"Executing graph: .*?(\d+)/(\d+)")


class InOrder(MergeConfiguration):
    """A recipe whose models come in the order in which they are named.

    mergekit takes them from a set: of a merge without a base model, config and vocabulary would come from any of them,
    and from another one the next time.
    """

    def referenced_models(self) -> list[Any]:
        """Return the models: those that are named first come first, the base last."""
        parts = [self, *(self.modules or {}).values()]
        named = [one.model for part in parts for one in part.models or []]
        sliced = [source.model for part in parts for one in part.slices or [] for source in one.sources]
        return list(dict.fromkeys([*named, *sliced, *([self.base_model] if self.base_model else [])]))


class _Bar:
    """Stands in for stderr while mergekit runs: its bar becomes progress, everything else goes on to the log."""

    def __init__(self, stream: TextIO, report: Report) -> None:
        self._stream, self._report = stream, report

    def write(self, text: str) -> int:
        found = _BAR.search(text)
        if found:
            self._report(float(found[1]), float(found[2]))
        elif text.strip() and "Warmup loader cache" not in text:
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        self._stream.flush()


def merge_models(request: dict[str, Any], report: Report) -> dict[str, Any]:
    """Merge by a recipe.

    Args:
        request: {"folder", "recipe" (plain values), "target", "seed", "shard_bytes"}; names in the recipe and the
            target are relative to the folder.
        report: called with (operations done, operations in all).

    Returns:
        {"recipe": YAML, "tensors", "parameters", "device"}.

    Raises:
        InputError: mergekit refuses the recipe or would leave tensors out, or the result has numbers that are none.
    """
    os.chdir(request["folder"])
    text = write_recipe(request["recipe"])
    options = MergeOptions(
        device="auto", copy_tokenizer=True, write_model_card=False, random_seed=request["seed"],
        out_shard_size=request["shard_bytes"],
    )  # fmt: skip
    before, sys.stderr = sys.stderr, _Bar(sys.stderr, report)
    try:
        recipe = InOrder.model_validate(request["recipe"])
        _require_known(recipe, options)
        run_merge(recipe, request["target"], options)
    except (OSError, SafetensorError) as error:
        raise StudioError(f"the merge could not be written: {error}", fix="Free some space, and merge again") from error
    except (
        ValueError, RuntimeError, TypeError, KeyError, AttributeError, NotImplementedError, AssertionError
    ) as error:  # fmt: skip
        raise InputError(
            f"mergekit refuses the recipe: {_in_a_line(error)}", where="recipe",
            fix="The job's log has its messages",
        ) from error  # fmt: skip
    finally:
        sys.stderr = before
    tensors, numbers = _require_numbers(Path(request["target"]))
    return {"recipe": text, "tensors": tensors, "parameters": numbers, "device": options.device}


def _require_known(recipe: InOrder, options: MergeOptions) -> None:
    """See that mergekit knows every tensor: it writes those of its own list for an architecture, and no others.

    Its Llama has no biases, for example; a child without them would be filled with zeros when it is loaded. What the
    model itself does not read, such as buffers of an older checkpoint, may be left out.
    """
    architecture = get_architecture_info(recipe, options)
    for model in recipe.referenced_models():
        weights = architecture.all_weights(model.config(trust_remote_code=False))
        known = {name for one in weights for name in (one.name, *(one.aliases or ()), *(one.tied_names or ()))}
        *_, needed = get_transformers_info(model, options)
        stored = {tensor.name for tensor in read_tensors(Path(model.model.path))}
        if lost := sorted((stored & set(needed or ())) - known):
            raise InputError(
                f"mergekit does not know {len(lost)} tensors of this architecture, such as {lost[0]}, and the child "
                "would lack them",
                where="recipe", fix="Combine the runs as adapters, for example with merge_method: adapter_cat",
            )  # fmt: skip


def _require_numbers(folder: Path) -> tuple[int, int]:
    """See that a model has no infinite number and none that is none; returns its tensors and numbers."""
    parts, _ = parts_of(weight_files(folder))
    tensors = numbers = 0
    for name, tensor in tensors_of(parts):
        tensors, numbers = tensors + 1, numbers + tensor.numel()
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise InputError(
                f"the child's {name} has numbers that are not finite", where="recipe",
                fix="Use smaller weights, or out_dtype: float32 or bfloat16",
            )  # fmt: skip
    return tensors, numbers


def _in_a_line(error: Exception) -> str:
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return " ".join(text.split())[:400] or type(error).__name__


if __name__ == "__main__":
    raise SystemExit(serve_step(merge_models))

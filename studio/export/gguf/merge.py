"""LoRA adapter + base model = full checkpoint, one tensor at a time.

The base is read tensor by tensor and written in shards of at most 128 MB, so memory does not grow with the model
(PEFT's merge holds it whole). The sum W + B·A·s is made in float32 and rounded once, when it is written: rounding
B·A first, as a bfloat16 model does, costs up to one more step of bfloat16. Covers LoRA, rsLoRA, rank and alpha
patterns, DoRA and biases; whatever else an adapter holds goes through PEFT's merge_and_unload instead.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from studio.errors import InputError
from studio.export.gguf.checkpoint import INDEX, SINGLE, copy_small_files, read_object, weight_files, write_object
from studio.export.steps import Report, serve_step
from studio.models.inspect.adapters import adapter_config, require_quick_adapter
from studio.models.inspect.headers import SAFE
from studio.patterns import Patterns

SHARD_BYTES = 128 * 1024 * 1024
DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_PREFIX = "base_model.model."
_HALVES = {".lora_A.weight": "a", ".lora_B.weight": "b", ".lora_magnitude_vector": "magnitude"}


@dataclass
class ModuleDelta:
    """What an adapter adds to one linear layer: W' = W + B·A·scale, for DoRA with each row then given a length.

    Shapes: `a` (rank, in), `b` (out, rank), `magnitude` (out,).
    """

    scale: float
    a: torch.Tensor | None = None
    b: torch.Tensor | None = None
    magnitude: torch.Tensor | None = None

    def apply(self, weight: torch.Tensor, transposed: bool) -> torch.Tensor:
        """Return the merged weight (out, in) in float32; `transposed` when the layer stores (in, out)."""
        if self.a is None or self.b is None:
            raise _Uncovered("one of lora_A and lora_B is missing")
        delta = (self.b.float() @ self.a.float()) * self.scale
        merged = weight.float() + (delta.T if transposed else delta)
        if self.magnitude is None:
            return merged
        norm = torch.linalg.norm(merged, dim=1)
        return (self.magnitude.float() / norm).view(-1, 1) * merged


@dataclass
class AdapterDelta:
    """A whole adapter: deltas by module, and tensors (biases) that replace the base's."""

    modules: dict[str, ModuleDelta] = field(default_factory=dict)
    replaced: dict[str, torch.Tensor] = field(default_factory=dict)
    transposed: bool = False


class _Uncovered(Exception):
    """The streaming merge does not know this kind of adapter; PEFT does."""


def merge_adapter(
    base: Path, adapter: Path, target: Path, dtype: str, report: Report, tokenizer: Path | None = None
) -> dict[str, Any]:
    """Write base + adapter as a full checkpoint.

    Args:
        base: folder of the base model (safetensors).
        adapter: folder of the PEFT adapter.
        target: folder to make.
        dtype: float32, float16 or bfloat16, for matrices. Vectors keep the precision they have, and so does a matrix
            that float16 cannot hold (an entry above 65504).
        report: called with (tensors done, tensors in all).
        tokenizer: folder whose tokenizer files go beside the weights; None for the adapter's.

    Returns:
        {"method": "streaming"|"peft", "reason", "merged": number of layers, "kept_wide": [names]}.

    Raises:
        InputError: the adapter or the base cannot be read, or they do not belong together.
    """
    config = adapter_config(adapter) or read_object(adapter / "adapter_config.json")
    target.mkdir(parents=True, exist_ok=True)
    try:
        delta = read_delta(adapter, config, read_object(base / "config.json"))
        answer = _stream(base, delta, target, DTYPES[dtype], report)
    except _Uncovered as reason:
        for file in target.glob("*.safetensors"):
            file.unlink()
        answer = _through_peft(base, adapter, target, DTYPES[dtype]) | {"reason": str(reason)}
    except SafetensorError as error:
        raise InputError(f"the weights cannot be read: {error}", where=f"{base} or {adapter}") from error
    saved = read_object(target / "config.json") if answer["method"] == "peft" else {}
    # An adapter may carry a config.json only for its tokenizer's sake: the model's is the base's.
    copy_small_files(base, None, tokenizer or adapter, target)
    model_config = read_object(target / "config.json") | saved
    model_config.pop("auto_map", None)
    model_config["dtype"] = dtype
    model_config.pop("torch_dtype", None)
    write_object(target / "config.json", model_config)
    return answer


def read_delta(adapter: Path, config: dict[str, Any], model_config: dict[str, Any]) -> AdapterDelta:
    """Read an adapter's tensors and sort them by module.

    Args:
        adapter: PEFT folder.
        config: its adapter_config.json.
        model_config: the base's config.json.

    Raises:
        InputError: there is no adapter file.
        _Uncovered: it holds something that a streaming merge would get wrong.
    """
    file = adapter / "adapter_model.safetensors"
    if not file.is_file():
        raise InputError("adapter_model.safetensors is missing", where=str(adapter), fix="Export a completed run")
    _require_covered(config, model_config)
    found = AdapterDelta(transposed=bool(config.get("fan_in_fan_out")))
    for key, tensor in load_file(file).items():
        name = key.removeprefix(_PREFIX)
        suffix = next((suffix for suffix in _HALVES if name.endswith(suffix)), None)
        if suffix is None:
            if not name.endswith(".bias") or ".lora_" in name:
                raise _Uncovered(f"{key} is neither a LoRA matrix nor a bias")
            found.replaced[name.replace(".base_layer.", ".")] = tensor
            continue
        if tensor.dim() > 2:
            raise _Uncovered(f"{key} belongs to a convolution")
        module = name.removesuffix(suffix)
        part = found.modules.setdefault(module, ModuleDelta(scale_of(module, config)))
        setattr(part, _HALVES[suffix], tensor)
    return found


def scale_of(module: str, config: dict[str, Any]) -> float:
    """alpha / rank of one module (alpha / sqrt(rank) for rsLoRA, arXiv:2312.03732), with PEFT's rule for patterns."""

    def of(patterns: dict[str, Any] | None, default: Any) -> float:
        return float(Patterns().first(patterns or {}, [module], default)[0])

    rank = of(config.get("rank_pattern"), config["r"])
    alpha = of(config.get("alpha_pattern"), config["lora_alpha"])
    return alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)


def _require_covered(config: dict[str, Any], model_config: dict[str, Any]) -> None:
    if config.get("peft_type") != "LORA":
        raise _Uncovered(f"it is an adapter of type {config.get('peft_type')}")
    if config.get("use_dora") and config.get("fan_in_fan_out"):
        raise _Uncovered("DoRA on transposed layers")
    # These change weights or modules beyond W + B·A·s.
    for option in ("modules_to_save", "target_parameters", "trainable_token_indices", "layer_replication", "lora_bias",
                   "use_qalora", "alora_invocation_tokens", "arrow_config", "corda_config", "eva_config"):  # fmt: skip
        if config.get(option):
            raise _Uncovered(f"the adapter uses {option}")
    if config.get("init_lora_weights") not in (True, False, None, "gaussian", "orthogonal"):
        raise _Uncovered(f"init_lora_weights is {config['init_lora_weights']}, which also changes the base weights")
    if model_config.get("quantization_config"):
        raise _Uncovered("the base model is stored quantized")


def _stream(base: Path, delta: AdapterDelta, target: Path, dtype: torch.dtype, report: Report) -> dict[str, Any]:
    files = weight_files(base)
    unused = {f"{name}.weight" for name in delta.modules} | set(delta.replaced)
    names: list[tuple[Path, str]] = []
    for file in files:
        with safe_open(file, "pt") as tensors:
            names += [(file, name) for name in tensors.keys()]  # noqa: SIM118 - not a dict
    missing = unused - {name for _, name in names}
    if missing:
        raise _Uncovered(f"the base has no tensor {sorted(missing)[0]}")
    writer, kept_wide = _ShardWriter(target), []
    done = 0
    for file in files:
        with safe_open(file, "pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118
                tensor, part = tensors.get_tensor(name), delta.modules.get(name.removesuffix(".weight"))
                kept = tensor.dtype
                if part is not None and name.endswith(".weight"):
                    tensor = part.apply(tensor, delta.transposed)
                elif name in delta.replaced:
                    tensor = delta.replaced[name]
                unused.discard(name)
                written = written_as(tensor, kept, dtype)
                if written.dtype != dtype and tensor.dim() > 1 and tensor.is_floating_point():
                    kept_wide.append(name)
                writer.add(name, written)
                done += 1
                report(done, len(names))
    # Cannot be: what was missing fell back above. An adapter tensor left out would be a wrong model, so it is checked.
    if unused:
        raise _Uncovered(f"{sorted(unused)[0]} was not merged")
    writer.close()
    return {"method": "streaming", "reason": "", "merged": len(delta.modules), "kept_wide": kept_wide}


def written_as(tensor: torch.Tensor, stored: torch.dtype, dtype: torch.dtype) -> torch.Tensor:
    """Round a tensor once, to the dtype it is stored in.

    Vectors (norms, biases) keep the base's dtype, since the converter stores them in float32 anyway. A matrix with
    entries beyond float16 stays in float32.

    Args:
        tensor: merged, any dtype.
        stored: dtype of the base's own tensor.
        dtype: of the file to be written.
    """
    if not tensor.is_floating_point():
        return tensor
    if tensor.dim() < 2:
        return tensor.to(stored)
    rounded = tensor.to(dtype)
    if dtype == torch.float16 and not torch.isfinite(rounded).all() and torch.isfinite(tensor).all():
        return tensor.float()
    return rounded


class _ShardWriter:
    """Writes tensors into numbered safetensors files of bounded size, and their index."""

    def __init__(self, target: Path) -> None:
        self._target, self._files = target, 0
        self._held: dict[str, torch.Tensor] = {}
        self._held_bytes, self._total = 0, 0
        self._places: dict[str, int] = {}

    def add(self, name: str, tensor: torch.Tensor) -> None:
        size = tensor.numel() * tensor.element_size()
        if self._held and self._held_bytes + size > SHARD_BYTES:
            self._flush()
        self._held[name] = tensor.contiguous()
        self._held_bytes += size
        self._total += size

    def _flush(self) -> None:
        self._files += 1
        self._places |= dict.fromkeys(self._held, self._files)
        save_file(self._held, self._target / f"part-{self._files}.safetensors", metadata={"format": "pt"})
        self._held, self._held_bytes = {}, 0

    def close(self) -> None:
        """Write the last shard and give all of them the names that transformers expects."""
        self._flush()
        if self._files == 1:
            (self._target / "part-1.safetensors").rename(self._target / SINGLE)
            return
        names = {n: f"model-{n:05d}-of-{self._files:05d}.safetensors" for n in range(1, self._files + 1)}
        for number, name in names.items():
            (self._target / f"part-{number}.safetensors").rename(self._target / name)
        index = {
            "metadata": {"total_size": self._total},
            "weight_map": {name: names[number] for name, number in self._places.items()},
        }
        (self._target / INDEX).write_text(json.dumps(index, indent=2), encoding="utf-8")


def _through_peft(base: Path, adapter: Path, target: Path, dtype: torch.dtype) -> dict[str, Any]:
    # Imported here: these two need 4 seconds and 300 MB that the streaming merge does without.
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, **SAFE)
    require_quick_adapter(adapter, model)
    try:
        peft_model = PeftModel.from_pretrained(model, str(adapter), local_files_only=True)
        merged = peft_model.merge_and_unload(safe_merge=True)
    except (ValueError, RuntimeError, KeyError) as error:
        raise InputError(
            f"PEFT cannot merge this adapter: {error}",
            where=str(adapter),
            fix="Only an adapter that PEFT can merge can become a GGUF",
        ) from error
    merged.to(dtype).save_pretrained(target)
    return {"method": "peft", "merged": len(peft_model.targeted_module_names), "kept_wide": []}


def _work(request: dict[str, Any], report: Report) -> dict[str, Any]:
    return merge_adapter(
        Path(request["base"]),
        Path(request["adapter"]),
        Path(request["target"]),
        request["dtype"],
        report,
        Path(request["tokenizer"]),
    )


if __name__ == "__main__":
    raise SystemExit(serve_step(_work))

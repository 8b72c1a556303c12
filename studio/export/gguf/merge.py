"""LoRA adapter + base model = full checkpoint, one tensor at a time.

The base is read tensor by tensor and written in files of bounded size (`shards`), so memory does not grow with the
model (PEFT's merge holds it whole); without an adapter it is only rounded and divided anew. The sum W + B·A·s is made
in float32 and rounded once, when it is written: rounding B·A first, as a bfloat16 model does, costs up to one more step
of bfloat16. Covers LoRA, rsLoRA, rank and alpha patterns, DoRA and biases; whatever else an adapter holds goes through
PEFT's merge_and_unload instead.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from studio.errors import InputError
from studio.export.gguf.checkpoint import copy_small_files, read_object, weight_files, write_object
from studio.export.gguf.shards import DTYPES, Form, ShardWriter, parts_of, tensors_of
from studio.export.steps import Report, serve_step
from studio.models.inspect.adapters import adapter_config, require_quick_adapter
from studio.models.inspect.headers import SAFE
from studio.patterns import Patterns

_PREFIX = "base_model.model."
_HEADS = ("lm_head", "embed_out")
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
            raise UncoveredError("one of lora_A and lora_B is missing")
        delta = (self.b.float() @ self.a.float()).mul_(self.scale)
        merged = (delta.T if transposed else delta).add_(weight.float())  # in place: these are the largest of a merge
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


class UncoveredError(Exception):
    """The streaming merge does not know this kind of adapter; PEFT does."""


def merge_adapter(
    base: Path, adapter: Path | None, target: Path, form: Form, report: Report, tokenizer: Path | None = None
) -> dict[str, Any]:
    """Write base + adapter as a full checkpoint.

    Args:
        base: folder of the base model (safetensors).
        adapter: folder of the PEFT adapter; None for the base itself in another form.
        target: folder to make.
        form: its dtype, and how large its files are.
        report: called with (tensors done, tensors in all).
        tokenizer: folder whose tokenizer files go beside the weights; None for the adapter's, or the base's.

    Returns:
        {"method": "streaming"|"peft", "reason", "merged": number of layers, "kept_wide": [names]}.

    Raises:
        InputError: the adapter or the base cannot be read, or they do not belong together.
    """
    target.mkdir(parents=True, exist_ok=True)
    try:
        delta = AdapterDelta()
        if adapter is not None:
            config = adapter_config(adapter) or read_object(adapter / "adapter_config.json")
            delta = read_delta(adapter, config, read_object(base / "config.json"))
        answer = _stream(base, delta, target, form, report)
    except UncoveredError as reason:
        assert adapter is not None  # nothing of a base alone is uncovered
        for file in target.glob("*.safetensors"):
            file.unlink()
        answer = _through_peft(base, adapter, target, form) | {"reason": str(reason)}
    except SafetensorError as error:
        raise InputError(f"the weights cannot be read: {error}", where=f"{base} or {adapter}") from error
    saved = read_object(target / "config.json") if answer["method"] == "peft" else {}
    # An adapter may carry a config.json only for its tokenizer's sake: the model's is the base's.
    copy_small_files(base, None, tokenizer or adapter or base, target, for_converter=not form.uniform)
    model_config = read_object(target / "config.json") | saved
    model_config.pop("auto_map", None)
    model_config["dtype"] = form.dtype
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
        UncoveredError: it holds something that a streaming merge would get wrong.
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
                raise UncoveredError(f"{key} is neither a LoRA matrix nor a bias")
            found.replaced[name.replace(".base_layer.", ".")] = tensor
            continue
        if tensor.dim() > 2:
            raise UncoveredError(f"{key} belongs to a convolution")
        module = name.removesuffix(suffix)
        if module in _HEADS and model_config.get("tie_word_embeddings") is not False:
            raise UncoveredError(f"{module} may be one tensor with the embedding")
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
        raise UncoveredError(f"it is an adapter of type {config.get('peft_type')}")
    if config.get("use_dora") and config.get("fan_in_fan_out"):
        raise UncoveredError("DoRA on transposed layers")
    # These change weights or modules beyond W + B·A·s.
    for option in ("modules_to_save", "target_parameters", "trainable_token_indices", "layer_replication", "lora_bias",
                   "use_qalora", "alora_invocation_tokens", "arrow_config", "corda_config", "eva_config"):  # fmt: skip
        if config.get(option):
            raise UncoveredError(f"the adapter uses {option}")
    if config.get("init_lora_weights") not in (True, False, None, "gaussian", "orthogonal"):
        raise UncoveredError(f"init_lora_weights is {config['init_lora_weights']}, which also changes the base weights")
    if model_config.get("quantization_config"):
        raise UncoveredError("the base model is stored quantized")


def _stream(base: Path, delta: AdapterDelta, target: Path, form: Form, report: Report) -> dict[str, Any]:
    unused = {f"{name}.weight" for name in delta.modules} | set(delta.replaced)
    parts, usual = parts_of(weight_files(base))
    names = {name for part in parts for name in part.names}
    if missing := unused - names:
        raise UncoveredError(f"the base has no tensor {sorted(missing)[0]}")
    writer, kept_wide = ShardWriter(target, form.shard_bytes), []
    for done, (name, stored) in enumerate(tensors_of(parts), 1):
        tensor, part = stored, delta.modules.get(name.removesuffix(".weight"))
        if part is not None and name.endswith(".weight"):
            tensor = part.apply(tensor, delta.transposed)
        elif name in delta.replaced:
            tensor = delta.replaced[name]
        unused.discard(name)
        written = form.written(tensor, stored.dtype, usual)
        if written.dtype != DTYPES[form.dtype] and tensor.dim() > 1 and tensor.is_floating_point():
            kept_wide.append(name)
        writer.add(name, written)
        report(done, len(names))
    # Cannot be: what was missing fell back above. An adapter tensor left out would be a wrong model, so it is checked.
    if unused:
        raise UncoveredError(f"{sorted(unused)[0]} was not merged")
    writer.close()
    return {"method": "streaming", "reason": "", "merged": len(delta.modules), "kept_wide": kept_wide}


def _through_peft(base: Path, adapter: Path, target: Path, form: Form) -> dict[str, Any]:
    # Imported here: these two need 4 seconds and 300 MB that the streaming merge does without.
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, **SAFE)
    require_quick_adapter(adapter, model)
    try:
        peft_model = PeftModel.from_pretrained(model, str(adapter), local_files_only=True)
        _untie(peft_model)
        merged = peft_model.merge_and_unload(safe_merge=True)
    except (ValueError, RuntimeError, KeyError) as error:
        raise InputError(
            f"PEFT cannot merge this adapter: {error}",
            where=str(adapter),
            fix="Only an adapter that PEFT can merge can become a model of its own",
        ) from error
    if form.dtype == "float16":
        _require_half(merged)
    merged.to(DTYPES[form.dtype]).save_pretrained(target, max_shard_size=form.shard_bytes)
    return {"method": "peft", "merged": len(peft_model.targeted_module_names), "kept_wide": []}


def _untie(peft_model: Any) -> None:
    """Part embedding and output head of one tensor where an adapter changes one of them: both would change.

    They stay one where it was trained to change both alike (`ensure_weight_tying`).
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    model = peft_model.get_base_model()
    layers = model.get_input_embeddings(), model.get_output_embeddings()
    alike = getattr(peft_model.peft_config["default"], "ensure_weight_tying", False)
    if alike or not any(isinstance(layer, BaseTunerLayer) for layer in layers):
        return
    embedding, head = (layer.get_base_layer() if isinstance(layer, BaseTunerLayer) else layer for layer in layers)
    if getattr(head, "weight", None) is embedding.weight:
        head.weight = torch.nn.Parameter(head.weight.detach().clone())
        model.config.get_text_config().tie_word_embeddings = model.config.tie_word_embeddings = False


def _require_half(model: torch.nn.Module) -> None:
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor.half()).all():
            raise InputError(
                f"{name} has entries that float16 cannot hold", where="dtype", fix="Choose bfloat16 or float32"
            )


def _work(request: dict[str, Any], report: Report) -> dict[str, Any]:
    return merge_adapter(
        Path(request["base"]),
        Path(request["adapter"]) if request["adapter"] else None,
        Path(request["target"]),
        Form(**request["form"]),
        report,
        Path(request["tokenizer"]),
    )


if __name__ == "__main__":
    raise SystemExit(serve_step(_work))

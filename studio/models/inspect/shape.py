"""How large a model is, read from `config.json` and the headers of its safetensors files. No torch.

The headers list every tensor with its shape, so the count is exact for any family. It does not say what a model costs
to train: that is `plan`. Where transformers 5 loads something else than the file holds (the experts of a mixture), what
it loads counts.
"""

from __future__ import annotations

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

from studio.config.model import ModelConfig
from studio.errors import InputError
from studio.models.inspect.headers import Tensor, read_config, read_tensors

# What families call the embedding and the head.
EMBEDDINGS = ("embed_tokens", "embed_in", "wte", "word_embeddings")
HEADS = ("lm_head", "embed_out")
_FLOATS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_NOT_LINEAR = ("embed", "norm", "wte", "wpe", "lm_head", "score", "classifier", "conv", "rotary")
# Stored, but no weights: causal masks of old GPT checkpoints, rotary tables, the balance of DeepSeek's router, and
# the scales of 8-bit weights.
_BUFFER = re.compile(r"\.(masked_bias|inv_freq|e_score_correction_bias|weight_scale_inv)$")
_MASK = re.compile(r"\.(attn|attention)\.bias$")
_BLOCK = re.compile(r"(?:^|\.)(?:layers|h|blocks)\.(\d+)\.", re.ASCII)
_EXPERT = re.compile(r"^(.*\.experts)\.(?:\d+\.)?[^.]+(?:\.weight)?$")
_ROUTERS = ("gate", "router")
_CONTEXT = ("max_position_embeddings", "n_positions", "n_ctx", "seq_length")
# No figure of a model is near the first, no model has so many blocks (Llama 3.1 405B: 126) or experts (Kimi K2: 384).
_LARGEST, MOST_BLOCKS = 2**40, 2000
# Their layers are Conv1D, whose weight is (inputs, outputs).
_TRANSPOSED = ("gpt2", "openai-gpt")
# Mixtures whose experts PEFT 0.21 adapts when layers of these names are asked for, all-linear included: it takes
# the names for those of the experts, so the dense layers that have them too (DeepSeek's shared experts) get none.
_QWEN_EXPERTS = ("gate_proj", "up_proj", "down_proj", "gate")
_EXPERT_NAMES = {
    "mixtral": ("w1", "w2", "w3", "gate"), "qwen3_moe": _QWEN_EXPERTS, "deepseek_v2": _QWEN_EXPERTS,
    "deepseek_v3": _QWEN_EXPERTS,
}  # fmt: skip


@dataclass(frozen=True)
class Linear:
    """One linear layer inside the blocks: y (…, outputs) = x (…, inputs) Wᵀ."""

    name: str
    inputs: int
    outputs: int

    @property
    def suffix(self) -> str:
        """Last part of the name, which `tuning.target_modules` names (`q_proj`)."""
        return self.name.rsplit(".", 1)[-1]

    @property
    def ends(self) -> set[str]:
        """What names it by PEFT's rule for a list of names: its whole name, and each end of it at a dot."""
        return ends_of(self.name)


# Shapes that were worked out: a plan asks for the same one a dozen times, which takes seconds for a large mixture.
_KEPT = 8
_SHAPES: OrderedDict[tuple[str, int], ModelShape] = OrderedDict()
_LOCK = threading.Lock()


def ends_of(name: str) -> set[str]:
    """A module's whole name, and each end of it at a dot: what a list of PEFT may call it."""
    parts = name.split(".")
    return {".".join(parts[begin:]) for begin in range(len(parts))}


def block_of(text: str) -> int:
    """The number that a part of a tensor's name is; -1 for one that is none."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else -1


def longest_context(config: dict[str, Any], model: ModelConfig) -> int | None:
    """Return the tokens that a model reads at most, None if it does not say.

    Args:
        config: its config.json.
        model: the run's section `model`, which may stretch the context.
    """
    core = _core(config)
    context = next((int(core[name]) for name in _CONTEXT if _is_figure(core.get(name))), None)
    if context is None or model.rope_scaling == "none":
        return context
    return int(context * model.rope_factor)


@dataclass(frozen=True)
class ModelShape:
    """What the plan needs to know of a model.

    Attributes:
        family: transformers' `model_type` ("llama").
        parameters: elements of all weights; a matrix that the output head shares is counted once. Masks, tables and
            blocks that are stored but not loaded (multi-token prediction) are not counted.
        hidden, layers, heads, kv_heads, vocab: as in `config.json`.
        head_dim: width of a head's query and key.
        intermediate: width of the MLP that a token passes: in a mixture of experts, of all that it passes together.
        context: longest position the model was made for, in tokens; None if it does not say.
        tied: whether the output head is the embedding matrix.
        linears: the linear layers inside the blocks. The head is not one of them; nor are the experts of a mixture
            and its router, which transformers 5 makes parameters: bitsandbytes leaves them as they are.
        experts: what PEFT adapts of the experts: two stacks a block, with sides so long that rank × (inputs + outputs)
            is the size of the adapter; the router's share is in the first. Empty where PEFT adapts no experts.
        dtype: type of most stored weights ("bfloat16").
        dtype_bytes: bytes of one stored weight, on average.
        file_bytes: bytes of the weights on the disk.
        window: tokens that attention goes back at most, be it in some blocks only; None for no such limit.
    """

    family: str
    parameters: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    intermediate: int
    context: int | None
    tied: bool
    dtype: str
    dtype_bytes: float
    file_bytes: int
    linears: tuple[Linear, ...] = field(repr=False, default=())
    experts: tuple[Linear, ...] = field(repr=False, default=())
    window: int | None = None

    @classmethod
    def from_folder(cls, path: Path) -> ModelShape:
        """Read the shape of the checkpoint in the folder `path`.

        Raises:
            InputError: no usable `config.json`, or a safetensors file that is missing, cut short or not one.
        """
        return cls.from_parts(read_config(path), read_tensors(path), where=str(path))

    @classmethod
    def from_parts(cls, config: dict[str, Any], tensors: list[Tensor], *, where: str = "config.json") -> ModelShape:
        """Build the shape from an already read config and tensor list.

        Args:
            config: the model's config.json.
            tensors: names, shapes and dtypes from its weight headers.
            where: what to name in errors.

        Raises:
            InputError: the config lacks a size that no other value of it gives.
        """
        key = json.dumps(config, sort_keys=True, default=str), hash(tuple(tensors))
        with _LOCK:
            found = _SHAPES.get(key)
        if found is None:
            found = cls._from_parts(config, tensors, where)
            with _LOCK:
                _SHAPES[key] = found
                while len(_SHAPES) > _KEPT:
                    _SHAPES.popitem(last=False)
        return found

    @classmethod
    def _from_parts(cls, config: dict[str, Any], tensors: list[Tensor], where: str) -> ModelShape:
        core = _core(config)

        def number(*names: str, default: int | None = None) -> int:
            for name in names:
                value = core.get(name)
                most = MOST_BLOCKS if names[0] == "num_hidden_layers" else _LARGEST
                if isinstance(value, int) and value > most:
                    default = None  # beyond any model, so what others default to would be a guess
                elif _is_figure(value):
                    return value
            if default is None:
                raise InputError(
                    f"config.json has no usable {names[0]}, so this is not a supported text model",
                    where=where,
                    fix="Choose a causal language model, such as Llama, Qwen, Mistral, Gemma, Phi or SmolLM",
                )
            return default

        hidden = number("hidden_size", "n_embd", "d_model")
        heads = number("num_attention_heads", "n_head", default=max(1, hidden // 64))
        layers = number("num_hidden_layers", "n_layer", "num_layers")
        family = f"{config.get('model_type', 'unknown')!s:.60}"
        weights = [tensor for tensor in tensors if _is_weight(tensor, layers)]
        names = {tensor.name for tensor in weights}
        tied = bool(core.get("tie_word_embeddings", config.get("tie_word_embeddings", True)))
        heads_stored = [tensor for tensor in tensors if tensor.name.endswith("lm_head.weight")]
        # A tied head that was saved all the same is the embedding once more: transformers shares the two again.
        repeated = sum(t.size for t in heads_stored) if tied and any("embed" in n or "wte" in n for n in names) else 0
        floats = {kind: sum(t.bytes for t in tensors if t.dtype == kind) for kind in {t.dtype for t in tensors}}
        main = max(floats, key=lambda kind: floats[kind]) if floats else "F32"
        total = sum(tensor.size for tensor in tensors)
        size = sum(tensor.bytes for tensor in tensors)
        window = core.get("sliding_window") if core.get("use_sliding_window", True) else None
        one_key = core.get("multi_query") is True and not core.get("new_decoder_architecture")
        return cls(
            family=family,
            parameters=sum(tensor.size for tensor in weights) - repeated,
            hidden=hidden,
            layers=layers,
            heads=heads,
            kv_heads=1 if one_key else number("num_key_value_heads", "num_kv_heads", default=heads),
            head_dim=_head_width(core) or number("head_dim", default=max(1, hidden // heads)),
            vocab=number("vocab_size"),
            intermediate=_passed_width(core, number("intermediate_size", "n_inner", "ffn_dim", default=4 * hidden)),
            context=number(*_CONTEXT, default=0) or None,
            tied=tied and (not heads_stored or repeated > 0),
            dtype=_FLOATS.get(main, main.lower()),
            dtype_bytes=size / total if total else 4.0,
            file_bytes=size,
            linears=tuple(_linears(weights, family)),
            experts=tuple(_expert_stacks(weights, core, hidden)) if family in _EXPERT_NAMES else (),
            window=window if _is_figure(window) else None,
        )

    def targets(self, wanted: str | list[str]) -> tuple[Linear, ...]:
        """Return the linear layers that `tuning.target_modules` means.

        Raises:
            InputError: a name fits no linear layer of this model, or PEFT would take it for the experts.
        """
        taken = _EXPERT_NAMES.get(self.family, ())
        linears = tuple(linear for linear in self.linears if linear.suffix not in taken)
        if wanted == "all-linear":
            return linears + self.experts
        names = [wanted] if isinstance(wanted, str) else wanted
        known, asked = sorted({linear.suffix for linear in linears}), set(names)
        there = {end for linear in linears for end in asked & linear.ends}
        for name in names:
            if name in there:
                continue
            what = f"the model has no linear layer named '{name:.100}'"
            if name.rpartition(".")[2] in taken:
                what = f"'{name}' would adapt all experts of this MoE model, which only all-linear can do"
            raise InputError(
                what, where="tuning.target_modules", fix=f"Use all-linear or some of: {', '.join(known[:30])}"
            )  # fmt: skip
        return fitting(linears, names)


def fitting(linears: Iterable[Linear], names: Iterable[str]) -> tuple[Linear, ...]:
    """Those of the layers that a list of names means."""
    wanted = set(names)
    return tuple(linear for linear in linears if not wanted.isdisjoint(linear.ends))


def _linears(tensors: list[Tensor], family: str) -> list[Linear]:
    """Every two-dimensional weight inside a numbered block that is neither embedding, norm, head, expert nor router."""
    mixture = any(_EXPERT.match(tensor.name) for tensor in tensors)
    found = []
    for tensor in tensors:
        parts = tensor.name.split(".")
        inside = any(block_of(part) >= 0 for part in parts[:-1])
        if parts[-1] != "weight" or len(tensor.shape) != 2 or not inside:
            continue
        if any(word in part for part in parts[-2:-1] for word in _NOT_LINEAR):
            continue
        if mixture and (_EXPERT.match(tensor.name) or parts[-2] in _ROUTERS):
            continue
        outputs, inputs = reversed(tensor.shape) if family in _TRANSPOSED else tensor.shape
        found.append(Linear(".".join(parts[:-1]), inputs=inputs, outputs=outputs))
    return found


def _is_weight(tensor: Tensor, layers: int) -> bool:
    """Whether transformers makes a parameter of it: no buffer, and no block after the last."""
    if _BUFFER.search(tensor.name) or (_MASK.search(tensor.name) and len(tensor.shape) == 4):
        return False
    block = _BLOCK.search(tensor.name)
    return block is None or block_of(block.group(1)) < layers


def _expert_stacks(tensors: list[Tensor], core: dict[str, Any], hidden: int) -> list[Linear]:
    """An adapter of PEFT on each block's experts: a rank an expert, and two for gate and up, which are one stack."""
    count, inner = _first(core, "n_routed_experts", "num_experts", "num_local_experts"), _expert_width(core)
    places = dict.fromkeys(match.group(1) for tensor in tensors if (match := _EXPERT.match(tensor.name)))
    stacks = []
    for place in places:
        stacks += [
            Linear(f"{place}.gate_up_proj", (2 * count + 1) * hidden, outputs=2 * count * 2 * inner + count),
            Linear(f"{place}.down_proj", count * inner, outputs=count * hidden),
        ]
    return stacks


def _head_width(core: dict[str, Any]) -> int:
    """Width of a query in latent attention (DeepSeek): a part without and one with position; 0 for other attention."""
    parts = core.get("qk_nope_head_dim"), core.get("qk_rope_head_dim")
    return sum(part for part in parts if _is_figure(part)) if all(parts) else 0


def _expert_width(core: dict[str, Any]) -> int:
    return _first(core, "moe_intermediate_size", "intermediate_size")


def _passed_width(core: dict[str, Any], dense: int) -> int:
    """Width of the chosen experts and the shared ones together; `dense` without experts."""
    chosen = _first(core, "num_experts_per_tok")
    if core.get("model_type") == "qwen":
        return dense // 2  # Qwen 1 counts gate and up as one
    if not chosen or not _first(core, "n_routed_experts", "num_experts", "num_local_experts"):
        return dense
    shared = _first(core, "n_shared_experts") * _expert_width(core) + _first(core, "shared_expert_intermediate_size")
    return chosen * _expert_width(core) + shared


def _first(core: dict[str, Any], *names: str) -> int:
    """The first of these values that is a number above 0; else 0."""
    values = (core.get(name) for name in names)
    return next((int(value) for value in values if _is_figure(value)), 0)


def _core(config: dict[str, Any]) -> dict[str, Any]:
    """The keys of a config.json that are about text, which models of several kinds keep in a part of their own."""
    text = config.get("text_config")
    return {**config, **text} if isinstance(text, dict) else config


def _is_figure(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _LARGEST

"""A small random model of a config, computed by transformers and by llama.cpp: do both mean the same by it?

A GGUF can load, answer and be wrong: llama.cpp has rules in its code (which experts' weights are normed, which layers
have positions, by what attention is scaled) that a config asks otherwise, and no list of them stays true. So the
config is kept as it is, layers included, and only widths, heads, experts and vocabulary are made small: some
seconds, and nothing of the checkpoint is read.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from studio.export.gguf import converter
from studio.export.gguf.checkpoint import write_object
from studio.export.gguf.toolchain import Toolchain
from studio.export.proof.distance import compare
from studio.export.proof.gates import TYPES
from studio.export.proof.model import GgufModel
from studio.models.inspect.takeaway import COMPUTING

# Both sides compute in float32, where equal arithmetic gives a divergence below 1e-5 nats.
LIMIT = TYPES["f32"].max_mean_kl
TOKENS = 64
_SPREAD = 2.0  # standard deviation of the logits that are compared, as decided as a trained model's
_EMBEDDED = 0.005  # so small that the layers decide, and not the embedding, which a tied head would find again
_VOCABULARY, _NARROW, _NARROW_EXPERT, _FEWEST_EXPERTS = 256, 64, 32, 4
_MOST_PARAMETERS = 150e6  # what is larger even so takes too long, and nothing is said of it
_HIDDEN, _HEADS, _KEY_HEADS = "hidden_size", ("num_attention_heads",), ("num_key_value_heads", "num_kv_heads")
_WIDTHS, _IMPLIED_WIDTH = ("intermediate_size", "ffn_dim", "n_inner"), "ffn_hidden_size"
_EXPERT_WIDTHS = (
    "moe_intermediate_size", "shared_expert_intermediate_size", "shared_intermediate_size",
    "moe_shared_expert_intermediate_size",
)  # fmt: skip
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts")
_CHOSEN = ("num_experts_per_tok", "moe_topk", "moe_k")
_VOCABULARIES = ("vocab_size", "vocab_size_per_layer_input")


def divergence(tools: Toolchain, raw: dict[str, Any], work: Path) -> float | None:
    """Mean KL divergence of llama.cpp from transformers, nats a token.

    Args:
        tools: the converter.
        raw: config.json.
        work: an existing folder.

    Returns:
        The divergence; None where no such model can be made small, or either side does not take the small one.
    """
    try:
        whole = CONFIG_MAPPING[raw["model_type"]].from_dict(raw).get_text_config()
        small = (shrunk(whole, narrow) for narrow in (False, True))
        config = next((one for one in small if one is not None and _parameters(one) <= _MOST_PARAMETERS), None)
        if config is None:
            return None
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
        fill(model)
        ids = torch.randint(4, _VOCABULARY, (TOKENS,), generator=torch.Generator().manual_seed(1))
        with torch.inference_mode():
            trained = model(input_ids=ids[None]).logits[0].float()
        logits = _computed(tools, model, ids.tolist(), work)
    except Exception:  # of three programs, about a model that nobody asked for: it says nothing of the real one
        logging.getLogger(__name__).info("no trial of %s", raw.get("model_type"), exc_info=True)
        return None
    # Tied, scaled and capped heads give logits of any size; both sides are stretched alike.
    stretch = np.float32(_SPREAD / float(trained.std()))
    divergences, _ = compare(torch.log_softmax(float(stretch) * trained, -1).numpy(), stretch * logits)
    return float(divergences.mean())


def shrunk(config: PreTrainedConfig, narrow: bool) -> PreTrainedConfig | None:
    """Return a config that computes as `config` does on less: the same layers, head width and ratios of heads.

    Args:
        config: of a text model.
        narrow: also where the inner width is four times the outer, which some converters take for granted (Phi).

    Returns:
        The config; None for a model without attention heads of one number, whose other sizes depend on each other in
        ways of their own.
    """
    raw, names = config.to_dict(), config.attribute_map

    def key(*candidates: str) -> str:
        spelt = (one for name in candidates for one in (names.get(name, name), name))
        return next((one for one in spelt if raw.get(one) is not None), "")

    of_heads, of_keys, of_width = key(*_HEADS), key(*_KEY_HEADS), key(_HIDDEN)
    heads, width = raw.get(of_heads), raw.get(of_width)
    keys = raw.get(of_keys, heads)
    if not all(isinstance(one, int) and one > 0 for one in (heads, keys, width)):
        return None
    few, fewer = (2, 2) if keys == heads else (2, 1) if keys == 1 else (4, 2)
    few, fewer = min(few, heads), min(fewer, keys)
    small = width // heads * few
    changes: dict[str, Any] = {of_heads: few, of_width: small} | ({of_keys: fewer} if of_keys else {})
    for name in filter(None, map(key, _WIDTHS)):
        four = raw[name] == 4 * width and not narrow
        changes[name] = 4 * small if four else _less(raw[name], _NARROW)
    if isinstance(implied := raw.get(_IMPLIED_WIDTH), int):  # the converter has it from the other width
        changes[_IMPLIED_WIDTH] = implied * small // width
    changes |= {name: _less(raw[name], _NARROW_EXPERT) for name in _EXPERT_WIDTHS if raw.get(name)}
    chosen = max((raw[name] for name in _CHOSEN if isinstance(raw.get(name), int)), default=1)
    enough = max(2 * (raw.get("n_group") or 1), 2 * chosen, _FEWEST_EXPERTS)
    changes |= {name: _less(raw[name], enough) for name in _EXPERTS if raw.get(name)}
    changes |= {name: _VOCABULARY for name in _VOCABULARIES if name in raw}
    # Ids of special tokens mean nothing here, and have to be in the vocabulary.
    changes |= {name: None if value is None else 0 for name, value in raw.items() if name.endswith("_token_id")}
    return type(config).from_dict({**raw, **changes})


def _less(value: Any, most: int) -> Any:
    return [_less(one, most) for one in value] if isinstance(value, list) else min(int(value), most)


def _parameters(config: PreTrainedConfig) -> int:
    with torch.device("meta"):
        return sum(weight.numel() for weight in AutoModelForCausalLM.from_config(config).parameters())


def fill(model: Any) -> None:
    """Give a model weights under which every part of it matters to its logits, the same each time.

    Products keep the size of what they multiply. Experts are alike in most: random routers nearly tie now and then,
    and another expert is no error then.
    """
    source = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=source)

    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 1:
                weight.add_(0.1 * normal(*weight.shape))
            elif weight.dim() == 3:  # experts (E, outputs, inputs)
                alike = 0.98 * normal(*weight.shape[1:]) + 0.2 * normal(*weight.shape)
                weight.copy_(alike / weight.shape[-1] ** 0.5)
            else:
                weight.copy_(normal(*weight.shape) / (weight[0].numel() or 1) ** 0.5)
        for part in model.modules():
            if isinstance(part, torch.nn.Embedding):
                part.weight.copy_(_EMBEDDED * normal(*part.weight.shape))


def as_gguf(tools: Toolchain, model: Any, work: Path) -> Path:
    """Write a small model as a GGUF in float32 that has no vocabulary.

    Args:
        tools: the converter.
        model: of transformers.
        work: an existing folder.
    """
    converter.prepare(tools.path)
    import conversion
    import gguf

    folder, file = work / "trial", work / "trial.gguf"
    model.save_pretrained(folder)
    # Gemma 3 counts its entries, to leave out rows of the embedding beyond them.
    entries = {"model": {"vocab": {str(number): number for number in range(_VOCABULARY)}}, "added_tokens": []}
    write_object(folder / "tokenizer.json", entries)
    with torch.inference_mode():
        made = conversion.get_model_class(type(model).__name__)(
            folder, gguf.LlamaFileType.ALL_F32, file, model_name="model"
        )
        writer = made.gguf_writer

        def no_vocabulary() -> None:
            writer.add_tokenizer_model("none")
            if not any(gguf.Keys.LLM.VOCAB_SIZE.format(arch=writer.arch) in values for values in writer.kv_data):
                writer.add_vocab_size(_VOCABULARY)

        made.set_vocab = no_vocabulary
        made.write()
    return file


def _computed(tools: Toolchain, model: Any, ids: list[int], work: Path) -> npt.NDArray[np.float32]:
    """Convert the model and return llama.cpp's logits after each of `ids`."""
    file = as_gguf(tools, model, work)
    print(COMPUTING, flush=True)
    # Keys and values in float32 (0), or their rounding alone would choose other experts.
    loaded = GgufModel(file, TOKENS, 1, type_k=0, type_v=0, flash_attn=False)
    try:
        return loaded.logits(ids, 0)
    finally:
        loaded.close()

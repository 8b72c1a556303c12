"""Called in place of a model's own `generate`: the same settings and the same text, in less time on a CPU.

`quicker` makes a model ready for it while it lasts. On a GPU, and for what the loop does not know (beams, windows,
states, criteria that stop an answer by its text), transformers' own loop goes on with what it was given.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import torch
from torch import nn
from transformers import DynamicCache, GenerationConfig, GenerationMixin
from transformers.generation.stopping_criteria import EosTokenCriteria, MaxLengthCriteria
from transformers.generation.utils import GENERATION_MODES_MAPPING

from studio.kernels.recognized import base_of
from studio.writing.adapters import shorten
from studio.writing.attending import for_writing
from studio.writing.kept import plain_layers, rooms
from studio.writing.loop import Drawn, Places, Writing, write
from studio.writing.passes import quicken_passes
from studio.writing.placed import for_a_while
from studio.writing.products import quicken

FEW_ROWS, MANY_ROWS = 32, 128  # written at once: what takes little memory, and what brings no more speed
KEPT_BYTES = 2**29  # of keys and values that more rows than the few may take
_PASSED = {"attention_mask", "position_ids", "past_key_values", "use_cache", "logits_to_keep"}
_TOLD = ("output_scores", "output_logits", "output_attentions", "output_hidden_states", "return_dict_in_generate")


@contextmanager
def quicker(model: Any, places: Places | None = None) -> Iterator[bool]:
    """Let a model's `generate` be quick, and its logits of the last tokens; without gradients.

    Gives whether `generate` takes `drafts` and `on_end` meanwhile, as in `Writing`.

    Args:
        model: a causal language model, or PEFT's around one.
        places: of the rows that it is given, where other processes write the others; None where these are all.
    """
    inner = base_of(model)
    if not isinstance(inner, GenerationMixin) or inner.device.type != "cpu":
        yield False
        return
    with ExitStack() as stack:
        for layers in (quicken, shorten, quicken_passes):
            stack.enter_context(for_a_while(layers(inner)))
        stack.enter_context(side_by_side(inner))
        stack.enter_context(for_writing(inner))
        own = inner.generate

        def ours(*args: Any, drafts: Any = (), on_end: Any = None, **rest: Any) -> Any:
            told = {"places": places, "drafts": drafts} | ({"on_end": on_end} if on_end else {})
            return continued(*args, **{**rest, "told": told})

        def generate(*args: Any, **options: Any) -> Any:
            return own(*args, **{"custom_generate": ours, **options})

        inner.generate = generate
        stack.callback(lambda: delattr(inner, "generate"))
        yield _can(inner) and plain_layers(inner.config) > 0


def rows_at_once(model: Any, tokens: int) -> int:
    """How many rows to write at once, so that a CPU multiplies large matrices and what is kept stays small.

    Args:
        model: as in `quicker`.
        tokens: of prompt and answer, at most.
    """
    inner = base_of(model)
    if not _can(inner) or not (layers := plain_layers(inner.config)):
        return FEW_ROWS
    cache = rooms(layers, 1)
    with torch.no_grad():
        inner(input_ids=torch.zeros(1, 1, dtype=torch.long), past_key_values=cache, use_cache=True, logits_to_keep=1)
    each = sum(one.nbytes for layer in cache.layers for one in (layer.keys, layer.values))
    return max(FEW_ROWS, min(MANY_ROWS, int(KEPT_BYTES // (each * tokens))))


def _can(inner: Any) -> bool:
    """Whether the loop may be of use to a model at all."""
    if not isinstance(inner, GenerationMixin):
        return False
    accepted = inspect.signature(inner.forward).parameters
    return (
        inner.device.type == "cpu"
        and not inner.config.is_encoder_decoder
        and _steady(inner.config)
        and {"past_key_values", "position_ids", "logits_to_keep"} <= set(accepted)
        and type(inner).prepare_inputs_for_generation is GenerationMixin.prepare_inputs_for_generation
    )


def drops(model: Any) -> bool:
    """Whether numbers are dropped at random, as in a training: each row needs its own reading then.

    Args:
        model: a causal language model, or a part of one.
    """
    if not model.training:
        return False
    rates = [value for name, value in model.config.get_text_config().to_dict().items() if "drop" in name]
    rates += [module.p for module in model.modules() if isinstance(module, nn.Dropout) and module.training]
    return any(isinstance(rate, float) and rate > 0 for rate in rates)


def _steady(config: Any) -> bool:
    """Whether positions turn alike however long the text is, so that a part of it can be read by itself."""
    parameters = getattr(config.get_text_config(), "rope_parameters", None) or {}
    kinds = {one.get("rope_type") for one in (parameters, *parameters.values()) if isinstance(one, dict)}
    return not kinds & {"dynamic", "longrope"}


@contextmanager
def side_by_side(model: Any) -> Iterator[None]:
    """Give a model's head the states of the last tokens as a matrix of their own.

    As a part of all states they are no matrix to torch on a CPU, which then copies the head's weights for each row.

    Args:
        model: a causal language model.
    """
    head = base_of(model).get_output_embeddings()
    if not isinstance(head, nn.Module):
        yield
        return
    handle = head.register_forward_pre_hook(lambda _, given: (given[0].contiguous(), *given[1:]))
    try:
        yield
    finally:
        handle.remove()


def continued(
    model: Any, input_ids: torch.Tensor, logits_processor: Any, stopping_criteria: Any,
    generation_config: GenerationConfig, told: Mapping[str, Any] = MappingProxyType({}), **rest: Any,
) -> Any:  # fmt: skip
    """What `generate` calls to write: the quick loop, or transformers' own for what it does not know.

    Args:
        model: the language model.
        input_ids: prompts padded on the left, (B, P).
        logits_processor: what changes the scores.
        stopping_criteria: what ends an answer.
        generation_config: the settings.
        told: attributes of `Writing` that transformers does not know.
        rest: a mask, a cache, and what else the model takes.
    """
    how = _known(model, logits_processor, stopping_criteria, generation_config, rest)
    mask = rest.get("attention_mask")
    mask = torch.ones_like(input_ids) if mask is None else mask
    if how is None or bool((mask[:, 1:] < mask[:, :-1]).any()) or not bool(mask[:, -1].all()):
        mode = GENERATION_MODES_MAPPING[generation_config.get_generation_mode()]
        if told.get("places") is not None and generation_config.do_sample:
            logits_processor.append(Drawn(told["places"]))
        return getattr(type(model), mode)(
            model, input_ids, logits_processor=logits_processor, stopping_criteria=stopping_criteria,
            generation_config=generation_config, **rest,
        )  # fmt: skip
    return write(replace(how, **told), input_ids, mask)


def _known(
    model: Any, processors: Any, criteria: Any, settings: GenerationConfig, rest: dict[str, Any]
) -> Writing | None:
    """How to write; None where the loop does not know how."""
    given = {name for name, value in rest.items() if value is not None and value is not False}
    cache: Any = rest.get("past_key_values")
    ends = None
    for one in criteria:
        if type(one) is EosTokenCriteria and ends is None:
            ends = one.eos_token_id
        elif type(one) is not MaxLengthCriteria:
            return None
    if (
        not _can(model)
        or settings.get_generation_mode().value not in ("greedy_search", "sample")
        or not given <= _PASSED
        or any(getattr(settings, name, None) for name in _TOLD)
        or settings.prefill_chunk_size is not None
        or (ends is not None and settings._pad_token_tensor is None)
        or drops(model)
    ):
        return None
    layers = plain_layers(model.config)
    if not layers or type(cache) is not DynamicCache or len(cache.layers) != layers or cache.get_seq_length():
        return None
    pad = settings._pad_token_tensor
    return Writing(
        model, layers, criteria.max_length, ends, 0 if pad is None else int(pad), bool(settings.do_sample), processors
    )

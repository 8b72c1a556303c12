"""The model of an Axolotl config and which of its weights are trained: sections `model` and `tuning`."""

from __future__ import annotations

from typing import Any

from studio.interop.sheets import names
from studio.interop.sheets.sheet import Sheet, is_off
from studio.tunings import adapter_for

_LEGACY_ATTENTION = (
    ("xformers_attention", "auto"), ("sage_attention", "auto"), ("flex_attention", "flex_attention"),
    ("flash_attention", "flash_attention_2"), ("sdp_attention", "sdpa"), ("eager_attention", "eager"),
)  # fmt: skip
_CLASSES = ("model_type", "type_of_model", "tokenizer_type", "processor_type")
_ROPE = ("linear", "dynamic", "yarn", "llama3")
_INIT = ("gaussian", "pissa", "olora", "orthogonal")
_OUTPUT_LAYERS = ("lm_head", "embed_tokens", "embed_out", "output")
_LORA_ONLY = "a full finetune has no adapter"


def read_model(sheet: Sheet) -> None:
    """Read the model, its classes, attention and number format.

    Raises:
        InputError: no model is named.
    """
    path = sheet.text("base_model")
    if not path:
        raise sheet.error("base_model", "no model is named", "Add base_model with a folder or a Hub id")
    sheet.mapped("base_model", "model.path", path)
    for key in ("model_revision", "revision_of_model"):
        if revision := sheet.text(key):
            sheet.mapped(key, "model.revision", revision)
    if (trust := sheet.flag("trust_remote_code")) is not None:
        why = "set it yourself once you have read the model's code" if trust else ""
        if trust:
            sheet.refused("trust_remote_code", f"code of a model runs only if you say so: {why}")
        else:
            sheet.mapped("trust_remote_code", "model.trust_remote_code", False)
    for key in _CLASSES:
        if sheet.has(key):
            sheet.ignored(key, "the classes that the model's own configuration names are loaded")
    if (tokenizer := sheet.text("tokenizer_config")) not in (None, path):
        sheet.refused("tokenizer_config", "the tokenizer of the model is used, not another one")
    elif tokenizer:
        sheet.ignored("tokenizer_config", "the model's own")
    for key, word in _LEGACY_ATTENTION:
        if sheet.flag(key):
            sheet.mapped(key, "model.attention", word)
        elif sheet.has(key):
            sheet.ignored(key, "it is off")
    names.attention(sheet, "attn_implementation")
    _overrides(sheet)
    _dtype(sheet)
    _special_tokens(sheet)


def _overrides(sheet: Sheet) -> None:
    for key in ("model_config", "overrides_of_model_config"):
        given = dict(sheet.mapping(key))
        if not given:
            continue
        rope = given.pop("rope_scaling", None) or given.pop("rope_parameters", None)
        if isinstance(rope, dict):
            kind, factor = rope.get("rope_type", rope.get("type")), rope.get("factor")
            if kind in _ROPE and isinstance(factor, int | float) and factor > 1:
                sheet.set("model.rope_factor", float(factor))
                sheet.mapped(key, "model.rope_scaling", kind)
            else:
                sheet.refused(key, "rope_scaling needs a factor and one of linear, dynamic, yarn and llama3")
        if given:
            listed = ", ".join(given)
            sheet.refused(key, f"the model's configuration is kept as it is, also {listed:.80}")
    for key in ("model_kwargs", "overrides_of_model_kwargs"):
        if sheet.mapping(key):
            sheet.refused(key, "the model is loaded with the studio's own arguments")


def _dtype(sheet: Sheet) -> None:
    """Axolotl's `auto` is bf16 on a GPU that has it; the studio's own `auto` does that, and more."""
    bf16, wide = sheet.text("bf16"), sheet.text("bfloat16")
    half = [key for key in ("fp16", "float16") if not is_off(sheet.raw(key))]
    if not is_off(bf16) or not is_off(wide):
        key = "bf16" if not is_off(bf16) else "bfloat16"
        word = str(sheet.raw(key)).lower()
        if word == "auto":
            sheet.mapped(key, "model.dtype", "auto")
        else:
            sheet.mapped(key, "model.dtype", "bfloat16")
    elif half:
        why = "16-bit floats with a loss scale are not supported; bfloat16 where the device is fast with it"
        sheet.approximated(half[0], "model.dtype", "auto", why)
    elif sheet.has("bf16") or not is_off(sheet.raw("float32")):
        sheet.mapped("float32" if sheet.has("float32") else "bf16", "model.dtype", "float32")
    for key in ("bf16", "bfloat16", "fp16", "float16", "float32"):
        if sheet.has(key) and not sheet.told(key):
            sheet.ignored(key, f"model.dtype is {sheet.value('model.dtype') or 'auto'}")


def _special_tokens(sheet: Sheet) -> None:
    given = sheet.raw("special_tokens")
    if isinstance(sheet.raw("tokens"), dict):  # the name that it had once
        given = {**sheet.raw("tokens"), **(given if isinstance(given, dict) else {})}
        sheet.tell("tokens", "approximated", "", "the tokenizer's own special tokens are kept")
    if not isinstance(given, dict) or not given:
        return
    if given.get("additional_special_tokens"):
        sheet.refused("special_tokens", "tokens cannot be added to the vocabulary")
    elif given.get("eos_token"):
        why = "the tokenizer's own end token is kept; a turn ends as the chat template ends it"
        sheet.tell("special_tokens", "approximated", "", why)
    else:
        sheet.ignored("special_tokens", "padding is never counted, and the tokenizer's own tokens are kept")


def read_tuning(sheet: Sheet) -> None:
    """Read which weights are trained, and how the others are held."""
    adapter = (sheet.text("adapter") or "").strip().lower()
    four, eight = bool(sheet.flag("load_in_4bit")), bool(sheet.flag("load_in_8bit"))
    if adapter in ("", "none"):
        sheet.set("tuning.name", "full")
        sheet.tell("adapter", "mapped", "tuning.name")
        for key, on in (("load_in_4bit", four), ("load_in_8bit", eight)):
            if on:
                sheet.refused(key, "weights held in few bits cannot be trained without an adapter; Axolotl refuses it")
            elif sheet.has(key):
                sheet.ignored(key, "it is off")
        _without_adapter(sheet)
        return
    if adapter not in ("lora", "qlora"):
        sheet.set("tuning.name", "lora")
        sheet.refused("adapter", f"the studio has no {adapter:.30}; a plain LoRA stands in its place")
    else:
        _kind(sheet, adapter, four, eight)
    _adapter(sheet)


def _kind(sheet: Sheet, adapter: str, four: bool, eight: bool) -> None:
    dora = bool(sheet.flag("peft_use_dora"))
    four_asked = adapter == "qlora"
    quantized = four_asked or eight
    sheet.mapped("adapter", "tuning.name", adapter_for(quantized=quantized, dora=dora))
    if sheet.has("peft_use_dora"):
        if quantized:
            sheet.mapped("peft_use_dora", "tuning.dora", dora)
        else:
            sheet.tell("peft_use_dora", "mapped", "tuning.name")
    if quantized:
        sheet.set("tuning.bits", "4" if four_asked else "8")
    if four_asked:
        sheet.tell("load_in_4bit", "mapped", "tuning.bits", "" if four else "qlora holds the weights in 4 bits")
        sheet.ignored("load_in_8bit", "it is off" if not eight else "adapter: qlora holds the weights in 4 bits")
    else:
        sheet.tell("load_in_8bit", "mapped", "tuning.bits" if eight else "tuning.name")
        if four:
            why = "with adapter: lora Axolotl does not quantize the weights either; set tuning.name qlora for 4 bits"
            sheet.tell("load_in_4bit", "approximated", "tuning.name", why)
        elif sheet.has("load_in_4bit"):
            sheet.ignored("load_in_4bit", "it is off")
    given = dict(sheet.mapping("bnb_config_kwargs"))
    if given:
        for theirs, ours in (("bnb_4bit_quant_type", "quant_type"), ("bnb_4bit_use_double_quant", "double_quant")):
            if theirs in given and quantized:
                sheet.set(f"tuning.{ours}", given.pop(theirs))
        left = f"; {', '.join(given)} are kept as they are" if given else ""
        sheet.tell("bnb_config_kwargs", "approximated" if left else "mapped", "tuning.quant_type", left.lstrip("; "))


def _without_adapter(sheet: Sheet) -> None:
    for key in sheet.given.values:
        if key.startswith(("lora_", "peft_", "loraplus_", "bnb_config")) and sheet.has(key):
            sheet.ignored(key, _LORA_ONLY)


def _adapter(sheet: Sheet) -> None:
    rank, alpha = sheet.whole("lora_r"), sheet.number("lora_alpha")
    if rank is not None:
        sheet.mapped("lora_r", "tuning.rank", rank)
    if alpha is not None:
        sheet.mapped("lora_alpha", "tuning.alpha", alpha)
    if (dropout := sheet.number("lora_dropout")) is not None:
        sheet.mapped("lora_dropout", "tuning.dropout", dropout)
    _targets(sheet)
    names.saved_modules(sheet, "lora_modules_to_save")
    if folder := sheet.text("lora_model_dir"):
        sheet.mapped("lora_model_dir", "tuning.adapter", folder)
    if (ratio := sheet.number("loraplus_lr_ratio")) is not None:
        if sheet.offers("tuning.lora_plus_ratio"):
            sheet.mapped("loraplus_lr_ratio", "tuning.lora_plus_ratio", ratio)
        else:
            sheet.refused("loraplus_lr_ratio", "LoRA+ does not go with DoRA here")
    if (rslora := sheet.flag("peft_use_rslora")) is not None:
        sheet.mapped("peft_use_rslora", "tuning.rslora", rslora)
    init = sheet.raw("peft_init_lora_weights")
    if init in (True, "true", "True"):
        sheet.mapped("peft_init_lora_weights", "tuning.init", "default")
    elif init is not None and str(init) in _INIT and sheet.offers("tuning.init"):
        sheet.mapped("peft_init_lora_weights", "tuning.init", init)
    elif init is not None:
        sheet.refused("peft_init_lora_weights", f"the adapter starts as usual, not with {init!s:.30}")
    for key, path in (("lora_rank_pattern", "tuning.rank_pattern"), ("lora_alpha_pattern", "tuning.alpha_pattern")):
        if pattern := sheet.mapping(key):
            sheet.mapped(key, path, pattern)
    blocks: Any = sheet.raw("peft_layers_to_transform")
    if blocks is not None:
        sheet.mapped("peft_layers_to_transform", "tuning.layers_to_transform", blocks)


def _targets(sheet: Sheet) -> None:
    linear, given = sheet.flag("lora_target_linear"), sheet.raw("lora_target_modules")
    pattern = isinstance(given, str) and any(sign in given for sign in "\\|*+()[]^$")
    modules = None if pattern or given is None else sheet.words("lora_target_modules")
    if linear:
        sheet.mapped("lora_target_linear", "tuning.target_modules", "all-linear")
        beyond = [name for name in modules or [] if name in _OUTPUT_LAYERS]
        if beyond:
            sheet.refused("lora_target_modules", f"with all linear layers, {', '.join(beyond)} cannot be added")
        elif given:
            sheet.ignored("lora_target_modules", "they are among all linear layers")
        return
    if sheet.has("lora_target_linear"):
        sheet.ignored("lora_target_linear", "it is off")
    if pattern:
        why = "a pattern cannot be given, so all linear layers get an adapter"
        sheet.approximated("lora_target_modules", "tuning.target_modules", "all-linear", why)
    elif modules:
        sheet.mapped("lora_target_modules", "tuning.target_modules", modules)

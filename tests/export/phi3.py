"""A tiny model of Phi-3's shape with its kind of tokenizer: SentencePiece, control tokens that take blanks away."""

from __future__ import annotations

import json
import string
from pathlib import Path

import torch
from sentencepiece import sentencepiece_model_pb2 as sentencepiece
from transformers import AutoConfig, AutoModelForCausalLM

TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
WORDS = ("th", "the", "▁the", "in", "er", "▁a")
ADDED = ("<|endoftext|>", "<|assistant|>", "<|system|>", "<|end|>", "<|user|>")


def write_tokenizer(folder: Path) -> int:
    """Write tokenizer.json, tokenizer_config.json and tokenizer.model as Phi-3 has them; return how many."""
    bytes_of = [f"<0x{value:02X}>" for value in range(256)]
    letters = ["▁", "\n", *string.ascii_letters, *string.digits, *string.punctuation]
    pieces = ["<unk>", "<s>", "</s>", *bytes_of, *letters, *WORDS]
    merges = [["t", "h"], ["th", "e"], ["▁", "the"], ["i", "n"], ["e", "r"], ["▁", "a"]]
    model = sentencepiece.ModelProto()
    model.trainer_spec.model_type = sentencepiece.TrainerSpec.BPE
    model.trainer_spec.byte_fallback = True
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.remove_extra_whitespaces = False
    kinds = {"<unk>": 2, "<s>": 3, "</s>": 3} | dict.fromkeys(bytes_of, 6)
    for number, piece in enumerate(pieces):
        model.pieces.add(piece=piece, score=-float(number), type=kinds.get(piece, 1))
    (folder / "tokenizer.model").write_bytes(model.SerializeToString())
    rules = {"lstrip": False, "normalized": False, "single_word": False}
    added = [{"content": text, "rstrip": text == "</s>", "special": text != "</s>", **rules} for text in pieces[:3]]
    added += [{"content": text, "rstrip": text != ADDED[0], "special": True, **rules} for text in ADDED]
    numbers = [0, 1, 2, *range(len(pieces), len(pieces) + len(ADDED))]
    blanks = [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]
    state = {
        "version": "1.0", "truncation": None, "padding": None, "pre_tokenizer": None, "post_processor": None,
        "added_tokens": [{"id": number, **one} for number, one in zip(numbers, added, strict=True)],
        "normalizer": {"type": "Sequence", "normalizers": blanks},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
        ]},
        "model": {
            "type": "BPE", "vocab": {piece: number for number, piece in enumerate(pieces)}, "merges": merges,
            "unk_token": "<unk>", "fuse_unk": True, "byte_fallback": True,
        },
    }  # fmt: skip
    config = {
        "tokenizer_class": "LlamaTokenizer", "chat_template": TEMPLATE, "bos_token": "<s>", "eos_token": "<|end|>",
        "unk_token": "<unk>", "pad_token": "<|endoftext|>", "legacy": False, "add_bos_token": False,
        "added_tokens_decoder": {str(number): one for number, one in zip(numbers, added, strict=True)},
    }  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(state, ensure_ascii=False), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config, ensure_ascii=False), encoding="utf-8")
    return len(pieces) + len(ADDED)


def write_model(folder: Path) -> Path:
    """Write a random model of two layers with that tokenizer; return its folder."""
    folder.mkdir(parents=True)
    size = write_tokenizer(folder)
    torch.manual_seed(5)
    config = AutoConfig.for_model(
        "phi3", vocab_size=size, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=2048, pad_token_id=size - len(ADDED), bos_token_id=1,
        eos_token_id=size - 2,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder

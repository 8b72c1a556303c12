"""What a trainer leaves as the run's model: an adapter over the unchanged base, or whole weights, and the tokenizer."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peft import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from studio.config import RunConfig
from studio.jobs.store.files import write_json
from studio.models.inspect.attention import ROUTER_SWITCH
from studio.models.inspect.headers import read_config
from studio.models.inspect.tokenizerfiles import carry_settings, copy_tokenizer, same_tokens, tokenizer_files
from studio.tunings.adapter import CHANGES_BASE


@dataclass
class Start:
    """How the adapter began, where that is needed to save it.

    PiSSA and OLoRA begin with a part of the base weights, which they take out of the base. What is saved is turned
    into a plain adapter of twice the rank over the unchanged base (PEFT's `path_initial_model_for_weight_conversion`),
    so that chat and export need not know.
    """

    folder: tempfile.TemporaryDirectory[str] | None = None

    @classmethod
    def of(cls, trainer: Any, config: RunConfig) -> Start:
        """Keep the adapter as it is before the first step, if its kind asks for it."""
        tuning = config.tuning
        if not tuning.reads("init") or tuning.init not in CHANGES_BASE:
            return cls()
        kept = tempfile.TemporaryDirectory(prefix="studio-start-")
        adapter = trainer.model.peft_config["default"]
        began, adapter.init_lora_weights = adapter.init_lora_weights, True
        trainer.model.save_pretrained(kept.name, selected_adapters=["default"])
        adapter.init_lora_weights = began
        return cls(kept)

    def save(self, trainer: Any, folder: Path) -> None:
        """Write the model or adapter into `folder`."""
        if self.folder is not None:
            trainer.model.save_pretrained(
                str(folder), selected_adapters=["default"], path_initial_model_for_weight_conversion=self.folder.name
            )
            self.folder.cleanup()
            _add_whole_layers(trainer.model, folder / "adapter_model.safetensors")
            return
        trainer.save_model(str(folder))
        reference = folder / "ref"  # the frozen copy that DPO keeps beside an adapter it goes on with
        if reference.is_dir():
            for file in reference.iterdir():
                file.unlink()
            reference.rmdir()


def _add_whole_layers(model: Any, file: Path) -> None:
    """Write the fully trained layers, a reward model's head among them: PEFT's conversion leaves them out."""
    kept = load_file(file)
    whole = {name: one.contiguous() for name, one in get_peft_model_state_dict(model).items() if name not in kept}
    if whole:
        save_file(kept | whole, file, metadata={"format": "pt"})


def restore_switches(base: Path, folder: Path) -> None:
    """Give config.json of whole weights the base's word on router logits: TRL turns them on for its balancing loss.

    Left on, transformers' `generate` fails for the model that was trained.

    Args:
        base: folder of the base model.
        folder: of the model, already written; that of an adapter has no config.json and stays as it is.
    """
    file = folder / "config.json"
    if not file.is_file():
        return
    before, after = read_config(base), read_config(folder)
    for old, new in ((before, after), (before.get("text_config"), after.get("text_config"))):
        if not isinstance(new, dict) or ROUTER_SWITCH not in new:
            continue
        if isinstance(old, dict) and ROUTER_SWITCH in old:
            new[ROUTER_SWITCH] = old[ROUTER_SWITCH]
        else:
            del new[ROUTER_SWITCH]
    write_json(file, after)


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, base: Path, folder: Path, trust_remote_code: bool) -> None:
    """Put the tokenizer into the folder of a model: the base's own files, and what the run changed in them.

    transformers' `save_pretrained` writes a form that llama.cpp's converter misreads (Gemma, Phi-4, Yi) and leaves out
    tokenizer.model, so it is used only for a tokenizer that its base's files do not give.

    Args:
        tokenizer: as the run used it.
        base: folder of the base model.
        folder: of the model or adapter, already written.
        trust_remote_code: the base's tokenizer may be code of its own.
    """
    copy_tokenizer(base, folder)
    read = _read(folder, trust_remote_code)
    bare = not (folder / "config.json").exists()
    if (read is None or not same_tokens(read, tokenizer)) and bare and (base / "config.json").is_file():
        # Beside an adapter there is no config.json, and its model_type can decide how the same files are read (Phi-4).
        shutil.copyfile(base / "config.json", folder / "config.json")
        read = _read(folder, trust_remote_code)
    if read is not None and same_tokens(read, tokenizer):
        carry_settings(tokenizer, read, folder)
        return
    if bare:
        (folder / "config.json").unlink(missing_ok=True)
    for name in tokenizer_files(folder):
        if name.suffix in (".json", ".jinja", ".txt") and name.name != "tekken.json":
            (folder / name).unlink()
    tokenizer.save_pretrained(str(folder))


def _read(folder: Path, trust_remote_code: bool) -> Any:
    """The tokenizer of a folder; None where its files alone make none."""
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # whatever a class of tokenizer misses
        return None

"""A model's tokenizer for training, chat, evaluation and export; for the page's questions there is `tokenizers`.

Its patterns are looked at before, since a pattern that repeats a repeat takes for ever over the first long word.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from studio.models.inspect.vocabulary import require_linear_splits


def load_tokenizer(folder: Path, trust_remote_code: bool = False) -> Any:
    """Return the tokenizer of transformers that lies in a folder.

    Args:
        folder: of a model, an adapter or a run.
        trust_remote_code: run Python code that lies in it.

    Raises:
        InputError: a pattern of its tokenizer.json may take for ever.
        OSError, ValueError, KeyError, ImportError: there is none, or it cannot be loaded.
    """
    from transformers import AutoTokenizer

    if (folder / "tokenizer.json").is_file():
        require_linear_splits(folder / "tokenizer.json")
    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=trust_remote_code)

"""What LLaMA-Factory does, in one process of the Python that has it: `PYTHON their_side.py TASKS OUT`.

TASKS is JSON. `train` lists [folder, words]: `llamafactory-cli train` with these words, started there. `tokenize` lists
[folder of a tokenizer, template or null, messages]; OUT gets [token ids, labels] for each. Nothing of the studio is
imported, which that environment does not have.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any


def train(folder: str, words: list[str]) -> None:
    """Train as the command does."""
    from llamafactory import launcher

    os.chdir(folder)
    sys.argv = ["llamafactory-cli", "train", *words]
    launcher.launch()


def tokenized(folder: str, name: str | None, messages: list[dict[str, str]]) -> tuple[list[int], list[int]]:
    """Tokenize a conversation as a supervised example."""
    from llamafactory.data.processor import SupervisedDatasetProcessor
    from llamafactory.data.template import get_template_and_fix_tokenizer
    from llamafactory.hparams import DataArguments
    from transformers import AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    arguments = DataArguments(template=name)
    template = get_template_and_fix_tokenizer(tokenizer, arguments)
    made = SupervisedDatasetProcessor(template=template, tokenizer=tokenizer, processor=None, data_args=arguments)
    system = messages[0]["content"] if messages[0]["role"] == "system" else ""
    turns = messages[1:] if system else messages
    return made._encode_data_example(turns[:-1], turns[-1:], system, "", [], [], [])


if __name__ == "__main__":
    tasks, out = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2]).resolve()
    out.write_text(json.dumps([tokenized(*one) for one in tasks["tokenize"]]), encoding="utf-8")
    for one in tasks["train"]:
        train(*one)

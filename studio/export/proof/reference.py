"""The trained model's own answers, in a process with torch: what every GGUF is compared with.

Base and adapter are combined as in training (W·x + s·B·A·x, by PEFT), not merged, so that an error of our merge shows.
The maths is float32: the saved numbers are then used exactly, while bfloat16 maths alone moves the answers (mean KL
1.4e-3) 300 times more than an f16 file does (5e-6). Writes a table of log-probabilities to a file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
import torch
import transformers
from peft import PeftModel
from transformers import AutoConfig, AutoModelForCausalLM

from studio.config.data import DataSource
from studio.data.formats.answers import Example, split_prompt
from studio.data.masks.masker import Masker
from studio.data.sources.locate import locate
from studio.data.sources.reading import Reading, in_turns
from studio.data.tokens.pretrained import load_tokenizer
from studio.errors import InputError
from studio.evaluate.questions import read_questions
from studio.export.gguf.checkpoint import weight_bytes
from studio.export.proof.chat import chat_facts
from studio.export.proof.distance import compare, log_probabilities
from studio.export.proof.greedy import GreedyAnswer, asked_greedily, greedy_answers
from studio.export.proof.material import (
    BUILT_IN_TEXTS,
    ComparedPrompt,
    ComparedText,
    compared_prompts,
    compared_texts,
    end_token,
    ids_of,
    readable,
    spread,
)
from studio.export.steps import Report, serve_step
from studio.models.inspect.adapters import require_quick_adapter
from studio.models.inspect.attention import answer_options
from studio.models.inspect.headers import SAFE, read_config
from studio.settings import read_settings

ROWS_READ = 2000
ROWS_SPREAD = 64
# float32 weights, and a fifth for activations and logits.
BYTES_PER_PARAMETER = 4.8


def reference(request: dict[str, Any], report: Report) -> dict[str, Any]:
    """Answer everything that the GGUF files will be asked.

    Args:
        request: {"base", "adapter"|null, "tokenizer", "texts_from"|null, "rows_from"|null, "limit", "folder",
            "answers" (may be left out)}: paths;
            `texts_from` is a source of the run's data (values of `DataSource`), `rows_from` the file whose rows are
            answered for exact match; `answers` asks for greedy answers too, and for what the training moved.
        report: called with (positions done, positions in all).

    Returns:
        {"dtype", "positions", "own_text", "rows", "end", "chat" (of `chat.chat_facts`), "notes", "ends", "moved",
        "begun" (conversations begin with the token that begins a text)}; `ends` are the token ids that end an answer,
        `moved` the mean KL divergence of the base model from the trained one (None where it was not asked for, or there
        is no adapter). In the folder: cases.json (texts, prompts, rows, answers, end token), tokenizer.json, and
        reference.npy, float32 (positions, vocabulary), natural logarithms of probabilities.

    Raises:
        InputError: a row cannot be used.
    """
    folder = Path(request["folder"])
    base = Path(request["base"])
    with _loading(Path(request["tokenizer"])):
        tokenizer = load_tokenizer(Path(request["tokenizer"]))
    examples, notes = _examples(request.get("texts_from"), tokenizer)
    with _loading(base):
        config = AutoConfig.from_pretrained(base, local_files_only=True)
    masked = Masker(tokenizer).encode(examples)
    texts = compared_texts(
        ((one.input_ids, one.labels) for one in masked),
        (ids_of(tokenizer, text) for text in BUILT_IN_TEXTS),
        config.get_text_config().vocab_size,
    )
    prompts = compared_prompts(tokenizer, _prompts(examples))
    questions = read_questions(Path(request["rows_from"]), tokenizer, request["limit"]) if request["rows_from"] else []
    cases: dict[str, Any] = {
        "texts": [asdict(text) for text in texts],
        "prompts": [asdict(prompt) for prompt in prompts],
        "rows": [asdict(question) for question in questions],
        "end": end_token(tokenizer),
        "template": tokenizer.chat_template or "",
    }
    tokenizer.backend_tokenizer.save(str(folder / "tokenizer.json"))
    model, dtype = trained_model(request)
    if dtype != torch.float32:
        notes.append("too little memory for float32: the model was evaluated in 16 bits, with wider limits")
    end = Masker(tokenizer).stop_text() or ""
    _table(model, texts, folder / "reference.npy", report)
    answers: list[GreedyAnswer] = []
    moved = None
    if request.get("answers"):
        answers = greedy_answers(model, asked_greedily(cases["prompts"]), _ends(model, cases["end"]))
        moved = _moved(model, texts, folder / "reference.npy") if request["adapter"] else None
    cases["answers"] = [asdict(answer) for answer in answers]
    (folder / "cases.json").write_text(json.dumps(cases, ensure_ascii=False), encoding="utf-8")
    return {
        "dtype": str(dtype).removeprefix("torch."),
        "positions": sum(len(text.supervised) for text in texts),
        "own_text": bool(examples),
        "rows": len(questions),
        "end": end,
        "chat": chat_facts(tokenizer, prompts, examples, base, end),
        "notes": notes,
        "moved": moved,
        "ends": _ends(model, cases["end"]),
        "begun": _begun(tokenizer, prompts),
    }


def _begun(tokenizer: Any, prompts: list[ComparedPrompt]) -> bool:
    """Whether conversations begin with the token that begins a text; also where there are none, or no such token."""
    talks = [one.ids for one in prompts if one.messages is not None and not one.rare]
    return tokenizer.bos_token_id is None or not talks or any(ids[:1] == [tokenizer.bos_token_id] for ids in talks)


def trained_model(request: dict[str, Any]) -> tuple[Any, torch.dtype]:
    """Load the trained model, base and adapter unmerged, and return it with the precision of its arithmetic.

    Args:
        request: {"base", "adapter"|null}: paths.

    Raises:
        InputError: transformers cannot load it.
    """
    transformers.utils.logging.disable_progress_bar()
    base = Path(request["base"])
    dtype, device = precision(base)
    options = answer_options(read_config(base))
    with _loading(base):
        model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype, **options, **SAFE)
    if request["adapter"]:
        require_quick_adapter(Path(request["adapter"]), model)
        model = PeftModel.from_pretrained(model, request["adapter"], local_files_only=True)
    return model.to(device).eval(), dtype


@contextmanager
def _loading(folder: Path) -> Iterator[None]:
    """Say what transformers has against a folder, which a model from elsewhere may be the first to bring.

    Raises:
        InputError: it cannot load it.
    """
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, ImportError, RuntimeError) as error:
        said = str(error).strip().partition("\n")[0][:200]
        raise InputError(
            f"transformers cannot load it: {said or type(error).__name__}", where=str(folder),
            fix="Copy or download it again; a model that runs code of its own cannot be exported",
        ) from error  # fmt: skip


def _ends(model: Any, end: int | None) -> list[int]:
    """Tokens that end an answer: the template's, and those of the base model's generation_config."""
    known = model.generation_config.eos_token_id
    return sorted({*(known if isinstance(known, list) else [known]), end} - {None})


def _moved(model: PeftModel, texts: list[ComparedText], table: Path) -> float:
    """Mean KL divergence of the base model from the trained one, whose log-probabilities are in the table."""
    trained, done, divergences = np.load(table, mmap_mode="r"), 0, []
    with model.disable_adapter():
        for text in texts:
            logits = logits_of(model, text.ids, len(text.supervised))
            divergences.append(compare(trained[done : done + len(logits)], logits)[0])
            done += len(logits)
    return float(np.concatenate(divergences).mean())


@torch.inference_mode()
def logits_of(model: Any, ids: list[int], kept: int) -> npt.NDArray[np.float32]:
    """Return the logits after the last `kept` of the tokens, float32 (kept, vocabulary).

    Args:
        model: a causal language model in evaluation mode.
        ids: token ids of a text.
        kept: positions, counted from the end.
    """
    found: npt.NDArray[np.float32] = (
        model(input_ids=torch.tensor([ids], device=model.device), logits_to_keep=kept).logits[0].float().cpu().numpy()
    )
    return found


def _table(model: Any, texts: list[ComparedText], path: Path, report: Report) -> None:
    total, done = sum(len(text.supervised) for text in texts), 0
    table: np.memmap[Any, Any] | None = None
    for text in texts:
        values = np.stack([log_probabilities(row) for row in logits_of(model, text.ids, len(text.supervised))])
        if table is None:
            table = np.lib.format.open_memmap(path, "w+", np.float32, (total, values.shape[1]))
        table[done : done + len(values)] = values
        done += len(values)
        report(done, total)
    if table is not None:
        table.flush()


def _examples(values: dict[str, Any] | None, tokenizer: Any) -> tuple[list[Example], list[str]]:
    """Some rows of the run's data, spread over the source; none, with a note, when it cannot be read any more."""
    if values is None:
        return [], ["compared on built-in text: the run's own data no longer exists"]
    try:
        source = DataSource.model_validate(values)
        located = locate(source, read_settings())
        reading = Reading(source, located, "answers", in_turns(tokenizer.chat_template))
        rows = list(islice(located.rows(0), ROWS_READ))
        format_name, _ = reading.format(rows[:1])
        chosen = [rows[i] for i in spread(len(rows), ROWS_SPREAD)]
        examples = [reading.example(row, number, format_name) for number, row in chosen]
        plain = [readable(example, tokenizer) for example in examples]
        said = "the model has no chat template: it was compared on the text of the conversations"
        return plain, [] if plain == examples else [said]
    except InputError as error:
        return [], [f"compared on built-in text: {error.sentence}"]


def _prompts(examples: list[Example]) -> list[tuple[int, Any]]:
    prompts: list[tuple[int, Any]] = []
    for example in examples:
        if example.text is not None:
            prompts.append((example.row, example.text))
            continue
        try:
            prompts.append((example.row, split_prompt(example)[0]))
        except InputError:
            # A conversation that begins with the answer has no prompt to render.
            prompts += [(example.row, str(example.messages[0]["content"]))] if example.messages else []
    return prompts


def precision(base: Path) -> tuple[torch.dtype, str]:
    """float32 where it fits, on the accelerator or else in main memory; 16 bits where it does not.

    Args:
        base: folder of the checkpoint.
    """
    # Weights are stored in at least 16 bits, so this is an upper bound of the number of parameters.
    needed = weight_bytes(base) / 2 * BYTES_PER_PARAMETER
    if torch.cuda.is_available() and torch.cuda.mem_get_info()[0] > needed:
        return torch.float32, "cuda"
    if psutil.virtual_memory().available > needed:
        return torch.float32, "cpu"
    return torch.bfloat16, "cuda" if torch.cuda.is_available() and torch.cuda.mem_get_info()[0] > needed / 2 else "cpu"


if __name__ == "__main__":
    raise SystemExit(serve_step(reference))

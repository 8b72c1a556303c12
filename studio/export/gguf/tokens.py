"""The tokenizer files that an export is made from: the run's, or, where both give the same ids, the base model's.

Runs that were saved by transformers 5 hold its own form of the files, which the converter misreads for some families
(Gemma, Phi-4, Yi) and which lacks tokenizer.model; the base's own files are what the converter was written for. Newer
runs keep those. For the converter it is added whether a blank is put before a text. A process of its own, for it
imports transformers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from studio.data.tokens.pretrained import load_tokenizer
from studio.errors import InputError
from studio.export.gguf.checkpoint import read_object, write_object
from studio.export.gguf.pieces import is_sentencepiece
from studio.export.proof.material import BUILT_IN_TEXTS, RARE, SHAPES, ids_of
from studio.export.steps import Report, serve_step
from studio.models.inspect.tokenizerfiles import CONFIG, carry_settings, copy_tokenizer, same_files, tokenizer_files
from studio.reach import read_bytes

# What a run may change in the base's files (`studio.train.loop.saving`).
_SETTINGS = (CONFIG, "special_tokens_map.json", "chat_template.jinja", "chat_template.json")


def has_own_files(run: Path, base: Path) -> bool:
    """Does a run hold its base's tokenizer files, unchanged but for settings?"""
    if same_files(run, base):
        return True

    def kept(folder: Path) -> list[Path]:
        return [path for path in tokenizer_files(folder) if path.name not in _SETTINGS and path.suffix != ".jinja"]

    names = kept(base)
    if names != kept(run) or any(read_bytes(run / name) != read_bytes(base / name) for name in names):
        return False
    return _kind(run) == _kind(base)


def _kind(folder: Path) -> tuple[Any, Any]:
    config = read_object(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    return config.get("tokenizer_class"), config.get("added_tokens_decoder")


def same_ids(one: Any, other: Any) -> bool:
    """Do two tokenizers of transformers give the same ids, for every entry alone and for texts of many kinds?"""
    if one.get_vocab() != other.get_vocab():
        return False
    asked = [message["content"] for shape in (SHAPES | RARE).values() for message in shape]
    asked += [*BUILT_IN_TEXTS, *(f"a {token} b{token}\n{token}" for token in one.get_added_vocab())]
    return all(ids_of(one, text) == ids_of(other, text) for text in asked)


def choose(request: dict[str, Any], report: Report) -> dict[str, Any]:
    """Make a folder with the tokenizer files that the export is made from.

    Args:
        request: {"run", "base", "folder"}: the run's result, the base model, and a folder to make.
        report: not called.

    Returns:
        {"from": "base"|"run"}

    Raises:
        InputError: the run's tokenizer cannot be read, or a pattern of either may take for ever.
    """
    run, base, folder = (Path(request[key]) for key in ("run", "base", "folder"))
    folder.mkdir()
    try:
        trained = load_tokenizer(run)
    except (OSError, ValueError) as error:
        raise InputError(f"the run's tokenizer cannot be read: {error}", where=str(run)) from error
    try:
        own = load_tokenizer(base)
    except (OSError, ValueError):  # the base's may be gone, or be code; the run's is enough
        own = None
    if own is not None and same_ids(trained, own):
        copy_tokenizer(base, folder)
        carry_settings(trained, own, folder)
        origin = "base"
    else:
        copy_tokenizer(run, folder)
        for path in tokenizer_files(base) if base != run else []:
            # A vocabulary that transformers 5 does not write; added tokens stand in the JSON files.
            if path.suffix not in (".json", ".jinja", ".txt") and not (folder / path).exists():
                (folder / path).write_bytes(read_bytes(base / path))
        origin = "run"
    if needs_work(folder):
        _say_blank(trained, folder)
    return {"from": origin}


def needs_work(folder: Path) -> bool:
    """Has a tokenizer to do with SentencePiece, for which `choose` adds what the converter needs?"""
    if any(folder.glob("*.model*")):
        return True
    return (folder / "tokenizer.json").is_file() and is_sentencepiece(read_object(folder / "tokenizer.json"))


def _say_blank(trained: Any, folder: Path) -> None:
    """Tell the converter whether a blank is put before a text: llama.cpp puts it after every special token, or never.

    Tokenizers of Llama's older kind do as llama.cpp does; newer ones (Mistral) put it only where a prompt begins, which
    in a chat is a token and no text.
    """
    text = "a"
    special = trained.bos_token or trained.eos_token
    if trained.chat_template and special:
        begin = trained.convert_ids_to_tokens(ids_of(trained, special + text))[1:2]
    else:
        begin = trained.convert_ids_to_tokens(ids_of(trained, text))[:1]
    config = read_object(folder / CONFIG) if (folder / CONFIG).is_file() else {}
    blank = any(str(token).startswith("\u2581") for token in begin)
    if config.get("add_prefix_space", True) is not blank:
        write_object(folder / CONFIG, config | {"add_prefix_space": blank})


if __name__ == "__main__":
    raise SystemExit(serve_step(choose))

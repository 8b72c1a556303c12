"""The choice of a template: its text, what it needs of the model, and that the result of a run carries it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from studio.config.data import DataConfig, DataSource
from studio.data.formats.rows import parse_row
from studio.data.masks.masker import Masker
from studio.data.masks.templates import NEEDED, missing_tokens, template_findings, usable_templates, with_template
from studio.data.prepare.pipeline import prepare_data
from studio.errors import InputError
from studio.methods import MethodConfig
from studio.settings import ASSETS, Settings
from tests.data.rows import chat
from tests.data.templates import with_template as with_text

SYSTEM = {"role": "system", "content": "Be brief."}
QUESTION = {"role": "user", "content": "2+2?"}
ANSWER = {"role": "assistant", "content": "4"}
# template -> (tokens that it needs, the whole text, what is trained on)
WRITTEN: dict[str, tuple[tuple[str, ...], str, str]] = {
    "chatml": (
        (),
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n2+2?<|im_end|>\n"
        "<|im_start|>assistant\n4<|im_end|>\n",
        "4<|im_end|>",
    ),
    "llama3": (
        ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        "<|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"
        "2+2?<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n4<|eot_id|>",
        "4<|eot_id|>",
    ),
    "mistral": ((), "[INST] Be brief.\n\n2+2? [/INST] 4<|im_end|>", " 4<|im_end|>"),
    "gemma": (
        ("<start_of_turn>", "<end_of_turn>"),
        "<start_of_turn>user\nBe brief.\n\n2+2?<end_of_turn>\n<start_of_turn>model\n4<end_of_turn>\n",
        "4<end_of_turn>",
    ),
    "phi": (
        ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
        "<|system|>\nBe brief.<|end|>\n<|user|>\n2+2?<|end|>\n<|assistant|>\n4<|end|>\n",
        "4<|end|>",
    ),
    "plain": ((), "Be brief.\n\nUser: 2+2?\n\nAssistant: 4<|im_end|>\n\n", " 4<|im_end|>"),
}


def having(tokenizer: Any, tokens: tuple[str, ...]) -> Any:
    """A copy of the tokenizer without a template, with more special tokens."""
    from tokenizers import AddedToken

    changed = with_text(tokenizer, None)
    changed.add_tokens([AddedToken(word, special=True, normalized=False) for word in tokens])
    return changed


@pytest.mark.parametrize("name", WRITTEN)
def test_each_template(tokenizer: Any, name: str) -> None:
    tokens, text, trained = WRITTEN[name]
    own = having(tokenizer, tokens)
    used = with_template(own, name)  # type: ignore[arg-type]
    assert own.chat_template is None
    masker = Masker(used)
    (masked,) = masker.encode([parse_row({"messages": [SYSTEM, QUESTION, ANSWER]}, 1, "x", "messages")])
    assert masked.text == text
    assert "".join(piece.text for piece in masker.pieces(masked) if piece.trained) == trained
    assert masked.notes == ()
    two = {"messages": [SYSTEM, QUESTION, ANSWER, QUESTION, ANSWER]}
    (masked,) = masker.encode([parse_row(two, 1, "x", "messages")])
    assert "".join(piece.text for piece in masker.pieces(masked) if piece.trained) == trained * 2
    # A tool's result is written, or refused.
    row = {"messages": [QUESTION, {"role": "assistant", "tool_calls": [{"function": {"name": "add"}}]},
                        {"role": "tool", "content": "four"}, ANSWER]}  # fmt: skip
    if name == "chatml":
        (masked,) = masker.encode([parse_row({**row, "tools": [{"name": "add"}]}, 1, "x", "messages")])
        assert "<tool_response>\nfour\n</tool_response>" in masked.text
        assert '<tool_call>\n{"name": "add", "arguments": {}}\n</tool_call><|im_end|>' in "".join(
            piece.text for piece in masker.pieces(masked) if piece.trained
        )
    else:
        with pytest.raises(InputError, match=r"does not fully render the tool calls|This template knows only"):
            masker.encode([parse_row(row, 1, "x", "messages")])


def test_every_template_is_there() -> None:
    files = {path.stem for path in (ASSETS / "templates").glob("*.jinja")}
    assert files == set(NEEDED) == set(WRITTEN)


def test_bos_is_written_where_the_tokenizer_adds_one(tokenizer: Any) -> None:
    from tokenizers.processors import TemplateProcessing

    changed = having(tokenizer, ("<bos>",))
    changed.bos_token = "<bos>"
    assert not str(with_template(changed, "plain").chat_template).startswith("{{- bos")
    changed.backend_tokenizer.post_processor = TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", changed.bos_token_id)]
    )
    text = with_template(changed, "plain").apply_chat_template([QUESTION], tokenize=False, add_generation_prompt=True)
    assert text == "<bos>User: 2+2?\n\nAssistant:"


def test_tokens_that_the_model_lacks_are_named(tokenizer: Any) -> None:
    assert missing_tokens(tokenizer, "gemma") == ["<start_of_turn>", "<end_of_turn>"]
    assert usable_templates(tokenizer) == ["chatml", "mistral", "plain"]
    with pytest.raises(InputError) as caught:
        with_template(tokenizer, "llama3")
    assert "no <|start_header_id|>, <|end_header_id|>, <|eot_id|>, which the template llama3" in caught.value.sentence
    assert "chatml or mistral or plain" in caught.value.fix
    endless = having(tokenizer, ())
    endless.eos_token = None
    with pytest.raises(InputError, match="the model has no end-of-text token"):
        with_template(endless, "plain")


def test_a_model_without_a_template_is_offered_ours(tokenizer: Any) -> None:
    with pytest.raises(InputError) as caught:
        Masker(with_text(tokenizer, None)).encode([parse_row(chat("q", "a"), 1, "x", "messages")])
    assert "Set data.template to chatml or mistral or plain" in caught.value.fix


def test_taking_the_place_of_the_own_template_is_warned_of(tokenizer: Any) -> None:
    assert template_findings(tokenizer, "auto") == []
    assert template_findings(with_text(tokenizer, None), "chatml") == []
    (finding,) = template_findings(tokenizer, "plain")
    assert finding.level == "warning"
    assert "replaces the one that the model was trained with" in finding.text


# ---- the system text

HARD = "Say \"yes\" {{ always }} {% endif %}\n'ok' 🙂 \\n"


@pytest.mark.parametrize("text", ["Be brief.", HARD])
def test_a_system_text_becomes_part_of_the_template(tokenizer: Any, text: str) -> None:
    used = with_template(tokenizer, "auto", text)
    given = {"role": "system", "content": text}
    for messages in ([QUESTION, ANSWER], [QUESTION]):
        without = used.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        assert without == tokenizer.apply_chat_template([given, *messages], tokenize=False, add_generation_prompt=True)
    # A conversation's own system text is kept.
    own = used.apply_chat_template([SYSTEM, QUESTION], tokenize=False)
    assert own == tokenizer.apply_chat_template([SYSTEM, QUESTION], tokenize=False)
    assert "named SmolLM" in tokenizer.apply_chat_template([QUESTION], tokenize=False)


def test_a_template_that_loses_or_refuses_a_system_text(tokenizer: Any) -> None:
    silent = "{% for m in messages if m.role != 'system' %}{{ m.content }}{% endfor %}"
    strict = "{% if messages[0].role == 'system' %}{{ raise_exception('No system') }}{% endif %}x"
    for template, said in ((silent, "drops the system prompt"), (strict, "rejects a system prompt: No system")):
        with pytest.raises(InputError, match=said) as caught:
            with_template(with_text(tokenizer, template), "auto", "Be brief.")
        assert caught.value.where == "data.system"
    with pytest.raises(InputError, match="no place for a system prompt"):
        with_template(with_text(tokenizer, None), "auto", "Be brief.")


# ---- one template for everything


def test_prepared_rows_come_with_the_tokenizer_that_wrote_them(
    tokenizer: Any, settings: Settings, write: Callable[..., Path]
) -> None:
    config = DataConfig(
        train=[DataSource(path=str(write("x.jsonl", [chat("q", "a")] * 2)))],
        validation=0, template="plain", system="Be brief.",
    )  # fmt: skip
    before = tokenizer.chat_template
    done = prepare_data(config, MethodConfig(), tokenizer, settings)
    assert tokenizer.chat_template == before
    text = "Be brief.\n\nUser: q\n\nAssistant: a<|im_end|>\n\n"
    assert tokenizer.decode(done.train[0].input_ids) == text
    assert done.tokenizer.apply_chat_template(chat("q", "a")["messages"], tokenize=False) == text
    assert any("replaces the one" in finding.text for finding in done.report.findings)


def test_a_saved_model_carries_the_template(
    tokenizer: Any, settings: Settings, model_path: Path, tmp_path: Path, write: Callable[..., Path]
) -> None:
    """One step of a real training job; chat, evaluation and export load the tokenizer from its folder."""
    from transformers import AutoTokenizer

    from studio.train.worker import train
    from tests.parity.made import job_for, make_tiny, one_thread

    rows = write("x.jsonl", [chat(f"{i}?", f"{i}.") for i in range(4)])
    sections = {
        "data": {"validation": 0, "template": "plain", "system": "Be brief."},
        "training": {"max_steps": 1, "batch_size": 2},
        "tuning": {"name": "lora", "rank": 2},
    }
    with one_thread():
        context = job_for(settings, make_tiny(model_path, tmp_path / "tiny"), rows, **sections)
        train(context)
    saved = AutoTokenizer.from_pretrained(context.job.model, local_files_only=True)
    assert saved.chat_template == with_template(tokenizer, "plain", "Be brief.").chat_template
    text = saved.apply_chat_template([QUESTION], tokenize=False, add_generation_prompt=True)
    assert text == "Be brief.\n\nUser: 2+2?\n\nAssistant:"
    # Evaluation and export ask the masks of that tokenizer.
    assert Masker(saved).stop_text() == "<|im_end|>"


def test_the_data_worker_shows_the_run_s_template(
    settings: Settings, model_path: Path, write: Callable[..., Path]
) -> None:
    from studio.data.worker.operations import Operations

    operations, model = Operations(settings), str(model_path)
    path = str(write("x.jsonl", [{"q": "2+2?", "a": "4", "tools": [{"name": "add"}]}] * 2))
    source = {"path": path, "columns": "instruction=q, output=a"}

    def ask(op: str, **values: Any) -> dict[str, Any]:
        return operations.run(op, {"model": model, **values}, lambda *_: None)

    told = ask("template")
    assert (told["exact"], told["stop_text"], told["usable"]) == (True, "<|im_end|>", ["chatml", "mistral", "plain"])
    assert "which the template gemma needs" in ask("template", data={"template": "gemma"})["reason"]

    own = ask("preview", data={"train": [source]})
    assert own["problem"]["what"].startswith("the model's chat template does not render the row's tools")
    shown = ask("preview", data={"train": [source], "template": "chatml", "system": "Be brief."})
    assert shown["reason"] == "the rows have the keys instruction and output"
    assert shown["tools"] == [{"type": "function", "function": {"name": "add"}}]
    text = "".join(piece["text"] for piece in shown["tokens"])
    assert text.startswith("<|im_start|>system\nBe brief.\n\n# Tools")
    assert "".join(piece["text"] for piece in shown["tokens"] if piece["trained"]) == "4<|im_end|>"

    told = ask("inspect", path=path, options={"columns": source["columns"]}, data={"template": "chatml"})
    assert (told["format"], told["rows"]) == ("instruction", 2)
    assert told["reason"] == "the rows have the keys instruction and output"

"""Plain questions and answers: turns of a conversation for a model with a chat template, raw where that is asked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from studio.config.data import DataConfig, DataSource
from studio.config.load import load_run
from studio.data.formats.column_names import known_columns, side_columns
from studio.data.prepare.pipeline import Prepared, prepare_data
from studio.data.sources.locate import of_file
from studio.data.sources.reading import in_turns, source_named
from studio.data.worker.columns import columns_of
from studio.data.worker.whole import WholeOperations
from studio.errors import InputError
from studio.evaluate.questions import read_questions
from studio.methods import MethodConfig
from studio.settings import Settings
from tests.data.rows import chat
from tests.data.templates import with_template

Writer = Callable[..., Path]
PAIRS = [("Was ist 2+2?", "4"), ("Was ist 3+3?", "6"), ("Hauptstadt von Peru?", "Lima")]
TABLE = "".join(f"{question},{answer}\n" for question, answer in PAIRS)
U, A, B = ({"role": role, "content": text} for role, text in (("user", "q"), ("assistant", "a"), ("assistant", "b")))


def ignore(*progress: Any) -> None:
    """No progress is shown."""


@pytest.fixture
def prepared(tokenizer: Any, settings: Settings, write: Writer) -> Callable[..., Prepared]:
    """prepared(rows or source, method): the units of a run without validation."""

    def run(rows: list[dict[str, Any]], method: str = "sft", own: bool = True, **options: Any) -> Prepared:
        config = {
            key: options.pop(key) for key in ("control_tokens", "template", "streaming", "truncation") if key in options
        }
        path = write("rows.jsonl", rows)
        source = {"path": str(path), **options}
        used = tokenizer if own else with_template(tokenizer, None)
        data = DataConfig.model_validate({"train": [source], "validation": 0, "max_length": 256, **config})
        return prepare_data(data, MethodConfig.model_validate({"name": method}), used, settings)

    return run


def ids(done: Prepared) -> list[Any]:
    return [unit.key for unit in done.train]


def reading_of(done: Prepared) -> tuple[str, list[str]]:
    found = [one for one in done.report.findings if one.check == "reading"]
    return done.report.sources[0].read_as, [one.level for one in found]


@pytest.mark.parametrize(
    "header", ["Frage,Antwort", "frage;antwort", "prompt,completion", "Question|Answer", "问题,答案"]
)
def test_a_table_of_questions_and_answers_has_the_tokens_of_its_conversations(
    tokenizer: Any, settings: Settings, write: Writer, header: str
) -> None:
    between = next(mark for mark in ",;|" if mark in header)
    table = write("faq.csv", f"{header}\n{TABLE.replace(',', between)}")
    yaml = write("run.yaml", f"data:\n  train: [{{path: {table}}}]\n  validation: 0\n")
    config = load_run(yaml)
    done = prepare_data(config.data, config.method, tokenizer, settings)
    as_chat = write("chat.jsonl", [chat(*pair) for pair in PAIRS])
    wanted = prepare_data(
        DataConfig(train=[DataSource(path=str(as_chat))], validation=0), MethodConfig(), tokenizer, settings
    )
    assert [(one.input_ids, one.labels) for one in done.train] == [(one.input_ids, one.labels) for one in wanted.train]
    assert reading_of(done) == ("conversation", ["info"])


@pytest.mark.parametrize(
    ("method", "plain", "messages"),
    [
        ("sft", {"prompt": "q", "completion": "a"}, {"messages": [U, A]}),
        ("sft", {"question": "q", "answer": "a", "id": 7}, {"messages": [U, A]}),
        ("sft", {"question": "q", "context": "", "answer": "a"}, {"messages": [U, A]}),
        ("sft", {"input": "q", "output": "a"}, {"messages": [U, A]}),
        ("dpo", {"prompt": "q", "chosen": "a", "rejected": "b"}, {"prompt": [U], "chosen": [A], "rejected": [B]}),
        ("orpo", {"question": "q", "chosen": "a", "rejected": "b"}, {"prompt": [U], "chosen": [A], "rejected": [B]}),
        ("reward", {"frage": "q", "chosen": "a", "rejected": "b"}, {"prompt": [U], "chosen": [A], "rejected": [B]}),
        ("kto", {"prompt": "q", "completion": "a", "label": True}, {"messages": [U, A], "label": True}),
        ("kto", {"prompt": "q", "response": "a", "label": False}, {"messages": [U, A], "label": False}),
        ("kto", {"prompt": "q", "chosen": "a", "rejected": "b"}, {"prompt": [U], "chosen": [A], "rejected": [B]}),
        ("grpo", {"prompt": "q", "answer": "a"}, {"prompt": [U], "answer": "a"}),
        ("grpo", {"question": "q", "answer": "a"}, {"prompt": [U], "answer": "a"}),
        ("ppo", {"prompt": "q", "completion": "a"}, {"prompt": [U], "answer": "a"}),
    ],
)
def test_texts_have_the_tokens_of_messages_and_raw_has_not(
    prepared: Callable[..., Prepared], method: str, plain: dict[str, Any], messages: dict[str, Any]
) -> None:
    done = prepared([plain], method)
    assert ids(done) == ids(prepared([messages], method))
    assert [getattr(unit, "answer", None) for unit in done.train] in ([None], ["a"], [None, None])
    if plain.get("context") is None:
        assert reading_of(done) == ("conversation", ["info"])
        raw = prepared([plain], method, reading="raw")
        assert ids(raw) != ids(done)
        assert reading_of(raw) == ("raw", ["info"])


@pytest.mark.parametrize(
    ("method", "format", "row"),
    [
        ("sft", "prompt_completion", {"prompt": "q", "completion": "a"}),
        ("dpo", "preference", {"prompt": "q", "chosen": "a", "rejected": "b"}),
        ("kto", "rated", {"prompt": "q", "completion": "a", "label": True}),
        ("grpo", "prompts", {"prompt": "q", "answer": "a"}),
    ],
)
def test_a_named_format_means_what_it_means_to_trl(
    prepared: Callable[..., Prepared], method: str, format: str, row: dict[str, Any]
) -> None:
    done = prepared([row], method, format=format)
    assert ids(done) == ids(prepared([row], method, reading="raw"))
    assert reading_of(done) == ("raw", ["warning"])
    asked = prepared([row], method, format=format, reading="conversation")
    assert ids(asked) == ids(prepared([row], method))


def test_messages_in_prompt_and_completion_stay_messages(prepared: Callable[..., Prepared]) -> None:
    row = {"prompt": [U], "completion": [A]}
    for options in ({}, {"reading": "raw"}, {"format": "prompt_completion"}):
        done = prepared([row], **options)
        assert ids(done) == ids(prepared([{"messages": [U, A]}]))
        assert reading_of(done) == ("", [])


def test_a_model_without_a_template_reads_the_texts_as_they_are(
    prepared: Callable[..., Prepared], tokenizer: Any
) -> None:
    done = prepared([{"prompt": "q=", "completion": "a"}], own=False)
    assert tokenizer.decode(done.train[0].input_ids) == "q=a<|im_end|>"
    assert reading_of(done) == ("raw", ["info"])
    given = prepared([{"prompt": "q=", "completion": "a"}], own=False, template="chatml")
    assert reading_of(given)[0] == "conversation"


def test_texts_with_markup_of_their_own_and_pretraining_stay_raw(prepared: Callable[..., Prepared]) -> None:
    marked = [{"prompt": "<|im_start|>user\nq<|im_end|>\n", "completion": "a"}]
    assert reading_of(prepared(marked, control_tokens="keep"))[0] == "raw"
    assert reading_of(prepared([{"prompt": "q", "completion": "a"}], "pretrain"))[0] == "raw"
    assert not in_turns("")


def test_rows_for_validation_are_read_as_those_of_training(tokenizer: Any, settings: Settings, write: Writer) -> None:
    train = write("train.jsonl", [{"prompt": "q", "completion": "a"}])
    held = write("held.jsonl", [{"prompt": "r", "completion": "b"}])
    for options in ({"reading": "raw"}, {"format": "prompt_completion"}):
        data = DataConfig.model_validate({"train": [{"path": str(train), **options}], "validation": str(held)})
        done = prepare_data(data, MethodConfig(), tokenizer, settings)
        assert tokenizer.decode(done.validation[0].input_ids) == "rb<|im_end|>"


def test_an_evaluation_asks_as_the_run_was_trained(tokenizer: Any, write: Writer) -> None:
    held = write("held.jsonl", [{"prompt": "q", "completion": "a"}])
    for first, prompt in (({}, True), ({"format": "prompt_completion"}, False), ({"reading": "raw"}, False)):
        source = source_named({"train": [{"path": "elsewhere.jsonl", **first}]}, str(held))
        (question,) = read_questions(held, tokenizer, source=source)
        assert ("assistant" in tokenizer.decode(question.prompt_ids)) is prompt
        assert (question.prompt, question.expected) == ("q", "a")


def test_a_runs_own_file_is_known_by_any_of_its_names(write: Writer, tmp_path: Path) -> None:
    file = write("rows.jsonl", [{"q": "q", "a": "a"}])
    (tmp_path / "link.jsonl").symlink_to(file)
    (tmp_path / "sub").mkdir()
    other = write("other.jsonl", [{"q": "q", "a": "a"}])
    data = {"train": [{"path": str(file), "columns": {"prompt": "q", "completion": "a"}}]}
    for name in (file, tmp_path / "link.jsonl", tmp_path / "sub" / ".." / "rows.jsonl"):
        assert source_named(data, str(name)).columns == {"prompt": "q", "completion": "a"}
    assert source_named(data, str(other)).columns is None


@pytest.mark.parametrize(
    ("keys", "kind", "mapping"),
    [
        (("Frage", "Antwort"), "answers", {"prompt": "Frage", "completion": "Antwort"}),
        (("Question: ", "ANSWER"), "answers", {"prompt": "Question: ", "completion": "ANSWER"}),
        (("re\u0301ponse", "question"), "answers", {"prompt": "question", "completion": "re\u0301ponse"}),
        (("вопрос", "ответ"), "answers", {"prompt": "вопрос", "completion": "ответ"}),
        (("質問", "回答", "id"), "answers", {"prompt": "質問", "completion": "回答"}),
        (
            ("instruction", "context", "response", "category"),
            "answers",
            {"instruction": "instruction", "input": "context", "output": "response"},
        ),
        (("Kontext", "Frage", "Antwort"), "answers", {"instruction": "Frage", "output": "Antwort", "input": "Kontext"}),
        (("Anweisung", "Eingabe", "Ausgabe"), "answers",
         {"instruction": "Anweisung", "output": "Ausgabe", "input": "Eingabe"}),
        (("输入", "输出"), "answers", {"prompt": "输入", "completion": "输出"}),
        (("Systemprompt", "Frage", "Antwort"), "answers",
         {"prompt": "Frage", "completion": "Antwort", "system": "Systemprompt"}),
        (("System Prompt", "User-Input", "Output"), "answers",
         {"prompt": "User-Input", "completion": "Output", "system": "System Prompt"}),
        # Two columns that might be it, names that are only like it, and rows that say themselves what they are.
        (("problem", "solution", "answer"), "answers", {}),
        (("question", "prompt", "answer"), "answers", {}),
        (("questoin", "answer"), "answers", {}),
        (("prompt", "completion", "answer"), "answers", {}),
        (("messages", "question", "answer"), "answers", {}),
        (("question", "chosen", "rejected"), "answers", {}),
        (("instruction", "chosen", "rejected"), "pairs", {}),
        (tuple(f"column {n}" for n in range(1000)), "answers", {}),
    ],
)  # fmt: skip
def test_columns_that_are_called_question_and_answer(keys: tuple[str, ...], kind: Any, mapping: dict[str, str]) -> None:
    assert known_columns(keys, kind) == mapping


@pytest.mark.parametrize(
    ("keys", "kind", "mapping"),
    [
        (("instruction", "context", "output"), "answers", {"input": "context"}),
        (("instruction", "input", "output", "system_prompt"), "answers", {"system": "system_prompt"}),
        (("instruction", "Kontext", "output", "system_message"), "answers",
         {"system": "system_message", "input": "Kontext"}),
        (("prompt", "completion", "system_prompt", "context"), "answers", {"system": "system_prompt"}),
        (("prompt", "completion", "label", "System Prompt"), "rated", {"system": "System Prompt"}),
        (("instruction", "output", "label", "passage"), "rated", {"input": "passage"}),
        (("instruction", "context", "chosen", "rejected"), "pairs", {"input": "context"}),
        (("prompt", "context", "system_prompt", "chosen", "rejected"), "pairs", {"system": "system_prompt"}),
        # Their own keys, two candidates, conversations, texts, prompts, and rows of no method.
        (("instruction", "input", "context", "output", "system", "system_prompt"), "answers", {}),
        (("instruction", "context", "passage", "output"), "answers", {}),
        (("messages", "instruction", "output", "context", "system_prompt"), "answers", {}),
        (("text", "context"), "answers", {}),
        (("prompt", "system_prompt"), "prompts", {}),
        (("prompt", "system_prompt"), "pairs", {}),
        (("question", "answer", "context"), "answers", {}),
    ],
)  # fmt: skip
def test_columns_beside_a_question(keys: tuple[str, ...], kind: Any, mapping: dict[str, str]) -> None:
    assert side_columns(keys, kind) == mapping


@pytest.mark.parametrize("late", [{"context": "c"}, {"system_prompt": "s"}])
@pytest.mark.parametrize("own", [("question", "answer"), ("instruction", "output")])
def test_a_row_may_lack_what_stands_beside_a_question(
    prepared: Callable[..., Prepared], tokenizer: Any, late: dict[str, str], own: tuple[str, str]
) -> None:
    rows = [{own[0]: "q1", own[1]: "a"}, {own[0]: "q2", own[1]: "b", **late}, {own[0]: "q3", own[1]: "c"}]
    for some in (rows, [rows[1], rows[0], rows[2]]):
        done = prepared(some)
        texts = [tokenizer.decode(unit.input_ids) for unit in done.train]
        (found,) = [text for text in texts if "q2" in text]
        assert ("user\nq2\nc<" in found) if "context" in late else ("system\ns<" in found)
        assert sum("<|im_start|>user\nq1<|im_end|>" in text for text in texts) == 1
        reason = done.report.sources[0].reason
        assert reason.startswith("the columns say ") and f"={next(iter(late))}" in reason
        assert not [one for one in done.report.findings if next(iter(late)) in one.text and one.level == "warning"]


def test_the_reason_tells_both_what_the_rows_and_the_columns_say(prepared: Callable[..., Prepared]) -> None:
    done = prepared([{"instruction": "q", "context": "c", "output": "a"}])
    assert done.report.sources[0].reason == (
        "the columns say input=context; the rows have the keys instruction and output"
    )


def test_a_context_that_has_no_place_is_a_warning(prepared: Callable[..., Prepared]) -> None:
    rows = [{"prompt": "q", "completion": "a", "context": "c", "id": 1}, {"prompt": "r", "completion": "b"}]
    text = "columns are not read although their names say that they belong to the prompt: context"
    streamed = {"streaming": "on", "truncation": "cut"}
    for options in ({}, {"format": "prompt_completion"}, streamed, streamed):
        done = prepared(rows, **options)
        (found,) = [one for one in done.report.findings if one.text == text]
        assert (found.level, found.count) == ("warning", 1)
        assert "columns, such as prompt={{ context }} {{ prompt }}" in found.fix
        assert [one.text for one in done.report.findings if "ignored" in one.text] == ["ignored keys: id"]
    # Whoever names the columns, or has nothing in them, has not lost any.
    for some, options in ((rows, {"columns": {"prompt": "prompt"}}), ([{**rows[0], "context": ""}], {})):
        found_all = prepared(some, **options).report.findings
        assert [one.text for one in found_all if "context" in one.text] == ["ignored keys: context, id"]
    pair = {"prompt": "q", "chosen": "a", "rejected": "b", "context": "c"}
    assert text in [one.text for one in prepared([pair] * 2, method="dpo").report.findings]


def test_the_page_shows_what_the_names_say(write: Writer) -> None:
    rows = [{"prompt": "q", "completion": "a"}] * 9 + [{"prompt": "q", "completion": "a", "system_prompt": "s"}]
    path = write("rows.jsonl", rows)
    shown = columns_of(DataSource(path=str(path)), of_file(path), "answers")
    assert shown["columns"] == ["prompt", "completion", "system_prompt"]
    assert shown["mapping"] == {"prompt": "prompt", "completion": "completion", "system": "system_prompt"}


def test_conversations_and_prompts_keep_their_other_columns(prepared: Callable[..., Prepared]) -> None:
    done = prepared([{**chat("q", "a"), "context": "c", "system_prompt": "s"}])
    assert [one.text for one in done.report.findings if "key" in one.text] == ["ignored keys: context, system_prompt"]


def test_a_column_that_a_person_named_stays_required(prepared: Callable[..., Prepared]) -> None:
    rows = [{"question": "q", "answer": "a", "about": "c"}, {"question": "q", "answer": "a"}]
    with pytest.raises(InputError, match="there is no column 'about' for input"):
        prepared(rows, columns={"instruction": "question", "output": "answer", "input": "about"})


def test_preview_inspection_and_profile_say_the_same(model_path: Path, settings: Settings, write: Writer) -> None:
    path = write("faq.csv", f"Frage,Antwort\n{TABLE}")
    worker = WholeOperations(settings)
    rows = {"data": {"train": [{"path": str(path)}], "validation": 0}, "model": str(model_path)}
    file = {"path": str(path), "model": str(model_path), "method": {"name": "sft"}}
    seen = worker.run("preview", rows, ignore)
    assert [turn["role"] for turn in seen["messages"]] == ["user", "assistant"]
    inspected = worker.run("inspect", file, ignore)
    profiled = worker.run("profile", rows, ignore)
    changes = [
        [one["change"] for one in found["findings"] if one["check"] == "reading"] for found in (inspected, profiled)
    ]
    assert changes == [[{"source": 0, "reading": "raw"}]] * 2
    assert inspected["tokens"] == profiled["tokens"]["total"]
    raw = worker.run("inspect", {**file, "options": {"reading": "raw"}}, ignore)
    assert raw["tokens"] < inspected["tokens"]


def test_a_cleaned_copy_trains_as_what_it_was_made_of(
    model_path: Path, tokenizer: Any, settings: Settings, write: Writer
) -> None:
    path = write("rows.jsonl", [{"prompt": "q", "completion": "a"}])
    worker = WholeOperations(settings)
    for reading in ("raw", "auto"):
        data = {"train": [{"path": str(path), "reading": reading}], "validation": 0}
        kept = worker.run("keep", {"name": f"copy-{reading}", "data": data, "model": str(model_path)}, ignore)
        copy = {"path": str(Path(kept["path"]) / "train.jsonl"), "reading": kept["reading"]}
        was, now = (
            prepare_data(DataConfig.model_validate({**data, "train": [one]}), MethodConfig(), tokenizer, settings)
            for one in (data["train"][0], copy)
        )
        assert ids(was) == ids(now)


def test_a_rating_that_sft_would_not_see_is_told(prepared: Callable[..., Prepared]) -> None:
    done = prepared([{"prompt": "q", "completion": "a", "label": False}])
    assert [one.level for one in done.report.findings if "label" in one.text] == ["info", "warning"]
    text = prepared([{"text": "a text", "label": 3}])
    assert [one.level for one in text.report.findings if "label" in one.text] == ["info"]


def test_markup_in_a_row_names_the_way_to_keep_it(prepared: Callable[..., Prepared]) -> None:
    with pytest.raises(Exception, match=r"data\.control_tokens: keep"):
        prepared([{"prompt": "<|im_start|>user", "completion": "a"}])

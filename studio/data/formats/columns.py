"""Columns with other names: which of them is the prompt, the answer, the label.

A mapping gives each role a column's name or a Jinja line over the columns; what comes out is a row that `rows` reads
like any other. Lines run in Jinja's sandbox, in a process of their own unless they are plain (`harmless`), and a name
that the row has not is an error, never an empty text.
"""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from studio.data.files.datafiles import place
from studio.data.files.where import as_truth, names_of
from studio.data.formats.harmless import is_harmless, names_in
from studio.data.sandbox.bounds import Budget, OutOfBoundsError
from studio.data.sandbox.child import MAX_CHARACTERS, line_environment, too_long
from studio.data.sandbox.process import SANDBOX, Refusal
from studio.errors import InputError
from studio.methods import RowKind

Row = dict[str, Any]
_MAX_LINE = 20_000
# Names that data sets use. The order within a role is the order of preference.
_NAMES: dict[str, tuple[str, ...]] = {
    "messages": ("messages", "conversations", "conversation", "chat", "dialogue", "dialog", "turns"),
    "chosen": ("chosen", "preferred", "better", "winner", "chosen_response", "response_chosen"),
    "rejected": ("rejected", "dispreferred", "worse", "loser", "rejected_response", "response_rejected"),
    "label": ("label", "kto_tag", "rating", "is_good", "thumbs_up", "good", "correct", "feedback"),
    "system": ("system", "system_prompt", "system_message"),
    "question": ("instruction", "question", "query", "prompt", "user", "problem", "request", "task", "user_input"),
    "context": ("input", "context", "passage"),
    "reply": (
        "output", "answer", "response", "completion", "reply", "target", "assistant", "solution", "ground_truth",
    ),
    "text": ("text", "content", "document", "body", "article"),
}  # fmt: skip

# What the roles are called in other languages, and in short; with `_NAMES` what `known_columns` goes by.
_QUESTIONS = (
    "q", "questions", "anweisung", "aufgabe", "consigne", "instrucción", "istruzione", "instrução", "инструкция",
    "指令", "指示", "지시", "frage", "fragen", "demande", "pregunta", "preguntas", "pergunta", "domanda", "vraag",
    "fråga", "spørgsmål", "spørsmål", "kysymys", "pytanie", "otázka", "kérdés", "întrebare", "soru", "вопрос",
    "питання",
    "въпрос", "ερώτηση", "שאלה", "سؤال", "السؤال", "پرسش", "سوال", "प्रश्न", "প্রশ্ন", "คำถาม", "câu hỏi",
    "pertanyaan", "问题", "問題", "提问", "问", "質問", "질문",
)  # fmt: skip
_ANSWERS = (
    "a", "answers", "antwort", "antworten", "réponse", "reponse", "respuesta", "respuestas", "resposta", "risposta",
    "antwoord", "svar", "vastaus", "odpowiedź", "odpověď", "odpoveď", "válasz", "răspuns", "cevap", "yanıt", "ответ",
    "відповідь", "отговор", "απάντηση", "תשובה", "جواب", "إجابة", "الإجابة", "پاسخ", "उत्तर", "উত্তর", "คำตอบ",
    "câu trả lời", "jawaban", "ausgabe", "sortie", "salida", "saída", "вывод", "输出", "輸出", "出力", "출력", "答案",
    "回答", "答え", "答", "답변", "답",
)  # fmt: skip
# What is asked about; where nothing else is the question, these are.
_INPUTS = ("input", "eingabe", "entrée", "entrada", "ввод", "输入", "輸入", "入力", "입력")
_CONTEXTS = (
    *_INPUTS, "kontext", "contexte", "contexto", "contesto", "контекст", "上下文", "背景", "文脈", "コンテキスト",
    "문맥",
)  # fmt: skip
_SYSTEMS = (
    "systemprompt", "systemnachricht", "prompt système", "message système", "prompt de sistema", "mensaje de sistema",
    "системный промпт", "система", "系统", "系統", "系统提示", "系统提示词", "系统消息", "システム", "시스템",
)  # fmt: skip

_ALL_NAMES = {
    **_NAMES, "question": (*_NAMES["question"], *_QUESTIONS), "reply": (*_NAMES["reply"], *_ANSWERS),
    "context": (*_NAMES["context"], *_CONTEXTS), "system": (*_NAMES["system"], *_SYSTEMS),
}  # fmt: skip
# Keys by which a row says itself what it is.
_OWN: dict[RowKind, tuple[tuple[str, ...], ...]] = {
    "answers": (("messages",), ("conversations",), ("prompt", "completion"), ("instruction", "output"), ("text",)),
    "pairs": (("messages",), ("conversations",), ("prompt",), ("instruction",)),
    "rated": (("messages",), ("conversations",), ("prompt", "completion"), ("instruction", "output")),
    "prompts": (("messages",), ("conversations",), ("prompt",), ("instruction", "output")),
}
# What else than a question a row of a kind must have, and what it may have.
_NEEDS: dict[RowKind, tuple[str, ...]] = {
    "answers": ("reply",), "pairs": ("chosen", "rejected"), "rated": ("reply", "label"), "prompts": (),
}  # fmt: skip
_MAY_HAVE: dict[RowKind, tuple[str, ...]] = {
    "answers": ("context", "system"), "pairs": ("context", "system"), "rated": ("context", "system"),
    "prompts": ("reply", "system"),
}  # fmt: skip

# What a person says of a table's columns: the roles that a kind of method reads from plain texts.
ROLES: dict[RowKind, tuple[str, ...]] = {
    "answers": ("prompt", "completion", "system", "text"), "pairs": ("prompt", "chosen", "rejected", "system"),
    "rated": ("prompt", "completion", "label", "system"), "prompts": ("prompt", "answer", "system"),
}  # fmt: skip

# Comparing names takes a while, and no table that a person made has more columns.
_MOST_KEYS = 100


def suggest_columns(keys: Sequence[str], kind: RowKind) -> dict[str, str]:
    """Return the nearest mapping that makes rows with these keys usable, or {} if none comes near.

    Questions and answers become instruction and output, which go through the chat template.

    Args:
        keys: the columns of the file.
        kind: what the method learns from.
    """
    found: dict[str, str] = {}
    # An exact name beats a similar one, whatever the order of the roles.
    for matches, table in ((_exact, _ALL_NAMES), (_similar, _NAMES)):
        for role, names in table.items():
            free = [key for key in keys[:_MOST_KEYS] if key not in found.values()]
            if role not in found and (key := matches(names, free)):
                found[role] = key
    return _mapping(found, kind)


def known_columns(keys: Sequence[str], kind: RowKind) -> dict[str, str]:
    """Return the mapping of columns that are called question and answer, {} where that is not plain.

    It is plain where one column alone has a name of each, in whatever language, and no key is one of the studio's own
    that would decide the format. Questions and answers become prompt and completion.

    Args:
        keys: the columns of the file.
        kind: what the method learns from.
    """
    if len(keys) > _MOST_KEYS or any(set(own) <= set(keys) for own in _OWN[kind]):
        return {}
    plain = {key: _plain_name(key) for key in keys}
    found: dict[str, str] = {}
    for role in ("question", *_NEEDS[kind], *_MAY_HAVE[kind]):
        known = set(map(_plain_name, _ALL_NAMES[role]))
        having = [key for key, name in plain.items() if name in known]
        if len(having) > 1:
            return {}
        if having:
            found[role] = having[0]
    if "question" not in found and plain.get(found.get("context", "")) in _INPUTS:
        found["question"] = found.pop("context")
    if not {"question", *_NEEDS[kind]} <= found.keys():
        return {}
    with_context = "context" in found
    roles = {
        "question": "instruction" if with_context else "prompt", "context": "input",
        "reply": "answer" if kind == "prompts" else "output" if with_context else "completion",
    }  # fmt: skip
    return {roles.get(meaning, meaning): column for meaning, column in found.items()}


def _plain_name(key: str) -> str:
    text = unicodedata.normalize("NFC", key).replace("_", " ").replace("-", " ")
    return " ".join(text.strip(" \t:?？：.*").casefold().split())


def _exact(names: Sequence[str], keys: Sequence[str]) -> str | None:
    lowered = {key.lower(): key for key in reversed(keys)}
    return next((lowered[name] for name in names if name in lowered), None)


def _similar(names: Sequence[str], keys: Sequence[str]) -> str | None:
    lowered = {key.lower(): key for key in reversed(keys)}
    near = (difflib.get_close_matches(name, lowered, n=1, cutoff=0.8) for name in names)
    return next((lowered[one[0]] for one in near if one), None)


def _mapping(found: Mapping[str, str], kind: RowKind) -> dict[str, str]:
    """The roles that the formats of a kind need, or {} where one of them is not found."""
    asked = {"instruction": "question", "input": "context", "system": "system"}
    answered = {**asked, "output": "reply"}
    forms: dict[str, list[tuple[dict[str, str], tuple[str, ...]]]] = {
        "answers": [({"messages": "messages"}, ("messages",)), (answered, ("instruction", "output")),
                    ({"text": "text"}, ("text",))],
        "pairs": [({**asked, "chosen": "chosen", "rejected": "rejected"}, ("instruction", "chosen", "rejected")),
                  ({"chosen": "chosen", "rejected": "rejected"}, ("chosen", "rejected"))],
        "rated": [({"messages": "messages", "label": "label"}, ("messages", "label")),
                  ({**answered, "label": "label"}, ("instruction", "output", "label"))],
        "prompts": [({"messages": "messages"}, ("messages",)), (answered, ("instruction", "output")),
                    ({"prompt": "question", "answer": "reply"}, ("prompt",))],
    }  # fmt: skip
    for roles, needed in forms[kind]:
        mapping = {role: found[meaning] for role, meaning in roles.items() if meaning in found}
        if all(role in mapping for role in needed):
            return mapping
    return {}


class Columns:
    """A mapping, ready to be applied to rows.

    Args:
        mapping: role to column name or Jinja line; None or {} leaves rows as they are.

    Raises:
        InputError: a line is not Jinja.
    """

    def __init__(self, mapping: Mapping[str, str] | None = None) -> None:
        self._names: dict[str, str] = {}
        self._lines: dict[str, Callable[[Row, Budget], str]] = {}
        self._budget = Budget()
        self._read: set[str] = set()
        for role, value in (mapping or {}).items():
            if "{{" in value or "{%" in value:
                self._lines[role], read = _compile(role, value)
                self._read |= read
            else:
                self._names[role] = value
                self._read.add(value)

    def __bool__(self) -> bool:
        """Whether there is anything to do."""
        return bool(self._names or self._lines)

    def apply(self, row: Row, number: int, path: Path | str) -> Row:
        """Return the row with its roles as keys; columns that nothing was read from keep their names.

        Args:
            row: as it is stored.
            number: of the row, from 1, for errors.
            path: of its file, for errors.

        Raises:
            InputError: the row lacks a column, or a line cannot be written out for it.
            OutOfBoundsError: a line takes too much time or memory.
        """
        if not self:
            return row
        mapped: Row = {}
        for role, column in self._names.items():
            if column not in row:
                near = difflib.get_close_matches(column, map(str, row), n=1, cutoff=0.5)
                fix = f"Did you mean '{near[0]}'?" if near else f"Fix '{role}' in columns"
                keys = names_of(row)
                what = f"there is no column '{column}' for {role}; columns are: {keys}"
                raise InputError(what, where=place(path, number), fix=fix)
            mapped[role] = row[column]
        for role, line in self._lines.items():
            mapped[role] = _written(role, line, row, number, path, self._budget)
        if "label" in mapped:
            mapped["label"] = as_truth(mapped["label"])
        return mapped | {key: value for key, value in row.items() if key not in self._read and key not in mapped}


def _compile(role: str, line: str) -> tuple[Callable[[Row, Budget], str], set[str]]:
    """A Jinja line as a function of a row, and the names that it reads.

    One that only puts columns together is written here, any other in the sandbox.
    """
    from jinja2 import TemplateSyntaxError

    environment = line_environment()
    if len(line) > _MAX_LINE:
        raise InputError(
            f"the template for {role} has {len(line):,} characters, more than {_MAX_LINE:,}",
            where=f"data.train.columns.{role}", fix="Write a shorter template, or put the texts into the file",
        )  # fmt: skip
    try:
        tree = environment.parse(line)
        names = names_in(tree)
        template = environment.from_string(line) if is_harmless(tree) else None
    except (TemplateSyntaxError, RecursionError) as error:
        raise InputError(
            f"the template for {role} is not valid Jinja: {error}",
            where=f"data.train.columns.{role}",
            fix="Write columns in double braces, such as {{ title }}",
        ) from error

    def written(row: Row, budget: Budget) -> str:
        # `row` reaches the columns whose names are no Jinja names: {{ row["my column"] }}.
        values = {**{str(key): value for key, value in row.items()}, "row": row}
        if template is None:
            (text,) = SANDBOX.render("line", line, {}, [values], budget)
            if isinstance(text, Refusal):
                raise ValueError(text)
            return text
        text = template.render(values)
        if len(text) > MAX_CHARACTERS:
            raise ValueError(too_long())
        return text

    return written, names


def _written(
    role: str, line: Callable[[Row, Budget], str], row: Row, number: int, path: Path | str, budget: Budget
) -> str:
    try:
        return line(row, budget)
    except OutOfBoundsError as error:
        raise OutOfBoundsError(
            f"the template for {role} {error.what}", where=place(path, number, role), fix=f"Fix '{role}' in columns"
        ) from error
    except Exception as error:  # a line is a program of the person's; whatever it raises is about this row
        keys = names_of(row)
        what = f"the template for {role} cannot be rendered: {str(error).rstrip('.')}; columns are: {keys}"
        raise InputError(what, where=place(path, number, role), fix=f"Fix '{role}' in columns") from error

"""What the names of columns say: which is the question, the answer, the context, the system prompt, in any language.

Only a name that one column alone has is taken for what it says; one that is merely similar is suggested and never
used.
"""

from __future__ import annotations

import difflib
import functools
import unicodedata
from collections.abc import Mapping, Sequence

from studio.data.formats.conversations import LIST_KEYS
from studio.methods import RowKind

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
    "pairs": (("messages",), ("conversations",), ("instruction",), ("prompt",)),
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
        having = [key for key, name in plain.items() if name in _PLAIN[role]]
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


def side_columns(keys: Sequence[str], kind: RowKind) -> dict[str, str]:
    """Return the mapping of what stands beside a question in rows that say themselves what they are.

    A column with a name of a system prompt is `system`. One with a name of a context is `input` where rows have an
    instruction; a prompt has no place for it. Two columns that might be it are no mapping, nor is one where rows have
    the studio's own key. Conversations and texts are left as they are, and so are prompts, whose other columns a
    reward function gets.

    Args:
        keys: the columns of the file.
        kind: what the method learns from.
    """
    own = _by_own_keys(keys, kind)
    if len(keys) > _MOST_KEYS or own not in ("instruction", "prompt"):
        return {}
    roles = {"system": "system", **({"context": "input"} if own == "instruction" else {})}
    found: dict[str, str] = {}
    for meaning, role in roles.items():
        having = [key for key in keys if meaning_of(key) == meaning]
        if role not in keys and len(having) == 1:
            found[role] = having[0]
    return found


def _by_own_keys(keys: Sequence[str], kind: RowKind) -> str:
    """The key by which rows say what is asked, as the formats look for it; "" where they are of another kind."""
    own = set(keys)
    if kind == "prompts" or own & set(LIST_KEYS):
        return ""
    also = _NEEDS[kind] if kind == "pairs" else ()
    forms = (form for form in _OWN[kind] if form[0] in ("instruction", "prompt"))
    return next((form[0] for form in forms if own.issuperset((*form, *also))), "")


@functools.lru_cache(maxsize=1024)
def meaning_of(key: str) -> str:
    """Return "system" or "context" for a column that has a name of one, in whatever language, else ""."""
    name = _plain_name(key)
    return next((meaning for meaning in ("system", "context") if name in _PLAIN[meaning]), "")


def _plain_name(key: str) -> str:
    text = unicodedata.normalize("NFC", key).replace("_", " ").replace("-", " ")
    return " ".join(text.strip(" \t:?？：.*").casefold().split())


_PLAIN = {role: frozenset(map(_plain_name, names)) for role, names in _ALL_NAMES.items()}


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

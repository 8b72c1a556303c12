"""The part of a script that scores completions."""

from __future__ import annotations

from dataclasses import dataclass, field

from studio.errors import InputError
from studio.interop.scripts.source import source
from studio.interop.sheets.outgoing import Outgoing

_TEXT = """
def text_of(completion):
    return completion if isinstance(completion, str) else completion[0]["content"]
"""
_FUNCTIONS = {
    "exact_match": """
def exact_match(completions, answer, **columns):
    return [float(text_of(one).strip() == str(right).strip()) for one, right in zip(completions, answer)]
""",
    "numeric": '''
def numeric(completions, answer, **columns):
    """1 where the last number of a completion is the answer's."""
    numbers = [re.findall(r"-?\\d+(?:\\.\\d+)?", text_of(one).replace(",", "")) for one in completions]
    return [float(bool(some) and float(some[-1]) == float(right)) for some, right in zip(numbers, answer)]
''',
    "json": """
def valid_json(completions, **columns):
    def valid(text):
        try:
            json.loads(text)
        except ValueError:
            return False
        return True

    return [float(valid(text_of(one))) for one in completions]
""",
    "regex": """
def matches(completions, **columns):
    return [float(re.fullmatch({pattern}, text_of(one)) is not None) for one in completions]
""",
    "length": '''
def right_length(completions, completion_ids, **columns):
    """1 at {length} tokens, less with the distance from it."""
    return [max(0.0, 1 - abs(len(ids) - {length}) / {length}) for ids in completion_ids]
''',
}
_NAMES = {"json": "valid_json", "regex": "matches", "length": "right_length"}
_STANDARD = {"numeric": "import re", "regex": "import re", "json": "import json"}


@dataclass
class Code:
    """Parts of a script.

    Attributes:
        standard: imports of Python's own modules.
        own: imports of the person's files.
        functions: source of each function.
    """

    standard: list[str] = field(default_factory=list)
    own: list[str] = field(default_factory=list)
    functions: list[str] = field(default_factory=list)


def write_rewards(out: Outgoing) -> tuple[Code, str]:
    """Return the functions that score, and the list of them as the trainer takes it."""
    method = out.config.method
    code, names = Code(), []
    for word in method.rewards:
        if word == "model":
            names.append(source(method.reward_model or "path/of/the/reward-model"))
        elif word == "python":
            file, _, function = (method.reward_python or "rewards.py:score").rpartition(":")
            module = file.removesuffix(".py").replace("/", ".").strip(".")
            if not all(part.isidentifier() for part in (*module.split("."), function)):
                raise InputError(
                    f"'{method.reward_python:.60}' cannot be imported by a script", where="method.reward_python",
                    fix="Give the file a name such as rewards.py, in the folder of the script",
                )  # fmt: skip
            code.own.append(f"from {module} import {function}")
            names.append(function)
        else:
            text = _FUNCTIONS[word].replace("{pattern}", source(method.reward_pattern or ".*"))
            code.functions.append(text.replace("{length}", str(method.reward_length or 50)).strip())
            names.append(_NAMES.get(word, word))
    code.standard = sorted({_STANDARD[word] for word in method.rewards if word in _STANDARD})
    if code.functions:
        code.functions.insert(0, _TEXT.strip())
    if method.reward_schema:
        out.refused("method.reward_schema", "completions are JSON or not; the schema is not looked at")
    for name in ("rewards", "reward_model", "reward_python", "reward_pattern", "reward_length"):
        out.tell(f"method.{name}", "mapped", "reward_funcs")
    return code, f"[{', '.join(names)}]"

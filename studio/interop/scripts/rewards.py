"""The part of a script that scores completions."""

from __future__ import annotations

from dataclasses import dataclass, field

from studio.errors import InputError
from studio.interop.scripts.source import source
from studio.interop.sheets.outgoing import Outgoing

_TEXT = """
def text_of(messages):
    return messages if isinstance(messages, str) else messages[-1]["content"]
"""
_FUNCTIONS = {
    "exact_match": """
def exact_match(completions, answer, **columns):
    return [float(text_of(one).strip() == str(right).strip()) for one, right in zip(completions, answer)]
""",
    "numeric": '''
def last_number(text):
    """The last number in a text, with commas between thousands; None if there is none."""
    found = re.findall(r"(?<!\\d)[-−]?(?:\\d{1,3}(?:,\\d{3})+(?!\\d)|\\d+)(?:\\.\\d+)?", text)
    return float(found[-1].replace(",", "").replace("−", "-")) if found else None


def numeric(completions, answer, **columns):
    """1 where the last number of a completion is the last one of the answer."""
    wanted = [last_number(str(right)) for right in answer]
    return [float(right is not None and last_number(text_of(one)) == right) for one, right in zip(completions, wanted)]
''',
    "json": """
def valid_json(completions, **columns):
    def valid(text):
        try:
            json.loads(text, parse_constant=int)  # which refuses NaN and Infinity
        except (ValueError, RecursionError):
            return False
        return True

    return [float(valid(text_of(one))) for one in completions]
""",
    "regex": """
def matches(completions, **columns):
    return [float(re.fullmatch({pattern}, text_of(one).strip(), re.DOTALL) is not None) for one in completions]
""",
    "length": '''
def right_length(completions, **columns):
    """1 at {length} tokens, less with the distance from it."""
    lengths = [len(tokenizer(text_of(one), add_special_tokens=False)["input_ids"]) for one in completions]
    return [max(0.0, 1 - abs(length - {length}) / {length}) for length in lengths]
''',
}
# A reward of the person's own is called by the studio with texts, and with no more than the columns of the rows.
_OWN = """
def {name}_of_texts(prompts, completions, **given):
    columns = {{column: given[column] for column in dataset.column_names if column in given}}
    return {name}(prompts=[*map(text_of, prompts)], completions=[*map(text_of, completions)], **columns)
"""
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
            code.functions.append(_OWN.format(name=function).strip())
            names.append(f"{function}_of_texts")
        else:
            text = _FUNCTIONS[word].replace("{pattern}", source(method.reward_pattern or ""))
            code.functions.append(text.replace("{length}", str(method.reward_length or 1)).strip())
            names.append(_NAMES.get(word, word))
    code.standard = sorted({_STANDARD[word] for word in method.rewards if word in _STANDARD})
    if code.functions:
        code.functions.insert(0, _TEXT.strip())
    if method.reward_schema:
        out.refused("method.reward_schema", "completions are JSON or not; the schema is not looked at")
    for name in ("rewards", "reward_model", "reward_python", "reward_pattern", "reward_length"):
        out.tell(f"method.{name}", "mapped", "reward_funcs")
    return code, f"[{', '.join(names)}]"

"""The part of a script that makes rows: files, columns, and for answers the ids with their labels.

Pairs, rated answers and prompts go to TRL as texts or turns, which it makes tokens of by the chat template.
"""

from __future__ import annotations

from dataclasses import dataclass

from studio.config.data import DataSource
from studio.data.sources.locate import sources_of
from studio.interop.scripts.source import source as literal
from studio.interop.scripts.trainers import Trainer
from studio.interop.sheets.outgoing import Outgoing
from studio.interop.sheets.rows import Shape, shape_of

_LOADERS = ((".jsonl", "json"), (".json", "json"), (".csv", "csv"), (".tsv", "csv"), (".parquet", "parquet"),
            (".txt", "text"))  # fmt: skip
_CONVERSATION = '''
def encode(row):
    """The conversation as token ids, with -100 where the loss does not count: everything but {what}."""
    messages = {messages}
    ids = render(messages)
    labels = [-100] * len(ids)
    for i, message in {turns}:
        if message["role"] == "assistant":
            start, end = len(render(messages[:i], add_generation_prompt=True)), len(render(messages[: i + 1]))
            while tokenizer.decode(ids[end - 1]).isspace():  # the line break after the end of the turn
                end -= 1
            labels[start:end] = ids[start:end]
    return {{"input_ids": ids, "labels": labels}}


def render(messages, **options):
    return tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False, **options)
'''
_WHOLE = '''
def encode(row):
    """The conversation as token ids, all of which count."""
    ids = tokenizer.apply_chat_template({messages}, tokenize=True, return_dict=False)
    return {{"input_ids": ids, "labels": ids}}
'''
_COMPLETION = '''
def encode(row):
    """Prompt and answer as token ids, with -100 where the loss does not count: the prompt."""
    prompt = tokenizer({prompt})["input_ids"]
    answer = tokenizer({answer}, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
    return {{"input_ids": prompt + answer, "labels": {labels} + answer}}
'''
_TEXT = '''
def encode(row):
    """The text as token ids, all of which count."""
    ids = tokenizer({text})["input_ids"] + [tokenizer.eos_token_id]
    return {{"input_ids": ids, "labels": ids}}
'''
_JOINED = '''
def join(rows):
    """All documents one after the other, cut into pieces of LENGTH tokens."""
    ids = [token for document in rows["input_ids"] for token in document]
    pieces = [ids[start : start + LENGTH] for start in range(0, len(ids), LENGTH)]
    return {"input_ids": pieces, "labels": pieces}
'''
_TURNS = '''
def as_turns(row):
    """Plain questions and answers as turns, so that the chat template is used."""
    roles = {"prompt": "user", "chosen": "assistant", "rejected": "assistant", "completion": "assistant"}
    texts = {name: row[name] for name in roles if isinstance(row.get(name), str)}
    return {name: [{"role": roles[name], "content": text}] for name, text in texts.items()}
'''
_RATED = '''
def as_rated(pairs):
    """Each pair as a good and a bad answer."""
    return {
        "prompt": [prompt for prompt in pairs["prompt"] for label in (True, False)],
        "completion": [answer for both in zip(pairs["chosen"], pairs["rejected"]) for answer in both],
        "label": [True, False] * len(pairs["prompt"]),
    }
'''
_ORDER = """\
order = list(range(len(dataset)))
random.Random({seed}).shuffle(order)
dataset = dataset.select(order)"""
# Without it TRL learns all that the template writes behind the token that ends an answer, such as a line break.
_TRIMMED = """\
# The rows are rendered without what the chat template writes behind an answer's last token, such as a line break.
template = tokenizer.chat_template
rows_template = "{% set text %}" + template.removesuffix("\\n") + "{% endset %}"
tokenizer.chat_template = rows_template + "{{ text if add_generation_prompt else text.rstrip() }}\""""
_JOINED_LENGTH = 1024


@dataclass
class Rows:
    """The part of a script that makes rows.

    Attributes:
        functions: source of each function over rows.
        lines: what loads them.
        validation: name of the validation rows; "None" where there are none.
        trimmed: whether the tokenizer has another template until the trainer has made tokens of the rows.
        standard: imports of Python's own modules.
    """

    functions: list[str]
    lines: str
    validation: str
    trimmed: bool
    standard: list[str]


def write_rows(out: Outgoing, trainer: Trainer) -> Rows:
    """Return the functions over rows and the lines that load them.

    Args:
        out: told what became of the options.
        trainer: which rows it takes.
    """
    data = out.config.data
    shapes = [shape_of(source, out.config.method.kind.rows) for source in data.train]
    paired = trainer.rows == "rated" and all({"prompt", "chosen", "rejected"} <= set(shape.keys) for shape in shapes)
    notes = ["As many rows of a set, but others of them"] if any(one.rows is not None for one in data.train) else []
    lines: list[str] = []
    for at, (source, shape) in enumerate(zip(data.train, shapes, strict=True)):
        name = "dataset" if len(data.train) == 1 else f"part_{at + 1}"
        lines += _loaded(out, name, source, shape)
    out.tell("data.train", "approximated" if notes else "mapped", "load_dataset", "".join(notes))
    if len(data.train) > 1:
        lines.append(f"dataset = concatenate_datasets([{', '.join(f'part_{at + 1}' for at in range(len(shapes)))}])")
    if data.mix != "concatenate" or data.train[0].weight is not None:
        out.refused("data.mix", "the sets follow each other in the script")
    validation = "None"
    if isinstance(data.validation, str):
        held_out = sources_of(data)[-1]
        lines += _loaded(out, "validation", held_out, shape_of(held_out, out.config.method.kind.rows))
        out.tell("data.validation", "mapped", "load_dataset")
        validation = "validation"
    elif not data.validation:
        out.tell("data.validation", "mapped", "eval_dataset")
    else:
        why = "The same share of the rows, but others of them"
        out.tell("data.validation", "approximated", "train_test_split", why)
        lines.append(f"split = dataset.train_test_split(test_size={data.validation}, seed={out.config.training.seed})")
        lines.append('dataset, validation = split["train"], split["test"]')
        validation = "validation"
    names = ["dataset", *([validation] if validation != "None" else [])]
    functions: list[str] = []
    if paired:
        functions.append(_RATED.strip())
        lines += [f"{name} = {name}.map(as_rated, batched=True, remove_columns={name}.column_names)" for name in names]
    mixes = trainer.rows == "rated" and data.shuffle
    if mixes:
        # Its trainer takes the rows in their order, since each answer is compared with its neighbor.
        lines.append(_ORDER.format(seed=out.config.training.seed))
    trimmed = False
    if trainer.rows == "tokens":
        functions = _encoding(out, data.train[0], shapes[0]).strip().split("\n\n\n")
        for name in names:
            lines.append(f"{name} = {name}.map(encode, remove_columns={name}.column_names)")
            lines += _within(out, name)
        functions += _joined(out, names, lines)
    elif any(source.plain_reading != "raw" for source in data.train):
        trimmed = trainer.rows != "prompts"
        functions.append(_TURNS.strip())
        lines += [f"{name} = {name}.map(as_turns)" for name in names]
        if any(shape.format in ("messages", "instruction") for shape in shapes):
            notes.append("The trainer wants a column prompt, beside chosen and rejected, completion or answer")
            out.tell("data.train", "approximated", "load_dataset", ". ".join(notes))
    if trimmed:
        lines.append(_TRIMMED)
    return Rows(functions, "\n".join(lines), validation, trimmed, ["import random"] if mixes else [])


def _loaded(out: Outgoing, name: str, source: DataSource, shape: Shape) -> list[str]:
    loader = next((loader for ending, loader in _LOADERS if shape.path.lower().endswith(ending)), "")
    if loader:
        line = f'{name} = load_dataset("{loader}", data_files={literal(shape.path)}, split="train")'
    else:
        subset = f", {literal(source.subset)}" if source.subset else ""
        revision = f", revision={literal(source.revision)}" if source.revision != "main" else ""
        line = f"{name} = load_dataset({literal(shape.path)}{subset}, split={literal(source.split)}{revision})"
    lines = [line]
    if source.rows is not None:
        lines.append(f"{name} = {name}.shuffle(seed={out.config.training.seed}).select(range({source.rows}))")
    columns = source.columns if isinstance(source.columns, dict) else {}
    plain = {theirs: ours for ours, theirs in columns.items() if "{{" not in theirs and "{%" not in theirs}
    if len(plain) < len(columns):
        lines.append("# Some columns are lines of Jinja in the studio: write them out here.")
    if renamed := {theirs: ours for theirs, ours in plain.items() if theirs != ours}:
        lines.append(f"{name} = {name}.rename_columns({literal(renamed)})")
    return lines


def _encoding(out: Outgoing, source: DataSource, shape: Shape) -> str:
    method = out.config.method
    counted = method.kind.train_on(method)
    breaks = "The line break behind an answer does not count there" if counted == "turns" else ""
    out.tell("method.train_on", "approximated" if breaks else "mapped", "labels", breaks)
    format = shape.format if shape.format in ("text", "prompt_completion", "instruction") else "messages"
    if format == "text" or (method.kind.plain and not shape.keys):
        return _TEXT.format(text='row["text"]')
    if format == "prompt_completion" and (source.plain_reading == "raw" or method.kind.plain):
        labels = "prompt" if counted == "all" else "[-100] * len(prompt)"
        return _COMPLETION.format(prompt='row["prompt"]', answer='row["completion"]', labels=labels)
    asked, answered = ("prompt", "completion") if format == "prompt_completion" else ("instruction", "output")
    question = f'row["{asked}"]'
    if format == "instruction":
        question = '"\\n".join(part for part in (row["instruction"], row.get("input")) if part)'
    messages = 'row["messages"]'
    if format == "messages" and "conversations" in shape.keys and "messages" not in shape.keys:
        out.refused("data.train", "turns with from and value have to be renamed to role and content")
    if format != "messages":
        messages = f'[{{"role": "user", "content": {question}}}, {{"role": "assistant", "content": row["{answered}"]}}]'
    if counted == "all":
        return _WHOLE.format(messages=messages)
    last = counted == "last"
    turns = "[list(enumerate(messages))[-1]]" if last else "enumerate(messages)"
    return _CONVERSATION.format(
        what="the last answer" if last else "the assistant's answers", messages=messages, turns=turns
    )


def _within(out: Outgoing, name: str) -> list[str]:
    limit, truncation = out.config.data.max_length, out.config.data.truncation
    if limit == "auto" or out.config.method.kind.joins(out.config.method):
        return []
    out.tell("data.max_length", "mapped", "encode")
    if truncation == "cut":
        out.tell("data.truncation", "mapped", "encode")
        return [f"{name} = {name}.map(lambda row: {{key: row[key][:{limit}] for key in row}})"]
    if truncation == "drop":
        out.tell("data.truncation", "mapped", "encode")
        return [f'{name} = {name}.filter(lambda row: len(row["input_ids"]) <= {limit})']
    return [f'assert max(map(len, {name}["input_ids"])) <= {limit}, "a row is longer than {limit} tokens"']


def _joined(out: Outgoing, names: list[str], lines: list[str]) -> list[str]:
    method = out.config.method
    if not method.kind.joins(method):
        return []
    limit = out.config.data.max_length
    out.tell("method.documents", "mapped", "join")
    out.tell("data.max_length", "mapped", "join")
    for name in names:
        lines.append(f"{name} = {name}.map(join, batched=True, batch_size=None, remove_columns={name}.column_names)")
    return [_JOINED.replace("LENGTH", str(_JOINED_LENGTH if limit == "auto" else limit)).strip()]

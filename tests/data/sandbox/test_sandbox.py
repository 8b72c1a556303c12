"""Templates of others: rendered as transformers renders them, and ended when they take more than a row may have."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from jinja2 import Environment

from studio.config.data import DataConfig, DataSource
from studio.data.formats.answers import Example
from studio.data.formats.harmless import is_harmless
from studio.data.masks.masker import Masker
from studio.data.masks.rendering import CallWay, Renderer
from studio.data.masks.spans import TemplateRefusedError
from studio.data.prepare.pipeline import prepare_data
from studio.data.sandbox.bounds import Budget, OutOfBoundsError
from studio.data.sandbox.process import Refusal, Sandbox
from studio.data.worker.whole import WholeOperations
from studio.errors import InputError, InputErrors
from studio.methods import MethodConfig
from studio.settings import Settings
from tests.data.rows import chat
from tests.data.templates import CHATML, CHATML_GENERATION, SHAPES, shaped, with_template
from tests.support.everyday import everyday

# A machine at work on other things is given time; nothing here may go on for a minute.
MOST_SECONDS = 20.0
BOMBS = {
    "nested loops": "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    # Without output: on a fast machine its 16 million characters come before the two seconds, and that is a refusal.
    "loops over texts": "{% for a in 'x' * 99999 %}{% for b in 'x' * 99999 %}{% set c = a %}{% endfor %}{% endfor %}",
    "lipsum": "{{ lipsum(n=100000) }}",
    "one call into C": '{{ "%1000000000d" % 1 }}',
    "a product": "{{ 'a' * 10**9 }}",
    "a list": "{{ [0] * 10**9 }}",
    "a power": "{{ 9 ** 999999999 }}",
    "replace": "{{ (('a' * 1000) | replace('a', 'b' * 1000)) | replace('b', 'c' * 1000) }}",
    "a macro that calls itself twice": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}"
    "{{ f(40) }}",
    "a namespace that grows": "{% set x = namespace(a='a' * 1000) %}{% for i in range(99) %}{% set x.a = x.a ~ x.a %}"
    "{% endfor %}",
    "indent": "{{ {'a': 1} | tojson(indent=10**9) }}",
    "center": "{{ 'x' | center(10**9) }}",
    "batch": "{{ [1] | batch(10**9, 1) | list }}",
}
REFUSED = {
    "a range": "{{ range(10**9) | list }}",
    "filters": "{{ 'a'" + " | upper" * 20_000 + " }}",
    "brackets": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "a macro without an end": "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "a long error": "{{ raise_exception('x' * 10000000) }}",
    "Python's own objects": "{{ cycler.__init__.__globals__ }}",
    "a text of many characters": "{% for i in range(999) %}{{ 'x' * 99999 }}{% endfor %}",
}
MESSAGES = {"messages": [{"role": "user", "content": "a"}]}


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    made = Sandbox()
    yield made
    made.close()


@pytest.mark.parametrize("name", everyday(BOMBS, "nested loops", "one call into C", "batch"))
def test_a_bomb_ends_and_the_next_row_is_rendered(sandbox: Sandbox, name: str) -> None:
    began = time.monotonic()
    with pytest.raises(OutOfBoundsError, match=r"two seconds|memory") as caught:
        sandbox.render("chat", BOMBS[name], {}, [MESSAGES, MESSAGES], Budget())
    assert caught.value.at <= 1  # a fast machine may come to the end of one of them
    assert time.monotonic() - began < MOST_SECONDS
    assert sandbox.render("chat", "{{ messages[0].content }}", {}, [MESSAGES], Budget()) == ["a"]


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_template_raises_is_its_refusal(sandbox: Sandbox, name: str) -> None:
    (text,) = sandbox.render("chat", REFUSED[name], {}, [MESSAGES], Budget())
    assert isinstance(text, Refusal) and 0 < len(text) <= 400


def test_the_second_row_is_named(sandbox: Sandbox) -> None:
    template = "{% if messages | length > 1 %}" + BOMBS["one call into C"] + "{% endif %}x"
    items = [MESSAGES, {"messages": [1, 2]}, MESSAGES]
    with pytest.raises(OutOfBoundsError) as caught:
        sandbox.render("chat", template, {}, items, Budget())
    assert caught.value.at == 1


def test_rows_that_are_slow_on_average_end_too(sandbox: Sandbox) -> None:
    """Each is within its two seconds; a set of them would take hours."""
    slow = "{% for i in range(99999) %}{% for j in range(20) %}{% endfor %}{% endfor %}"
    budget = Budget()
    with pytest.raises(OutOfBoundsError, match="two seconds"):
        for _ in range(200):
            sandbox.render("chat", slow, {}, [MESSAGES], budget)


@pytest.mark.long
def test_a_long_conversation_is_searched_to_its_end(tokenizer: Any) -> None:
    """Six hundred messages, rendered some hundred times, in a template that looks at each."""
    turns = [
        {"role": role, "content": f"{n} {role} says a word or two"}
        for n in range(300)
        for role in ("user", "assistant")
    ]
    masker = Masker(shaped(tokenizer, "qwen3"))
    (masked,) = masker.encode([Example(1, "x", "messages", messages=turns)])
    assert masked.supervised > 300


def test_the_process_has_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_canary")
    monkeypatch.setenv("STUDIO_PASSWORD", "canary")
    sandbox = Sandbox()
    try:
        assert sandbox.render("chat", "x", {}, [MESSAGES], Budget()) == ["x"]
        assert sandbox._child is not None
        environment = psutil.Process(sandbox._child.popen.pid).environ()
        assert "PATH" in environment and not {"HF_TOKEN", "STUDIO_PASSWORD"} & environment.keys()
    finally:
        sandbox.close()


def test_a_killed_process_is_replaced(sandbox: Sandbox) -> None:
    sandbox.render("chat", "x", {}, [MESSAGES], Budget())
    assert sandbox._child is not None
    psutil.Process(sandbox._child.popen.pid).kill()
    sandbox._child.popen.wait()
    assert sandbox.render("chat", "x", {}, [MESSAGES], Budget()) == ["x"]


CALL = {"type": "function", "function": {"name": "f", "arguments": {"x": 1, "y": ["ü", None]}}}
CONVERSATIONS: list[list[dict[str, Any]]] = [
    [{"role": "user", "content": "a\n "}, {"role": "assistant", "content": " b"}],
    [{"role": "system", "content": "s"}, {"role": "user", "content": "ü\ud83d🙂 <b>&"},
     {"role": "assistant", "content": "<think>\nx\n</think>\n\ny", "reasoning_content": "r"}],
    [{"role": "user", "content": "q"}, {"role": "assistant", "content": "", "tool_calls": [CALL]},
     {"role": "tool", "content": "1", "name": "f"}, {"role": "assistant", "content": "done"}],
]  # fmt: skip
TOOLS = [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {"type": "object"}}}]
OWN = {
    "generation": CHATML_GENERATION,
    "dict": "{% set d = dict(a=1) %}{{ d | tojson }}{{ dict.fromkeys(['x']) }}{{ messages | length }}",
    "namespace": "{% set n = namespace(a=1) %}{% for m in messages %}{% set n.a = n.a + 1 %}{% endfor %}{{ n.a }}",
    "namespace with an underscore": "{% set n = namespace(_a=1) %}{{ n._a }}",
    "loop controls": "{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}{{ m.content }}{% endfor %}",
    "date": "{{ strftime_now('%Y') }}{{ bos_token }}{{ eos_token }}",
    "raises": "{{ raise_exception('no ' ~ messages[0].role) }}",
    "json": "{{ messages | tojson(indent=2) }}{{ messages | tojson(separators=(',', ':'), sort_keys=true) }}",
    "undefined": "[{{ nothing }}]{% if tools %}{{ tools[0].function.name }}{% endif %}",
    "older names": "{% for m in messages %}{{ m.thinking }}|{{ m.reasoning_content }}{% endfor %}",
}


@pytest.mark.parametrize("name", [*SHAPES, *OWN])
def test_it_renders_as_transformers_does(tokenizer: Any, name: str) -> None:
    used = shaped(tokenizer, name) if name in SHAPES else with_template(tokenizer, OWN[name])
    renderer = Renderer(used)
    texts = 0
    for messages in CONVERSATIONS:
        for tools in (None, TOOLS):
            for prompt in (False, True):
                more = {"tools": tools} if tools else {}
                try:
                    wanted = used.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt, **more)
                except Exception as error:
                    with pytest.raises(TemplateRefusedError) as caught:
                        renderer.text(messages, prompt, tools, CallWay())
                    assert name == "namespace with an underscore" or str(caught.value)[:20] == str(error)[:20]
                else:
                    assert renderer.text(messages, prompt, tools, CallWay()) == wanted
                    texts += 1
    assert texts or name in ("raises", "namespace with an underscore")


# ---- through rows


def config_of(path: Path, **source: Any) -> DataConfig:
    return DataConfig(train=[DataSource(path=str(path), **source)], validation=0)


def test_a_template_that_hangs_on_a_row_names_it(
    tokenizer: Any, settings: Settings, write: Callable[..., Path]
) -> None:
    """A run's own preparation: the first rows are ordinary, the third sets it off."""
    trap = "{% if 'trap' in messages[0].content %}" + BOMBS["one call into C"] + "{% endif %}"
    path = write("x.jsonl", [chat("a", "b"), chat("c", "d"), chat("trap", "e"), chat("f", "g")])
    began = time.monotonic()
    with pytest.raises(OutOfBoundsError, match=r"x\.jsonl, row 3: the model's chat template needs more") as caught:
        prepare_data(config_of(path), MethodConfig(), with_template(tokenizer, trap + CHATML), settings)
    assert caught.value.fix and time.monotonic() - began < MOST_SECONDS


def test_a_template_that_always_hangs_ends_at_once(
    tokenizer: Any, settings: Settings, write: Callable[..., Path]
) -> None:
    path = write("x.jsonl", [chat("a", "b")] * 300)
    began = time.monotonic()
    with pytest.raises(InputError, match="chat template"):
        prepare_data(config_of(path), MethodConfig(), with_template(tokenizer, BOMBS["nested loops"]), settings)
    assert time.monotonic() - began < MOST_SECONDS


@pytest.mark.parametrize("op", ["inspect", "profile", "duplicates", "keep", "lengths", "preview"])
def test_a_line_over_columns_that_hangs_ends_every_work(
    op: str, model_path: Path, settings: Settings, write: Callable[..., Path]
) -> None:
    rows = write("x.jsonl", [{"q": "a", "a": "b"}] * 400)
    columns = {"instruction": "{{ q }}", "output": "{{ a }}" + BOMBS["one call into C"]}
    data = config_of(rows, columns=columns).model_dump()
    args: dict[str, Any] = {"data": data, "method": {"name": "sft"}}
    if op != "duplicates":
        args["model"] = str(model_path)
    if op == "inspect":
        args = {"path": str(rows), "options": {"columns": columns}, "method": {"name": "sft"}}
    if op == "keep":
        args["name"] = "bombed"
    operations = WholeOperations(settings)
    began = time.monotonic()
    if op == "preview":
        shown = operations.run(op, args, lambda *step: None)["problem"]
        assert "row 1, field 'output'" in shown["where"]
    else:
        with pytest.raises((InputError, InputErrors), match=r"x\.jsonl, row 1, field 'output'"):
            operations.run(op, args, lambda *step: None)
    assert time.monotonic() - began < MOST_SECONDS


def test_a_cell_of_fifty_megabytes_is_refused_by_row(
    model_path: Path, settings: Settings, write: Callable[..., Path]
) -> None:
    path = write("x.jsonl", [chat("a", "b"), chat("a", "b" * 50_000_000)])
    operations = WholeOperations(settings)
    with pytest.raises(InputError, match=r"x\.jsonl, row 2.*(characters)"):
        operations.run("inspect", {"path": str(path), "model": str(model_path)}, lambda *step: None)
    shown = operations.run(
        "preview", {"data": config_of(path).model_dump(), "row": 2, "model": str(model_path)}, lambda *step: None
    )
    assert "row 2" in shown["problem"]["where"]
    assert len(str(shown)) < 200_000  # the page's process gets a part of the text, with how long it is
    assert "(50,000,000 characters)" in str(shown["raw"])


# ---- which lines need no process


@pytest.mark.parametrize(
    ("line", "harmless"),
    [
        ("{{ title }}\n\n{{ body | trim | upper }}", True),
        ('{{ row["my column"] }}', True),
        ("{% if input %}{{ instruction ~ input }}{% else %}{{ instruction }}{% endif %}", True),
        ("{{ stars > 3 }}", True),
        ("{{ text if text is defined else '' }}", True),
        ("{% for word in words %}{{ word }}{% endfor %}", False),
        ("{{ title * 9 }}", False),
        ("{{ '%d' % 1 }}", False),
        ("{{ title | center(9) }}", False),
        ("{{ title | replace('a', 'b') }}", False),
        ("{{ lipsum() }}", False),
        ("{{ title.upper() }}", False),
        ("{{ row[title] }}", False),
        ("{% set x = title %}{{ x }}", False),
        ("{{ title }}" * 600, False),
    ],
)
def test_only_lines_that_put_texts_together_are_harmless(line: str, harmless: bool) -> None:
    assert is_harmless(Environment().parse(line)) is harmless


def test_a_mapped_answer_is_the_same_in_either_place(sandbox: Sandbox) -> None:
    row = {"title": "T", "body": " b\n", "n": 3, "none": None, "row": {}}
    for line in ("{{ title }}: {{ body }}\n", "{{ n > 2 }}{{ none }}", "{% if n %}{{ title }}{% endif %}"):
        from studio.data.formats.columns import Columns

        here = Columns({"text": line}).apply({"title": "T", "body": " b\n", "n": 3, "none": None}, 1, "x")["text"]
        assert sandbox.render("line", line, {}, [row], Budget()) == [here]


def test_examples_are_named_by_their_place(tokenizer: Any) -> None:
    masker = Masker(with_template(tokenizer, CHATML))
    long = Example(7, "big.jsonl", "text", text="a" * 9_000_000)
    with pytest.raises(InputError, match=r"big\.jsonl, row 7: the row has 9,000,000 characters"):
        masker.encode([long])

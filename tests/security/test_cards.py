"""The Markdown that is written beside models and exports: names of others are names in it, read by a real parser."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from studio.config import RunConfig
from studio.export.card import model_card
from studio.export.cards.facts import name_of
from studio.export.cards.license import told
from studio.export.origins.run import RunOrigin
from studio.export.readme import readme
from studio.foreign import parse_yaml
from studio.jobs.store.files import write_json
from studio.jobs.store.folder import create_job
from studio.train.loop.card import write_card

NAMES = [
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "[a](javascript:alert(1))", "![a](http://x/y.png)",
    "a\n---\nlicense: mit\n---\n# Owned", "a\n```\n# Owned\n", "# Owned", "a | b | c", "x: [1, 2", "*a", "`b`",
    "- list", "&lt;b&gt;", '"; import os; os.system("x")  # ', "</td></table>", "{name} {0}", "a\\", "\x1b[2J",
    "\u202egpj",
]  # fmt: skip
FACTS: dict[str, Any] = {"rows": 1, "tokens": "2", "steps": 3, "loss": "1", "best": "1", "rate": 1e-3}
FILE = {
    "file": "r-f16.gguf", "bytes": 1, "top1": 1.0, "mean_kl": 0.0, "exact_match": None, "verdict": "as trained",
    "sha256": "0",
}  # fmt: skip


def tokens(text: str) -> list[Any]:
    """All tokens of a text, those within a line too, as GitHub reads it: tables, HTML."""
    found = MarkdownIt("commonmark", {"html": True}).enable("table").parse(text)
    return [*found, *(inner for one in found for inner in one.children or [])]


def kinds(text: str) -> list[str]:
    return [one.type for one in tokens(text) if one.type not in ("text", "softbreak")]


def shown(text: str) -> str:
    return " ".join(one.content for one in tokens(text) if one.type == "text")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_a_model_card(name: str, tuning: str, tmp_path: Path) -> None:
    config = RunConfig.model_validate({"tuning": {"name": tuning}})

    def card(text: str) -> str:
        write_card(tmp_path, text, text, config, FACTS | {"data": text, "metrics": {text: 1.0}})
        return (tmp_path / "README.md").read_text(encoding="utf-8")

    made, plain = card(name), card("plain")
    front, _, body = made.removeprefix("---\n").partition("\n---\n")
    values = parse_yaml(front)
    assert values == parse_yaml(plain.split("---\n")[1]) | {"base_model": name}
    assert kinds(body) == kinds(plain.split("---\n", 2)[2])
    if name.isprintable():
        assert shown(body).count(" ".join(name.split())) >= 2
    code = next(one.content for one in tokens(body) if one.type == "fence")
    texts = [one.value for one in ast.walk(ast.parse(code)) if isinstance(one, ast.Constant)]
    assert (name in texts) == (tuning == "lora") and len(ast.parse(code).body) == (4 if tuning == "lora" else 2)
    assert made.replace("\n", "").isprintable()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", ["merged", "adapter"])
def test_the_card_of_an_exported_folder(name: str, kind: str, tmp_path: Path) -> None:
    def card(text: str) -> str:
        run = create_job(tmp_path, "train", "run", {"data": {"train": [{"path": text}]}, "tuning": {"name": "lora"}})
        run.model.mkdir()
        (run.model / "adapter_config.json").write_text('{"r": 8}')
        entry = {
            "type": kind, "dtype": "float32", "greedy": {"equal": 7, "total": 8}, "prompts_compared": 12, "top1": 1.0,
            "prompt_ids_equal": True, "mean_kl": 0.0, "exact_match": None, "verdict": "as trained",
            "notes": [f"it is {text}"],
        }  # fmt: skip
        evaluation = {"data": text, "before": {"exact_match": 0.0}, "after": {"exact_match": 1.0, "total": 3}}
        sources = [{"path": text, "part": "train", "kept": 3, "tokens": 9}]
        write_json(run.environment_path, {"data": {"sources": sources}, "versions": {"transformers": text}})
        report = {"name": text, "base_model": text, "reference": {"positions": 512}, "evaluation": evaluation}
        license = told({"license": "other", "license_name": text}, text)
        return model_card(RunOrigin(run), report | {"license": license}, entry)

    made, plain = card(name), card("plain")
    front, _, body = made.removeprefix("---\n").partition("\n---\n")
    values, usual = parse_yaml(front), parse_yaml(plain.split("---\n")[1])
    assert values.pop("license_name", name) == name and "base_model" not in values, "the name is no Hub id"
    (model,) = values.pop("model-index")
    assert (model["name"], model["results"][0]["dataset"]["name"]) == (name, name_of(name))
    assert values == {key: usual[key] for key in usual if key not in ("license_name", "model-index")}
    assert kinds(body) == kinds(plain.split("---\n", 2)[2])
    code = next(one.content for one in tokens(body) if one.type == "fence")
    texts = [one.value for one in ast.walk(ast.parse(code)) if isinstance(one, ast.Constant)]
    assert (name in texts) == (kind == "adapter")
    commands = next(one.content for one in tokens(body) if one.type == "code_block")
    assert commands.splitlines()[0].startswith("vllm serve ") and len(commands.splitlines()) == 2
    assert made.replace("\n", "").isprintable()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("template", [True, False])
def test_the_readme_of_an_export(name: str, template: bool) -> None:
    def text(one: str) -> str:
        difference = {"prompts": [one], "rare": True, "cause": one, "example": one, "fix": one}
        told = {"file": "Modelfile", "template": template, "compared": 12, "blanks": [one], "notes": [f"it is {one}"]}
        return readme(one, one, [FILE | {"differences": [difference]}], told)

    made = text(name)
    assert kinds(made) == kinds(text("plain"))
    blocks = [one.content for one in tokens(made) if one.type == "code_block"]
    assert blocks[-1] == "ollama create r-f16 -f Modelfile\nollama run r-f16\n"
    assert made.replace("\n", "").isprintable()

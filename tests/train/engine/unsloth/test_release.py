"""What contracts/unsloth.json says of Unsloth, compared with the source of that release, which pip fetches."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

CONTRACT = json.loads((Path(__file__).parent / "contracts" / "unsloth.json").read_text(encoding="utf-8"))


@pytest.fixture
def release(tmp_path: Path) -> zipfile.Path:
    """The wheel's root."""
    wanted = f"unsloth=={CONTRACT['version']}"
    done = subprocess.run(
        [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(tmp_path), wanted],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    if done.returncode:
        pytest.skip(f"{wanted} cannot be fetched: {done.stderr.strip()[-300:]}")
    (wheel,) = tmp_path.glob("*.whl")
    return zipfile.Path(wheel)


def parsed(release: zipfile.Path, name: str) -> ast.Module:
    return ast.parse((release / name).read_text(encoding="utf-8"))


def parameters(module: ast.Module, owner: str, name: str) -> list[str]:
    """Names that a function of a class takes by keyword."""
    (body,) = [node for node in module.body if isinstance(node, ast.ClassDef) and node.name == owner]
    (function,) = [node for node in body.body if isinstance(node, ast.FunctionDef) and node.name == name]
    return [one.arg for one in (*function.args.args, *function.args.kwonlyargs)]


@pytest.mark.long
def test_the_contract_is_what_the_release_takes_and_its_class_is_of_the_package(release: zipfile.Path) -> None:
    loader = parsed(release, "unsloth/models/loader.py")
    assert parameters(loader, "FastLanguageModel", "from_pretrained") == CONTRACT["FastLanguageModel.from_pretrained"]
    (own,) = [node for node in loader.body if isinstance(node, ast.ClassDef) and node.name == "FastLanguageModel"]
    assert "FastLlamaModel.get_peft_model(model, *args, **kwargs)" in ast.unparse(own)
    llama = parsed(release, "unsloth/models/llama.py")
    assert parameters(llama, "FastLlamaModel", "get_peft_model") == CONTRACT["FastLanguageModel.get_peft_model"]

    chain = {
        "unsloth/__init__.py": ("_gpu_init", "*"),
        "unsloth/_gpu_init.py": ("models", "*"),
        "unsloth/models/__init__.py": ("loader", "FastLanguageModel"),
    }
    for name, (module, wanted) in chain.items():
        found = {
            alias.name
            for node in ast.walk(parsed(release, name))
            if isinstance(node, ast.ImportFrom) and node.module == module
            for alias in node.names
        }
        assert wanted in found, name

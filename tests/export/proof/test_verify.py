"""A GGUF that is not the trained model is caught."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGUFReader
from tokenizers import Tokenizer, normalizers

from studio.errors import StudioError
from studio.export.proof.causes import Trained
from studio.export.proof.distance import compare, summary
from studio.export.proof.gates import gate_of, shortcomings
from studio.export.proof.model import OWN_TEMPLATE, GgufModel
from studio.export.proof.verify import compare_prompts
from studio.export.steps import require, run_own_step
from studio.jobs import JobFolder
from tests.export.conftest import TYPES, Recorder


def test_divergence_of_equal_distributions_is_zero_and_ignores_a_shift() -> None:
    logits = np.random.default_rng(1).normal(size=(5, 11)).astype(np.float32)
    trained = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    divergence, same = compare(trained, logits + 3)
    assert divergence.max() < 1e-6
    assert same.all()
    padded = np.concatenate([logits, np.full((5, 3), -4.0, np.float32)], axis=1)
    assert compare(trained, padded)[0].max() < 1e-6


def test_divergence_is_kl_of_the_trained_from_the_other() -> None:
    trained, other = np.log([[0.5, 0.5]]).astype(np.float32), np.log([[0.9, 0.1]]).astype(np.float32)
    divergence, same = compare(trained, other)
    assert divergence[0] == pytest.approx(0.5 * np.log(0.5 / 0.9) + 0.5 * np.log(0.5 / 0.1), rel=1e-5)
    assert compare(other, trained)[0][0] != pytest.approx(divergence[0])
    assert same.all(), "a tie goes to the first, as in greedy generation"


def test_nan_is_not_hidden() -> None:
    divergence, same = compare(np.log([[0.5, 0.5]]).astype(np.float32), np.array([[np.nan, 1.0]], np.float32))
    assert np.isnan(summary(divergence, same)["mean_kl"])
    assert summary(divergence[:0], same[:0]) == {"positions": 0, "top1": None, "mean_kl": None, "p99_kl": None}


def test_real_files_are_inside_their_limits(report: dict[str, Any]) -> None:
    assert [file["type"] for file in report["files"]] == TYPES
    for file in report["files"]:
        assert file["verdict"] == ("as trained" if file["type"] == "f16" else "as expected"), file
        assert file["prompt_ids_equal"]
        assert file["prompts_compared"] >= 12
        assert file["template_carried"]
        assert file["end_of_turn_stops"]
    by_type = {file["type"]: file for file in report["files"]}
    assert by_type["f16"]["mean_kl"] < 1e-4 < by_type["q4_0"]["mean_kl"]


@pytest.fixture(scope="module")
def asked(exported: JobFolder, model_path: Path, adapter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the trained model's answers."""
    folder = tmp_path_factory.mktemp("asked")
    request = {
        "base": str(model_path), "adapter": str(adapter), "tokenizer": str(adapter),
        "texts_from": None, "rows_from": None, "limit": None, "folder": str(folder),
    }  # fmt: skip
    answer = require(run_own_step("studio.export.proof.reference", request, folder, Recorder()), "reference").answer
    assert answer["own_text"] is False
    assert answer["notes"] == ["compared on built-in text: the run's own data no longer exists"]
    assert answer["end"].startswith("<|im_end|>")
    assert answer["chat"]["turns"]["head"].startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")
    return folder


def broken(file: Path, target: Path, tensor: str) -> Path:
    """A copy in which the rows of one tensor are rotated, as a wrong permutation of heads would do."""
    shutil.copyfile(file, target)
    reader = GGUFReader(target, "r+")
    data = next(one for one in reader.tensors if one.name == tensor).data
    data[:] = np.roll(data, 7, axis=0)
    data.flush() if hasattr(data, "flush") else None
    return target


def test_rotated_rows_are_caught(exported: JobFolder, asked: Path, tmp_path: Path) -> None:
    file = broken(next(exported.exports.glob("*-f16.gguf")), tmp_path / "b.gguf", "blk.3.attn_q.weight")
    request = {"file": str(file), "folder": str(asked), "threads": 1}
    found = require(run_own_step("studio.export.proof.verify", request, tmp_path, Recorder()), "verify").answer
    assert found["prompts_equal"] == found["prompts_compared"]
    assert "mean KL" in shortcomings(found, gate_of("f16"))[0]
    assert found["overall"]["mean_kl"] > 10 * gate_of("f16").max_mean_kl


@pytest.mark.long
def test_a_template_that_the_binding_has_code_for_is_a_note(exported: JobFolder, asked: Path) -> None:
    """As for plain ChatML, before which it writes an empty system turn."""
    prompts = json.loads((asked / "cases.json").read_text())["prompts"]
    model = GgufModel(next(exported.exports.glob("*-f16.gguf")), 512, 1)
    assert model.guessed_format == ""
    model._llama.chat_format = "chatml"  # as it guesses from the text of that template
    found = compare_prompts(model, prompts, lambda: Trained(str(asked / "tokenizer.json")))
    model.close()
    assert [(one["kind"], one["rare"]) for one in found] == [("chat format", True)]
    assert "no system" in found[0]["prompts"]
    assert OWN_TEMPLATE in found[0]["fix"]


def test_another_template_and_tokenizer_are_caught(exported: JobFolder, asked: Path, tmp_path: Path) -> None:
    folder = tmp_path / "asked"
    shutil.copytree(asked, folder)
    cases = json.loads((folder / "cases.json").read_text())
    cases["template"] += " "
    cases["end"] = 42
    cases["prompts"][2]["ids"][5] += 1
    cases["texts"] = cases["texts"][:1]
    (folder / "cases.json").write_text(json.dumps(cases))
    request = {"file": str(next(exported.exports.glob("*-f16.gguf"))), "folder": str(folder), "threads": 1}
    found = require(run_own_step("studio.export.proof.verify", request, tmp_path, Recorder()), "verify").answer
    assert not found["template_carried"]
    assert not found["end_of_turn_stops"]
    assert found["prompts_equal"] == found["prompts_compared"] - 1
    assert [(one["kind"], one["rare"]) for one in found["differences"]] == [("rendering", False)]
    assert "from token 6 on" in found["differences"][0]["cause"]


def test_a_difference_in_a_rare_text_is_told_and_one_in_a_row_counts(
    exported: JobFolder, asked: Path, tmp_path: Path
) -> None:
    """The trained side normalises to NFC here, as Qwen's tokenizer does, and the file does not."""
    folder = tmp_path / "asked"
    shutil.copytree(asked, folder)
    trained = Tokenizer.from_file(str(folder / "tokenizer.json"))
    trained.normalizer = normalizers.NFC()
    trained.save(str(folder / "tokenizer.json"))
    cases = json.loads((folder / "cases.json").read_text())
    (rare,) = (prompt for prompt in cases["prompts"] if prompt["name"] == "decomposed letters")
    rare["ids"] = trained.encode(rare["text"], add_special_tokens=False).ids
    cases["texts"] = cases["texts"][:1]
    for row in (False, True):
        if row:
            cases["prompts"].append(rare | {"name": "row 4", "rare": False})
        (folder / "cases.json").write_text(json.dumps(cases))
        request = {"file": str(next(exported.exports.glob("*-f16.gguf"))), "folder": str(folder), "threads": 1}
        found = require(run_own_step("studio.export.proof.verify", request, tmp_path, Recorder()), "verify").answer
        assert found["prompts_compared"] - found["prompts_equal"] == row
        assert [one["kind"] for one in found["differences"]] == ["normalization"] * (1 + row)
        assert [one["rare"] for one in found["differences"]] == ([False, True] if row else [True])
        assert "\\u03" in found["differences"][0]["example"], "an accent, in letters that can be read and copied"


def test_a_file_that_llama_cpp_cannot_load_is_a_sentence(asked: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"GGUF and nothing more")
    request = {"file": str(tmp_path / "bad.gguf"), "folder": str(asked), "threads": 1}
    result = run_own_step("studio.export.proof.verify", request, tmp_path, Recorder())
    with pytest.raises(StudioError, match=r"bad\.gguf: llama\.cpp cannot load it"):
        require(result, "verify")

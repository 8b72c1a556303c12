"""A checkpoint in 4 bits loads again as it is, and is proven; what the studio does not make is refused with why."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from bitsandbytes.nn.modules import Linear4bit
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from studio.cli.work.results import export_config
from studio.config.jobs import ExportConfig
from studio.config.load import build
from studio.errors import InputError, InputErrors
from studio.export import merged
from studio.export.forms.nf4 import pack
from studio.export.job import export
from studio.export.merged import MergedExport
from studio.export.source import open_source
from studio.export.steps import StepResult
from studio.jobs.run.worker import JobContext
from studio.jobs.store.folder import create_job
from studio.settings import Settings


def test_what_is_packed_loads_again(tmp_path: Path) -> None:
    torch.manual_seed(1)
    config = LlamaConfig(
        vocab_size=64, hidden_size=64, intermediate_size=128, num_hidden_layers=1, num_attention_heads=4
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(tmp_path / "whole")
    request = {"source": str(tmp_path / "whole"), "target": str(tmp_path / "packed"), "shard_bytes": 10**9}
    assert pack(request, lambda done, total: None) == {"layers": 7}, "each projection, and not the head"
    told = json.loads((tmp_path / "packed" / "config.json").read_text())["quantization_config"]
    assert (told["quant_method"], told["bnb_4bit_quant_type"], told["load_in_4bit"]) == ("bitsandbytes", "nf4", True)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "packed", dtype=torch.bfloat16)
    assert isinstance(loaded.model.layers[0].mlp.up_proj, Linear4bit)
    whole = AutoModelForCausalLM.from_pretrained(tmp_path / "whole", dtype=torch.bfloat16)
    ids = torch.arange(12)[None]
    with torch.inference_mode():
        one, other = loaded(ids).logits.float(), whole(ids).logits.float()
    apart = float((one - other).norm() / other.norm())
    assert 0.001 < apart < 0.2, "rounded, and the same model"


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"dtype": "awq"}, r"awq needs calibration by llmcompressor.*pip install llmcompressor.*or choose nf4"),
        ({"dtype": "gptq"}, r"gptq needs calibration by llmcompressor"),
        ({"to": "vllm", "dtype": "nf4"}, "nf4 is for merged, hub and folder"),
    ],
)
def test_what_is_not_made_is_refused(asked: dict[str, str], words: str) -> None:
    with pytest.raises(InputErrors, match=words):
        build(ExportConfig, {"run": "x", "to": "merged"} | asked)


def test_without_bitsandbytes_it_is_said_before_anything_is_written(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = export_config(settings, "smollm2-135m-instruct", {"to": "merged", "dtype": "nf4"})
    job = create_job(settings.jobs, "export", "nf4", config.model_dump(mode="json"))
    monkeypatch.setattr(merged, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs the package bitsandbytes.*pip install bitsandbytes"):
        export(JobContext(job, settings))
    assert not job.exports.exists()


def test_more_than_the_training_may_be_rounded_away(settings: Settings) -> None:
    config = export_config(settings, "smollm2-135m-instruct", {"to": "merged", "dtype": "nf4"})
    job = create_job(settings.jobs, "export", "nf4", config.model_dump(mode="json"))
    made = MergedExport(JobContext(job, settings), config, open_source(settings, config.run), None)
    made.reference = {"moved": 0.02}
    found = {"overall": {"mean_kl": 0.3}, "greedy": {"equal": 2, "total": 8, "unsure": 6, "worst": None}}
    assert made.told(found) == [
        "4 bits move the model by 0.3 nats per token, the training moved it by 0.02, and 6 of 8 greedy answers differ: "
        "check it on rows of your task"
    ]
    assert made._wrong(StepResult(0, 1.0, 1, answer=found)) == [], "it says nothing of whether the training is in it"


@pytest.mark.long
def test_the_real_model_in_4_bits_is_proven(settings: Settings, rows_file: Path) -> None:
    asked = {"to": "merged", "dtype": "nf4", "evaluate": str(rows_file)}
    config = export_config(settings, "smollm2-135m-instruct", asked)
    job = create_job(settings.jobs, "export", "nf4", config.model_dump(mode="json"))
    export(JobContext(job, settings))
    report = json.loads((job.report / "export.json").read_text())
    (line,) = report["files"]
    assert (line["verdict"], line["dtype"], line["prompt_ids_equal"]) == ("as expected", "nf4", True), line["notes"]
    assert report["packed"] == {"layers": 210}
    assert 0.01 < line["mean_kl"] < 0.8 and "4 bits move the model by" in line["notes"][-1]
    folder = job.exports / "smollm2-135m-instruct-merged"
    assert (folder / "model.safetensors").stat().st_size < 0.5 * 269e6
    assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == 2
    assert "weights in 4 bits (NF4 of bitsandbytes)" in (folder / "README.md").read_text()
    loaded = AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    asking = tokenizer.apply_chat_template(
        [{"role": "user", "content": "What is the capital of France? Answer in one word."}],
        add_generation_prompt=True, return_tensors="pt", return_dict=True,
    )  # fmt: skip
    answer = loaded.generate(**asking, max_new_tokens=12, do_sample=False)
    assert "Paris" in tokenizer.decode(answer[0][asking["input_ids"].shape[1] :])

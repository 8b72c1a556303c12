"""The model card inside a folder that a run was exported to: what it was made of, that it was compared, how to use it.

Names come from others, so each is escaped for where it stands: the front matter, the text, the code.
"""

from __future__ import annotations

import re
import shlex
from typing import Any

from studio.escaping import for_markdown, for_terminal, quoted
from studio.export.readme import in_percent, matched, short_number
from studio.export.serving.servers import VLLM_RANKS
from studio.jobs import JobFolder
from studio.methods import METHODS
from studio.models.inspect.adapters import adapter_config, highest_rank
from studio.tunings import title_of

CARD = """\
---
base_model: {base_quoted}
base_model_relation: {relation}
library_name: {library}
pipeline_tag: text-generation
tags: [finetune-studio]
---
# {name}

This is {base}, fine-tuned ({how}) on {data}{made}. The license and limitations of
the base model apply.

## Compared with the trained model
The folder was loaded again, with its own tokenizer and settings, and compared with the trained model at {positions}
positions.

| measure | value |
|---|---|
| same next token | {top1} |
| mean KL divergence, nats per token | {mean_kl} |
| prompts that give the same token ids | {prompts} |
| same greedy answers | {greedy} |
| exact match | {exact} |
| verdict | {verdict} |
{notes}
## Use
{use}
The commands are those of the programs' documentation; they were not run here.
"""
WHOLE = """
```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("this folder")
model = AutoModelForCausalLM.from_pretrained("this folder", dtype="auto")
```

    vllm serve "this folder" --dtype {dtype}
    python -m sglang.launch_server --model-path "this folder" --dtype {dtype}
"""
ADAPTER = """
```python
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("this folder")
base = AutoModelForCausalLM.from_pretrained({base_json}, dtype="auto")
model = PeftModel.from_pretrained(base, "this folder")
```
"""
SERVED = """
    vllm serve {base_shell} --enable-lora --max-lora-rank {rank} --lora-modules {word}="this folder"
    python -m sglang.launch_server --model-path {base_shell} --enable-lora --lora-paths {word}="this folder"
"""


def model_card(run: JobFolder, report: dict[str, Any], entry: dict[str, Any]) -> str:
    """Text of README.md.

    Args:
        run: that was trained.
        report: of the export so far: name, base_model, reference.
        entry: its line of the report.
    """
    config = run.request.config
    base, alone = report["base_model"] or "its base model", entry["type"] == "adapter"
    greedy = entry["greedy"]
    equal = f"{entry['prompts_compared']} of {entry['prompts_compared']}" if entry["prompt_ids_equal"] else "differ"
    return CARD.format(
        base_quoted=quoted(base), base=for_markdown(base), name=for_markdown(report["name"]),
        relation="adapter" if alone else "finetune", library="peft" if alone else "transformers",
        how=for_markdown(_how(config)), data=for_markdown(_data(config)),
        made="" if alone else f", base model and adapter merged, weights in {entry['dtype']}",
        positions=report["reference"]["positions"], top1=in_percent(entry["top1"]),
        mean_kl=short_number(entry["mean_kl"]), prompts=equal,
        greedy=f"{greedy['equal']} of {greedy['total']}" if greedy else "–", exact=matched(entry["exact_match"]),
        verdict=entry["verdict"], notes="".join(f"\n{for_markdown(note)}.\n" for note in entry["notes"]),
        use=_adapters_use(run, base, report["name"]) if alone else WHOLE.format(dtype=entry["dtype"]),
    )  # fmt: skip


def unserved(config: dict[str, Any]) -> str:
    """What of an adapter vLLM and SGLang refuse, or leave out (the patterns); "" for nothing.

    Args:
        config: of adapter_config.json.
    """
    told = {"use_dora": "DoRA", "modules_to_save": "layers that were trained whole"}
    told |= dict.fromkeys(("rank_pattern", "alpha_pattern"), "ranks or scales of their own for some layers")
    return next((words for key, words in told.items() if config.get(key)), "")


def _adapters_use(run: JobFolder, base: str, name: str) -> str:
    config = adapter_config(run.model) or {}
    text = ADAPTER.format(base_json=quoted(base))
    if unserved(config):
        return text
    most = highest_rank(config)
    rank = next((rank for rank in VLLM_RANKS if rank >= most), most)
    word = re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII).strip("-.") or "tuned"
    return text + SERVED.format(base_shell=shlex.quote(" ".join(for_terminal(base).split())), rank=rank, word=word)


def _how(config: dict[str, Any]) -> str:
    method, tuning = (str((config.get(section) or {}).get("name", "")) for section in ("method", "tuning"))
    title = METHODS[method].title if method in METHODS else method
    return ", ".join(filter(None, [title, title_of(tuning) if tuning else ""]))


def _data(config: dict[str, Any]) -> str:
    sources = (config.get("data") or {}).get("train") or [{"path": "demo/train.jsonl"}]
    return ", ".join(str(source.get("path")) for source in sources if isinstance(source, dict))

"""The model card inside a merged checkpoint: what it was made of, that it was compared, how to serve it.

Names come from others, so each is escaped for where it stands: the front matter, the text, the code.
"""

from __future__ import annotations

from typing import Any

from studio.escaping import for_markdown, quoted
from studio.export.readme import in_percent, matched, short_number
from studio.jobs import JobFolder
from studio.methods import METHODS
from studio.tunings import title_of

CARD = """\
---
base_model: {base_quoted}
base_model_relation: finetune
library_name: transformers
pipeline_tag: text-generation
tags: [finetune-studio]
---
# {name}

{base}, fine-tuned ({how}) on {data}, base model and adapter merged, weights in {dtype}. The license and limitations of
the base model apply.

## Compared with the trained model
The folder was loaded again, with its own tokenizer and generation settings, and compared with base model and adapter
at {positions} positions.

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

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("this folder")
model = AutoModelForCausalLM.from_pretrained("this folder", dtype="auto")
```

    vllm serve "this folder" --dtype {dtype}
    python -m sglang.launch_server --model-path "this folder" --dtype {dtype}

The two commands are those of the programs' documentation; they were not run here.
"""


def model_card(run: JobFolder, report: dict[str, Any], entry: dict[str, Any]) -> str:
    """Text of README.md.

    Args:
        run: that was trained.
        report: of the export so far: name, base_model, reference.
        entry: its line of the report.
    """
    config = run.request.config
    base = report["base_model"] or "its base model"
    greedy = entry["greedy"]
    equal = f"{entry['prompts_compared']} of {entry['prompts_compared']}" if entry["prompt_ids_equal"] else "differ"
    return CARD.format(
        base_quoted=quoted(base), base=for_markdown(base), name=for_markdown(report["name"]),
        how=for_markdown(_how(config)), data=for_markdown(_data(config)), dtype=entry["dtype"],
        positions=report["reference"]["positions"], top1=in_percent(entry["top1"]),
        mean_kl=short_number(entry["mean_kl"]), prompts=equal,
        greedy=f"{greedy['equal']} of {greedy['total']}" if greedy else "–", exact=matched(entry["exact_match"]),
        verdict=entry["verdict"], notes="".join(f"\n{for_markdown(note)}.\n" for note in entry["notes"]),
    )  # fmt: skip


def _how(config: dict[str, Any]) -> str:
    method, tuning = (str((config.get(section) or {}).get("name", "")) for section in ("method", "tuning"))
    title = METHODS[method].title if method in METHODS else method
    return ", ".join(filter(None, [title, title_of(tuning) if tuning else ""]))


def _data(config: dict[str, Any]) -> str:
    sources = (config.get("data") or {}).get("train") or [{"path": "demo/train.jsonl"}]
    return ", ".join(str(source.get("path")) for source in sources if isinstance(source, dict))

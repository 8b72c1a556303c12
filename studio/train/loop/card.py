"""The model card that lies beside a trained model: what it is, what it was made of, how to use it.

Only facts of this run; TRL's own card is replaced because it advertises rather than documents. Names come from others,
so each is escaped for where it stands: the front matter, the text, the code.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from studio.config import RunConfig
from studio.escaping import for_markdown, quoted
from studio.models.inspect.adapters import adapter_config
from studio.tunings import title_of

CARD = """\
---
base_model: {base_quoted}
library_name: {library}
pipeline_tag: {pipeline}
tags: [finetune-studio, {method}, {tuning}]
---
# {name}

This is {base}, fine-tuned with {method} ({tuning_text}) on {rows} examples ({tokens} tokens seen, {steps} steps).

| measure | value |
|---|---|
| training loss, last step | {loss} |
| validation loss, best | {best} |
{metrics}| learning rate | {rate:g} |
| seed | {seed} |

Data: {data}

```python
{usage}
```

Made with Finetune Studio; `run.yaml` next to this file reproduces the run: `studio train run.yaml`.
"""


def write_card(folder: Path, name: str, base: str, config: RunConfig, facts: dict[str, Any]) -> None:
    """Write README.md into a model's folder.

    Args:
        folder: the model or adapter.
        name: the run's name.
        base: name of the base model.
        config: the run.
        facts: rows, tokens, steps, loss, best, rate, data (text), metrics (the method's own, as last reported).
    """
    adapter = config.tuning.kind.adapter
    scorer = config.method.kind.result == "scorer"
    facts = dict(facts)
    measured = facts.pop("metrics", {})
    metrics = "".join(f"| {for_markdown(key)}, last | {value:.4g} |\n" for key, value in measured.items())
    text = CARD.format(
        name=for_markdown(name),
        base=for_markdown(base),
        base_quoted=quoted(base),
        data=for_markdown(facts.pop("data")),
        library="peft" if adapter else "transformers",
        method=config.method.name,
        tuning=config.tuning.name,
        tuning_text=f"{title_of(config.tuning.name)}, rank {_rank(folder, config)}" if adapter else "full fine-tuning",
        seed=config.training.seed,
        usage=_usage(adapter, base, scorer),
        pipeline="text-classification" if scorer else "text-generation",
        metrics=metrics,
        **facts,
    )
    (folder / "README.md").write_text(text, encoding="utf-8")


def _rank(folder: Path, config: RunConfig) -> int:
    """The adapter's own rank: one that was gone on with keeps it, whatever the run asks for."""
    return int((adapter_config(folder) or {}).get("r", config.tuning.rank))


def _usage(adapter: bool, base: str, scorer: bool) -> str:
    kind, labels = "AutoModelForSequenceClassification" if scorer else "AutoModelForCausalLM", ", num_labels=1"
    if adapter:
        return (
            "from peft import PeftModel\n"
            f"from transformers import {kind}\n\n"
            f"base = {kind}.from_pretrained({quoted(base)}{labels if scorer else ''})\n"
            'model = PeftModel.from_pretrained(base, "this folder")'
        )
    return f'from transformers import {kind}\n\nmodel = {kind}.from_pretrained("this folder")'

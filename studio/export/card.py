"""The model card inside a folder that a run was exported to: what it is, what it was made of, how it compares, its use.

The parts are in `export.cards`. Names come from others, so each is escaped for where it stands: the front matter, the
text, the code.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

from studio.escaping import for_markdown, for_terminal, quoted
from studio.export.cards.facts import data_names, data_summary, hub_datasets, name_of, settings_table, versions_line
from studio.export.cards.front import front_matter
from studio.export.cards.scores import evaluation_text, results
from studio.export.readme import in_percent, matched, short_number
from studio.export.serving.servers import VLLM_RANKS
from studio.jobs import JobFolder
from studio.jobs.views.differences import full_config
from studio.methods import METHODS
from studio.models.catalog.hubaccess import is_hub_id
from studio.models.inspect.adapters import adapter_config, highest_rank
from studio.tunings import title_of

CARD = """\
{front}# {name}

This is {base}, {origin}{made}. {license}

{made_of}{curves}{evaluation}
## Compared with the trained model
What was exported was loaded again, with its own tokenizer and settings, and compared with the trained model at
{positions} positions.

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

Made with Finetune Studio. {versions}
"""
TRAINED = """\
## Data
{summary}

## Settings
{settings}
"""
CURVES = """
## Training
![Loss by step: {sentence}]({file})
"""
EVALUATION = """
## Evaluation
{text}
"""
# What a card says of a license, by whether it is known.
KNOWN = "The license ({license}) and the limitations of the base model apply."
UNKNOWN = (
    "The license of the base model is not known here, so none is named above: look it up before you share this. It and "
    "the limitations of the base model apply."
)
# Where the model of a card is, in its commands, unless it has an address.
PLACE = "this folder"
WHOLE = """
```python
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{place}")
model = AutoModelForCausalLM.from_pretrained("{place}", dtype="auto")
```

    vllm serve "{place}" --dtype {dtype}
    python -m sglang.launch_server --model-path "{place}" --dtype {dtype}
"""
ADAPTER = """
```python
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{place}")
base = AutoModelForCausalLM.from_pretrained({base_json}, dtype="auto")
model = PeftModel.from_pretrained(base, "{place}")
```
"""
SERVED = """
    vllm serve {base_shell} --enable-lora --max-lora-rank {rank} --lora-modules {word}="{place}"
    python -m sglang.launch_server --model-path {base_shell} --enable-lora --lora-paths {word}="{place}"
"""


def model_card(run: JobFolder, report: dict[str, Any], entry: dict[str, Any]) -> str:
    """Text of README.md.

    Args:
        run: that was trained.
        report: of the export so far: name, base_model, reference; and where they are known license (`license_of`),
            evaluation (`evaluation_of`), curves (file and sentence) and place (a Hub id).
        entry: its line of the report.
    """
    base, alone = base_name(report) or "its base model", entry["type"] == "adapter"
    greedy, place = entry["greedy"], report.get("place") or PLACE
    equal = f"{entry['prompts_compared']} of {entry['prompts_compared']}" if entry["prompt_ids_equal"] else "differ"
    curves, evaluation = report.get("curves"), report.get("evaluation")
    merged = adapter_config(run.model) is not None
    return CARD.format(
        front=card_front(run, report, "adapter" if alone else "finetune", "peft" if alone else "transformers"),
        base=for_markdown(base if is_hub_id(base) else name_of(base)), name=for_markdown(report["name"]),
        license=about_license(report),
        origin=for_markdown(_origin(run)), made_of=_made_of(run), versions=versions_line(run),
        made="" if alone else f"{', base model and adapter merged' if merged else ''}, weights in {entry['dtype']}",
        curves=CURVES.format_map(curves) if curves else "",
        evaluation=EVALUATION.format(text=evaluation_text(evaluation)) if evaluation else "",
        positions=report["reference"]["positions"], top1=in_percent(entry["top1"]),
        mean_kl=short_number(entry["mean_kl"]), prompts=equal,
        greedy=f"{greedy['equal']} of {greedy['total']}" if greedy else "–", exact=matched(entry["exact_match"]),
        verdict=entry["verdict"],
        notes="".join(f"\n{for_markdown(_placeless(note, run))}.\n" for note in entry["notes"]),
        use=_adapters_use(run, base, report["name"], place) if alone
        else WHOLE.format(dtype=entry["dtype"], place=place),
    )  # fmt: skip


def card_front(run: JobFolder, report: dict[str, Any], relation: str, library: str) -> str:
    """The front matter of a card.

    Args:
        run: that was trained.
        report: as for `model_card`.
        relation: of what was made to its base model: adapter, finetune.
        library: that loads it.
    """
    config, _ = full_config(run)
    words = [str((config.get(section) or {}).get("name") or "") for section in ("method", "tuning")]
    words = ["merge"] if run.request.kind == "merge" else words
    return front_matter(
        base_name(report), relation, library, [word for word in words if word],
        report.get("license") or {}, hub_datasets(run), results(report.get("evaluation")), report["name"],
    )  # fmt: skip


def base_name(report: dict[str, Any]) -> str:
    """Name of the base model; a Hub id without its revision."""
    name = str(report["base_model"] or "")
    return head if is_hub_id(head := name.partition("@")[0]) else name


def about_license(report: dict[str, Any]) -> str:
    """What a card says of the base model's license."""
    license = report.get("license") or {}
    return KNOWN.format(license=for_markdown(license.get("license_name") or license["license"])) if license else UNKNOWN


def unserved(config: dict[str, Any]) -> str:
    """What of an adapter vLLM and SGLang refuse, or leave out (the patterns); "" for nothing.

    Args:
        config: of adapter_config.json.
    """
    told = {"use_dora": "DoRA", "modules_to_save": "layers that were trained whole"}
    told |= dict.fromkeys(("rank_pattern", "alpha_pattern"), "ranks or scales of their own for some layers")
    return next((words for key, words in told.items() if config.get(key)), "")


def _adapters_use(run: JobFolder, base: str, name: str, place: str) -> str:
    config = adapter_config(run.model) or {}
    text = ADAPTER.format(base_json=quoted(base), place=place)
    if unserved(config):
        return text
    most = highest_rank(config)
    rank = next((rank for rank in VLLM_RANKS if rank >= most), most)
    word = re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII).strip("-.") or "tuned"
    shell = shlex.quote(" ".join(for_terminal(base).split()))
    return text + SERVED.format(base_shell=shell, rank=rank, word=word, place=place)


def _placeless(note: str, run: JobFolder) -> str:
    """A note without the folder of this machine in which the base model lies."""
    path = str((run.environment().get("base_model") or {}).get("path") or "")
    return note.replace(path, Path(path).name) if path else note


def _origin(run: JobFolder) -> str:
    """Where the weights come from, in some words."""
    if run.request.kind == "merge":
        return f"merged from {', '.join(name_of(one) for one in run.request.config.get('parents') or {})}"
    config, _ = full_config(run)
    return f"fine-tuned ({_how(config)}) on {', '.join(data_names(run))}"


def _made_of(run: JobFolder) -> str:
    """The sections on data and settings; a merge has neither."""
    if run.request.kind == "merge":
        return ""
    return TRAINED.format(summary=data_summary(run), settings=settings_table(run))


def _how(config: dict[str, Any]) -> str:
    method, tuning = (str((config.get(section) or {}).get("name", "")) for section in ("method", "tuning"))
    title = METHODS[method].title if method in METHODS else method
    return ", ".join(filter(None, [title, title_of(tuning) if tuning else ""]))

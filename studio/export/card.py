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
from studio.export.cards.facts import shown_name
from studio.export.cards.front import front_matter
from studio.export.cards.scores import evaluation_text, results
from studio.export.origins.origin import Origin
from studio.export.readme import in_percent, matched, short_number
from studio.export.serving.servers import VLLM_RANKS
from studio.models.catalog.hubaccess import is_hub_id
from studio.models.inspect.adapters import adapter_config, highest_rank

CARD = """\
{front}# {name}

This is {base}, {origin}{made}. {license}

{made_of}{curves}{evaluation}
## Compared with {whole}
What was exported was loaded again, with its own tokenizer and settings, and compared with {whole} at
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
CURVES = """
## Training
![Loss by step: {sentence}]({file})
"""
EVALUATION = """
## Evaluation
{text}
"""
# What a card says of a license, by whether it is known.
KNOWN = "The license ({license}) and the limitations of {whose} apply."
UNKNOWN = (
    "The license of {whose} is not known here, so none is named above: look it up before you share this. It and "
    "the limitations of {whose} apply."
)
DTYPES = {"nf4": "4 bits (NF4 of bitsandbytes)"}
BASELESS = "its base model"  # where no name of it was recorded
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
PACKED = """
```python
from transformers import AutoModelForCausalLM, AutoTokenizer  # with bitsandbytes

tokenizer = AutoTokenizer.from_pretrained("{place}")
model = AutoModelForCausalLM.from_pretrained("{place}")
```

    vllm serve "{place}" --dtype bfloat16
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


def model_card(origin: Origin, report: dict[str, Any], entry: dict[str, Any]) -> str:
    """Text of README.md.

    Args:
        origin: of what was exported.
        report: of the export so far: name, base_model, reference; and where they are known license (`license_of`),
            evaluation (`evaluation_of`), curves (file and sentence) and place (a Hub id).
        entry: its line of the report.
    """
    base, alone = base_name(report) or BASELESS, entry["type"] == "adapter"
    greedy, place = entry["greedy"], report.get("place") or PLACE
    equal = f"{entry['prompts_compared']} of {entry['prompts_compared']}" if entry["prompt_ids_equal"] else "differ"
    curves, evaluation = report.get("curves"), report.get("evaluation")
    merged = adapter_config(origin.model) is not None
    dtype = DTYPES.get(entry["dtype"], entry["dtype"])
    return CARD.format(
        front=card_front(origin, report, "adapter" if alone else "finetune", "peft" if alone else "transformers"),
        base=for_markdown(shown_base(report)), name=for_markdown(report["name"]),
        license=about_license(report, origin), whole=origin.whole,
        origin=for_markdown(origin.sentence()), made_of=origin.made_of(), versions=_trained_with(origin.versions()),
        made="" if alone else f"{', base model and adapter merged' if merged else ''}, weights in {dtype}",
        curves=CURVES.format_map(curves) if curves else "",
        evaluation=EVALUATION.format(text=evaluation_text(evaluation)) if evaluation else "",
        positions=report["reference"]["positions"], top1=in_percent(entry["top1"]),
        mean_kl=short_number(entry["mean_kl"]), prompts=equal,
        greedy=f"{greedy['equal']} of {greedy['total']}" if greedy else "–", exact=matched(entry["exact_match"]),
        verdict=entry["verdict"],
        notes="".join(f"\n{for_markdown(_placeless(note, origin))}.\n" for note in entry["notes"]),
        use=_adapters_use(origin, base, report["name"], place) if alone
        else (PACKED if entry["dtype"] == "nf4" else WHOLE).format(dtype=entry["dtype"], place=place),
    )  # fmt: skip


def card_front(origin: Origin, report: dict[str, Any], relation: str, library: str) -> str:
    """The front matter of a card.

    Args:
        origin: of what was exported.
        report: as for `model_card`.
        relation: of what was made to its base model: adapter, finetune.
        library: that loads it.
    """
    name, relation = origin.descent(base_name(report), relation)
    return front_matter(
        without_revision(name), relation, library, origin.tags(), report.get("license") or {}, origin.datasets(),
        results(report.get("evaluation")), report["name"],
    )  # fmt: skip


def base_name(report: dict[str, Any]) -> str:
    """Name of the base model; a Hub id without its revision."""
    return without_revision(str(report["base_model"] or ""))


def shown_base(report: dict[str, Any]) -> str:
    """What readers are told of the base model: a Hub id, or the name of a folder without where it lies."""
    return shown_name(base_name(report) or BASELESS)


def without_revision(name: str) -> str:
    """A model's name; a Hub id without its revision."""
    return head if is_hub_id(head := name.partition("@")[0]) else name


def about_license(report: dict[str, Any], origin: Origin) -> str:
    """What a card says of the license."""
    license = report.get("license") or {}
    if not license:
        return UNKNOWN.format(whose=origin.license_of)
    named = for_markdown(license.get("license_name") or license["license"])
    return KNOWN.format(license=named, whose=origin.license_of)


def unserved(config: dict[str, Any]) -> str:
    """What of an adapter vLLM and SGLang refuse, or leave out (the patterns); "" for nothing.

    Args:
        config: of adapter_config.json.
    """
    told = {"use_dora": "DoRA", "modules_to_save": "fully trained layers"}
    told |= dict.fromkeys(("rank_pattern", "alpha_pattern"), "ranks or scales of their own for some layers")
    return next((words for key, words in told.items() if config.get(key)), "")


def _adapters_use(origin: Origin, base: str, name: str, place: str) -> str:
    config = adapter_config(origin.model) or {}
    text = ADAPTER.format(base_json=quoted(base), place=place)
    if unserved(config):
        return text
    most = highest_rank(config)
    rank = next((rank for rank in VLLM_RANKS if rank >= most), most)
    word = re.sub(r"[^\w.-]+", "-", name, flags=re.ASCII).strip("-.") or "tuned"
    shell = shlex.quote(" ".join(for_terminal(base).split()))
    return text + SERVED.format(base_shell=shell, rank=rank, word=word, place=place)


def _placeless(note: str, origin: Origin) -> str:
    """A note without the folder of this machine in which the base model lies."""
    path = str(origin.base_model.get("path") or "")
    return note.replace(path, Path(path).name) if path else note


def _trained_with(versions: dict[str, str]) -> str:
    found = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"Trained with {for_markdown(found)}." if found else ""

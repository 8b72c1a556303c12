"""What a run was made of, as Markdown tables: its data, its settings, its versions.

Files are named, never shown; folders of this machine and texts that a person typed (a system message, a template) are
left out, since a card is read by strangers.
"""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

from studio.config import RunConfig
from studio.config.describe import options_of
from studio.escaping import for_markdown
from studio.jobs import JobFolder
from studio.jobs.views.differences import Setting, settings_of
from studio.models.catalog.hubaccess import is_hub_id

# Told whether they were changed or not.
ALWAYS = (
    "method.name", "tuning.name", "tuning.rank", "tuning.alpha", "training.epochs", "training.batch_size",
    "training.learning_rate", "data.max_length", "training.seed",
)  # fmt: skip
# Told elsewhere in the card, or of this machine alone.
_ELSEWHERE = ("model.path", "data.train", "data.validation", "training.device", "training.report_to")
_LIBRARIES = ("finetune-studio", "transformers", "trl", "peft", "torch", "python")


def name_of(path: str) -> str:
    """What a file or folder is called, without where it lies."""
    return PurePath(path.rstrip("/")).name or path


def shown_name(name: str) -> str:
    """What readers are told of a model: a Hub id without its revision, or a folder's name without where it lies."""
    head = name.partition("@")[0]
    return head if is_hub_id(head) else name_of(name)


def data_names(run: JobFolder) -> list[str]:
    """Names of the sets of rows that a run was trained on."""
    found = (run.request.config.get("data") or {}).get("train") or [{"path": "demo/train.jsonl"}]
    paths, fetched = [str(one.get("path")) for one in found if isinstance(one, dict)], hub_datasets(run)
    return [path if path in fetched else name_of(path) for path in paths]


def hub_datasets(run: JobFolder) -> list[str]:
    """Hub ids of the data: those of sets that came from the Hub, and no others."""
    return list(dict.fromkeys(one["path"] for one in _sources(run) if one.get("commit") and is_hub_id(one["path"])))


def data_summary(run: JobFolder) -> str:
    """The section on data: a row for each file, and the sums; without figures of a run that recorded none."""
    report, sources = _report(run), _sources(run)
    lines = ["| file | used for | rows | tokens |", "|---|---|---|---|"]
    lines += [
        f"| {for_markdown(_named(one))} | {'validation' if one.get('part') == 'validation' else 'training'} "
        f"| {_counted(one.get('kept'))} | {_counted(one.get('tokens'))} |"
        for one in sources
    ]
    if not sources:
        lines += [f"| {for_markdown(name)} | training | – | – |" for name in data_names(run)]
        return "\n".join(lines)
    sums = (
        f"{_counted(report.get('train_rows'))} rows for training and {_counted(report.get('validation_rows'))} for "
        f"validation. Together {_counted(report.get('tokens'))} tokens, of which the loss counts "
        f"{_counted(report.get('supervised_tokens'))}."
    )
    return "\n".join([*lines, "", sums])


def settings_table(run: JobFolder) -> str:
    """The section on settings: what matters always, and what is not at its default."""
    found, _ = settings_of(run)
    typed = {spec.path for spec in options_of(RunConfig) if spec.only_text}
    shown = [one for one in found if one.key not in _ELSEWHERE and (one.changed or one.key in ALWAYS)]
    shown.sort(key=lambda one: ALWAYS.index(one.key) if one.key in ALWAYS else len(ALWAYS))
    lines = [f"| {for_markdown(one.title)} | `{one.key}` | {_value(one, typed)} |" for one in shown]
    return "\n".join(["| setting | option | value |", "|---|---|---|", *lines])


def versions_of(run: JobFolder) -> dict[str, str]:
    """Versions of the libraries that trained it, by name; {} where the run recorded none."""
    known = run.environment().get("versions")
    return {name: str(known[name]) for name in _LIBRARIES if name in known} if isinstance(known, dict) else {}


def _value(setting: Setting, typed: set[str]) -> str:
    return "set" if setting.key in typed and setting.changed else for_markdown(setting.text)


def _named(source: dict[str, Any]) -> str:
    path = str(source["path"])
    return path if source.get("commit") and is_hub_id(path) else name_of(path)


def _report(run: JobFolder) -> dict[str, Any]:
    found = run.environment().get("data")
    return found if isinstance(found, dict) else {}


def _sources(run: JobFolder) -> list[dict[str, Any]]:
    found = _report(run).get("sources")
    return [one for one in found if isinstance(one, dict) and "path" in one] if isinstance(found, list) else []


def _counted(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else "–"

"""The options of a training, and which of them differ between some, with defaults filled in, in people's words.

An option that one run wrote down and another left at its default is no difference. What was left to `auto` is
compared by what it became, and data files by their content too, since a file may have changed between two runs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from studio.config import RunConfig
from studio.config.data import DataSource
from studio.config.describe import OptionSpec, options_of
from studio.config.load import build
from studio.errors import InputError
from studio.jobs.store.folder import JobFolder

NONE = "–"
_MODEL = "model.path"
Config = dict[str, Any]


@dataclass(frozen=True)
class Setting:
    """One option of a run.

    Attributes:
        key: dotted option.
        title, text: what people call it and its value.
        changed: it is not at its default.
    """

    key: str
    title: str
    text: str
    changed: bool


@dataclass(frozen=True)
class Row:
    """One line of the comparison.

    Attributes:
        key: dotted option, or name of the result.
        title: what people call it.
        values: text for each run.
        numbers: the number behind each text; None where there is none.
        best: places of the runs with the best value; empty where none is better.
    """

    key: str
    title: str
    values: list[str]
    numbers: list[float | None] = field(default_factory=list)
    best: list[int] = field(default_factory=list)


def full_config(job: JobFolder) -> tuple[Config, str]:
    """Return a training's config with every default filled in, and a sentence where that is not possible wholly."""
    asked = job.request.config
    try:
        return build(RunConfig, asked, job.id).model_dump(mode="json"), ""
    except InputError:
        merged = _merged(RunConfig().model_dump(mode="json"), asked)
        return merged, f"'{job.name}' was created by another version of the studio: its options are shown as written."


def differing(configs: Sequence[Config], environments: Sequence[Config]) -> list[Row]:
    """Return the options that are not the same in all runs, in the order of the form.

    Args:
        configs: full configs.
        environments: contents of environment.json in the same order; empty where a run has none yet.
    """
    specs = {spec.path: spec for spec in options_of(RunConfig)}
    flat = [_flat(config, specs) for config in configs]
    became = [_became(environment) for environment in environments]
    paths = [path for path in specs if any(path in values for values in flat)]
    paths += sorted({path for values in flat for path in values} - set(specs))
    rows = []
    for path in paths:
        pairs = [
            (values.get(path), _resolved(values.get(path), made.get(path)))
            for values, made in zip(flat, became, strict=True)
        ]
        if any(pair == ("auto", None) for pair in pairs):  # one has no plan yet, so nobody knows what it will become
            pairs = [(value, None) for value, _ in pairs]
        used = [path not in specs or _applies(specs[path], values) for values in flat]
        if len({json.dumps(pair, sort_keys=True, default=str) for pair in pairs}) > 1 and any(used):
            texts = [
                _base(path, environment) or _text(*pair) if applies else NONE
                for pair, applies, environment in zip(pairs, used, environments, strict=True)
            ]
            rows.append(Row(path, specs[path].title if path in specs else path, texts))
    contents = [_fingerprint(environment) for environment in environments]
    named = {row.key for row in rows} & {"data.train", "data.validation"}
    if not named and len({text for text in contents if text != NONE}) > 1:
        rows.append(Row("data (SHA-256)", "Content of the data files", contents))
    return rows


def settings_of(job: JobFolder) -> tuple[list[Setting], str]:
    """Return the options that a training read, in the order of the form, and what `full_config` says of them."""
    config, note = full_config(job)
    specs = {spec.path: spec for spec in options_of(RunConfig)}
    environment = job.environment()
    values, became = _flat(config, specs), _became(environment)
    usual = _flat(RunConfig().model_dump(mode="json"), specs)
    return [
        Setting(
            path,
            spec.title,
            _base(path, environment) or _text(values[path], _resolved(values[path], became.get(path))),
            values[path] != usual[path],
        )
        for path, spec in specs.items()
        if path in values and _applies(spec, values)
    ], note


def at(config: Config, path: str) -> Any:
    """Value of a dotted option, None where there is none."""
    value: Any = config
    for name in path.split("."):
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _flat(values: Config, specs: dict[str, OptionSpec], prefix: str = "") -> Config:
    flat: Config = {}
    for name, value in values.items():
        path = f"{prefix}{name}"
        if isinstance(value, dict) and path not in specs:
            flat |= _flat(value, specs, f"{path}.")
        else:
            flat[path] = value
    return flat


def _merged(base: Config, over: Config) -> Config:
    merged = dict(base)
    for name, value in over.items():
        kept = merged.get(name)
        merged[name] = _merged(kept, value) if isinstance(kept, dict) and isinstance(value, dict) else value
    return merged


def _applies(spec: OptionSpec, values: Config) -> bool:
    return spec.applies(str(values.get("method.name")), str(values.get("tuning.name")))


def _resolved(value: Any, choice: Any) -> Any:
    """What an `auto` became, as the plan of the run says; None where it is not an auto or there was no plan yet."""
    return choice.get("value") if isinstance(choice, dict) and value == "auto" else None


def _base(path: str, environment: Config) -> str:
    """Whose child a run is: the name of the run or merge that its base model came from; "" for other options."""
    recorded = environment.get("base_model")
    if path != _MODEL or not isinstance(recorded, dict) or not recorded.get("run"):
        return ""
    return f"{recorded.get('name')} ({recorded['run']})"


def _became(environment: Config) -> Config:
    """What the plan made of each `auto`, by option; empty where a run has no plan yet."""
    return (environment.get("plan") or {}).get("choices") or {}


def _fingerprint(environment: Config) -> str:
    sources = (environment.get("data") or {}).get("sources") or []
    return ", ".join(str(source.get("sha256"))[:12] for source in sources if isinstance(source, dict)) or NONE


def _text(value: Any, resolved: Any) -> str:
    if resolved is not None:
        return f"auto ({_text(resolved, None)})"
    if value is None or value in ("", [], {}):
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return f"{value:g}" if isinstance(value, float) else str(value)
    if isinstance(value, list):
        return ", ".join(_text(item, None) for item in value)
    if isinstance(value, dict):
        return _source_text(value)
    return str(value)


def _source_text(value: Config) -> str:
    """A data source by its file and what is not at its default; any other mapping as `key=value`."""
    usual = {spec.path: spec.default for spec in options_of(DataSource)} if "path" in value else {}
    rest = [f"{key}={item}" for key, item in value.items() if key != "path" and usual.get(key, ...) != item]
    return " ".join([str(value["path"])] * ("path" in value) + rest)

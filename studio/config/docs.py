"""docs/config.md, made from the declarations; `make check` fails when it is stale.

`python -m studio.config.docs` writes it, `--check` only compares.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from studio.config.describe import OptionSpec, options_of, reader
from studio.config.jobs import FILLED_IN, EvaluateConfig, ExportConfig, MergeConfig
from studio.config.launch import FILLED_IN as LAUNCH_FILLED_IN
from studio.config.launch import SkyConfig, SlurmConfig, SshConfig, TorchrunConfig
from studio.config.remote import FILLED_IN as REMOTE_FILLED_IN
from studio.config.remote import OpenAIConfig
from studio.config.run import RunConfig

_DOCS = Path(__file__).resolve().parents[2] / "docs"
_INTRO = """\
# Options of a run

Made from the declarations in `studio/config` by `make docs`; do not edit. A run's YAML file has these sections;
`studio train FILE --set training.epochs=3` changes one option. An unknown key is an error that names the nearest
known one. `auto` is resolved before the start, and the plan says to what and why. `training.packing`, as
`training.padding_free` was called before, is still read, with a note.

"""


def config_page() -> str:
    """The text of docs/config.md."""
    parts = [_INTRO]
    for name, info in RunConfig.model_fields.items():
        parts.append(f"## {name}\n\n{info.description}\n\n")
        parts.append(option_table([spec for spec in options_of(RunConfig) if spec.path.startswith(f"{name}.")]))
    parts.append("## Evaluation\n\n`studio evaluate RUN`, or **Evaluate** in the Training tab.\n\n")
    parts.append(option_table(list(options_of(EvaluateConfig))))
    parts.append("## Export\n\n`studio export RUN`, or the Export tab.\n\n")
    parts.append(option_table(list(options_of(ExportConfig))))
    parts.append("## Merge\n\n`studio merge RECIPE.yaml`, or **Merge** in the Export tab (docs/merge.md).\n\n")
    parts.append(option_table([one for one in options_of(MergeConfig) if one.path not in FILLED_IN]))
    parts.append("## OpenAI\n\n`studio openai start ROWS --set n_epochs=3`, or **Train at OpenAI** in the Model tab ")
    parts.append("(docs/openai.md).\n\n")
    parts.append(option_table([one for one in options_of(OpenAIConfig) if one.path not in REMOTE_FILLED_IN]))
    parts.append("## SSH\n\n`studio launch RUN --to ssh://… --with poll=10` (docs/launch.md).\n\n")
    parts.append(option_table([one for one in options_of(SshConfig) if one.path not in LAUNCH_FILLED_IN]))
    parts.append("## Slurm\n\n`studio launch RUN --to slurm --with partition=gpu` (docs/launch.md).\n\n")
    parts.append(option_table([one for one in options_of(SlurmConfig) if one.path not in LAUNCH_FILLED_IN]))
    parts.append("## torchrun\n\n`studio launch RUN --to torchrun --with host=10.0.0.1` (docs/launch.md).\n\n")
    parts.append(option_table([one for one in options_of(TorchrunConfig) if one.path not in LAUNCH_FILLED_IN]))
    parts.append("## SkyPilot\n\n`studio launch RUN --to skypilot --with spot=true` (docs/launch.md).\n\n")
    parts.append(option_table([one for one in options_of(SkyConfig) if one.path not in LAUNCH_FILLED_IN]))
    return "\n".join("".join(parts).splitlines()) + "\n"


def option_table(specs: list[OptionSpec]) -> str:
    """A Markdown table of options: default, values, what each does."""
    rows = ["| option | default | values | what it does |", "|---|---|---|---|"]
    for spec in specs:
        note = f" *Differs:* {spec.differs}" if spec.differs else ""
        where = f" Only for {reader(spec)}." if reader(spec) else ""
        rows.append(
            f"| `{spec.path}` | {_default(spec)} | {_values(spec)} | {spec.help}{where}{note} |".replace("\n", " ")
        )
    return "\n".join(rows) + "\n\n"


def _default(spec: OptionSpec) -> str:
    value: Any = spec.default
    if value is None:
        return "empty" if spec.optional else "required"
    if value == []:
        return "none"
    if isinstance(value, list):
        return ", ".join(f"`{getattr(item, 'path', item)}`" for item in value)
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _values(spec: OptionSpec) -> str:
    if spec.kind == "words":
        return f"some of {', '.join(spec.choices)}"
    if spec.choices:
        return " \\| ".join(spec.choices)
    bounds = ""
    if spec.minimum is not None:
        bounds += f" from {spec.minimum:g}"
    if spec.maximum is not None:
        bounds += f" to {spec.maximum:g}"
    unit = f", {spec.unit}" if spec.unit else ""
    return f"{spec.kind}{' or auto' if spec.auto else ''}{bounds}{unit}"


def write_page(name: str, text: str) -> int:
    """Write a page of docs/, or with `--check` compare it; returns 1 when it is stale."""
    path = _DOCS / name
    if "--check" in sys.argv:
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            print(f"docs/{name} is stale: run 'make docs'", file=sys.stderr)
            return 1
        return 0
    path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(write_page("config.md", config_page()))

"""docs/methods.md, made from the descriptions of the methods, the options and the table of learning rates.

`python -m studio.train.docs` writes it, `--check` only compares.
"""

from __future__ import annotations

from studio.config.describe import options_of
from studio.config.docs import option_table, write_page
from studio.config.run import RunConfig
from studio.methods import METHODS, Method
from studio.models.inspect.families import FAMILIES, rank_guide
from studio.tunings import TUNINGS

_INTRO = """\
# Methods

Made from `studio/methods` and `studio/config` by `make docs`; do not edit.
Each method works with each tuning: full, lora, qlora, dora (`studio train demo/METHOD --set tuning.name=TUNING`).
`make test-matrix` runs all {cells} cells on the real model, holds each but PPO's beside TRL and PEFT, and stops and
resumes each on a tiny one. Every check is made before the model is loaded: a run that cannot work is refused with the
option to change.

| method | learns from | needs | watch |
|---|---|---|---|
"""
_RATES = """\
## Learning rates

What `training.learning_rate: auto` means: the first row whose size is above the model's. Adapters are lora, qlora
and dora.

| method | tuning | up to | rate | why | source |
|---|---|---|---|---|---|
"""

_RANKS = """
## Ranks

The plan line shows what a rank costs: trainable parameters and memory. Rules of thumb, not measured here.

| rank | for |
|---|---|
"""
_FAMILIES = """
## Layers for an adapter, by family

`tuning.target_modules: all-linear` takes every linear layer inside the blocks; a list of names takes those. Names are
checked against the checkpoint's header before it is loaded.

| family | also | usual names | note |
|---|---|---|---|
"""


def methods_page() -> str:
    """The text of docs/methods.md."""
    rows = [
        f"| [{method.title}](#{method.name}) | {method.summary} | {method.columns} | {method.metrics[0].title} |\n"
        for method in METHODS.values()
    ]
    sections = [_section(method) for method in METHODS.values()]
    rates = [
        f"| {method.name} | {'adapter' if row.adapter else 'full'} | {_size(row.below)} | {row.value:g} | {row.reason} "
        f"| {row.source} |\n"
        for method in METHODS.values()
        for row in method.rates
    ]
    ranks = [f"| {advice.rank} | {advice.use} |\n" for advice in rank_guide()]
    families = [
        f"| {family.name} | {', '.join(family.also)} | {', '.join(family.targets)} | {family.note} |\n"
        for family in FAMILIES
    ]
    intro = _INTRO.format(cells=len(METHODS) * len(TUNINGS))
    return "".join([intro, *rows, "\n", *sections, _RATES, *rates, _RANKS, *ranks, _FAMILIES, *families])


def _section(method: Method) -> str:
    watched = "; ".join(
        f"{metric.title} (`{metric.name}`" + (f", {metric.better} is better)" if metric.better != "neither" else ")")
        for metric in method.metrics
    )
    lines = [
        f"## {method.name}\n",
        f"**{method.title}**: {method.summary}. {method.paper}.\n",
        f"Columns: {method.columns}.\n",
        f"Reported besides loss, learning rate and gradient norm: {watched}.\n",
    ]
    if "beta" in method.options.model_fields:
        lines.append(f"`method.beta: auto` is {method.beta:g}.\n")
    if method.differs:
        lines.append(f"Differs from TRL: {method.differs}\n")
    own = [spec for spec in options_of(RunConfig) if method.name in spec.methods]
    return "\n".join(lines) + "\n" + (option_table(own) if own else "")


def _size(parameters: float) -> str:
    return "any size" if parameters == float("inf") else f"{parameters / 1e9:g} B"


if __name__ == "__main__":
    raise SystemExit(write_page("methods.md", methods_page()))

"""A run on its way out: the keys that another tool gets, and a line for each option of ours that is not its default."""

from __future__ import annotations

import io
from typing import Any

from ruamel.yaml import YAML

from studio.config.describe import OptionSpec, options_of, value_at, without_effect
from studio.config.model import EMBEDDED_MODEL
from studio.config.run import RunConfig
from studio.interop.report import Line, Status

# Options that say where and how the studio itself works.
_OWN: dict[str, str] = {
    "training.device": "which device computes is said when the training is started",
    "training.devices": "the number of processes is said when the training is started; the batch here is that of one",
    "training.nodes": "the number of machines is said when the training is started",
    "training.parallel": "how processes share an update is said when the training is started",
    "training.engine": "it is an engine of the studio",
    "training.kernels": "they are the studio's own",
    "training.keep_best": "checkpoints are kept as save_total_limit says",
    "training.keep_checkpoints": "checkpoints are kept as save_total_limit says",
    "training.early_stopping_threshold": "every improvement counts",
    "data.streaming": "rows and losses are the same without it",
    "data.control_tokens": "control tokens in texts are not looked for",
    "method.trust_reward_code": "it runs there in any case",
}
# Where the embedded model comes from.
_EMBEDDED = "HuggingFaceTB/SmolLM2-135M-Instruct"
_AVERAGE = 7e9  # weights of a model, where nobody knows how many it has


class Outgoing:
    """Collects the keys of another tool.

    Args:
        config: the run.
        tool: title of the tool.
        missing: what is said of an option without a counterpart; "" for a sentence about the tool.

    Attributes:
        values: keys with their values, in order.
        notes: a comment on a key.
    """

    def __init__(self, config: RunConfig, tool: str, missing: str = "") -> None:
        self.config, self.tool, self.missing = config, tool, missing or f"{tool} has nothing like it"
        self.values: dict[str, Any] = {}
        self.notes: dict[str, str] = {}
        self._lines: dict[str, Line] = {}
        self._all = config.model_dump(mode="json")
        self._specs: dict[str, OptionSpec] = {spec.path: spec for spec in options_of(RunConfig)}
        self._unread = {
            spec.path for spec in without_effect(config, config.method.name, config.tuning.name)
        }  # fmt: skip

    def reads(self, path: str) -> bool:
        """Whether the run's method and tuning read an option."""
        return self._specs[path].applies(self.config.method.name, self.config.tuning.name)

    def put(self, key: str, value: Any, path: str = "", why: str = "", status: Status = "mapped") -> None:
        """Write a key.

        Args:
            key: theirs.
            value: as YAML has it.
            path: option of ours that it stands for; "" where it stands for none.
            why: how it differs, which becomes a comment too.
            status: mapped, or approximated.
        """
        self.values[key] = value
        if why:
            self.notes[key] = why
        if path:
            self.tell(path, status, key, why)

    def changed(self, path: str, key: str) -> None:
        """Write an option that has another value than its default, and that the run reads, as it is."""
        value = value_at(self._all, path)
        if value != self._specs[path].default and self.reads(path) and path not in self._unread:
            self.put(key, value, path)

    def tell(self, path: str, status: Status, key: str = "", why: str = "") -> None:
        """Say what became of an option.

        Args:
            path: its dotted name.
            status: what became of it.
            key: theirs, where it went.
            why: how it differs, without its full stop.
        """
        self._lines[path] = Line(path, status, key, why)

    def told(self, path: str) -> bool:
        """Whether it was said what became of an option."""
        return path in self._lines

    def refused(self, path: str, why: str) -> None:
        """Say that the tool cannot do what an option says."""
        self.tell(path, "refused", "", why[:1].upper() + why[1:])

    def model(self, key: str) -> None:
        """Write the model; the embedded one as it is called on the Hub.

        Args:
            key: theirs.
        """
        path = self.config.model.path
        if path == EMBEDDED_MODEL:
            self.put(key, _EMBEDDED, "model.path", "The model that the studio brings along, on the Hub", "approximated")
        else:
            self.put(key, path, "model.path")

    def rate(self) -> tuple[float, str]:
        """The learning rate, and where it comes from; "" where the run says it itself."""
        given = self.config.training.learning_rate
        if given != "auto":
            return float(given), ""
        size = 135e6 if self.config.model.path == EMBEDDED_MODEL else _AVERAGE
        adapter = self.config.tuning.kind.adapter
        rate = next(one for one in self.config.method.kind.rates if one.adapter == adapter and size < one.below)
        many = "135 million" if size < _AVERAGE else "7 billion"
        return rate.value, f"What the studio takes for a model of {many} weights"

    def report(self) -> list[Line]:
        """A line for each option that has another value than its default, or whose default is not the same there."""
        found = []
        for path, spec in self._specs.items():
            line = self._lines.get(path)
            usual = value_at(self._all, path) == spec.default and path not in ("model.path", "data.train")
            if usual and (line is None or line.status not in ("approximated", "refused")):
                continue
            if line is None and path in self._unread:
                line = Line(path, "ignored", "", "The run does not read it, either")
            elif line is None and path in _OWN:
                line = Line(path, "ignored", "", _OWN[path][:1].upper() + _OWN[path][1:])
            found.append(line or Line(path, "refused", "", self.missing))
        return found

    def yaml(self) -> str:
        """The keys as YAML, with comments; below them what has no counterpart."""
        yaml = YAML()
        yaml.width = 4096
        yaml.indent(mapping=2, sequence=4, offset=2)
        text = "# Made by Finetune Studio. " + f"Start it with {self.tool}.\n"
        for key, value in self.values.items():
            stream = io.StringIO()
            yaml.dump({key: value}, stream)
            note = f"# {self.notes[key]}.\n" if key in self.notes else ""
            text += note + stream.getvalue()
        lost = [line for line in self.report() if line.status == "refused"]
        if lost:
            text += f"# {self.tool} has no counterpart of:\n"
            text += "".join(f"#   {line.key}: {_short(value_at(self._all, line.key))} ({line.why})\n" for line in lost)
        return text


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 80 else f"{text[:80]}…"

"""A run while it is being imported: values by option, and a line for each key of theirs that was looked at."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from studio.config import RunConfig
from studio.config.describe import OptionSpec, options_of
from studio.config.load import build
from studio.config.presets import METHOD, TUNING
from studio.errors import InputError, InputErrors
from studio.interop.reading import Given
from studio.interop.report import Imported, Line, Status
from studio.interop.rules import ANY, Rule, Rules, asks_nothing, nearest
from studio.interop.values import Reader, is_nothing

_SHOWN = 60


class Draft:
    """Collects what an importer finds out.

    Attributes:
        given: what is imported.
        tool: its title.
        report: the lines so far.
        exports: exports so far, as values of `ExportConfig` without the run.
    """

    def __init__(self, given: Given, tool: str) -> None:
        self.given, self.tool = given, tool
        self.report: list[Line] = []
        self.exports: list[dict[str, Any]] = []
        self.values: dict[str, Any] = {}
        self.specs: dict[str, OptionSpec] = {spec.path: spec for spec in options_of(RunConfig)}
        self._said: set[str] = set()
        self._from: dict[str, str] = {}

    # ---- what was given

    def has(self, key: str) -> bool:
        """Whether a key is given with a value that is not null."""
        return key in self.given.values and not is_nothing(self.given.values[key])

    def get(self, key: str, read: Reader, default: Any = None) -> Any:
        """The value of a key; `default` where it is not given.

        Args:
            key: theirs.
            read: of `studio.interop.values`.
            default: returned as it is.

        Raises:
            InputError: it cannot be read, with its line.
        """
        if not self.has(key):
            return default
        with self._reading(key):
            return read(self.given.values[key])

    @contextmanager
    def _reading(self, key: str) -> Iterator[None]:
        """Within it, a ValueError is about the value of a key."""
        try:
            yield
        except ValueError as error:
            shown = f"{self.given.values[key]!r:.{_SHOWN}}"
            raise InputError(f"{error} (it is {shown})", where=self.given.place(key), fix="Change it") from error

    # ---- what becomes of it

    def set(self, path: str, value: Any, key: str = "") -> None:
        """Give an option of ours a value.

        Args:
            path: dotted name.
            value: as YAML has it.
            key: of theirs that it comes from, for errors.
        """
        self.values[path] = value
        self._from[path] = key

    def say(self, key: str, status: Status, to: str = "", why: str = "") -> None:
        """Note what became of a key.

        Args:
            key: theirs.
            status: what became of it.
            to: where it went, a dotted name of ours; "" for nowhere.
            why: the reason, without its full stop; "" for none.
        """
        self._said.add(key)
        self.report.append(Line(key, status, to, why, self.given.lines.get(key, 0)))

    def map(self, key: str, to: str, value: Any, why: str = "", status: Status = "mapped") -> None:
        """Give an option a value, and note the key that it comes from.

        Args:
            key: theirs.
            to: dotted name of ours.
            value: as YAML has it.
            why: how it differs, or what else is to be known.
            status: mapped, or approximated.
        """
        self.set(to, value, key)
        self.say(key, status, to, why)

    def offers(self, path: str) -> bool:
        """Whether the run's method and tuning have an option; both must have been set before."""
        method = self.values.get(METHOD, self.specs[METHOD].default)
        tuning = self.values.get(TUNING, self.specs[TUNING].default)
        return self.specs[path].applies(method, tuning)

    def reads(self, path: str) -> bool:
        """Whether they also read it, with the values that the run has so far."""
        spec = self.specs[path]
        needed = self.values.get(spec.needs[0], self.specs[spec.needs[0]].default) if spec.needs else None
        return self.offers(path) and spec.is_read_with(needed)

    def apply(self, rules: Rules, defaults: bool = True) -> None:
        """Say what becomes of all keys that were not said yet, then write out defaults of theirs that differ.

        Args:
            rules: by key.
            defaults: False where there is no run into which they could be written.

        Raises:
            InputError: a value cannot be read.
        """
        for key, value in self.given.values.items():
            if key not in self._said:
                self._apply(key, value, rules)
        for rule in rules.values() if defaults else ():
            if rule.default is not ANY and rule.to and not self.has(rule.key) and rule.to not in self.values:
                self._default(rule)

    def _apply(self, key: str, value: Any, rules: Rules) -> None:
        rule = rules.get(key)
        if rule is None:
            self.say(key, "unknown", why=f"{self.tool} has no such key. {nearest(key, rules)}".strip())
        elif rule.status == "ignored" and rule.instead is None:
            self.say(key, "ignored", why=rule.why)
        elif not rule.to and rule.instead is None and rule.status == "approximated":
            self.say(key, "approximated", why=rule.why)
        elif rule.status == "refused":
            if asks_nothing(rule, value):
                self.say(key, "ignored", why="With this value it asks for nothing")
            else:
                self.say(key, "refused", why=rule.why)
        elif is_nothing(value) and not (rule.none and str(value).strip().lower() == "none" and value is not None):
            if rule.default is ANY:
                self.say(key, "ignored", why="Empty means the default")
            else:
                self._default(rule)
        elif rule.instead is not None:
            with self._reading(key):
                rule.instead(self, (rule.read or (lambda one: one))(value))
        elif not self.reads(rule.to):
            self.say(key, "ignored", why=f"{rule.to} is not read by {self._kind()}")
        else:
            self.map(key, rule.to, self.get(key, rule.read or (lambda one: one)), rule.why, rule.status)

    def _default(self, rule: Rule) -> None:
        if not self.reads(rule.to):
            if rule.key in self.given.values:
                self.say(rule.key, "ignored", why=f"{rule.to} is not read by {self._kind()}")
            return
        if self.specs[rule.to].default != rule.default:
            why = f"Not given: the default of {self.tool} is {rule.default}, which is not the studio's"
            self.map(rule.key, rule.to, rule.default, why, rule.status)
        elif rule.key in self.given.values:
            self.say(rule.key, "ignored", why="Empty means the default")

    def _kind(self) -> str:
        method = self.values.get(METHOD, self.specs[METHOD].default)
        return f"{method} with {self.values.get(TUNING, self.specs[TUNING].default)}"

    # ---- the end

    def document(self) -> dict[str, Any]:
        """The values by section, in the order of the options, those too that are our defaults."""
        document: dict[str, Any] = {}
        for path, spec in self.specs.items():
            if path in self.values:
                document.setdefault(spec.section, {})[spec.name] = self.values[path]
        return document

    def done(self) -> Imported:
        """Check the run as a YAML file is checked, and return it with the report.

        Raises:
            InputErrors: a value is out of bounds here; with the key and line that it comes from.
        """
        run = self.document()
        try:
            build(RunConfig, run)
        except InputErrors as wrong:
            raise InputErrors([self._told(error) for error in wrong.errors]) from wrong
        return Imported(self.tool, run, self.exports, self._lines())

    def exported(self) -> Imported:
        """Return exports alone, of a config that trains nothing."""
        return Imported(self.tool, {}, self.exports, self._lines())

    def _lines(self) -> list[Line]:
        """The report in the order of the source, then what was not given."""
        order = {key: at for at, key in enumerate(self.given.values)}
        return sorted(self.report, key=lambda line: order.get(line.key.partition(".")[0], len(order)))

    def _told(self, error: InputError) -> InputError:
        path = next((one for one in self.specs if error.where == one or error.where.startswith(f"{one}.")), "")
        key = self._from.get(path, "")
        if not key:
            return error
        return InputError(error.what, where=f"{self.given.place(key)} ({error.where})", fix=error.fix or "Change it")

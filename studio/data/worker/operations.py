"""What the data worker can be asked: inspect, preview, lengths, template, fetch, kind, columns, ping.

Each takes and returns plain values; texts of rows stay text (no HTML is made here). Tokenizers are kept by
folder, results by the size and time of the files they came from, so asking again costs a few milliseconds.
"""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from studio.config.data import DataConfig, DataSource
from studio.config.model import ModelConfig
from studio.data.files.datafiles import Row, Stamp, place
from studio.data.files.rowindex import RowIndex, row_index
from studio.data.formats.answers import Unread
from studio.data.formats.rows import fitting_kind, fitting_kinds, kind_of
from studio.data.masks.masker import Masker
from studio.data.masks.templates import usable_templates, with_template
from studio.data.prepare.counting import count_tokens
from studio.data.prepare.findings import note_text, reading_findings, text_findings, unused_keys
from studio.data.prepare.limit import limited
from studio.data.prepare.pipeline import prepare_data
from studio.data.prepare.units import both_answers, common_prefix
from studio.data.sources.locate import Located, locate, sources_of
from studio.data.sources.parsing import OpenedSource
from studio.data.sources.reading import Reading, in_turns
from studio.data.sources.stream import source_at
from studio.data.streaming.wanted import is_looked_at, is_streamed
from studio.data.tokens.tokenizers import Tokenizers, section, tokenizer_stamp
from studio.data.wire import SHOWN_TOKENS, Values, error_to_dict, shortened
from studio.data.worker.columns import columns_of
from studio.data.worker.streamed import streamed_lengths, streamed_source
from studio.errors import InputError
from studio.methods import MethodConfig, RowKind
from studio.models.catalog.child import Progress
from studio.models.inspect.headers import read_config
from studio.models.inspect.shape import longest_context
from studio.reach import reading_for
from studio.settings import Settings, read_settings

_KEPT_RESULTS = 64
_KEPT_INDEXES = 16


@dataclass(frozen=True)
class Call:
    """What every operation is told beside its own arguments.

    Attributes:
        progress: told how far it is.
        confined: only what lies below `settings.roots` may be read; the page sets it.
        data, method: sections of the configuration; defaults where left out.
        model: section, name or folder of the model; None for the default.
        named: whether a method was named.
    """

    progress: Progress
    confined: bool
    data: DataConfig
    method: MethodConfig
    model: Values | str | None
    named: bool


class Operations:
    """The operations and what they remember."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.settings = settings or read_settings()
        self.tokenizers = Tokenizers(self.settings)
        self._results: OrderedDict[str, Values] = OrderedDict()
        self._indexes: OrderedDict[tuple[Path, Stamp, bool], RowIndex] = OrderedDict()

    def run(self, op: str, args: Values, progress: Progress) -> Values:
        """Run one operation.

        Args:
            op: its name.
            args: plain values; `data`, `model`, `method` and `confined` are for every operation, the rest are its own.
            progress: told phase, done and total.

        Raises:
            InputError: the operation, an argument, a file or a row cannot be used.
        """
        known = self.known()
        if op not in known:
            raise InputError(f"'{op}' is not an operation", where="data worker", fix=f"Use one of: {', '.join(known)}")
        confined, model, method = bool(args.get("confined")), args.get("model"), args.get("method")
        own = {name: value for name, value in args.items() if name not in ("data", "method", "model", "confined")}
        with reading_for(self.settings if confined else None):
            data, asked = section(DataConfig, args.get("data"), "data"), section(MethodConfig, method, "method")
            call = Call(progress, confined, data, asked, model, bool(method))
            return known[op](replace(call, data=limited(data, asked, self._context(call))), **own)

    def known(self) -> dict[str, Callable[..., Values]]:
        """Return the operations by name."""
        return {
            "inspect": self.inspect, "preview": self.preview, "lengths": self.lengths, "template": self.template,
            "fetch": self.fetch, "kind": self.kind, "columns": self.columns, "ping": self.ping,
        }  # fmt: skip

    def inspect(self, call: Call, *, path: str, format: str = "auto", options: Values | None = None) -> Values:
        """Read one source whole, as the method would; without one, as the first method that could use its rows.

        Args:
            call: its data say which template, system text, limit and reading of control tokens a run would have;
                without a model no tokens are counted.
            path, format: of the source.
            options: its others, such as columns, or the subset of a set of the Hub.

        Returns:
            path, file, format, reason, rows, bytes, sha256, commit, findings; with a model also lengths (figures and
            histogram), tokens, supervised_tokens and stop_text.
        """
        source = section(DataSource, {**(options or {}), "path": path, "format": format}, "data.train")
        config, asked, progress = call.data, call.method, call.progress
        located = locate(source, self.settings, call.confined)
        kind: RowKind = asked.kind.rows if call.named else kind_of(_first_row(source, located))
        key: list[Any] = [
            "inspect",
            source.model_dump(),
            located.state(),
            config.limit,
            kind,
            asked.kind.train_on(asked),
        ]
        key += [asked.name, config.template, config.system, config.control_tokens, config.streaming, call.confined]
        folder = None
        if call.model is not None:
            folder, chosen = self._model(call)
            key += [str(folder), tokenizer_stamp(folder), chosen.trust_remote_code]

        def compute() -> Values:
            unread = Unread()
            if folder is not None and call.confined and is_looked_at(config, asked, [located]):
                own = self.tokenizers.load(folder, chosen.trust_remote_code)
                return streamed_source(source, located, config, asked, own, self.settings, progress)
            if folder is None:
                opened = OpenedSource(source, located, kind)
                for example in opened.examples(lambda done: progress("reading data", done, None)):
                    unread.add(example)
                report = opened.report("train")
                told: Values = {}
                findings = unused_keys(unread)
            else:
                masker = self.tokenizers.masker(folder, chosen, config, asked)
                template = masker.tokenizer.chat_template
                opened = OpenedSource(source, located, kind, turns=in_turns(template, config, asked))
                told, findings = count_tokens(kind, opened, masker, config.limit, unread, progress)
                report = opened.report("train")
                findings += reading_findings([report], [source], bool(template)) + unused_keys(unread)
            result: Values = {
                "path": path, "file": report.file, "format": report.format, "reason": report.reason,
                "rows": report.rows, "bytes": report.bytes, "sha256": report.sha256, "commit": report.commit, **told,
            }  # fmt: skip
            findings = text_findings([(located, report)]) + findings
            result["findings"] = [asdict(one) for one in findings]
            return result

        return self._kept(key, compute)

    def kind(self, call: Call, *, source: Values) -> Values:
        """Say for which kinds of method a source's first row is made.

        Args:
            call: whose roots bound what is read.
            source: as data.train holds it.

        Returns:
            kind: the most particular one; None where it is made for none.
            kinds: all of them.
        """
        found = section(DataSource, source, "data.train")
        row = _first_row(found, locate(found, self.settings, call.confined))
        return {"kind": fitting_kind(row), "kinds": fitting_kinds(row)}

    def columns(self, call: Call, *, source: Values) -> Values:
        """Say which columns a source has, and which of them the method reads as what (`worker.columns`).

        Args:
            call: its method, and the roots that bound what is read.
            source: as data.train holds it.
        """
        found = section(DataSource, source, "data.train")
        return columns_of(found, locate(found, self.settings, call.confined), call.method.kind.rows)

    def preview(self, call: Call, *, row: int = 1, source: int = 0) -> Values:
        """Show one row as the model sees it.

        Args:
            call: whose data, method and model.
            row: place of the row among the file's rows, from 1.
            source: which of data.train, from 0; after them comes the file for validation, if there is one.

        Returns:
            row (its number in the file), rows (how many), path, format and reason (why it was taken; "" where it was
            named), raw (the row), messages and tools (or None), their texts shortened to 20,000 characters, tokens
            [{text, id, trained, special}] (the first 20,000 of `count`), rejected (tokens of a pair's worse answer),
            trained, context, length,
            limit, over_limit, notes, stop_text, problem (None, or the parts of the
            error that keeps this row from being used; then tokens are empty).
        """
        config, asked = call.data, call.method
        one = source_at(config, source)
        located = locate(one, self.settings, call.confined)
        (number, raw), rows, first = self._row(located, row, call.progress)
        folder, chosen = self._model(call)
        result: Values = {
            "row": number, "rows": rows, "path": one.path, "format": one.format, "reason": "", "raw": shortened(raw),
            "messages": None, "tools": None,
            "tokens": [], "rejected": [], "count": 0, "trained": 0, "context": 0, "length": 0,
            "limit": config.limit, "over_limit": False, "notes": [], "stop_text": None, "problem": None,
        }  # fmt: skip
        masker = self.tokenizers.masker(folder, chosen, config, asked)
        kind = asked.kind.rows
        try:
            reading = Reading(one, located, kind, in_turns(masker.tokenizer.chat_template, config, asked))
            name, result["reason"] = reading.format([first])
            result["format"] = name
            example = reading.example(raw, number, name)
            result["messages"], result["tools"] = shortened(example.messages), shortened(example.tools)
            seen = [masker.prompt(example)] if kind == "prompts" else masker.encode(both_answers(example))
        except InputError as error:
            result["problem"] = error_to_dict(error)
            return result
        result["tokens"] = [piece.as_dict() for piece in masker.pieces(seen[0], SHOWN_TOKENS)]
        result["rejected"] = [piece.as_dict() for masked in seen[1:] for piece in masker.pieces(masked, SHOWN_TOKENS)]
        result["count"] = len(seen[0].input_ids)
        result["length"] = max(len(masked.input_ids) for masked in seen)
        result["trained"] = sum(masked.supervised for masked in seen)
        result["context"] = sum(len(masked.input_ids) - masked.supervised for masked in seen)
        result["over_limit"] = result["length"] > config.limit
        result["notes"] = [note_text(note) for note in dict.fromkeys(n for masked in seen for n in masked.notes)]
        if example.messages is not None and masker.train_on != "all":
            result["stop_text"] = masker.stop_text()
        return result

    def lengths(self, call: Call, *, seed: int = 42) -> Values:
        """Prepare the data as a run would.

        Returns:
            train and validation: tokens of each example's longest sequence after truncation; tokens: of all its
            sequences; repeats: how many of them repeat a prefix within it; common: tokens that all examples begin
            with; supervised and validation_supervised: how many tokens the loss counts; good: answers rated so;
            answered: prompts with an answer to compare with; report: the DataReport as plain values; estimate: None, or
            where rows are streamed how much there is (`Estimate`), the lists then being those of the rows that were
            looked at.
        """
        config, asked = call.data, call.method
        here = [locate(source, self.settings, call.confined) for source in sources_of(config)]
        folder, chosen = self._model(call)
        key = ["lengths", config.model_dump(), asked.model_dump(), seed, [one.state() for one in here]]
        key += [str(folder), tokenizer_stamp(folder), chosen.trust_remote_code]

        def compute() -> Values:
            tokenizer = self.tokenizers.load(folder, chosen.trust_remote_code)
            if is_streamed(config, asked, here):
                return streamed_lengths(config, asked, tokenizer, self.settings, here, call.progress, seed)
            done = prepare_data(config, asked, tokenizer, self.settings, call.progress, seed)
            return {
                "estimate": None,
                "train": [one.length for one in done.train],
                "validation": [one.length for one in done.validation],
                "tokens": [one.tokens for one in done.train],
                "repeats": [one.repeats for one in done.train],
                "common": common_prefix(done.train),
                "supervised": [one.supervised for one in done.train],
                "validation_supervised": [one.supervised for one in done.validation],
                "good": sum(one.label for one in done.train) if done.kind == "rated" else None,
                "answered": sum(one.answer is not None for one in done.train) if done.kind == "prompts" else None,
                "report": done.report.as_dict(),
            }

        return self._kept(key, compute)

    def template(self, call: Call) -> Values:
        """Say whether the model has a chat template (its own, or that of the data) whose answers can be told exactly.

        Returns:
            has_template, exact, stop_text (what ends an answer), reason (why it is not exact, else ""), usable (the
            templates of ours whose tokens the model has).
        """
        folder, chosen = self._model(call)
        own = self.tokenizers.load(folder, chosen.trust_remote_code)
        result: Values = {"has_template": False, "exact": False, "stop_text": None, "usable": usable_templates(own)}
        try:
            masker = Masker(with_template(own, call.data.template, call.data.system))
            if not masker.tokenizer.chat_template:
                return {**result, "reason": "it has no chat template"}
            result["has_template"] = True
            return {**result, "exact": True, "stop_text": masker.stop_text(), "reason": ""}
        except InputError as error:
            return {**result, "reason": error.sentence}

    def fetch(self, call: Call) -> Values:
        """Fetch the sets of the Hub that the data name and that are not here yet; bytes are told as progress.

        Returns:
            sources: the path of each, how many rows it has (None where that is not known yet), and its commit.
        """
        found = []
        for source in sources_of(call.data):
            located = locate(source, self.settings, call.confined, fetch=call.progress)
            found.append({"path": source.path, "rows": located.count, "commit": located.commit})
        return {"sources": found}

    def ping(self, call: Call) -> Values:
        """Return the worker's pid."""
        return {"pid": os.getpid()}

    def _model(self, call: Call) -> tuple[Path, ModelConfig]:
        return self.tokenizers.find(call.model, call.confined, call.progress)

    def _context(self, call: Call) -> int | None:
        """Tokens that the call's model reads; None without one, or where it does not say."""
        if call.model is None or call.data.max_length != "auto":
            return None
        try:
            folder, chosen = self._model(call)
            return longest_context(read_config(folder), chosen)
        except InputError:  # what needs the model says so, and a folder may hold a tokenizer alone
            return None

    def _kept(self, key: list[Any], compute: Callable[[], Values]) -> Values:
        text = json.dumps(key)
        if text not in self._results:
            self._results[text] = compute()
            if len(self._results) > _KEPT_RESULTS:
                self._results.popitem(last=False)
        self._results.move_to_end(text)
        return self._results[text]

    def _row(self, located: Located, at: int, progress: Progress) -> tuple[tuple[int, Row], int, tuple[int, Row]]:
        """(number, row) at a place from 1, how many rows there are, and the first row."""
        if located.count is not None:  # a set of the Hub: memory-mapped, so any row is at hand
            found = next(located.rows(at - 1), None) if 0 < at <= located.count else None
            if found is None:
                what = f"there is no row {at}; the dataset has {located.count:,}"
                raise InputError(what, where=place(located.path), fix="Choose a row number from 1")
            return found, located.count, next(located.rows(0))
        key = (located.path, Stamp.of(located.path), located.by_line)
        if key not in self._indexes:
            self._indexes[key] = row_index(located.path, self.settings, progress, located.by_line)
            if len(self._indexes) > _KEPT_INDEXES:
                self._indexes.popitem(last=False)
        index = self._indexes[key]
        return index.row(at), index.count, index.row(1)


def _first_row(source: DataSource, located: Located) -> dict[str, Any]:
    """The first row under the names that its columns are mapped to."""
    number, row = next(located.rows(0))
    return Reading(source, located, "answers").mapped(row, number)

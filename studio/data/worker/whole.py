"""What the data worker can be asked about a whole set: profile, duplicates, pair, diff, batch, keep, push.

The operations on one row or file are in `operations`. These here read everything, tell how far they are every few
hundred rows, and end there when the page has lost interest (`client`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import asdict
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from studio.data.prepare import batch as batches
from studio.data.prepare.duplicates import NEAR_ROWS, THRESHOLD, Doubles, fingerprint, similarity, spoken
from studio.data.prepare.findings import reading_finding
from studio.data.prepare.pipeline import prepare_data
from studio.data.quality import keep as keeping
from studio.data.quality.profile import NAMED, Profile, all_rows, sampled_rows, until
from studio.data.quality.push import push as upload
from studio.data.report import Finding, Place
from studio.data.sources.stream import Read, Source, open_sources, understood
from studio.data.streaming.wanted import is_looked_at
from studio.data.tokens.tokenizers import tokenizer_stamp
from studio.data.wire import Values, shortened
from studio.data.worker.operations import Call, Operations
from studio.errors import InputError
from studio.models.catalog.child import Progress
from studio.models.inspect.headers import read_config
from studio.models.plan.batches import Batching, split
from studio.models.plan.fused import FAMILIES

# Comparing two answers of more tokens than this would take seconds; frequent tokens then count for less.
_PRECISE_TOKENS = 4000
_SAMPLE_SECONDS = 1.2
# Of rows that are streamed a page profiles so many.
_STREAMED_SAMPLE = 20_000


class WholeOperations(Operations):
    """All operations."""

    def known(self) -> dict[str, Callable[..., Values]]:
        """Return the operations by name."""
        return super().known() | {
            "profile": self.profile, "duplicates": self.duplicates, "pair": self.pair, "diff": self.diff,
            "batch": self.batch, "keep": self.keep, "push": self.push, "warm": self.warm,
        }  # fmt: skip

    def profile(
        self, call: Call, *, seed: int = 42, micro_batch: int = 8, batch: int = 0, tokens: int = 0,
        unpadded: bool = False, sample: int = 0,
    ) -> Values:  # fmt: skip
        """Say what is in a run's data and what will be done with it.

        Args:
            call: whose data, method and model.
            seed: `training.seed`.
            micro_batch, batch, tokens, unpadded: rows at a time, for the padding (`batch.padding`), as in `batch`.
            sample: rows to draw for a first answer, of which as many are looked at as about a second allows; 0 is
                the whole set.

        Returns:
            sampled (None, or rows, of and text: "from 2,000 of 100,000 rows"), and what `Profile.result` lists.
        """
        deadline = time.monotonic() + (_SAMPLE_SECONDS if sample else math.inf)
        config, asked, progress = call.data, call.method, call.progress
        kind = asked.kind.rows
        folder, chosen = self._model(call)
        turns = self.tokenizers.in_turns(folder, chosen, config, asked)
        sources = self._sources(call, turns)
        if not sample and call.confined and is_looked_at(config, asked, [one.located for one in sources]):
            sample = _STREAMED_SAMPLE
        batching = self._batching(folder, micro_batch, tokens, unpadded)
        key = [
            "profile", config.model_dump(), kind, asked.kind.train_on(asked), asked.kind.joins(asked), turns, seed,
            [asdict(batching), batch], sample, chosen.trust_remote_code,
        ]  # fmt: skip
        key += [[one.located.state() for one in sources], str(folder), tokenizer_stamp(folder)]

        def read_as(profile: Profile) -> list[Finding]:
            template = bool(profile.masker.tokenizer.chat_template)
            train = [one for one in sources if one.part == "train"]
            read = [(one.index, one.reading, profile.rows_of(one.index), one.config) for one in train]
            found = [
                reading_finding(at, reading.read_as, reading.reason, rows, source, template)
                for at, reading, rows, source in read
            ]
            return [one for one in found if one is not None]

        def compute() -> Values:
            masker = self.tokenizers.masker(folder, chosen, config, asked)
            profile = Profile(
                config, kind, masker, [one.part for one in sources], seed=seed, batching=batching,
                batch=batch, doubles=not sample, joined=asked.kind.joins(asked),
            )  # fmt: skip
            if not sample:
                profile.add(all_rows(sources), lambda rows: progress("profile", rows, None))
                return {"sampled": None, **profile.result(read_as(profile))}
            rows, total = sampled_rows(sources, sample, seed, lambda: progress("counting rows", 0, None))
            profile.add(until(rows, deadline), lambda done: progress("profile of a sample", done, len(rows)))
            of = f"of {total:,} rows" if total is not None else "rows near the start of the files"
            sampled = {"rows": profile.rows, "of": total, "text": f"from {profile.rows:,} {of}"}
            return {"sampled": sampled, **profile.result(read_as(profile))}

        return self._kept(key, compute)

    def duplicates(self, call: Call, *, near: bool = True, threshold: float = THRESHOLD) -> Values:
        """Find the rows that repeat an earlier one; no model is needed.

        Args:
            call: whose data and method.
            near: look for similar rows too.
            threshold: share of word triples in common from which rows count as similar, above 0 and up to 1.

        Returns:
            rows, exact, near (how many), near_among (rows among which near ones were looked for), threshold, pairs
            (the first 50 of both kinds: first and second as places, similarity, exact).
        """
        if not 0 < threshold <= 1:
            raise InputError(
                f"{threshold} is not a fraction", where="threshold", fix="Give a number above 0 and up to 1"
            )
        seen, places = Doubles(near, threshold, NEAR_ROWS), list[Place]()
        found: Values = {"exact": 0, "near": 0, "threshold": threshold, "pairs": []}
        for done, read in enumerate(all_rows(self._sources(call)), 1):
            if done % 1000 == 0:
                call.progress("finding duplicates", done, None)
            if read.example is None:
                continue
            places.append(read.place)
            if (twin := seen.add(read.example)) is None:
                continue
            name = "exact" if twin.exact else "near"
            found[name] += 1
            if found[name] <= NAMED:
                found["pairs"].append(
                    {"first": asdict(places[twin.first]), "second": asdict(read.place), "similarity": twin.similarity,
                     "exact": twin.exact}
                )  # fmt: skip
        return {"rows": len(places), "near_among": min(len(places), NEAR_ROWS) if near else 0, **found}

    def pair(self, call: Call, *, first: Values, second: Values) -> Values:
        """Show two rows beside each other.

        Args:
            call: whose data and method.
            first, second: places of two rows: {"source": 0, "at": 12}.

        Returns:
            first, second (place and texts [[role, text]] each), exact, similarity (the exact share of word triples in
            common).

        Raises:
            InputError: there is no such row, or it cannot be used.
        """
        sources = self._sources(call)
        reads = [self._read(sources, one, call.progress) for one in (first, second)]
        left, right = (self._usable(read) for read in reads)
        shown = [
            {"place": asdict(read.place), "texts": [[role, shortened(text)] for role, text in spoken(example)]}
            for read, example in zip(reads, (left, right), strict=True)
        ]
        same = fingerprint(left) == fingerprint(right)
        return {
            "first": shown[0], "second": shown[1], "exact": same,
            "similarity": 1.0 if same else round(similarity(left, right), 3),
        }  # fmt: skip

    def diff(self, call: Call, **args: Any) -> Values:
        """Show a pair's row as `preview` does, with what its two answers have in common.

        Returns:
            what `preview` returns, and common: {"tokens": [...], "rejected": [...]}, for each token whether it is in
            the other too; both empty where the row has one answer.
        """
        shown = self.preview(call, **args)
        one, other = ([token["id"] for token in shown[name]] for name in ("tokens", "rejected"))
        same_one, same_other = [False] * len(one), [False] * len(other)
        if other:
            precise = max(len(one), len(other)) <= _PRECISE_TOKENS
            for at, at_other, size in SequenceMatcher(None, one, other, autojunk=not precise).get_matching_blocks():
                same_one[at : at + size] = [True] * size
                same_other[at_other : at_other + size] = [True] * size
        return {**shown, "common": {"tokens": same_one if other else [], "rejected": same_other}}

    def batch(
        self, call: Call, *, seed: int = 42, micro_batch: int = 8, batch: int = 0, tokens: int = 0,
        unpadded: bool = False, packing: bool = False,
    ) -> Values:  # fmt: skip
        """Show the first micro-batch as the trainer gets it on one device.

        Args:
            call: whose data, method and model.
            seed: `training.seed`, which decides the split and the order.
            micro_batch: rows at a time, as the plan has it.
            batch, tokens: of how many rows those of like length are put together, and tokens at a time at most; 0 where
                they are not, or without a limit.
            unpadded: padding is not computed where the model's family allows it (`models.plan.fused`).
            packing: `training.padding_free`, where the method has it.

        Returns:
            exact (whether ids and order are the trainer's), unpadded (padding is not computed), rows (row and path of
            each), shapes, arrays (what the collator makes, (B, T) each; None where not exact), texts ((B, T) texts of
            the tokens), pad (id), special (ids).
        """
        config, asked = call.data, call.method
        self._sources(call)  # refuses what the page may not read
        folder, chosen = self._model(call)
        tokenizer = self.tokenizers.load(folder, chosen.trust_remote_code)
        units = prepare_data(config, asked, tokenizer, self.settings, call.progress, seed).train
        batching = self._batching(folder, micro_batch, tokens, unpadded)
        pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
        if not asked.kind.exact:
            return {"exact": False, "rows": [], "shapes": batches.shape(units[:micro_batch]), "arrays": None,
                    "texts": None, "pad": pad, "special": []}  # fmt: skip
        order = batches.epoch_order(len(units), seed, shuffle=config.shuffle, first=batch or micro_batch)
        chosen_rows = [units[at] for at in order]
        if batch:
            lengths = [one.length for one in chosen_rows]
            parts = split(lengths, batching, asked.kind.cost.sequences)
            chosen_rows = [chosen_rows[at] for at in parts[0]]
        arrays = batches.collate_packed(chosen_rows) if packing else batches.collate(chosen_rows, pad)
        return {
            "exact": True,
            "unpadded": not batching.padded,
            "rows": [{"row": one.row, "path": one.path} for one in chosen_rows],
            "shapes": {name: [len(rows), len(rows[0])] for name, rows in arrays.items()},
            "arrays": arrays,
            "texts": [[tokenizer.decode([token]) for token in row] for row in arrays["input_ids"]],
            "pad": pad,
            "special": sorted(tokenizer.all_special_ids),
        }

    def _batching(self, folder: Path, rows: int, tokens: int, unpadded: bool) -> Batching:
        """How much is computed at a time with the model in this folder."""
        return Batching(rows, tokens, padded=not (unpadded and read_config(folder).get("model_type") in FAMILIES))

    def keep(
        self, call: Call, *, name: str, format: str = "jsonl", drop: list[str] | None = None, hide_secrets: bool = False
    ) -> Values:
        """Write the cleaned set into STUDIO_HOME/data/NAME; `keep.write` says what and how.

        Args:
            call: whose data and method; the model says how plain questions and answers are read.
            name: of the new set; a number is added if it is taken.
            format: jsonl or parquet.
            drop: checks of the profile whose rows are left out.
            hide_secrets: replace what looks like a key or an address by its kind.

        Returns:
            path, and the manifest's values.
        """
        config, asked = call.data, call.method
        plan = keeping.Keep.checked(name, format, drop or [], hide_secrets)
        folder, chosen = self._model(call)
        masker = self.tokenizers.masker(folder, chosen, config, asked) if plan.needs_model else None
        sources = self._sources(call, self.tokenizers.in_turns(folder, chosen, config, asked))
        return keeping.write(
            plan, config, asked.kind, sources, masker, self.settings, lambda rows: call.progress("writing", rows, None)
        )

    def warm(self, call: Call) -> Values:
        """Load a model's tokenizer and the libraries, so that the first question about rows need not wait for them."""
        folder, chosen = self._model(call)
        self.tokenizers.masker(folder, chosen, call.data, call.method)
        return {}

    def push(self, call: Call, *, name: str, repo: str, private: bool = True) -> Values:
        """Put a cleaned copy on the Hugging Face Hub, with the token of the environment (HF_TOKEN).

        Args:
            call: of the worker, for progress.
            name: of the cleaned copy.
            repo: dataset on the Hub, `owner/name`.
            private: False publishes it to everybody.

        Returns:
            repo, splits.
        """
        return upload(name, repo, private, self.settings, lambda: call.progress("uploading", 0, None))

    def _sources(self, call: Call, turns: bool = False) -> list[Source]:
        return open_sources(call.data, self.settings, call.method.kind.rows, call.confined, turns)

    def _read(self, sources: list[Source], where: Values, progress: Progress) -> Read:
        index, at = where.get("source", 0), where.get("at", 0)
        if not isinstance(index, int) or not 0 <= index < len(sources):
            raise InputError(f"there is no source {index}", where="data.train", fix="Choose one of the files")
        (number, raw), _, _ = self._row(sources[index].located, at, progress)
        return understood(sources[index], at, number, raw)

    def _usable(self, read: Read) -> Any:
        if read.example is None:
            raise read.error or InputError("the row cannot be used")
        return read.example

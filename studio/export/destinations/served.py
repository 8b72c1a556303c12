"""A run as what a server is started with: a proven folder or file, with a script and a compose file beside it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import cast

from studio.config.model import ModelConfig
from studio.errors import InputError
from studio.export.adapter import AdapterExport
from studio.export.gguf.checkpoint import own_dtype, read_object
from studio.export.ggufs import GgufExport
from studio.export.making import Making
from studio.export.merged import GENERATION, MergedExport, end_answers
from studio.export.serving.older import write_older_template
from studio.export.serving.servers import Served, Server, write_serving
from studio.models.catalog.hubaccess import is_hub_id
from studio.models.inspect.adapters import adapter_config, highest_rank
from studio.models.inspect.shape import longest_context
from studio.reach import read_bytes

# More is seldom asked for, and costs memory on every server.
USUAL_CONTEXT = 8192


class Serving(Making):
    """An export after which a server can be started."""

    def prepare(self) -> None:
        """Refuse a context that the model cannot read, and what the export itself refuses."""
        readable, asked = self._readable(), self.config.context
        if isinstance(asked, int) and readable and asked > readable:
            raise InputError(
                f"a context of {asked} tokens is more than the model can read ({readable})",
                where="context",
                fix=f"Give at most {readable}, or auto",
            )
        super().prepare()  # type: ignore[safe-super]  # of the export that stands behind this one

    def make(self) -> None:
        """Make and prove what is served, then write what starts the server."""
        super().make()  # type: ignore[safe-super]
        notes = self.notes()
        self.report["serving"] = write_serving(self.context.job.exports, self.served(), notes)
        self.write_report()
        for note in notes:
            self.context.notice("info", note)

    def served(self) -> Served:
        """What the server is told: of a whole model, where no subclass says more."""
        first, asked = self.report["files"][0], self.config.context
        usual = min(self._readable() or USUAL_CONTEXT, USUAL_CONTEXT)
        context = asked if isinstance(asked, int) else usual
        told = Served(cast(Server, self.config.to), self.name, first["file"], "", first.get("dtype", ""), context)
        return replace(told, beside=tuple(one["file"] for one in first.get("shards", [])[1:]))

    def notes(self) -> list[str]:
        """What a person has to know before starting it."""
        return []

    def _readable(self) -> int | None:
        return longest_context(read_object(self.source.weights / "config.json"), ModelConfig())


class ServedCheckpoint(Serving, MergedExport):
    """The merged checkpoint, for vLLM, SGLang or TGI."""

    def complete(self) -> None:
        """Write which tokens end an answer, and the template where an older program looks for it."""
        super().complete()
        if self.config.to == "tgi":
            write_older_template(self.folder)

    def notes(self) -> list[str]:
        """What a person has to know before starting it."""
        return _of_tgi(self.dtype) if self.config.to == "tgi" else []


class ServedAdapter(Serving, AdapterExport):
    """The adapter, for vLLM, SGLang or TGI, which load the base model by its name."""

    def complete(self) -> None:
        """Write which tokens end an answer, since the base model's settings may not say so."""
        super().complete()
        if self.source.base is not None and (self.source.base / GENERATION).is_file():
            (self.folder / GENERATION).write_bytes(read_bytes(self.source.base / GENERATION))
        end_answers(self.folder, self.reference["ends"])
        if self.config.to == "tgi":
            write_older_template(self.folder)

    def served(self) -> Served:
        """The adapter by its name, beside the base model's."""
        told, config = super().served(), adapter_config(self.source.model) or {}
        base, dtype = self.report["base_model"], own_dtype(self.source.weights)
        return Served(told.server, told.name, told.path, base, dtype, told.context, highest_rank(config))

    def notes(self) -> list[str]:
        """What a person has to know before starting it."""
        said, base, to = [], self.report["base_model"], self.config.to
        if to == "sglang":
            said.append(f"SGLang answers with the adapter only if the model asked for is {base}:{self.name}")
        if to in ("sglang", "tgi") and self.reference["end"]:
            said.append(
                f"an answer ends where the base model's own settings say: give '{self.reference['end']}' as stop"
            )
        if not is_hub_id(base):
            said.append(f"the base model is read from {base} on the machine that serves")
        return [*said, *(_of_tgi(own_dtype(self.source.weights)) if to == "tgi" else [])]


class ServedFile(Serving, GgufExport):
    """GGUF files of which llama.cpp's server loads the first; it renders prompts for the report where it is here."""

    def notes(self) -> list[str]:
        """What a person has to know before starting it; first the prompts of the server itself are compared."""
        program = shutil.which("llama-server")
        if program is None:
            return [
                "llama-server is not on this machine, so its own rendering of conversations was not compared; that of "
                "llama-cpp-python was"
            ]
        file = self.context.job.exports / self.report["files"][0]["file"]
        request = {"program": program, "file": str(file), "cases": str(self.work / "cases.json")}
        result = self.step("asking llama-server", "proof.rendering", request, "prompts")
        if result.code != 0:
            why = result.error.sentence if result.error else result.ending()
            return [f"this machine's llama-server did not render the prompts, and may not start from serve.sh: {why}"]
        self.report["rendered"] = result.answer
        return [
            f"llama-server renders '{one['prompt']}' differently: {one['what']}" for one in result.answer["differences"]
        ]


def _of_tgi(dtype: str) -> list[str]:
    said = ["TGI is archived since March 2026, and this is for its last version, 3.3.7: vLLM and SGLang are maintained"]
    return [*said, "TGI has no float32: it runs the model in float16"] if dtype == "float32" else said

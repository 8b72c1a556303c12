"""What can be chatted with: a run's result beside its base, a model alone, a GGUF file, a model at a service.

A target is paths and names only, so it is cheap, hashable, and equal targets share one server. Names become targets in
`ask.resolve_target`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

# Files whose change makes a loaded model stale.
_WEIGHTS = ("adapter_model.safetensors", "model.safetensors", "model.safetensors.index.json", "config.json")


@dataclass(frozen=True)
class Target:
    """One thing to load.

    Attributes:
        kind: run (base and tuned), model (base alone), gguf, or remote (at a service).
        name: what the person calls it; not part of what makes two targets equal to load.
        model: folder of the base model; None for gguf.
        adapter: folder of the run's adapter; None where there is none.
        tuned: folder of a fully tuned checkpoint; None where there is none.
        gguf: the GGUF file; None for the others.
        dtype: auto, float32 or bfloat16.
        trust_remote_code: run Python code in the model's folder.
        base_url: address of the service; "" for models here.
        there: (id here, name at the service) of each model of a service.
    """

    kind: Literal["run", "model", "gguf", "remote"]
    name: str = field(compare=False)
    model: Path | None = None
    adapter: Path | None = None
    tuned: Path | None = None
    gguf: Path | None = None
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    trust_remote_code: bool = False
    base_url: str = ""
    there: tuple[tuple[str, str], ...] = ()

    @property
    def models(self) -> tuple[str, ...]:
        """Model ids that its server will have."""
        if self.kind == "remote":
            return tuple(here for here, _ in self.there)
        if self.kind == "gguf":
            return ("gguf",)
        return ("base", "tuned") if self.adapter or self.tuned else ("base",)

    @property
    def answering(self) -> str:
        """The id that a person means who names none: the tuned model where there is one."""
        return self.models[-1]

    def arguments(self) -> list[str]:
        """Command line of the server."""
        given = {"--model": self.model, "--adapter": self.adapter, "--tuned-model": self.tuned, "--gguf": self.gguf}
        arguments = [part for name, path in given.items() if path for part in (name, str(path.absolute()))]
        if self.kind != "gguf":
            arguments += ["--dtype", self.dtype]
        return [*arguments, "--trust-remote-code"] if self.trust_remote_code else arguments

    def loaded_as(self) -> tuple[object, ...]:
        """What a server was started from: command line, and size and time of the weights."""
        files = [folder / name for folder in (self.model, self.adapter, self.tuned) if folder for name in _WEIGHTS]
        found = [(str(path), path.stat()) for path in [*files, *([self.gguf] if self.gguf else [])] if path.exists()]
        return (*self.arguments(), *((path, status.st_mtime_ns, status.st_size) for path, status in found))

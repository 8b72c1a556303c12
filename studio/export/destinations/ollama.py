"""A run as a model of Ollama: GGUF files with a Modelfile, handed to `ollama create` where that program is."""

from __future__ import annotations

import shutil

from studio.export.ggufs import GgufExport
from studio.export.serving.modelfile import FILE
from studio.export.steps import run_step


class OllamaExport(GgufExport):
    """GGUF files of which the first becomes a model of Ollama."""

    def make(self) -> None:
        """Make and prove the files, then create the model if Ollama is here and its file answers as trained."""
        super().make()
        told, name = self.report["modelfile"], self.name.lower()
        told["created"] = None
        program = shutil.which("ollama")
        if program is None:
            told["notes"].append(f"Ollama is not on this machine; on one that has it: ollama create {name} -f {FILE}")
        elif self.report["files"][0]["verdict"] == "differs":
            told["notes"].append(f"no model was created, because the file differs from {self.source.origin.whole}")
        else:
            with self.context.phase("ollama create", None, ""):
                command = [program, "create", name, "-f", str(self.context.job.exports / FILE)]
                result = run_step(command, self.context, self.context.log)
            self.measured("ollama create", result)
            if result.code == 0:
                told["created"] = name
            else:
                told["notes"].append(
                    f"ollama create failed ({result.ending()}); when Ollama runs: ollama create {name} -f {FILE}"
                )
        for note in told["notes"]:
            self.context.notice("info", note)
        self.write_report()

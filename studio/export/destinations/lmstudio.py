"""A run as a model of LM Studio: GGUF files of which the first is imported where LM Studio's program is."""

from __future__ import annotations

import shlex
import shutil

from studio.export.ggufs import GgufExport
from studio.export.steps import run_step

# The name under which LM Studio lists models made here; it sorts them by publisher and model.
PUBLISHER = "finetune-studio"


class LmStudioExport(GgufExport):
    """GGUF files of which the first is handed to LM Studio."""

    def make(self) -> None:
        """Make and prove the files, then import the first, if it answers as trained."""
        super().make()
        first = self.report["files"][0]
        path = str(self.context.job.exports / first["file"])
        # It copies, so that the export stays whole.
        command = ["lms", "import", path, "--user-repo", f"{PUBLISHER}/{self.name}", "--yes", "--copy"]
        notes = [
            f"without its program: put the file into ~/.lmstudio/models/{PUBLISHER}/{self.name}/",
            "LM Studio and Jan have their own implementations of Jinja, which were not compared here",
        ]
        if shutil.which(command[0]) is None:
            notes.insert(0, "LM Studio's program lms is not on this machine; the command is for one that has it")
        elif first["verdict"] == "differs":
            notes.insert(0, f"nothing was imported, because the file differs from {self.source.origin.whole}")
        else:
            with self.context.phase("lms import", None, ""):
                result = run_step(command, self.context, self.context.log)
            self.measured("lms import", result)
            done = "LM Studio has the file now" if result.code == 0 else f"lms import failed ({result.ending()})"
            notes.insert(0, done)
        self.report["serving"] = {
            "server": "LM Studio", "name": self.name, "files": [], "notes": notes,
            "commands": [{"what": "Put it among LM Studio's models", "text": shlex.join(command)}],
        }  # fmt: skip
        for note in notes:
            self.context.notice("info", note)
        self.write_report()

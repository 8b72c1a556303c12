"""`studio`: the commands, and what an error becomes.

Exit codes: 0 done, 1 failed, 2 wrong input, 3 done but for what was left out, 130 stopped. With `--json` stdout holds
one JSON object, also for an error; everything that is for a person goes to stderr.
"""

from __future__ import annotations

import errno
import signal
import sys
import traceback
from typing import Any

import typer

from studio import __version__
from studio.cli.jobs import listing as jobs
from studio.cli.output import complain, has_answered, report_error, say, settle_streams, write
from studio.cli.page import doctor, password, ui
from studio.cli.work import chat, data, demo, interop, launch, merge, models, remote, results, serve, train
from studio.errors import InputError, StoppedError, StudioError
from studio.private import begin

# typer brings click inside itself and shows its classes only by way of this one.
_USAGE_ERROR: Any = typer.BadParameter.__mro__[1]

_RIGHTS = "Check who owns it and who may write there (ls -l), or point STUDIO_HOME to a folder of yours"
_REMEDIES = {
    errno.EACCES: _RIGHTS, errno.EPERM: _RIGHTS, errno.EROFS: "Point STUDIO_HOME to a disk that can be written",
}  # fmt: skip

app = typer.Typer(
    name="studio",
    help="Fine-tune a language model and take it away as a proven GGUF file.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
for module in (
    ui, demo, train, launch, results, serve, interop, merge, remote, chat, data, models, jobs, doctor, password,
):  # fmt: skip
    module.add_to(app)


@app.callback(invoke_without_command=True)
def _version(version: bool = typer.Option(False, "--version", help="Print the version.")) -> None:
    if version:
        write(f"finetune-studio {__version__}\n")
        raise typer.Exit


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return the exit code."""
    arguments = sys.argv[1:] if argv is None else argv
    as_json = "--json" in arguments
    settle_streams()
    try:
        if hasattr(signal, "pthread_sigmask"):  # not on Windows
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # blocked during the imports
        if said := begin():
            say(f"warning: {said}")
        code = app(args=arguments, prog_name="studio", standalone_mode=False)
        if code == StoppedError.exit_code and not has_answered():  # Ctrl-C, of which typer makes a code
            report_error(StoppedError("stopped"), as_json)
        return code if isinstance(code, int) else 0
    except StudioError as error:
        report_error(error, as_json)
        return error.exit_code
    except _USAGE_ERROR as error:
        context = getattr(error, "ctx", None)
        if type(error).__name__ == "NoArgsIsHelpError":  # a group without a command: its help is the answer
            complain(error.format_message())
            return InputError.exit_code
        hint = f"'{context.command_path} --help' shows the options" if context else "'studio --help' shows the commands"
        report_error(InputError(error.format_message(), fix=hint), as_json)
        return InputError.exit_code
    except (KeyboardInterrupt, typer.Abort):
        report_error(StoppedError("stopped"), as_json)
        return StoppedError.exit_code
    except OSError as error:
        report_error(_from_os(error), as_json)
        return 1
    except Exception as error:  # the boundary of the process: a person still gets a sentence
        complain(traceback.format_exc())
        report_error(StudioError(f"an unexpected error ({error})", fix="Please report it as a bug"), as_json)
        return 1


def _from_os(error: OSError) -> StudioError:
    place = str(error.filename) if error.filename else ""
    fix = _REMEDIES.get(error.errno or 0, "Check the path and the free space")
    return StudioError((error.strerror or str(error)).lower(), where=place, fix=fix)

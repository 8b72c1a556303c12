"""`studio password`, `studio link`, `studio sign-out`: who may open the page, from the terminal.

A password is asked for on the terminal only: an argument would be in the shell's history and in the list of
processes, where others on the machine read it.
"""

from __future__ import annotations

import sys
from getpass import getpass
from pathlib import Path
from typing import Annotated

import typer

from studio.cli.output import answer, say, write
from studio.cli.work.train import Json
from studio.errors import InputError
from studio.jobs.run.notify import PAGE
from studio.jobs.store.files import read_json
from studio.settings import read_settings


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command("password")(password)
    app.command("link")(link)
    app.command("sign-out")(sign_out)


def password(
    user: Annotated[str, typer.Option("--user", help="Name to sign in with.")] = "admin",
    file: Annotated[
        Path | None, typer.Option("--file", help="Login file to write to; without it, the line is printed.")
    ] = None,
) -> None:
    """Ask for a password and make its line for the file of STUDIO_LOGIN_FILE."""
    # Imports gradio's package with it, which no other command should pay.
    from studio.ui.server.login import hash_password, require_login_name, require_strong, write_login

    require_login_name(user)
    if not sys.stdin.isatty():
        raise InputError("a password is typed in a terminal", where="password", fix="Run this command in a terminal")
    given = getpass("Password: ")
    require_strong(given, "password")
    if getpass("Repeat password: ") != given:
        raise InputError("the passwords do not match", where="password", fix="Type the same password twice")
    hashed = hash_password(given)
    if file is None:
        write(f"{user}:{hashed}\n")
        return
    path = file.expanduser().absolute()
    known = write_login(path, user, hashed)
    say(f"{'new password' if known else 'login'} of {user} written. Start the page with STUDIO_LOGIN_FILE={path}")


def link(as_json: Json = False) -> None:
    """Print a link that opens the page once, where it was started with STUDIO_TOKEN=1; it lasts 12 hours."""
    from studio.ui.server.sessions import SessionFile

    home = read_settings().home
    try:
        page = read_json(home / PAGE)
    except ValueError:  # damaged: the page writes it anew when it is started
        page = None
    if not isinstance(page, dict) or not page.get("by_link"):
        raise InputError(
            "no page of this home opens with a link", where=str(home), fix="Start it with STUDIO_TOKEN=1 studio ui"
        )
    found = f"{page['address']}#link={SessionFile(home).new_link()}"
    answer(as_json, {"link": found}, found)


def sign_out(
    user: Annotated[str | None, typer.Option("--user", help="Only this name; by default everyone.")] = None,
    as_json: Json = False,
) -> None:
    """End the page's sessions everywhere, at once: browsers and scripts have to sign in again."""
    from studio.ui.server.sessions import SessionFile

    ended = SessionFile(read_settings().home).end_all(user)
    answer(as_json, {"ended": ended}, f"{ended} session{'' if ended == 1 else 's'} ended")

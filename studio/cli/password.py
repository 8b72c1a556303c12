"""`studio password`: a name and the hash of a password, for the page's login file.

The password is asked for on the terminal only: an argument would be in the shell's history and in the list of
processes, where others on the machine read it.
"""

from __future__ import annotations

import sys
from getpass import getpass
from pathlib import Path
from typing import Annotated

import typer

from studio.cli.output import say
from studio.errors import InputError


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command("password")(password)


def password(
    user: Annotated[str, typer.Option("--user", help="Name to sign in with.")] = "admin",
    file: Annotated[
        Path | None, typer.Option("--file", help="Login file to write it into; without one the line is printed.")
    ] = None,
) -> None:
    """Ask for a password and make its line for the file of STUDIO_LOGIN_FILE."""
    # Imports gradio's package with it, which no other command should pay.
    from studio.ui.login import hash_password, require_login_name, require_strong, write_login

    require_login_name(user)
    if not sys.stdin.isatty():
        raise InputError("a password is typed on a terminal", where="password", fix="Run this command in a terminal")
    given = getpass("Password: ")
    require_strong(given, "password")
    if getpass("Once more: ") != given:
        raise InputError("the two passwords differ", where="password", fix="Type the same one twice")
    hashed = hash_password(given)
    if file is None:
        print(f"{user}:{hashed}")
        return
    path = file.expanduser().absolute()
    known = write_login(path, user, hashed)
    say(f"{'new password' if known else 'login'} of {user} written. Start the page with STUDIO_LOGIN_FILE={path}")

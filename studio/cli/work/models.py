"""`studio models list`, `search`, `show` and `download`."""

from __future__ import annotations

from typing import Annotated

import typer

from studio.cli.output import answer, phase_line, stderr, table
from studio.cli.work.train import Json
from studio.models.catalog.hubaccess import require_hub_id
from studio.models.catalog.hubcard import find_models, hub_card
from studio.models.catalog.names import resolve_model
from studio.models.plan.browse import listed
from studio.settings import read_settings
from studio.train.runs import run_offers

group = typer.Typer(help="Find and download models.", no_args_is_help=True)
Id = Annotated[str, typer.Argument(metavar="ID", help="A Hub id, org/name.")]
Revision = Annotated[str, typer.Option("--revision", help="Branch, tag or commit.")]
PATIENCE = 20.0  # seconds for an answer of the Hub: nobody waits for a page here


def add_to(app: typer.Typer) -> None:
    """Register the command group."""
    app.add_typer(group, name="models")


@group.callback()
def _group() -> None:
    """Find and download models."""


@group.command("list")
def list_models(as_json: Json = False) -> None:
    """List runs with whole models, well-known models with what fits on this machine, and the models that are here."""
    settings = read_settings()
    found = [*run_offers(settings), *listed(settings)]
    rows = [
        (one["name"], one["family"], f"{one['parameters'] / 1e6:,.0f} M" if one["parameters"] else "",
         one["here"] or "on the Hub", one["memory"], one["words"])
        for one in found
    ]  # fmt: skip
    shown = table("model", "family", "parameters", "where", "memory", "how", rows=rows)
    answer(as_json, {"models": found}, shown)


@group.command("search")
def search(
    words: Annotated[str, typer.Argument(help="Part of the name.")],
    as_json: Json = False,
) -> None:
    """Search the Hub for models that can be trained, the most downloaded first."""
    found = find_models(words, seconds=PATIENCE)
    rows = [(one["name"], f"{one['downloads']:,}", "gated" if one["gated"] else "") for one in found]
    answer(as_json, {"models": found}, table("model", "downloads", "access", rows=rows))


@group.command("show")
def show(name: Id, revision: Revision = "main", as_json: Json = False) -> None:
    """Say what the Hub knows of a model: size, license, access."""
    card = hub_card(require_hub_id(name, "ID"), revision, seconds=PATIENCE)
    lines = [
        card.name,
        f"download: {card.bytes / 1e9:.2f} GB",
        *([f"parameters: {card.parameters:,}"] if card.parameters else []),
        f"license: {card.license or 'not named'}",
        f"access: {'gated: ' + card.gated if card.gated else 'open to all'}",
        *([card.refusal] if card.refusal else []),
    ]
    answer(as_json, card.as_dict(), "\n".join(lines))


@group.command("download")
def download(name: Id, revision: Revision = "main", as_json: Json = False) -> None:
    """Download a model, so that plan and token view know it before a run. Ctrl-C stops; the next call continues."""
    with stderr.status("") as status:
        found = resolve_model(
            require_hub_id(name, "ID"), read_settings(), revision=revision,
            on_progress=lambda *phase: status.update(phase_line(*phase)),
        )  # fmt: skip
    answer(as_json, {"name": found.name, "path": str(found.path)}, f"{found.name} lies in {found.path}")

"""The look: contrast of the tokens in light and dark, and assets that carry their content in their address."""

from __future__ import annotations

import re

import pytest

from studio.settings import ASSETS
from studio.ui.server.theme import asset_url, page_head, served_assets, studio_theme

LOOK = (ASSETS / "core" / "look.css").read_text()
TEXT_ON = [
    ("--ink", "--page"), ("--ink", "--card"), ("--ink-2", "--page"), ("--ink-2", "--card"), ("--ink-2", "--sunken"),
    ("--ink-3", "--card"), ("--brand-ink", "--brand-soft"), ("--brand-on", "--brand-fill"), ("--good", "--good-soft"),
    ("--good", "--card"), ("--warn", "--warn-soft"), ("--bad", "--bad-soft"), ("--bad", "--card"),
    ("--ink-2", "--brand-soft"),
    ("--ink-2", "--bad-soft"), ("--ink-2", "--warn-soft"),
]  # fmt: skip


def tokens(theme: str) -> dict[str, str]:
    blocks = re.findall(r"^(:root|\.dark)[^{]*\{([^}]*)\}", LOOK, re.MULTILINE)
    found: dict[str, str] = {}
    for name, body in blocks:
        if name == ":root" or theme == "dark":
            found |= dict(re.findall(r"(--[\w-]+):\s*(#[0-9a-f]{6})", body))
    return found


def luminance(colour: str) -> float:
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize(("text", "ground"), TEXT_ON)
def test_text_has_contrast(theme: str, text: str, ground: str) -> None:
    colours = tokens(theme)
    assert contrast(colours[text], colours[ground]) >= 4.5


def test_theme_names_only_variables_and_tokens_that_exist() -> None:
    css = studio_theme()._get_theme_css()
    used = set(re.findall(r"var\((--(?:ink|line|page|card|sunken|brand|good|warn|bad)[\w-]*)\)", css))
    assert used and used <= set(tokens("light"))


def test_addresses_change_with_the_content() -> None:
    assert re.fullmatch(r"/studio/core/look\.css\?v=[0-9a-f]{12}", asset_url("core/look.css"))
    head = page_head()
    assert head.index("look.css") < head.index("studio.js")
    assert "http" not in head.replace("http-equiv", "")
    assert {"core/look.css", "core/studio.js", "training/monitor.js", "plotly.min.js", "core/icon.svg"} <= set(
        served_assets()
    )

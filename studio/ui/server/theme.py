"""Colours and fonts of gradio's own components, and the addresses of our styles and scripts.

The tokens live in assets/core/look.css; the theme only points gradio's variables at them, so that light and dark
switch in one place. Fonts are the files that gradio ships: no request leaves the machine.
"""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

import gradio as gr

from studio.settings import ASSETS

# The folders of assets/ with what the page is made of, in the order of their styles, and the kinds of files served.
ROOMS = ("core", "form", "session", "runs", "chat", "data", "export", "model", "charts", "training")
SERVED = (".css", ".js", ".svg")
DOCS_STYLE = "core/docs.css"  # of the pages of docs/, not of the studio's own


def studio_theme() -> gr.themes.Base:
    """Return the theme: indigo on slate, IBM Plex in the weights whose files exist (400 and 700)."""
    sans = gr.themes.LocalFont("IBM Plex Sans", weights=(400, 700))
    mono = gr.themes.LocalFont("IBM Plex Mono", weights=(400, 700))
    theme = gr.themes.Base(
        primary_hue="indigo",
        secondary_hue="indigo",
        neutral_hue="slate",
        font=[sans, "system-ui", "sans-serif"],
        font_mono=[mono, "ui-monospace", "monospace"],
        radius_size=gr.themes.sizes.radius_sm,
        spacing_size=gr.themes.sizes.spacing_md,
        text_size=gr.themes.sizes.text_md,
    )
    colours = {name: f"var({token})" for name, token in _TOKENS.items()}
    return theme.set(**_both(colours | _SHAPES))


# gradio's variable → our token. Each is set for light and dark: the token itself switches.
_TOKENS = {
    "body_background_fill": "--page",
    "body_text_color": "--ink",
    "body_text_color_subdued": "--ink-2",
    "background_fill_primary": "--card",
    "background_fill_secondary": "--sunken",
    "border_color_primary": "--line",
    "border_color_accent": "--brand",
    "color_accent_soft": "--brand-soft",
    "block_background_fill": "--card",
    "block_border_color": "--line",
    "block_label_background_fill": "--card",
    "block_label_text_color": "--ink-2",
    "block_title_text_color": "--ink",
    "block_info_text_color": "--ink-2",
    "panel_background_fill": "--card",
    "input_background_fill": "--card",
    "input_border_color": "--line-2",
    "input_border_color_focus": "--brand",
    "input_placeholder_color": "--ink-3",
    "button_primary_background_fill": "--brand-fill",
    "button_primary_background_fill_hover": "--brand-fill-2",
    "button_primary_text_color": "--brand-on",
    "button_primary_border_color": "--brand-fill",
    "button_secondary_background_fill": "--card",
    "button_secondary_background_fill_hover": "--sunken",
    "button_secondary_text_color": "--ink",
    "button_secondary_border_color": "--line-2",
    "button_cancel_background_fill": "--card",
    "button_cancel_background_fill_hover": "--bad-soft",
    "button_cancel_text_color": "--bad",
    "button_cancel_border_color": "--line-2",
    "checkbox_background_color": "--card",
    "checkbox_background_color_selected": "--brand-fill",
    "checkbox_border_color": "--line-3",
    "checkbox_border_color_selected": "--brand-fill",
    "checkbox_label_background_fill": "--card",
    "checkbox_label_background_fill_selected": "--brand-soft",
    "checkbox_label_border_color": "--line-2",
    "checkbox_label_border_color_selected": "--brand",
    "checkbox_label_text_color": "--ink",
    "checkbox_label_text_color_selected": "--brand-ink",
    "table_border_color": "--line",
    "table_even_background_fill": "--card",
    "table_odd_background_fill": "--card",
    "table_text_color": "--ink",
    "slider_color": "--brand",
    "link_text_color": "--brand-ink",
    "link_text_color_hover": "--brand-ink",
    "error_text_color": "--bad",
    "error_border_color": "--bad",
    "error_background_fill": "--bad-soft",
}


# What is not a colour and so has one value.
_SHAPES = {
    "block_shadow": "none",
    "button_primary_shadow": "none",
    "input_shadow": "none",
    "input_shadow_focus": "0 0 0 1px var(--brand)",
    "input_border_width": "1px",
    "input_radius": "6px",
    "input_padding": "7px 10px",
    "button_border_width": "1px",
    "button_large_padding": "7px 14px",
    "button_medium_padding": "6px 12px",
    "button_small_padding": "4px 11px",
    "button_large_text_size": "13.5px",
    "button_medium_text_size": "13.5px",
    "button_small_text_size": "13px",
    "button_large_text_weight": "700",
    "button_medium_text_weight": "700",
    "button_small_text_weight": "700",
    "button_large_radius": "6px",
    "button_medium_radius": "6px",
    "button_small_radius": "6px",
    "block_radius": "10px",
    "block_title_text_weight": "700",
    "block_title_text_size": "13px",
    "block_label_text_weight": "700",
    "block_info_text_size": "12px",
    "checkbox_border_width": "1px",
}


def _both(values: dict[str, str]) -> dict[str, str]:
    """Set each variable for light and, where gradio has one, for dark."""
    return values | {f"{name}_dark": value for name, value in values.items() if f"{name}_dark" in _dark_names()}


@functools.cache
def _dark_names() -> frozenset[str]:
    return frozenset(name for name in vars(gr.themes.Base()) if name.endswith("_dark"))


def served_assets() -> dict[str, Path]:
    """Return the files that the page may fetch from /studio/, by room and name: nothing else is served there."""
    import plotly  # light: only its folder is wanted

    found = [path for room in ROOMS for path in sorted((ASSETS / room).iterdir()) if path.suffix in SERVED]
    files = {path.relative_to(ASSETS).as_posix(): path for path in found}
    return files | {"plotly.min.js": Path(plotly.__file__).parent / "package_data" / "plotly.min.js"}


@functools.cache
def asset_url(name: str) -> str:
    """Return the address of an asset with its content in it, so that a browser may keep it for ever."""
    digest = hashlib.sha256(served_assets()[name].read_bytes()).hexdigest()[:12]
    return f"/studio/{name}?v={digest}"


def script_tags(*names: str) -> str:
    """Return script elements for a component's `head`: gradio loads them, in order, before its `js_on_load`."""
    return "".join(f'<script src="{asset_url(name)}"></script>' for name in names)


def page_head() -> str:
    """Return what goes into the page's head: the styles (look.css first), the icon, and what all scripts share."""
    first = "core/look.css"
    others = (name for name in served_assets() if name.endswith(".css") and name not in (first, DOCS_STYLE))
    styles = [first, *others]
    links = "".join(f'<link rel="stylesheet" href="{asset_url(name)}">' for name in styles)
    shared = ("elements", "shell", "typed", "requests", "words", "studio", "refused", "headline")
    scripts = script_tags(*(f"core/{name}.js" for name in shared))
    return f'{links}<link rel="icon" type="image/svg+xml" href="{asset_url("core/icon.svg")}">{scripts}'

"""What New run asks: what the draft begins with. Filled and answered by assets/runs/newrun.js."""

from __future__ import annotations

from html import escape

from studio.config.presets import preset_names, preset_title

_GROUPS = {"methods": "Methods, on your data", "models": "Models", "demo": "Demos"}


def dialog() -> str:
    """The markup of the dialog, with all presets."""
    groups = [
        f'<optgroup label="{title}">'
        + "".join(_choice(name) for name in preset_names() if name.startswith(f"{folder}/"))
        + "</optgroup>"
        for folder, title in _GROUPS.items()
    ]
    return f"""
<dialog class="ask new-run-ask" data-new="ask" aria-labelledby="new-run-title">
  <h3 id="new-run-title">New run</h3>
  <p class="muted">This replaces the current draft. Runs already started are not affected.</p>
  <button type="button" class="btn new-choice" data-new="empty"><b>Empty</b>
    <small>Default settings; model, data and method are yours to choose</small></button>
  <button type="button" class="btn new-choice" data-new="run" hidden><b></b><small></small></button>
  <div class="new-choice">
    <label><b>From a preset</b> <select class="field-input" data-new="preset">{"".join(groups)}</select></label>
    <small class="muted" data-new="about"></small>
    <button type="button" class="btn small primary" data-new="go">Use this preset</button>
  </div>
  <div class="row-flex"><span class="grow"></span>
    <button type="button" class="btn" data-new="no">Cancel</button></div>
</dialog>"""


def _choice(name: str) -> str:
    return (
        f'<option value="{escape(name)}" title="{escape(preset_title(name))}">{escape(name.partition("/")[2])}</option>'
    )

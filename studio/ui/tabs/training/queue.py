"""What the Training tab offers for a run that waits (another place in the line, other settings), and for any run: a
copy of it. The markup is constant; assets/queue.js shows what the selected run allows."""

from __future__ import annotations

from studio.ui.tabs.training.branch import BUTTONS

ACTS = f"""<div class="row-flex wrap-flex queue-acts" data-part="queue-acts" hidden>
    <button type="button" class="btn small" data-act="up">Move up</button>
    <button type="button" class="btn small" data-act="down">Move down</button>
    <button type="button" class="btn small" data-act="edit">Edit</button>
    <button type="button" class="btn small" data-act="duplicate">Duplicate</button>{BUTTONS}
    <span class="muted" data-act="said" role="status"></span>
  </div>"""

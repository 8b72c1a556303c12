"""What the Training tab offers for a run: another place in line, other settings while it waits, a copy, another run.

The markup is constant; assets/training/queue.js shows what the selected run allows, branch.js beside it asks how to
go on.
"""

from __future__ import annotations

ACTS = """<div class="row-flex wrap-flex queue-acts" data-part="queue-acts" hidden>
    <button type="button" class="btn small" data-act="up">Move up</button>
    <button type="button" class="btn small" data-act="down">Move down</button>
    <button type="button" class="btn small" data-act="edit">Edit</button>
    <button type="button" class="btn small" data-act="duplicate">Use as draft</button>
    <button type="button" class="btn small" data-act="branch" hidden>Branch …</button>
    <button type="button" class="btn small" data-act="extend" hidden>Extend …</button>
    <span class="muted" data-act="said" role="status"></span>
  </div>"""

DIALOGS = """
  <dialog class="ask" data-branch="steps" aria-labelledby="branch-title">
    <h3 id="branch-title" data-branch="title"></h3>
    <p class="muted">The form gets this run's settings. Learning rate, scheduler and length may change from the
      checkpoint on; model, data, tuning and batch size stay, because the checkpoint fits no others.</p>
    <label class="row-flex">Start at step <select class="field-input" data-branch="step"></select></label>
    <div class="row-flex"><span class="grow"></span>
      <button type="button" class="btn" data-branch="no">Cancel</button>
      <button type="button" class="btn primary" data-branch="yes">Fill the form</button></div>
  </dialog>
  <dialog class="ask" data-extend="epochs" aria-labelledby="extend-title">
    <h3 id="extend-title" data-extend="title"></h3>
    <p class="muted">A new run starts at the last checkpoint and follows the schedule of the longer run. This run stays
      as it is.</p>
    <label class="row-flex">Additional epochs
      <input class="field-input num" type="number" min="0.1" step="any" value="1" data-extend="count"></label>
    <p class="wrong" role="alert" data-extend="said"></p>
    <div class="row-flex"><span class="grow"></span>
      <button type="button" class="btn" data-extend="no">Cancel</button>
      <button type="button" class="btn primary" data-extend="yes">Start</button></div>
  </dialog>
"""

"""What a person does with the selected job afterwards: name, tags, note, disk use, archive, delete.

The markup is constant; assets/training/keep.js fills it from the list of jobs and /api/jobs/ID/disk.
"""

from __future__ import annotations

import gradio as gr

from studio.jobs.store.labels import NAME_LENGTH, NOTE_LENGTH
from studio.ui.components.choices import drawn

TEMPLATE = f"""
<div class="studio keep"><section class="card" aria-label="Name, tags and disk" data-keep="card" hidden>
  <div class="row-flex wrap-flex"><h3>Name, tags and disk</h3><span class="grow"></span>
    <span class="muted" role="status" data-keep="said"></span></div>
  <form class="keep-form" data-keep="form">
    <label>Name <input type="text" class="field-input" maxlength="{NAME_LENGTH}" data-keep="name"></label>
    <label>Tags <input type="text" class="field-input" placeholder="words, such as: baseline good"
      data-keep="tags"></label>
    <label class="wide">Note <textarea class="field-input" rows="2" maxlength="{NOTE_LENGTH}"
      data-keep="note"></textarea></label>
    <div class="wide row-flex"><button type="submit" class="btn small" data-keep="save" disabled>Save</button>
      <span class="grow"></span>
      <button type="button" class="btn small" data-keep="archive">Archive</button></div>
  </form>
  <div class="row-flex num keep-size"><span class="muted">On disk</span><b data-keep="size"></b>
    <span class="muted" data-keep="shared"></span></div>
  <div class="stack" aria-hidden="true" data-keep="stack"></div>
  <div class="legend num" data-keep="parts"></div>
  <details class="keep-acts"><summary class="btn small">Delete …</summary>
    <div class="row-flex wrap-flex">
    <button type="button" class="btn small danger" data-keep="clean" hidden>Delete checkpoints</button>
    <button type="button" class="btn small danger" data-keep="delete">Delete job</button></div></details>
</section></div>
"""


def keep_card() -> gr.HTML:
    """Make the card of the selected job."""
    return drawn(TEMPLATE, "keep", "training/keep.js", elem_id="keep")

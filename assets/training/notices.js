/* What a run has to say beside its numbers: warnings, and why it ended, each with what a person can do at once:
   start again with the change that helps, and the log at the line that told it. */
"use strict";

window.studio.notices = (() => {
  const { h, put, linked } = window.studio;
  const SHOWN = 4, CHECK_MS = 180000;
  const WORDS = {
    "training.micro_batch_size": "micro-batch", "tuning.name": "tuning", "model.dtype": "data type",
    "data.max_length": "maximum length", "data.truncation": "truncation", "training.save_total_limit": "checkpoint limit",
    "training.early_stopping": "early stopping patience", "training.load_best_model_at_end": "best model at end",
    "training.activation_checkpointing": "activation checkpointing",
    "training.activation_offloading": "activation offloading", "training.max_grad_norm": "gradient clipping",
  };

  function sentence(text) {
    const whole = String(text);
    return whole ? whole[0].toUpperCase() + whole.slice(1) + (/[.?!]$/.test(whole) ? "" : ".") : "";
  }

  /** "micro-batch 1 and activation checkpointing" */
  function words(change) {
    const parts = Object.entries(change).map(([path, value]) => {
      const name = WORDS[path] || path.split(".").pop().replaceAll("_", " ");
      return value === true ? name : value === false ? `${name} off` : `${name} ${value}`;
    });
    return parts.length > 1 ? `${parts.slice(0, -1).join(", ")} and ${parts[parts.length - 1]}` : parts[0];
  }

  /** Start a run like this one with a change, and show it. */
  async function again(job, change, button, said) {
    const label = button.textContent;
    button.disabled = true;
    put(button, "Checking data and memory …");
    put(said, "");
    try {
      const signal = AbortSignal.timeout(CHECK_MS);
      const made = await window.studio.postJson(`${window.studio.jobPath(job)}/again`, { change }, { signal });
      await window.studio.refresh();
      window.studio.select(made.id);
    } catch (error) {
      put(said, `Could not start: ${error.message}`);
    }
    put(button, label);
    button.disabled = false;
  }

  function acts(job, notice, over) {
    const said = h("span", { role: "status" }), row = h("div", { class: "row-flex wrap-flex acts" });
    if (notice.change && Object.keys(notice.change).length) {
      const label = `${over ? "Restart" : "New run"} with ${words(notice.change)}`;
      row.append(h("button", { type: "button", class: "btn small", onclick: (event) => again(job, notice.change, event.currentTarget, said) }, label));
    }
    if (notice.line) row.append(h("button", { type: "button", class: "btn small", onclick: () => window.studio.log.open(notice.line) }, "Show in the log"));
    return row.childNodes.length ? [row, said] : [];
  }

  /** Draw the notices of a reader of monitor.js into a box; nothing is touched while nothing changed. */
  function draw(box, reader) {
    const { state } = reader, seen = new Map();
    for (const notice of reader.notices) if (notice.level !== "info") seen.set(notice.text, notice);
    if (["failed", "lost"].includes(state.status) && state.reason) {
      seen.set(state.reason, { level: "error", text: state.reason, fix: state.fix, change: state.change, line: state.line });
    }
    const all = [...seen.values()].sort((a, b) => (a.level === "error" ? 0 : 1) - (b.level === "error" ? 0 : 1));
    const key = JSON.stringify([reader.id, state.final, ...all.map((notice) => [notice.level, notice.text, notice.fix, notice.change, notice.line])]);
    if (box.dataset.key === key) return;
    box.dataset.key = key;
    box.replaceChildren(...all.slice(0, SHOWN).map((notice) => h("div", { class: `notice ${notice.level === "error" ? "error" : "warning"}` },
      h("b", {}, sentence(notice.text)), notice.fix ? h("span", {}, ...linked(sentence(notice.fix))) : null, ...acts(reader.id, notice, state.final))));
    if (all.length > SHOWN) box.append(h("p", { class: "muted" }, `and ${all.length - SHOWN} more in the log`));
  }

  return { draw };
})();

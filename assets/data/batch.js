/* The first batch as the trainer gets it. Loaded after profile.js, whose `task` runs the work. */
(() => {
  const { h } = window.studio;
  const { subscribe, latest, task, tokenRun } = window.studioForm;
  const whole = (value) => value.toLocaleString("en-US");

  function firstBatch(piece) {
    const { element } = piece;
    let of = null;
    const { find, note } = task("batch", piece, (shown, about) => {
      of = about;
      find("batch-intro").hidden = true;
      find("batch-said").textContent = shown.said;
      find("batch-body").hidden = !shown.lines.length;
      find("batch-body").replaceChildren(...shown.lines.map(line));
      find("task-begin").textContent = "Show it again";
      stale();
    }, (now, say) => {
      if (now.state === "failed") say(now.error, "wrong");
    });
    const stale = () => {
      if (of === null) return;
      if (latest["data-values"] !== of) note("The settings have changed: this is the batch of the earlier ones.", "warn");
      else if (find("task-note").classList.contains("warn")) note("");
    };
    subscribe("data-values", element, stale);
  }

  function line(one) {
    const run = tokenRun(one.tokens);
    if (one.more) run.append(h("span", { class: "muted num" }, ` … ${whole(one.more)} more tokens `));
    if (one.padding) run.append(h("span", { class: "padding num" }, `${whole(one.padding)} × padding`));
    return h("div", { class: "batch-line" }, h("small", { class: "muted num" }, one.title), run);
  }

  Object.assign(window.studioForm, { firstBatch });
})();

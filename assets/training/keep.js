/* What a person does with a job afterwards: name, tags and note, what it takes on the disk, archive and delete. The card
   shows the selected job; the dialog that asks before a removal is shared with the list. */
"use strict";

window.studio.keep = (() => {
  const { h, put, bytes, fetchJson, postJson, jobPath, poll } = window.studio;
  const PARTS = [["checkpoints", "--c1"], ["model", "--c2"], ["exports", "--c3"], ["rest", "--c5"]];
  const REMOVAL_MS = 300000;
  let root = null, part = null, poller = null, dirty = false, filled = "";

  const visible = () => root !== null && root.isConnected && root.offsetParent !== null;

  /* ---- the card ---- */

  function mount(element) {
    if (element.dataset.mounted) return;
    element.dataset.mounted = "yes";
    root = element;
    part = (name) => root.querySelector(`[data-keep="${name}"]`);
    part("form").addEventListener("submit", (event) => { event.preventDefault(); save(); });
    part("form").addEventListener("input", () => { dirty = true; drawSave(); });
    part("archive").addEventListener("click", () => { const job = window.studio.selected(); label(job, { archived: !job.archived }); });
    part("delete").addEventListener("click", () => remove([window.studio.selected()], "job"));
    part("clean").addEventListener("click", () => remove([window.studio.selected()], "checkpoints"));
    window.studio.on("job", () => { dirty = false; filled = ""; clear(); fill(); poller?.now(); });
    window.studio.on("jobs", fill);
    poller = poll(readDisk);
    new IntersectionObserver(() => { if (visible()) poller.now(); }).observe(root);
    fill();
  }

  /** What the card showed was of another job. */
  function clear() {
    for (const name of ["said", "size", "shared"]) put(part(name), "");
    part("stack").replaceChildren();
    part("parts").replaceChildren();
    part("clean").hidden = true;
  }

  /** Show the labels of the selected job; what is being typed stays. */
  function fill() {
    const job = window.studio.selected();
    part("card").hidden = !job;
    if (!job) return;
    const over = window.studio.isFinal(job);
    put(part("archive"), job.archived ? "Unarchive" : "Archive");
    part("delete").disabled = part("clean").disabled = !over;
    part("delete").title = part("clean").title = over ? "" : "Stop the job first";
    part("name").placeholder = job.asked_name || job.id;
    const values = [job.name === job.asked_name ? "" : job.name, (job.tags || []).join(" "), job.note || ""];
    if (!dirty && filled !== JSON.stringify([job.id, values])) {
      filled = JSON.stringify([job.id, values]);
      [part("name").value, part("tags").value, part("note").value] = values;
    }
    drawSave();
  }

  function drawSave() {
    part("save").disabled = !dirty;
  }

  const words = (text) => text.split(/[\s,;]+/).map((word) => word.replace(/^#/, "")).filter(Boolean);

  async function save() {
    const job = window.studio.selected();
    if (await label(job, { name: part("name").value, tags: words(part("tags").value), note: part("note").value })) {
      dirty = false;
      put(part("said"), "saved");
      fill();
    }
  }

  async function label(job, values) {
    put(part("said"), "");
    try {
      await postJson(`${jobPath(job.id)}/labels`, values);
      await window.studio.refresh();
      return true;
    } catch (error) {
      put(part("said"), error.message);
      return false;
    }
  }

  async function readDisk() {
    const job = window.studio.selected();
    if (!visible() || !job) return 1000;
    const use = await fetchJson(`${jobPath(job.id)}/disk`);
    if (window.studio.selected()?.id !== job.id) return 0;
    const known = PARTS.filter(([name]) => use[name] > 0);
    put(part("size"), bytes(use.total));
    part("stack").replaceChildren(...known.map(([name, colour]) => h("i", { style: `width:${(100 * use[name]) / use.total}%;background:var(${colour})` })));
    part("parts").replaceChildren(...known.map(([name, colour]) => h("span", {}, h("i", { style: `background:var(${colour})` }), `${name} ${bytes(use[name])}`)));
    put(part("shared"), use.shared ? `${bytes(use.shared)} of it is shared with files elsewhere` : "");
    part("clean").hidden = !use.checkpoints;
    return 10000;
  }

  /* ---- asking before something is removed ---- */

  let dialog = null;

  function makeDialog() {
    const made = {
      title: h("h3", { id: "keep-ask-title" }), lines: h("ul"), bar: h("div", { class: "bar" }, h("i")),
      no: h("button", { type: "button", class: "btn", onclick: () => made.box.close() }, "Cancel"), yes: h("button", { type: "button", class: "btn danger" }, "Delete"),
    };
    made.box = h("dialog", { class: "ask studio keep-ask", "aria-labelledby": "keep-ask-title" }, made.title, made.lines, made.bar,
      h("div", { class: "row-flex" }, h("span", { class: "grow" }), made.no, made.yes));
    made.box.addEventListener("cancel", (event) => { if (made.busy) event.preventDefault(); });
    document.querySelector(".gradio-container").append(made.box);
    return made;
  }

  function show(title, lines, { no = "Cancel", yes = "" } = {}) {
    dialog ??= makeDialog();
    put(dialog.title, title);
    dialog.lines.replaceChildren(...lines.map((line) => h("li", {}, line)));
    dialog.bar.hidden = true;
    put(dialog.no, no);
    dialog.no.disabled = dialog.yes.disabled = false;
    dialog.yes.hidden = !yes;
    put(dialog.yes, yes);
    dialog.busy = false;
    if (!dialog.box.open) dialog.box.showModal();
  }

  const tell = (title, ...lines) => show(title, lines, { no: "Close" });

  /** Ask, then remove jobs ("job") or only their checkpoints ("checkpoints"). */
  async function remove(jobs, what) {
    const ids = jobs.map((job) => job.id);
    let question = null;
    try {
      question = await postJson("/api/removal/question", { ids, what });
    } catch (error) {
      return tell("Could not delete", error.message);
    }
    if (question.refused.length) return tell("Nothing was deleted", ...question.refused);
    show(question.title, question.lines, { yes: what === "job" ? "Delete permanently" : "Delete the checkpoints" });
    dialog.yes.onclick = () => removeAll(ids, what);
  }

  async function removeAll(ids, what) {
    const going = new Set(ids), studio = window.studio;
    dialog.busy = dialog.no.disabled = dialog.yes.disabled = true;
    dialog.bar.hidden = ids.length < 2;
    // Nothing on the page may ask for a job that is not there any more.
    if (what === "job") {
      studio.compare.forget(ids);
      if (going.has(studio.state.job)) studio.select(studio.state.jobs.find((job) => !going.has(job.id) && !window.studio.organise.away(job))?.id || "");
    }
    try {
      for (const [index, id] of ids.entries()) {
        dialog.bar.firstElementChild.style.width = `${(100 * index) / ids.length}%`;
        await postJson("/api/removal", { ids: [id], what }, { signal: AbortSignal.timeout(REMOVAL_MS) });
      }
      dialog.box.close();
      if (what === "job") studio.organise.choosing(false);
    } catch (error) {
      tell("Not everything was deleted", error.message);
    }
    dialog.busy = false;
    studio.refresh();
    poller?.now();
  }

  return { mount, remove, tell };
})();

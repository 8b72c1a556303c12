/* Whose a tab is: Model, Data and Method describe the draft, the next run; Training, Chat and Export the selected job.
   Each tab says so in its first line, and the list has the draft as its first entry. */
"use strict";

window.studio.whose = (() => {
  const { h, put } = window.studio;
  const DRAFT = ["model", "data", "method"], WORK = { train: "Run", evaluate: "Evaluation of", export: "Export of", merge: "Merge", openai: "Job at OpenAI" };
  const lines = new Set();
  let entry = null, last = "model"; // the tab of the draft that was open last

  function draw() {
    const { tab, summaries } = window.studio.state, job = window.studio.selected();
    for (const line of lines) {
      if (!line.isConnected) { lines.delete(line); continue; }
      put(line.firstElementChild, job ? `${WORK[job.kind] || "Job"} ${job.name || job.id}` : "No run is selected");
      put(line.lastElementChild, job ? "" : "Pick one in the list, or start one from the draft.");
    }
    document.body.dataset.place = DRAFT.includes(tab) ? "draft" : "job";
    if (DRAFT.includes(tab)) last = tab;
    if (!entry) return;
    put(entry.querySelector("small"), DRAFT.map((name) => summaries[name]).filter(Boolean).join(" · ") || "the settings of your next run");
    entry.setAttribute("aria-current", String(DRAFT.includes(tab)));
  }

  /** The first line of a tab of the selected job. */
  function mount(element) {
    lines.add(element.querySelector(".whose"));
    draw();
  }

  /** The draft's entry above the list; `close` shuts the drawer of a narrow screen. */
  function mountEntry(button, close) {
    entry = button;
    button.addEventListener("click", () => { window.studio.openTab(last); close(); });
    draw();
  }

  for (const news of ["job", "jobs", "tab", "summary"]) window.studio.on(news, draw);
  return { mount, mountEntry };
})();

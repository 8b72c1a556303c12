/* The settings of the selected run, read when the fold is opened. */
"use strict";

window.studio.settings = (() => {
  const { h, put, fetchJson, jobPath } = window.studio;
  let root = null, shown = "";

  const part = (name) => root.querySelector(`[data-settings="${name}"]`);

  const group = (name, rows) =>
    h("tbody", {},
      h("tr", {}, h("th", { colspan: 2, scope: "rowgroup" }, name[0].toUpperCase() + name.slice(1))),
      ...rows.map((row) => h("tr", { class: row.changed ? "changed" : null }, h("td", { title: row.key }, row.title), h("td", {}, row.text))));

  async function read() {
    const job = window.studio.selected();
    // What waits can be edited, and what begins has a plan, which says what each auto became.
    const wanted = job && `${job.id} ${job.status}`;
    if (!root.open || root.hidden || (shown === wanted && job.status !== "queued")) return;
    if (!shown.startsWith(`${job.id} `)) {
      root.querySelectorAll("tbody").forEach((body) => body.remove());
      put(part("count"), "");
    }
    shown = wanted;
    try {
      const { settings, note } = await fetchJson(`${jobPath(job.id)}/settings`);
      if (shown !== wanted) return; // another run was chosen meanwhile
      const groups = new Set(settings.map((row) => row.key.split(".")[0]));
      root.querySelectorAll("tbody").forEach((body) => body.remove());
      root.querySelector("table").append(...[...groups].map((name) => group(name, settings.filter((row) => row.key.startsWith(`${name}.`)))));
      put(part("count"), `${settings.filter((row) => row.changed).length} of ${settings.length} differ from the default`);
      put(part("note"), note);
    } catch (error) {
      if (shown !== wanted) return;
      shown = "";
      put(part("note"), error.message);
    }
  }

  function draw() {
    root.hidden = window.studio.selected()?.kind !== "train";
    read();
  }

  function mount(element) {
    root = element.querySelector(".run-settings");
    shown = "";
    root.addEventListener("toggle", read);
    part("take").addEventListener("click", () => window.studio.queue.take(window.studio.state.job, false));
    for (const news of ["job", "jobs"]) window.studio.on(news, draw);
    draw();
  }

  return { mount };
})();

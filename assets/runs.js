/* The left column: jobs that run, those that wait in their order, then the newest; with what a person looks for: does it run, how far, how good. */
"use strict";

window.studio.runs = (() => {
  const { h, put } = window.studio;
  const LEVELS = { queued: "wait", starting: "run-ing", running: "run-ing", stopping: "run-ing", completed: "ok", stopped: "off", failed: "bad", lost: "bad" };

  /** "step 52 of 84", "waiting, 2nd in line", "done 2 h ago" */
  function progress(job) {
    const studio = window.studio;
    if (job.status === "queued") return job.word;
    if (job.status === "stopping") return "stopping";
    if (!studio.isFinal(job)) {
      if (job.phase && job.phase !== "training" && job.total) return `${job.phase} ${Math.floor((100 * job.done) / job.total)} %`;
      return job.word;
    }
    const when = job.finished ? ` ${studio.ago(job.finished)}` : "";
    if (job.status === "completed") return `done${when}`;
    if (job.status === "stopped") return `stopped${when}`;
    return `${job.status}${job.reason ? `: ${job.reason}` : ""}`;
  }

  function makeItem(id) {
    const item = {
      dot: h("span", { class: "dot" }), name: h("b"), best: h("span", { class: "num" }), line: h("small"),
    };
    item.button = h("button", { type: "button", class: "run", onclick: () => choose(id) }, item.dot, item.name, item.best, item.line);
    item.moves = window.studio.queue.moves(id);
    item.row = h("li", {}, item.button, item.moves);
    return item;
  }

  let element = null;

  function choose(id) {
    window.studio.select(id);
    window.studio.openTab("training");
    setDrawer(false);
  }

  function setDrawer(open) {
    element.querySelector(".side").classList.toggle("open", open);
    element.querySelector(".runs-toggle").setAttribute("aria-expanded", String(open));
  }

  function mount(root) {
    if (root.dataset.mounted) return;
    root.dataset.mounted = "yes";
    element = root;
    const studio = window.studio, items = new Map();
    const list = root.querySelector(".runs"), problem = root.querySelector(".runs-problem"), toggle = root.querySelector(".runs-toggle");
    root.querySelector(".new-run").addEventListener("click", () => { studio.openTab("model"); setDrawer(false); });
    root.querySelector(".theme-toggle").addEventListener("click", () => studio.setDark(!studio.isDark()));
    toggle.addEventListener("click", () => setDrawer(toggle.getAttribute("aria-expanded") !== "true"));
    document.addEventListener("keydown", (event) => { if (event.key === "Escape") setDrawer(false); });

    function draw(jobs) {
      const waiting = jobs.filter((job) => job.status === "queued").length;
      const wanted = studio.queue.sorted(jobs).map((job) => {
        if (!items.has(job.id)) items.set(job.id, makeItem(job.id));
        const item = items.get(job.id), on = job.id === studio.state.job;
        item.dot.className = `dot ${LEVELS[job.status] || "off"}`;
        put(item.name, job.name || job.id);
        put(item.best, job.best === null ? (job.kind === "train" && !studio.isFinal(job) ? studio.NONE : "") : studio.number(job.best, 3));
        put(item.line, [job.line, progress(job)].filter(Boolean).join(" · "));
        item.button.title = [
          job.best === null ? "" : `best validation loss ${studio.number(job.best)}, step ${job.best_step}`,
          job.started && job.finished ? `took ${studio.duration(job.finished - job.started)}` : "",
        ].filter(Boolean).join("; ");
        studio.queue.drawMoves(item.moves, job, waiting);
        item.button.classList.toggle("on", on);
        if (on) item.button.setAttribute("aria-current", "true"); else item.button.removeAttribute("aria-current");
        return item.row;
      });
      for (const id of items.keys()) if (!jobs.some((job) => job.id === id)) items.delete(id);
      if (wanted.length !== list.children.length || wanted.some((row, index) => list.children[index] !== row)) {
        const focused = document.activeElement;
        list.replaceChildren(...wanted);
        if (list.contains(focused)) focused.focus(); // a row that was moved keeps it
      }
      const active = jobs.filter((job) => !studio.isFinal(job)).length;
      put(toggle, active ? `Runs (${active})` : "Runs");
    }

    studio.on("jobs", draw);
    studio.on("job", () => draw(studio.state.jobs));
    studio.onProblem((text) => put(problem, text));
    draw(studio.state.jobs);

    const device = root.querySelector(".device");
    studio.poll(async () => {
      const line = await studio.fetchJson("/api/device");
      device.replaceChildren(line.first, h("br"), line.second, ...line.devices.flatMap((text) => [h("br"), text]));
      return 10000;
    });
  }

  return { mount };
})();

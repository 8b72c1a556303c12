/* The left column: jobs with what a person looks for: does it run, how far, how good. Those that run come first, then
   those that wait in their order. Which are shown organise.js says; at most PAGE rows are drawn until more are asked for. */
"use strict";

window.studio.runs = (() => {
  const { h, put } = window.studio;
  const PAGE = 100;

  /** As `wording`, and the other machine that works on it: "step 52 of 84 · on gpu-box" */
  const progress = (job) => (job.machine ? `${wording(job)} · on ${job.machine}` : wording(job));

  /** "step 52 of 84", "waiting, 2nd in line", "done 2 h ago" */
  function wording(job) {
    const studio = window.studio;
    if (job.status === "queued") return job.word;
    const word = studio.statusOf(job).word.toLowerCase();
    if (job.status === "stopping") return word;
    if (!studio.isFinal(job)) {
      return job.share ? `${studio.percent(job.share)} % · ${job.word}` : job.word;
    }
    const when = job.finished ? ` ${studio.ago(job.finished)}` : "";
    return ["completed", "stopped"].includes(job.status) ? `${word}${when}` : `${word}${job.reason ? `: ${job.reason}` : ""}`;
  }

  function makeItem(id) {
    const item = {
      dot: h("span", { class: "dot" }), name: h("b"), best: h("span", { class: "num" }), line: h("small"),
      tick: h("input", { type: "checkbox", onchange: (event) => window.studio.organise.toggle(id, event.target.checked) }),
    };
    item.button = h("button", { type: "button", class: "run", onclick: () => choose(id) }, item.dot, item.name, item.best, item.line);
    item.moves = window.studio.queue.moves(id);
    item.row = h("li", {}, h("label", { class: "tick" }, item.tick), item.button, item.moves);
    return item;
  }

  let element = null;

  function choose(id) {
    if (window.studio.organise.state.choosing) return window.studio.organise.toggle(id);
    window.studio.compare.close();
    window.studio.select(id);
    window.studio.openTab("training");
    setDrawer(false);
  }

  function setDrawer(open) {
    element.querySelector(".side").classList.toggle("open", open);
    element.querySelector(".runs-toggle").setAttribute("aria-expanded", String(open));
  }

  const WORK = { evaluate: "Evaluation", export: "Export" };

  /** The jobs with each evaluation and export below its run; a run and what belongs to it stand where the first of them did. */
  function familied(jobs) {
    const byId = new Map(jobs.map((job) => [job.id, job])), under = new Set(), families = new Map();
    for (const job of jobs) {
      const head = job.kind in WORK && byId.has(job.run) ? job.run : job.id;
      if (!families.has(head)) families.set(head, []);
      if (head !== job.id) { families.get(head).push(job); under.add(job.id); }
    }
    return { ordered: [...families].flatMap(([id, members]) => [byId.get(id), ...members]), under };
  }

  /** What stands at the right: the size where the list is in that order, else the best validation loss. */
  function figure(job, organised) {
    const studio = window.studio;
    if (organised.order === "size") return job.id in organised.sizes ? studio.bytes(organised.sizes[job.id]) : "…";
    return job.best === null ? (job.kind === "train" && !studio.isFinal(job) ? studio.NONE : "") : studio.number(job.best, 3);
  }

  function fillItem(item, job, organised, under) {
    const studio = window.studio, on = job.id === studio.state.job, name = job.name || job.id;
    item.row.classList.toggle("under", under);
    item.dot.className = `dot ${studio.statusOf(job).dot}`;
    put(item.name, under && job.name === job.asked_name ? WORK[job.kind] : name);
    put(item.best, figure(job, organised));
    const marks = [...(job.tags || []).map((tag) => `#${tag}`), job.archived ? "archived" : ""];
    put(item.line, [under ? "" : job.line, progress(job), ...marks].filter(Boolean).join(" · "));
    item.button.title = [
      job.best === null ? "" : `best validation loss ${studio.number(job.best)}, step ${job.best_step}`,
      job.started && job.finished ? `took ${studio.duration(Math.max(0, job.finished - job.started))}` : "",
      job.note ? job.note.slice(0, 300) : "",
    ].filter(Boolean).join("; ");
    item.button.classList.toggle("on", on);
    if (on) item.button.setAttribute("aria-current", "true"); else item.button.removeAttribute("aria-current");
    item.tick.checked = organised.chosen.has(job.id);
    item.tick.setAttribute("aria-label", `Select ${name}`);
  }

  /** The line above the runs of one sweep that stand together, which opens their comparison. */
  function groupRow(title, jobs) {
    const most = window.studio.compare.MOST, ids = jobs.slice(0, most).map((job) => job.id);
    const open = () => { window.studio.compare.open(ids); setDrawer(false); };
    return h("li", { class: "runs-group" }, h("span", {}, title), h("button", { type: "button", class: "btn quiet small", onclick: open },
      jobs.length > most ? `Compare the first ${most} of ${jobs.length}` : `Compare ${ids.length}`));
  }

  const groupTitle = (group) => group.replace(/-sweep-\d{8}-\d{6}$/, ": sweep"); // as jobs/sweep.py names them

  function mount(root) {
    if (root.dataset.mounted) return;
    root.dataset.mounted = "yes";
    element = root;
    const studio = window.studio, organise = studio.organise, items = new Map(), groups = new Map();
    const list = root.querySelector(".runs"), problem = root.querySelector(".runs-problem"), toggle = root.querySelector(".runs-toggle");
    let limit = PAGE;
    studio.newrun.mount(root, () => setDrawer(false));
    studio.whose.mountEntry(root.querySelector(".draft-entry"), () => setDrawer(false));
    root.querySelector(".theme-toggle").addEventListener("click", () => studio.setDark(!studio.isDark()));
    toggle.addEventListener("click", () => setDrawer(toggle.getAttribute("aria-expanded") !== "true"));
    document.addEventListener("keydown", (event) => { if (event.key === "Escape") setDrawer(false); });

    const more = h("button", { type: "button", class: "btn small", onclick: () => { limit += PAGE; draw(); } });
    const moreRow = h("li", { class: "runs-more" }, more);
    const away = h("button", { type: "button", class: "btn quiet small", onclick: () => organise.showArchived() });
    const awayRow = h("li", { class: "runs-more" }, away);

    function draw() {
      const waiting = studio.state.jobs.filter((job) => job.status === "queued").length;
      const found = organise.shown(studio.state.jobs), wanted = [];
      const newest = organise.state.order === "newest";
      const { ordered, under } = newest ? familied(found.jobs) : { ordered: found.jobs, under: new Set() }, drawn = ordered.slice(0, limit);
      const together = new Map();
      if (newest) for (const job of found.jobs) {
        const key = ["train", "merge"].includes(job.kind) ? job.group : "";
        if (key && !together.has(key)) together.set(key, []);
        if (key) together.get(key).push(job);
      }
      for (const job of drawn) {
        const members = together.get(job.group);
        if (members?.length > 1 && members[0] === job) {
          const ids = members.map((one) => one.id).join();
          if (groups.get(job.group)?.ids !== ids) groups.set(job.group, { ids, row: groupRow(groupTitle(job.group), members) });
          wanted.push(groups.get(job.group).row);
        }
        if (!items.has(job.id)) items.set(job.id, makeItem(job.id));
        fillItem(items.get(job.id), job, organise.state, under.has(job.id));
        studio.queue.drawMoves(items.get(job.id).moves, job, waiting);
        wanted.push(items.get(job.id).row);
      }
      const kept = new Set(drawn.map((job) => job.id));
      for (const id of items.keys()) if (!kept.has(id)) items.delete(id);
      const left = found.jobs.length - drawn.length;
      put(more, `Show ${Math.min(left, PAGE)} more of ${left}`);
      if (left) wanted.push(moreRow);
      put(away, `${found.hidden} archived: show`);
      if (found.hidden) wanted.push(awayRow);
      root.querySelector(".runs-none").hidden = found.jobs.length > 0 || found.hidden === studio.state.jobs.length;
      if (wanted.length !== list.children.length || wanted.some((row, index) => list.children[index] !== row)) {
        const focused = document.activeElement;
        list.replaceChildren(...wanted);
        if (list.contains(focused)) focused.focus(); // a row that was moved keeps it
      }
      const active = studio.state.jobs.filter((job) => !studio.isFinal(job)).length;
      put(toggle, active ? `Runs (${active})` : "Runs");
    }

    organise.mount(root, (fresh) => { if (fresh) limit = PAGE; draw(); });
    studio.on("jobs", draw);
    studio.on("job", draw);
    studio.onProblem((text) => put(problem, text));
    draw();

    const device = root.querySelector(".device");
    studio.poll(async () => {
      const line = await studio.fetchJson("/api/device");
      device.replaceChildren(line.first, h("br"), line.second, ...line.devices.flatMap((text) => [h("br"), text]));
      return 10000;
    });
  }

  return { mount, setDrawer };
})();

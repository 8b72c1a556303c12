/* Which jobs the list at the left shows, and which of them are chosen: search, filters, order, and the choice of
   several for comparing, archiving or deleting. Draws no rows itself: runs.js does. */
"use strict";

window.studio.organise = (() => {
  const { h, put } = window.studio;
  const SIZES_EVERY = 30000;
  const state = { words: [], status: "", tag: "", order: "newest", archived: false, choosing: false, chosen: new Set(), sizes: {} };
  let root = null, part = null, redraw = () => {}, sizes = null;

  /* ---- what is shown ---- */

  const text = (job) => [job.name, job.asked_name, job.id, job.line, job.note, ...(job.tags || []).map((tag) => `#${tag}`)].join("\n").toLowerCase();

  /** What is put away and over; what runs is shown until it is, whoever archived it. */
  const away = (job) => job.archived && window.studio.isFinal(job);

  function fits(job) {
    if (away(job) && !state.archived) return false;
    if (state.status && window.studio.statusOf(job).group !== state.status) return false;
    if (state.tag && !(job.tags || []).includes(state.tag)) return false;
    if (!state.words.length) return true;
    const all = text(job);
    return state.words.every((word) => all.includes(word));
  }

  const ORDERS = {
    newest: null, // as they come: those that run and wait before them
    best: (a, b) => (a.best ?? Infinity) - (b.best ?? Infinity),
    size: (a, b) => (state.sizes[b.id] ?? -1) - (state.sizes[a.id] ?? -1),
  };

  /** The jobs that fit, in the wanted order; how many archived ones are left out. */
  function shown(jobs) {
    const found = window.studio.queue.sorted(jobs.filter(fits));
    if (ORDERS[state.order]) found.sort(ORDERS[state.order]); // stable: newest first among equals
    return { jobs: found, hidden: state.archived ? 0 : jobs.reduce((count, job) => count + (away(job) ? 1 : 0), 0) };
  }

  /* ---- the tools ---- */

  function mount(element, draw) {
    root = element;
    redraw = draw;
    part = (name) => root.querySelector(`[data-runs="${name}"]`);
    part("search").addEventListener("input", (event) => set({ words: event.target.value.toLowerCase().split(/\s+/).filter(Boolean) }));
    for (const name of ["status", "tag", "order"]) part(name).addEventListener("change", (event) => { set({ [name]: event.target.value }); readSizes(); });
    part("archived").addEventListener("change", (event) => set({ archived: event.target.checked }));
    part("choose").addEventListener("click", () => choosing(!state.choosing));
    part("done").addEventListener("click", () => choosing(false));
    part("compare").addEventListener("click", () => window.studio.compare.open(chosen().map((job) => job.id)));
    part("archive").addEventListener("click", archive);
    part("delete").addEventListener("click", () => window.studio.keep.remove(chosen(), "job"));
    part("all").addEventListener("click", reset);
    window.studio.on("jobs", fill);
    fill(window.studio.state.jobs);
  }

  function set(changes) {
    Object.assign(state, changes);
    redraw(true);
  }

  function reset() {
    part("search").value = part("status").value = part("tag").value = "";
    set({ words: [], status: "", tag: "" });
  }

  function showArchived() {
    part("archived").checked = true;
    set({ archived: true });
  }

  /** The tags that there are, and what the chosen ones allow. */
  function fill(jobs) {
    part("tools").hidden = !jobs.length;
    const select = part("tag"), tags = [...new Set(jobs.flatMap((job) => job.tags || []))].sort();
    if (select.dataset.key !== tags.join()) {
      select.dataset.key = tags.join();
      const kept = tags.includes(state.tag) ? state.tag : "";
      select.replaceChildren(h("option", { value: "" }, "any"), ...tags.map((tag) => h("option", { value: tag }, tag)));
      select.value = kept;
      if (kept !== state.tag) set({ tag: kept });
    }
    drawActs();
  }

  /* ---- choosing several ---- */

  const chosen = () => window.studio.state.jobs.filter((job) => state.chosen.has(job.id));

  function choosing(on) {
    state.choosing = on;
    if (!on) state.chosen.clear();
    part("choose").setAttribute("aria-pressed", String(on));
    root.querySelector(".runs").classList.toggle("choosing", on);
    drawActs();
    redraw(false);
  }

  function toggle(id, on = !state.chosen.has(id)) {
    if (on) state.chosen.add(id); else state.chosen.delete(id);
    drawActs();
    redraw(false);
  }

  function drawActs() {
    part("acts").hidden = !state.choosing;
    if (!state.choosing) return;
    const jobs = chosen(), runs = jobs.filter((job) => ["train", "merge", "openai"].includes(job.kind)), most = window.studio.compare.MOST;
    put(part("chosen"), jobs.length ? `${jobs.length} selected` : "Select some jobs");
    put(part("compare"), `Compare ${jobs.length}`);
    part("compare").disabled = runs.length !== jobs.length || runs.length < 2 || runs.length > most;
    part("compare").title = runs.length !== jobs.length ? "Only what makes a model can be compared: runs, merges, jobs at OpenAI" : `Select 2 to ${most} runs`;
    const back = jobs.length > 0 && jobs.every((job) => job.archived);
    put(part("archive"), back ? "Unarchive" : "Archive");
    part("archive").disabled = part("delete").disabled = !jobs.length;
  }

  async function archive() {
    const jobs = chosen(), archived = !jobs.every((job) => job.archived);
    try {
      for (const job of jobs) await window.studio.postJson(`${window.studio.jobPath(job.id)}/labels`, { archived });
      choosing(false);
    } catch (error) {
      window.studio.keep.tell("Not all of them could be archived", error.message);
    }
    window.studio.refresh();
  }

  /* ---- sizes, only while the list is in their order ---- */

  function readSizes() {
    if (state.order !== "size") { sizes?.stop(); sizes = null; return; }
    sizes ??= window.studio.poll(async () => {
      const answer = await window.studio.fetchJson("/api/sizes");
      state.sizes = { ...state.sizes, ...answer.sizes };
      redraw(false);
      return answer.complete ? SIZES_EVERY : 100;
    });
  }

  return { mount, shown, away, toggle, choosing, showArchived, state };
})();

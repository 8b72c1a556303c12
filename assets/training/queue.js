/* The line of waiting jobs: moving one, and the form filled with a job's settings, to change one that waits or to make
   another run like it. What the form had before is kept here until the way out is taken or the settings are saved. */
"use strict";

window.studio.queue = (() => {
  const { h, put, postJson, jobPath, isFinal } = window.studio;
  const KEY = "studio.form-from";
  // {job, title, edit, step, kept}: whose settings the form has, whether they are saved there, at which checkpoint a
  // branch begins (0 for a run from its start), and what the form had before.
  let from = null;
  let root = null, number = 0;
  try { from = JSON.parse(sessionStorage.getItem(KEY)); } catch { /* another version wrote it */ }

  const rank = (job) => (isFinal(job) ? 2 : job.status === "queued" ? 1 : 0);

  /** Those that run, those that wait in their order, then the newest. */
  const sorted = (jobs) => [...jobs].sort((a, b) => rank(a) - rank(b) || (a.place ?? 0) - (b.place ?? 0));

  /* ---- another place in the line */

  async function move(id, to) {
    try {
      await postJson(`${jobPath(id)}/move`, { to });
      say("");
    } catch (error) {
      say(`Could not move it: ${error.message}`);
    }
    return window.studio.refresh();
  }

  /** The two buttons of a row in the list. */
  function moves(id) {
    const make = (to, sign) => {
      const button = h("button", { type: "button", class: "btn quiet", "data-to": to }, sign);
      button.addEventListener("click", () => { if (button.getAttribute("aria-disabled") !== "true") move(id, to); });
      return button;
    };
    return h("span", { class: "run-moves", hidden: true }, make("up", "▲"), make("down", "▼"));
  }

  /** Show them while the job waits with others; at an end of the line a button stays where it is, for the focus. */
  function drawMoves(box, job, waiting) {
    box.hidden = job.status !== "queued" || waiting < 2;
    const [up, down] = box.children;
    for (const [button, ends] of [[up, job.place === 1], [down, job.place === waiting]]) {
      button.setAttribute("aria-label", `Move ${job.name} ${button.dataset.to}`);
      button.setAttribute("aria-disabled", String(ends));
    }
  }

  /* ---- the form with a job's settings */

  function setFrom(value) {
    from = value;
    if (from) sessionStorage.setItem(KEY, JSON.stringify(from)); else sessionStorage.removeItem(KEY);
    window.studioForm?.publish("from", from);
  }

  const pause = (ms) => new Promise((done) => setTimeout(done, ms));

  async function ask(wish) {
    number += 1;
    const name = window.studioForm?.state.name || "";
    window.studio.setBox("form-fill", JSON.stringify({ ...wish, name, number: `${Date.now()}-${number}` }));
  }

  /** Fill the form with a job's settings: to be saved there (`edit`), to start another run, or one that begins at a
      checkpoint (`step`). */
  async function take(id, edit, step = 0) {
    if (await opened("method")) ask({ job: id, edit, step });
  }

  /** Begin the draft anew with a preset, or with the defaults where there is none ("" for that). */
  async function begin(preset) {
    if (await opened("model")) ask({ preset });
  }

  /** Open a tab of the form, and wait until it is drawn. */
  async function opened(tab) {
    window.studio.openTab(tab);
    for (let tries = 0; !window.studioForm?.latest.plan; tries += 1) { // the form is being drawn, or restores its draft
      if (tries > 600) { say("The form did not open; reload the page."); return false; }
      await pause(50);
    }
    return true;
  }

  /** The way out: what the form had before. */
  function back() {
    if (from) ask({ back: from.kept });
  }

  /** A handler has filled the form. */
  function filled(text) {
    const reply = JSON.parse(text), { state, setSweep } = window.studioForm;
    const kept = from?.edit ? from.kept : { ...reply.kept, sweep: state.sweep }; // not the half-done changes of another one
    state.name = reply.name;
    state.restored = true; // a draft's name must not come over it, where the form was not seen before
    setSweep(reply.job ? {} : from?.kept.sweep);
    setFrom(reply.job ? { job: reply.job, title: reply.title, edit: reply.edit, step: reply.step, kept } : null);
  }

  /** Start was pressed, and done: after changes to a waiting run the form gets back what it had. */
  function saved() {
    if (from?.edit) back(); else setFrom(null);
  }

  /** What the plan line says of the form's source. */
  function said() {
    if (!from) return "";
    if (from.step) return `A branch of ${from.title}: it starts at step ${from.step}.`;
    if (!from.edit) return `The settings of ${from.title}, for a new run.`;
    const job = window.studio.state.jobs.find((one) => one.id === from.job);
    if (!job) return `${from.title} is gone.`;
    return job.status === "queued" ? `Changing ${from.title}, which waits in the queue.` : `${from.title} has already started with its old settings.`;
  }

  /* ---- the acts of the Training tab */

  const act = (name) => root.querySelector(`[data-act="${name}"]`);

  function say(text) {
    if (root) put(act("said"), text);
  }

  function draw() {
    const job = window.studio.selected(), { jobs } = window.studio.state;
    root.hidden = !job;
    if (!job) return;
    const waits = job.status === "queued", waiting = jobs.filter((one) => one.status === "queued").length;
    act("up").hidden = act("down").hidden = !waits || waiting < 2;
    act("up").disabled = job.place === 1;
    act("down").disabled = job.place === waiting;
    act("edit").hidden = !waits || job.kind !== "train";
    act("duplicate").hidden = job.kind !== "train";
  }

  function mount(element) {
    root = element;
    const chosen = () => window.studio.state.job;
    act("up").addEventListener("click", () => move(chosen(), "up"));
    act("down").addEventListener("click", () => move(chosen(), "down"));
    act("edit").addEventListener("click", () => take(chosen(), true));
    act("duplicate").addEventListener("click", () => take(chosen(), false));
    window.studio.on("jobs", draw);
    window.studio.on("job", () => { say(""); draw(); });
    draw();
  }

  if (from) window.studioForm?.publish("from", from);

  return { sorted, moves, drawMoves, take, begin, filled, saved, back, said, mount, get from() { return from; } };
})();

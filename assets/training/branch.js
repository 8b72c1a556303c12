/* Going on with a run as another one: from a checkpoint with changed settings (the form), or for more epochs. */
"use strict";

window.studio.branch = (() => {
  const { h, put, number, fetchJson, postJson, jobPath } = window.studio;
  const CHECK_MS = 180000;
  let acts = null, root = null, asked = "";

  const act = (name) => acts.querySelector(`[data-act="${name}"]`);
  const branch = (name) => root.querySelector(`[data-branch="${name}"]`);
  const extend = (name) => root.querySelector(`[data-extend="${name}"]`);
  const say = (text) => put(act("said"), text);

  function draw() {
    const job = window.studio.selected();
    act("branch").hidden = !job || job.kind !== "train" || job.status === "queued" || !job.step;
    act("extend").hidden = !job || job.kind !== "train" || job.status !== "completed";
  }

  /** The steps of the whole checkpoints that the run has by now; null with a sentence where there is none. */
  async function checkpoints(job) {
    try {
      const steps = (await fetchJson(jobPath(job.id))).checkpoints;
      if (steps.length) return steps;
      say(`${job.name} has no complete checkpoint.`);
    } catch (error) {
      say(`Could not read the checkpoints (${error.message}). Try again.`);
    }
    return null;
  }

  async function askBranch() {
    const job = window.studio.selected(), steps = await checkpoints(job);
    if (!steps) return;
    asked = job.id;
    put(branch("title"), `Branch from ${job.name}`);
    branch("step").replaceChildren(...steps.map((step) => h("option", { value: step }, number(step))));
    branch("step").value = String(steps[steps.length - 1]);
    branch("steps").showModal();
  }

  function fill() {
    branch("steps").close();
    window.studio.queue.take(asked, false, Number(branch("step").value));
  }

  async function askExtend() {
    const job = window.studio.selected();
    if (!await checkpoints(job)) return;
    asked = job.id;
    put(extend("title"), `Extend ${job.name}`);
    put(extend("said"), "");
    extend("epochs").showModal();
  }

  async function start() {
    const button = extend("yes"), label = button.textContent;
    button.disabled = true;
    put(button, "Checking …");
    put(extend("said"), "");
    try {
      const wish = { epochs: Number(extend("count").value) }, signal = AbortSignal.timeout(CHECK_MS);
      const made = await postJson(`${jobPath(asked)}/extend`, wish, { signal });
      extend("epochs").close();
      await window.studio.refresh();
      window.studio.select(made.id);
    } catch (error) {
      put(extend("said"), error.message);
    }
    put(button, label);
    button.disabled = false;
  }

  function mount(monitor) {
    root = monitor;
    acts = monitor.querySelector('[data-part="queue-acts"]');
    act("branch").addEventListener("click", askBranch);
    act("extend").addEventListener("click", askExtend);
    branch("no").addEventListener("click", () => branch("steps").close());
    branch("yes").addEventListener("click", fill);
    extend("no").addEventListener("click", () => extend("epochs").close());
    extend("yes").addEventListener("click", start);
    window.studio.on("jobs", draw);
    window.studio.on("job", draw);
    draw();
  }

  return { mount };
})();

/* New run asks what the draft begins with: nothing, a preset, or the settings of the selected run. */
"use strict";

window.studio.newrun = (() => {
  const { put } = window.studio;
  let dialog = null;

  const part = (name) => dialog.querySelector(`[data-new="${name}"]`);

  function about() {
    put(part("about"), part("preset").selectedOptions[0]?.title || "");
  }

  function ask() {
    const job = window.studio.selected(), run = job && window.studio.state.jobs.find((one) => one.id === (job.kind === "train" ? job.id : job.run));
    part("run").hidden = !run;
    if (run) {
      part("run").dataset.job = run.id;
      put(part("run").querySelector("b"), `From ${run.name || run.id}`);
      put(part("run").querySelector("small"), `All its settings: ${run.line}, its model and its data`);
    }
    about();
    dialog.showModal();
  }

  function mount(root, close) {
    dialog = root.querySelector('[data-new="ask"]');
    const begin = (fill) => () => { dialog.close(); close(); fill(); };
    root.querySelector(".new-run").addEventListener("click", ask);
    part("preset").addEventListener("change", about);
    part("no").addEventListener("click", () => dialog.close());
    part("empty").addEventListener("click", begin(() => window.studio.queue.begin("")));
    part("go").addEventListener("click", begin(() => window.studio.queue.begin(part("preset").value)));
    part("run").addEventListener("click", begin(() => window.studio.queue.take(part("run").dataset.job, false)));
  }

  return { mount };
})();

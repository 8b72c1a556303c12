/* What the selected merge made: its progress, then its models, the recipe, and how many rows each answered. */
"use strict";

window.studio.merge = (() => {
  const { h, put, fetchJson, jobPath, filePath, follow, isFinal, duration, copyButton } = window.studio;
  let root = null, shown = "", stop = () => {};

  const part = (name) => root.querySelector(`[data-merge="${name}"]`);

  const models = (report) => follow.table("Models of this merge", [["Model"], ["What it was"]],
    report.parents.map((one) => h("tr", {}, h("td", {}, one.word), h("td", {}, one.id))));

  function scores({ data, total, scores: found }) {
    const best = Math.max(...found.map((one) => one.correct));
    const rows = found.map((one) => h("tr", {}, h("td", {}, one.name),
      h("td", { class: "num" }, h(one.correct === best ? "b" : "span", {}, `${one.correct} of ${total}`)),
      h("td", { class: "num" }, `${(100 * one.exact_match).toFixed(1)} %`), h("td", { class: "num" }, duration(one.seconds))));
    return [h("h4", {}, `Rows of ${data}`), follow.table("Rows that each model answered", [["Model"], ["Right", "num"], ["Exact match", "num"], ["Took", "num"]], rows)];
  }

  async function report(job) {
    const found = await fetchJson(filePath(job, "merge.json"));
    if (shown !== job) return;
    put(part("what"), `${found.title}${found.note ? `. ${found.note}` : ""}`);
    part("body").replaceChildren(
      ...(found.evaluation ? scores(found.evaluation) : []), models(found),
      h("details", {}, h("summary", {}, "Recipe"), h("pre", { class: "mono" }, found.recipe), copyButton(found.recipe, "Copy the recipe")));
  }

  function draw() {
    const job = window.studio.selected(), wanted = job?.kind === "merge" ? job.id : "";
    if (wanted === shown) return;
    stop();
    shown = wanted;
    stop = () => {};
    root.hidden = !wanted;
    if (!wanted) return;
    put(part("name"), `Merge ${job.name || job.id}`);
    put(part("what"), "");
    part("body").replaceChildren();
    let told = false;
    stop = follow.events(root, wanted, ({ state, phases, notices }) => {
      if (state.status === "completed") {
        if (!told) { told = true; report(wanted).catch((error) => put(part("what"), error.message)); }
        return;
      }
      put(part("what"), isFinal(state) ? "" : state.status);
      part("body").replaceChildren(...follow.progress(state, phases, notices));
    }, (text) => follow.setTrouble(root, text));
  }

  function mount(element) {
    root = element.querySelector(".merge-report");
    shown = "";
    for (const news of ["job", "jobs"]) window.studio.on(news, draw);
    draw();
  }

  return { mount };
})();

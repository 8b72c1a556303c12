/* The exports of a run: live phases of the one at work, then its report, download links and earlier ones.
   Texts of the report enter through textContent; files are links to our own route, which does not copy them. */
"use strict";

window.studioExport = (() => {
  const { h, filePath, fetchJson, follow, isFinal, bytes, rate, copyButton } = window.studio;
  const COLUMNS = [["Type"], ["Size", "num"], ["Same next token", "num"], ["Mean KL", "num"], ["Exact match", "num"], ["Verdict"], ["File"]];

  const mount = (element, props, watch, trigger) => {
    const root = element.querySelector(".export-view");
    const view = { root, shown: "", stops: [], stopRun: () => {} };
    const draw = () => drawValue(view, props.value || {}, trigger);
    watch("value", draw);
    draw();
  };

  const drawValue = (view, value, trigger) => {
    view.stopRun();
    view.stopRun = value.waiting ? follow.untilFinal(view.root, value.waiting, () => trigger("refresh")) : () => {};
    const jobs = value.exports || [];
    const shown = `${value.run || ""}|${jobs.map((job) => job.id).join("|")}`;
    if (shown === view.shown && jobs.length) return;
    view.shown = shown;
    view.stops.forEach((stop) => stop());
    view.stops = [];
    view.root.replaceChildren();
    jobs.forEach((job, index) => view.root.append(exportCard(view, value, job, index, trigger)));
  };

  /* One export; all but the newest are folded and ask for nothing until they are opened. */
  const exportCard = (view, value, job, index, trigger) => {
    const head = h("div", { class: "row-flex wrap-flex export-head" },
      h("h2", {}, job.title), h("span", { class: "muted" }, index ? `${job.what} · ${job.when}` : ""));
    const body = h("div", { class: "export-body" });
    const start = () => { view.stops.push(watchExport(view, value, job, head, body, trigger)); };
    if (index === 0) {
      start();
      return h("section", { class: "card-block export-card" }, head, body);
    }
    const opened = (event) => { if (event.target.open && !body.childElementCount) start(); };
    return h("details", { class: "card-block export-card older", ontoggle: opened }, h("summary", {}, `Earlier: ${job.what} · ${job.when}`), head, body);
  };

  const watchExport = (view, value, job, head, body, trigger) => {
    const title = head.firstElementChild, line = follow.line();
    line.of(job.id, job.what);
    let reported = false, wasLive = false;
    return follow.events(view.root, job.id, ({ state, phases, notices }) => {
      if (wasLive && isFinal(state)) trigger("refresh"); // the line under the tab's name, the Chat tab's list
      wasLive = !isFinal(state);
      if (state.status === "completed") {
        if (!reported) { reported = true; loadReport(value, job, head, body, trigger); }
        return;
      }
      if (!head.contains(line.parts[0])) head.replaceChildren(title, ...line.parts);
      line.tell(state);
      body.replaceChildren(...follow.progress(state, phases, notices));
      // A file that differs fails the job, but it was made and compared: what was found is shown below the reason.
      const compared = phases.some((phase) => phase.phase === "checksums");
      if (state.status === "failed" && compared && !reported) { reported = true; appendReport(job, body, trigger); }
    }, (trouble) => follow.setTrouble(body, trouble));
  };

  const loadReport = async (value, job, head, body, trigger) => {
    try {
      const report = await fetchJson(filePath(job.id, "export.json"));
      drawHead(head, report, job, trigger);
      body.replaceChildren(...found(report, job, trigger));
    } catch (error) {
      body.replaceChildren(h("p", { class: "notice error" }, `Could not read the report: ${error.message}.`));
    }
  };

  const appendReport = async (job, body, trigger) => {
    const report = await fetchJson(filePath(job.id, "export.json"));
    body.append(...found(report, job, trigger));
  };

  const found = (report, job, trigger) => [...window.studio.exportedDelivery(report), table(report, job, trigger), summary(report), ...notes(report), ...window.studio.exportedTrying(report, job, trigger), ...window.studio.exportedDifferences(report, job),
    ...window.studio.exportedFolder.details(report, job), ...window.studio.exportedServing(report, job), ...window.studio.exportedMatrix(report, job), ...window.studio.exportedModelfile(report, job), hashes(report)];

  /* What the files were compared with: reports of before 2026-12 do not say it. */
  const whole = (report) => report.compared_with || "the trained model";

  /* Nothing to chat with: they need their base model. */
  const ALONE = ["adapter", "gguf-lora"];

  const drawHead = (head, report, job, trigger) => {
    const good = report.files.every((file) => file.verdict !== "differs");
    const lossy = report.files.some((file) => file.verdict === "lossy");
    const pill = h("span", { class: `pill ${good && !lossy ? "ok" : "warn"}` }, !good ? `differs from ${whole(report)}` : lossy ? "verified, lossy" : "verified");
    head.replaceChildren(head.firstElementChild, pill, h("span", { class: "grow" }));
    const smallest = [...report.files].sort((a, b) => a.bytes - b.bytes)[0];
    if (!smallest) return;
    if (!ALONE.includes(smallest.type) && !job.silent) head.append(chatButton(job, smallest, trigger, smallest.parts ? "btn primary" : "btn"));
    if (!smallest.parts && !smallest.shards) head.append(download(job, smallest, "btn primary", `Download ${smallest.type.toUpperCase()} · ${bytes(smallest.bytes)}`));
  };

  const chatButton = (job, file, trigger, look) => h("button", {
    type: "button", class: look, "aria-label": `Chat with it: ${file.file}`, onclick: () => trigger("chat", { job: job.id, file: file.file }),
  }, "Chat with it");

  const download = (job, file, look, text) => h("a", { class: look, href: filePath(job.id, file.file), download: file.file }, text);

  const table = (report, job, trigger) => follow.table("Exported files", COLUMNS,
    report.files.map((file) => fileRow(file, job, trigger, report.files.length > 1)));

  const fileRow = (file, job, trigger, several) => {
    const figure = (text) => h("td", { class: "num" }, text);
    return h("tr", {}, h("td", {}, file.parts ? `${file.type === "adapter" ? "Adapter" : "Merged"}, ${file.dtype}` : file.type.toUpperCase()), figure(bytes(file.bytes)), figure(rate(file.top1)),
      figure(kl(file.mean_kl)), figure(match(file.exact_match)),
      h("td", { class: "verdict" }, h("span", { class: `pill ${["differs", "lossy"].includes(file.verdict) ? "warn" : "ok"}` }, file.verdict),
        ...(file.notes || []).map((note) => h("span", { class: "muted verdict-note" }, note))),
      h("td", { class: "file-links" }, ...(file.parts ? [`${file.parts.length} files`] : file.shards ? file.shards.map((part, index) => download(job, part, "link", `Part ${index + 1}`)) : [download(job, file, "link", "Download"), several && !job.silent && !ALONE.includes(file.type) ? chatButton(job, file, trigger, "btn small") : null])));
  };

  const kl = (number) => (number === null || number === undefined ? "–"
    : number !== 0 && Math.abs(number) < 0.001 ? number.toExponential(1).replace("e", "e").replace("+", "") : Number(number.toPrecision(3)).toString());

  const match = (found) => (found && found.total ? `${found.correct} / ${found.total}` : "–");

  const summary = (report) => {
    const parts = report.files.map((file) => file);
    const equal = parts.every((file) => file.prompt_ids_equal);
    const compared = Math.max(0, ...parts.map((file) => file.prompts_compared || 0));
    const other = parts.some((file) => file.parts) ? "the folder's own tokenizer" : "llama.cpp";
    const trained = whole(report) === "the trained model" ? "training, chat" : whole(report);
    const text = equal
      ? `Prompt tokens equal in ${trained} and ${other} for ${compared} conversation shapes`
      : `Prompt tokens differ between ${trained} and ${other}: the file is asked another question than the model would be`;
    return h("p", { class: `num export-note ${equal ? "muted" : "notice warning"}` }, text);
  };

  /* What is read differently in texts that few people write or by llama-cpp-python alone: no failure, told once for all files. */
  const notes = (report) => {
    const rare = report.files.flatMap((file) => file.differences || []).filter((one) => one.rare);
    const lines = new Map(rare.map((one) => [`${one.cause}, for example ${one.example}.`, `${one.fix}.`]));
    if (!lines.size) return [];
    const items = [...lines].map(([cause, fix]) => h("li", {}, h("span", {}, `${cause} `), h("span", { class: "muted" }, fix)));
    const title = h("p", { class: "num" }, "What llama.cpp reads differently, whatever the model:");
    return [h("div", { class: "export-note export-rare" }, title, h("ul", {}, ...items))];
  };

  const hashes = (report) => h("dl", { class: "hashes" }, ...[...report.files.flatMap((file) => file.shards || [file]), report.imatrix].filter((file) => file && !file.parts).flatMap((file) => [
    h("dt", { class: "muted" }, `SHA-256 of ${file.file}`),
    h("dd", {}, h("code", { class: "mono" }, file.sha256), copyButton(file.sha256, `Copy the SHA-256 of ${file.file}`)),
  ]));

  return { mount };
})();

/* The exports of a run: live phases of the one at work, then its report, download links and earlier ones.
   Texts of the report enter through textContent; files are links to our own route, which does not copy them. */
(() => {
  "use strict";
  const {
    make, fileAddress, fetchJson, follow, untilFinal, isFinal, progress, setTrouble, bytes, percent, statusPill, stopButton,
    copyButton,
  } = window.studioWatch;
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
    view.stopRun = value.waiting ? untilFinal(view.root, value.waiting, () => trigger("refresh")) : () => {};
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
    const title = make("h2", "", `GGUF of ${value.run}`);
    const head = make("div", "row-flex wrap-flex export-head", null, title, make("span", "muted", index ? `${job.what} · ${job.when}` : ""));
    const body = make("div", "export-body");
    const start = () => { view.stops.push(watchExport(view, value, job, head, body, trigger)); };
    if (index === 0) {
      start();
      return make("section", "card-block export-card", null, head, body);
    }
    const fold = make("details", "card-block export-card older");
    const line = make("summary", "", `Earlier: ${job.what} · ${job.when}`);
    fold.append(line, head, body);
    fold.addEventListener("toggle", () => { if (fold.open && !body.childElementCount) start(); });
    return fold;
  };

  const watchExport = (view, value, job, head, body, trigger) => {
    let reported = false, wasLive = false;
    return follow(view.root, job.id, ({ state, phases, notices }) => {
      const title = head.firstElementChild;
      if (wasLive && isFinal(state.status)) trigger("refresh"); // the line under the tab's name, the Chat tab's list
      wasLive = !isFinal(state.status);
      if (state.status === "completed") {
        if (!reported) { reported = true; loadReport(value, job, head, body, trigger); }
        return;
      }
      head.replaceChildren(title, statusPill(state.status), make("span", "muted", job.what), make("span", "grow"));
      if (!isFinal(state.status)) head.append(stopButton(job.id));
      body.replaceChildren(...progress(state, phases, notices));
      // A file that differs fails the job, but it was made and compared: what was found is shown below the reason.
      const compared = phases.some((phase) => phase.phase === "checksums");
      if (state.status === "failed" && compared && !reported) { reported = true; appendReport(job, body, trigger); }
    }, (trouble) => setTrouble(body, trouble));
  };

  const loadReport = async (value, job, head, body, trigger) => {
    try {
      const report = await fetchJson(fileAddress(job.id, "export.json"));
      drawHead(head, report, job, trigger);
      body.replaceChildren(table(report, job, trigger), summary(report), ...notes(report), hashes(report));
    } catch (error) {
      body.replaceChildren(make("p", "notice error", `Could not read the report: ${error.message}.`));
    }
  };

  const appendReport = async (job, body, trigger) => {
    const report = await fetchJson(fileAddress(job.id, "export.json"));
    body.append(table(report, job, trigger), summary(report), ...notes(report), hashes(report));
  };

  const drawHead = (head, report, job, trigger) => {
    const good = report.files.every((file) => file.verdict !== "differs");
    const pill = make("span", `pill ${good ? "ok" : "warn"}`, good ? "verified" : "differs from the trained model");
    head.replaceChildren(head.firstElementChild, pill, make("span", "grow"));
    const smallest = [...report.files].sort((a, b) => a.bytes - b.bytes)[0];
    if (!smallest) return;
    head.append(chatButton(job, smallest, trigger, "btn"), download(job, smallest, "btn primary", `Download ${smallest.type.toUpperCase()} · ${bytes(smallest.bytes)}`));
  };

  const chatButton = (job, file, trigger, look) => {
    const button = make("button", look, "Chat with it");
    button.type = "button";
    button.setAttribute("aria-label", `Chat with ${file.file}`);
    button.addEventListener("click", () => trigger("chat", { job: job.id, file: file.file }));
    return button;
  };

  const download = (job, file, look, text) => {
    const link = make("a", look, text);
    link.href = fileAddress(job.id, file.file);
    link.setAttribute("download", file.file);
    return link;
  };

  const table = (report, job, trigger) => {
    const head = make("tr", "", null, ...COLUMNS.map(([name, look]) => {
      const cell = make("th", look || "", name);
      cell.scope = "col";
      return cell;
    }));
    const rows = report.files.map((file) => fileRow(file, job, trigger, report.files.length > 1));
    const scroll = make("div", "scroll-x", null, make("table", "", null, make("thead", "", null, head), make("tbody", "", null, ...rows)));
    scroll.tabIndex = 0;
    scroll.setAttribute("role", "region");
    scroll.setAttribute("aria-label", "Exported files");
    return scroll;
  };

  const fileRow = (file, job, trigger, several) => {
    const verdict = make("td", "verdict", null, make("span", `pill ${file.verdict === "differs" ? "warn" : "ok"}`, file.verdict));
    (file.notes || []).forEach((note) => verdict.append(make("span", "muted verdict-note", note)));
    const links = make("td", "file-links", null, download(job, file, "link", "Download"));
    if (several) links.append(chatButton(job, file, trigger, "btn small"));
    return make("tr", "", null, make("td", "", file.type.toUpperCase()), make("td", "num", bytes(file.bytes)),
      make("td", "num", percent(file.top1)), make("td", "num", kl(file.mean_kl)), make("td", "num", match(file.exact_match)),
      verdict, links);
  };

  const kl = (number) => (number === null || number === undefined ? "–"
    : number !== 0 && Math.abs(number) < 0.001 ? number.toExponential(1).replace("e", "e").replace("+", "") : Number(number.toPrecision(3)).toString());

  const match = (found) => (found && found.total ? `${found.correct} / ${found.total}` : "–");

  const summary = (report) => {
    const parts = report.files.map((file) => file);
    const equal = parts.every((file) => file.prompt_ids_equal);
    const compared = Math.max(0, ...parts.map((file) => file.prompts_compared || 0));
    const text = equal
      ? `Prompt tokens equal in training, chat and llama.cpp for ${compared} conversation shapes`
      : "Prompt tokens differ between training and llama.cpp: the file answers another question than the model was trained on";
    return make("p", `num export-note ${equal ? "muted" : "notice warning"}`, text);
  };

  /* What is read differently in texts that few people write or by llama-cpp-python alone: no failure, told once for all files. */
  const notes = (report) => {
    const rare = report.files.flatMap((file) => file.differences || []).filter((one) => one.rare);
    const lines = new Map(rare.map((one) => [`${one.cause}, for example ${one.example}.`, `${one.fix}.`]));
    if (!lines.size) return [];
    const items = [...lines].map(([cause, fix]) => make("li", "", null, make("span", "", `${cause} `), make("span", "muted", fix)));
    const title = make("p", "num", "What llama.cpp reads differently, whatever was trained:");
    return [make("div", "export-note export-rare", null, title, make("ul", "", null, ...items))];
  };

  const hashes = (report) => {
    const list = make("dl", "hashes");
    report.files.forEach((file) => {
      const line = make("dd", "", null, make("code", "mono", file.sha256), copyButton(file.sha256, `Copy the SHA-256 of ${file.file}`));
      list.append(make("dt", "muted", `SHA-256 of ${file.file}`), line);
    });
    return list;
  };

  window.studioExport = { mount };
})();

/* The evaluation card: follows the newest evaluation of the selected run, then shows its score before → after and
   the answers side by side, from report/evaluation.json. Answers enter through textContent. */
"use strict";

window.studioEvaluation = (() => {
  const { h, breakable, filePath, fetchJson, follow, rate, duration } = window.studio;
  const PAGE_ROWS = 10;
  // What a report of each measure shows: its table's columns, a row of it, and its score.
  const MEASURES = {
    exact: {
      title: "Exact match", key: "exact_match", of: "rows", help: null, detail: (part) => `${part.correct} of ${part.total} right`,
      columns: [["Row"], ["Prompt"], ["Expected"], ["Before"], ["After"]],
      cells: (row) => [cell("Expected", "mono", ...breakable(row.expected)),
        cell("Before", null, ...answer(row.before, row.before_ok)), cell("After", null, ...answer(row.after, row.after_ok))],
    },
    pairs: {
      title: "Preference accuracy", key: "preference_accuracy", of: "pairs", detail: (part) => `of ${part.total} pairs`,
      help: "Margin: how much more likely the chosen answer is than the rejected one, as mean log-probability of a token.",
      columns: [["Row"], ["Prompt"], ["Chosen"], ["Rejected"], ["Margin before", "num"], ["Margin after", "num"]],
      cells: (row) => [cell("Chosen", "mono", ...breakable(row.chosen)), cell("Rejected", "mono", ...breakable(row.rejected)),
        cell("Margin before", "num", marked(signed(row.before), row.before_ok)), cell("Margin after", "num", marked(signed(row.after), row.after_ok))],
    },
    answers: {
      title: "Preference accuracy", key: "preference_accuracy", of: "answers", detail: (part) => `${part.total} rated answers`,
      help: "Mean log-probability of an answer's tokens: it should rise for good answers and fall for bad ones.",
      columns: [["Row"], ["Prompt"], ["Answer"], ["Rated"], ["Log-prob. before", "num"], ["Log-prob. after", "num"]],
      cells: (row) => [cell("Answer", "mono", ...breakable(row.answer)), cell("Rated", null, row.good ? "good" : "bad"),
        cell("Log-prob. before", "num", row.before.toFixed(2)), cell("Log-prob. after", "num", marked(row.after.toFixed(2), row.after_ok))],
    },
  };

  const mount = (element, props, watch, trigger) => {
    const root = element.querySelector(".evaluation-view");
    const choice = h("select", { class: "field-input", "aria-label": "Which evaluation", onchange: () => show(view, choice.value) });
    const line = follow.line(choice), head = h("div", { class: "row-flex wrap-flex evaluation-head" }, ...line.parts);
    const view = { root, line, head, choice, jobs: [], job: null, stop: () => {}, stopRun: () => {} };
    const draw = () => drawValue(view, props.value || {}, trigger);
    watch("value", draw);
    draw();
  };

  const drawValue = (view, value, trigger) => {
    view.stopRun();
    view.stopRun = value.waiting ? follow.untilFinal(view.root, value.waiting, () => trigger("refresh")) : () => {};
    const jobs = value.evaluations || [];
    const job = jobs.length ? jobs[0].id : "";
    view.jobs = jobs;
    if (job && job === view.job && jobs.some((one) => one.id === view.shown)) { drawChoice(view); return; }
    view.stop();
    view.stop = () => {};
    view.job = job;
    if (job) show(view, job); else view.root.replaceChildren(h("p", { class: "muted" }, value.hint || ""));
  };

  const show = (view, job) => {
    view.stop();
    view.shown = job;
    const body = h("div", { class: "evaluation-body" });
    // The head stays where it is: a choice that is put in again closes under the person's hand.
    if (view.root.contains(view.head)) view.root.replaceChild(body, view.body); else view.root.replaceChildren(view.head, body);
    view.body = body;
    view.line.of(job, view.jobs.find((one) => one.id === job).what);
    drawChoice(view);
    let reported = false;
    view.stop = follow.events(view.root, job, ({ state, phases, notices }) => {
      view.line.tell(state);
      if (state.status === "completed") {
        if (!reported) { reported = true; loadReport(body, job); }
        return;
      }
      body.replaceChildren(...follow.progress(state, phases, notices));
    }, (trouble) => follow.setTrouble(view.root, trouble));
  };

  const drawChoice = ({ choice, jobs, shown }) => {
    const offered = JSON.stringify(jobs);
    choice.hidden = jobs.length < 2;
    if (choice.dataset.offered !== offered) choice.replaceChildren(...jobs.map((one) => h("option", { value: one.id }, `${one.when} · ${one.what}`)));
    choice.dataset.offered = offered;
    choice.value = shown;
  };

  const loadReport = async (body, job) => {
    body.replaceChildren(h("p", { class: "muted" }, "Reading the report …"));
    try {
      drawReport(body, await fetchJson(filePath(job, "evaluation.json")));
    } catch (error) {
      body.replaceChildren(h("p", { class: "notice error" }, `Could not read the report: ${error.message}.`));
    }
  };

  const drawReport = (body, report) => {
    const rows = report.rows || [], measure = MEASURES[report.of || "exact"];
    const table = h("div", { class: "answers" });
    const state = { wrong: false, page: 0, measure };
    const redraw = () => drawTable(table, rows, state, redraw);
    body.replaceChildren(scores(report, measure), table);
    redraw();
  };

  const scores = (report, measure) => {
    const [before, after] = [report.before, report.after].map((part) => part[measure.key]), points = (after - before) * 100;
    const merged = ofMerge(), tuned = score(merged ? "Child" : "After training", report.after, measure);
    if (after > before) tuned.classList.add("gain");
    const reward = report.reward_accuracy === undefined ? "" : ` · reward accuracy ${rate(report.reward_accuracy)}`;
    return h("div", { class: "scores" }, score(merged ? "Base model" : "Before training", report.before, measure),
      h("span", { class: "score-arrow", "aria-hidden": "true" }, "→"), tuned,
      h("p", { class: "muted num score-note" },
        `${measure.title} on ${report.after.total} ${measure.of}: ${points >= 0 ? "+" : "−"}${Math.abs(points).toFixed(1)} points${reward}`),
      measure.help ? h("p", { class: "muted score-help" }, measure.help) : null);
  };

  /** Whether what was evaluated is a merge's child, which no training came before. */
  const ofMerge = () => {
    const job = window.studio.selected(), run = window.studio.state.jobs.find((one) => one.id === (job?.run || job?.id));
    return run?.kind === "merge";
  };

  const score = (label, part, measure) => h("div", { class: "score" },
    h("small", {}, label), h("b", { class: "num" }, rate(part[measure.key])),
    h("em", { class: "num" }, `${measure.detail(part)}${part.seconds ? ` · ${duration(part.seconds)}` : ""}`));

  const drawTable = (box, rows, state, redraw) => {
    const shown = state.wrong ? rows.filter((row) => !row.after_ok) : rows;
    const pages = Math.max(1, Math.ceil(shown.length / PAGE_ROWS));
    state.page = Math.min(state.page, pages - 1);
    const part = shown.slice(state.page * PAGE_ROWS, (state.page + 1) * PAGE_ROWS);
    const scroll = follow.table("Answers side by side", state.measure.columns, part.map((row) => answerRow(row, state.measure)));
    const focused = box.contains(document.activeElement) ? document.activeElement.dataset.act : null;
    box.replaceChildren(filterBar(rows, shown, state, redraw), shown.length ? scroll : emptyLine(), pager(shown, pages, state, redraw));
    if (focused) box.querySelector(`[data-act="${focused}"]`)?.focus();
  };

  const emptyLine = () => h("p", { class: "muted" }, "No row is wrong.");

  const filterBar = (rows, shown, state, redraw) => {
    const wrong = rows.filter((row) => !row.after_ok).length;
    const filter = (event) => { state.wrong = event.target.checked; state.page = 0; redraw(); };
    return h("div", { class: "row-flex wrap-flex answers-bar" }, h("h3", {}, "Answers side by side"), h("span", { class: "grow" }),
      h("label", { class: "check" }, h("input", { type: "checkbox", checked: state.wrong, "data-act": "wrong", onchange: filter }),
        h("span", {}, `only wrong (${wrong})`)));
  };

  const pager = (shown, pages, state, redraw) => {
    if (pages < 2) return h("div", { class: "row-flex answers-pager" });
    const first = state.page * PAGE_ROWS + 1, last = Math.min(shown.length, first + PAGE_ROWS - 1);
    const step = (label, by) => h("button", {
      type: "button", class: "btn small", "data-act": label, disabled: state.page + by < 0 || state.page + by >= pages,
      onclick: () => { state.page += by; redraw(); },
    }, label);
    return h("div", { class: "row-flex answers-pager" },
      step("Previous", -1), h("span", { class: "muted num" }, `${first}–${last} of ${shown.length}`), step("Next", 1));
  };

  const answerRow = (row, measure) => h("tr", {},
    cell("Row", "num", row.row), cell("Prompt", "prompt", promptText(row.prompt)), ...measure.cells(row));

  const cell = (label, look, ...content) => h("td", { class: look, "data-label": label }, ...content);

  const marked = (text, right) => h("span", { class: `pill ${right ? "ok" : "bad"}` }, `${right ? "✓" : "✗"} ${text}`);

  const answer = (text, right) => [marked(right ? "correct" : "wrong", right), h("div", { class: "mono answer-text" }, ...breakable(text))];

  const signed = (value) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(2)}`;

  const promptText = (prompt) => {
    if (typeof prompt === "string") return prompt;
    const asked = (prompt || []).filter((message) => message.role !== "system");
    return asked.map((message) => (asked.length > 1 ? `${message.role}: ${message.content}` : message.content)).join("\n");
  };

  return { mount };
})();

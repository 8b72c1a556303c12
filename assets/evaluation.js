/* The evaluation card: follows the newest evaluation of the selected run, then shows exact match before → after
   and the answers side by side, from report/evaluation.json. Answers enter through textContent. */
(() => {
  "use strict";
  const {
    make, breakable, fileAddress, fetchJson, follow, untilFinal, isFinal, progress, setTrouble, percent, duration, statusPill, stopButton,
  } = window.studioWatch;
  const PAGE_ROWS = 10;

  const mount = (element, props, watch, trigger) => {
    const root = element.querySelector(".evaluation-view");
    const view = { root, job: null, stop: () => {}, stopRun: () => {} };
    const draw = () => drawValue(view, props.value || {}, trigger);
    watch("value", draw);
    draw();
  };

  const drawValue = (view, value, trigger) => {
    view.stopRun();
    view.stopRun = value.waiting ? untilFinal(view.root, value.waiting, () => trigger("refresh")) : () => {};
    const jobs = value.evaluations || [];
    const job = jobs.length ? jobs[0].id : "";
    if (job && job === view.job) { drawChoice(view, jobs); return; }
    view.stop();
    view.stop = () => {};
    view.job = job;
    view.root.replaceChildren();
    if (!job) {
      view.root.append(make("p", "muted", value.hint || ""));
      return;
    }
    show(view, jobs, job);
  };

  const show = (view, jobs, job) => {
    view.stop();
    view.job = jobs[0].id;
    const shown = jobs.find((one) => one.id === job);
    const head = make("div", "row-flex wrap-flex evaluation-head");
    const body = make("div", "evaluation-body");
    view.root.replaceChildren(head, body);
    view.head = head;
    view.shown = job;
    drawChoice(view, jobs);
    let reported = false;
    view.stop = follow(view.root, job, ({ state, phases, notices }) => {
      head.replaceChildren(statusPill(state.status), make("span", "muted", shown.what));
      head.append(make("span", "grow"));
      if (view.choice) head.append(view.choice);
      if (!isFinal(state.status)) head.append(stopButton(job));
      if (state.status === "completed") {
        if (!reported) { reported = true; loadReport(body, job); }
        return;
      }
      body.replaceChildren(...progress(state, phases, notices));
    }, (trouble) => setTrouble(view.root, trouble));
  };

  const drawChoice = (view, jobs) => {
    view.choice = null;
    if (jobs.length < 2) return;
    const select = make("select", "field-input");
    select.setAttribute("aria-label", "Which evaluation");
    jobs.forEach((one) => {
      const option = make("option", "", `${one.when} · ${one.what}`);
      option.value = one.id;
      option.selected = one.id === view.shown;
      select.append(option);
    });
    select.addEventListener("change", () => show(view, jobs, select.value));
    view.choice = select;
  };

  const loadReport = async (body, job) => {
    body.replaceChildren(make("p", "muted", "Reading the report …"));
    try {
      drawReport(body, await fetchJson(fileAddress(job, "evaluation.json")));
    } catch (error) {
      body.replaceChildren(make("p", "notice error", `Could not read the report: ${error.message}.`));
    }
  };

  const drawReport = (body, report) => {
    const rows = report.rows || [];
    const table = make("div", "answers");
    const state = { wrong: false, page: 0 };
    const redraw = () => drawTable(table, rows, state, redraw);
    body.replaceChildren(scores(report), table);
    redraw();
  };

  const scores = (report) => {
    const before = score("Before training", report.before), after = score("After training", report.after);
    const arrow = make("span", "score-arrow", "→");
    arrow.setAttribute("aria-hidden", "true");
    if (report.after.exact_match > report.before.exact_match) after.classList.add("gain");
    const box = make("div", "scores", null, before, arrow, after);
    const points = (report.after.exact_match - report.before.exact_match) * 100;
    box.append(make("p", "muted num score-note",
      `Exact match on ${report.after.total} rows: ${points >= 0 ? "+" : "−"}${Math.abs(points).toFixed(1)} points`));
    return box;
  };

  const score = (label, part) => make("div", "score", null,
    make("small", "", label), make("b", "num", percent(part.exact_match)),
    make("em", "num", `${part.correct} of ${part.total} right${part.seconds ? ` · ${duration(part.seconds)}` : ""}`));

  const drawTable = (box, rows, state, redraw) => {
    const shown = state.wrong ? rows.filter((row) => !row.after_ok) : rows;
    const pages = Math.max(1, Math.ceil(shown.length / PAGE_ROWS));
    state.page = Math.min(state.page, pages - 1);
    const part = shown.slice(state.page * PAGE_ROWS, (state.page + 1) * PAGE_ROWS);
    const body = make("tbody");
    part.forEach((row) => body.append(answerRow(row)));
    const head = make("tr", "", null, ...["Row", "Prompt", "Expected", "Before", "After"].map((name) => {
      const cell = make("th", "", name);
      cell.scope = "col";
      return cell;
    }));
    const scroll = make("div", "scroll-x", null, make("table", "", null, make("thead", "", null, head), body));
    scroll.tabIndex = 0;
    scroll.setAttribute("role", "region");
    scroll.setAttribute("aria-label", "Answers side by side");
    const focused = box.contains(document.activeElement) ? document.activeElement.dataset.act : null;
    box.replaceChildren(filterBar(rows, shown, state, redraw), shown.length ? scroll : emptyLine(), pager(shown, pages, state, redraw));
    if (focused) box.querySelector(`[data-act="${focused}"]`)?.focus();
  };

  const emptyLine = () => make("p", "muted", "No wrong answer: every row matches.");

  const filterBar = (rows, shown, state, redraw) => {
    const wrong = rows.filter((row) => !row.after_ok).length;
    const box = make("input");
    box.type = "checkbox";
    box.checked = state.wrong;
    box.dataset.act = "wrong";
    box.addEventListener("change", () => { state.wrong = box.checked; state.page = 0; redraw(); });
    return make("div", "row-flex wrap-flex answers-bar", null, make("h3", "", "Answers side by side"), make("span", "grow"),
      make("label", "check", null, box, make("span", "", `only wrong (${wrong})`)));
  };

  const pager = (shown, pages, state, redraw) => {
    const bar = make("div", "row-flex answers-pager");
    if (pages < 2) return bar;
    const first = state.page * PAGE_ROWS + 1, last = Math.min(shown.length, first + PAGE_ROWS - 1);
    const step = (label, by) => {
      const button = make("button", "btn small", label);
      button.type = "button";
      button.dataset.act = label;
      button.disabled = state.page + by < 0 || state.page + by >= pages;
      button.addEventListener("click", () => { state.page += by; redraw(); });
      return button;
    };
    bar.append(step("Previous", -1), make("span", "muted num", `${first}–${last} of ${shown.length}`), step("Next", 1));
    return bar;
  };

  const answerRow = (row) => make("tr", "", null,
    cell("Row", make("td", "num", row.row)), cell("Prompt", make("td", "prompt", promptText(row.prompt))),
    cell("Expected", breakable(make("td", "mono"), row.expected)),
    cell("Before", answer(row.before, row.before_ok)), cell("After", answer(row.after, row.after_ok)));

  const cell = (label, node) => { node.dataset.label = label; return node; };

  const answer = (text, right) => make("td", "", null,
    make("span", `pill ${right ? "ok" : "bad"}`, right ? "✓ correct" : "✗ wrong"), breakable(make("div", "mono answer-text"), text));

  const promptText = (prompt) => {
    if (typeof prompt === "string") return prompt;
    const asked = (prompt || []).filter((message) => message.role !== "system");
    return asked.map((message) => (asked.length > 1 ? `${message.role}: ${message.content}` : message.content)).join("\n");
  };

  window.studioEvaluation = { mount };
})();

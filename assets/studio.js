/* The page's own script: selected job, tabs, polling, and how numbers are written.
   Everything else (runs.js, monitor.js, …) is built on window.studio. All text of others goes into the page by
   textContent. No framework: the studio draws few pieces, and gradio brings the rest. */
"use strict";

window.studio = (() => {
  const BACKOFF = [1, 2, 5, 10];
  const TAB_NAMES = ["model", "data", "method", "training", "chat", "export"];
  const listeners = { job: [], jobs: [], theme: [], tab: [], summary: [] };
  const state = { job: "", tab: "", jobs: [], loaded: false, down: 0, summaries: {} };

  const on = (name, callback) => listeners[name].push(callback);
  const emit = (name, value) => listeners[name].forEach((callback) => callback(value));

  /* ---- elements ---- */

  /** Make an element: h("b", {class: "num"}, "text", child). Attributes that are null are left out. */
  function h(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  }

  /** Set an element's text only when it differs, so that a selection or a screen reader is not disturbed. */
  function put(element, text) {
    if (element.textContent !== text) element.textContent = text;
  }

  /* ---- requests ---- */

  class HttpError extends Error {
    constructor(status, text) { super(text); this.status = status; }
  }

  /** The sentence of a refusal, which FastAPI wraps. */
  function said(text) {
    try { const { detail } = JSON.parse(text); return typeof detail === "string" ? detail : text; } catch { return text; }
  }

  async function fetchJson(path, options = {}) {
    const answer = await fetch(path, { signal: AbortSignal.timeout(8000), cache: "no-store", ...options });
    if (!answer.ok) throw new HttpError(answer.status, said(await answer.text()));
    return answer.json();
  }

  const postJson = (path, body, options = {}) =>
    fetchJson(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body), ...options });

  /** Call `work` again and again: after `work`'s own wish in ms (default 1000), later after failures; never while
   *  the page is hidden. `problem` is told the failure's text, "" when it is over. Returns {now, stop}. */
  function poll(work, problem = () => {}) {
    let timer = null, busy = false, again = false, fails = 0, stopped = false;
    async function tick() {
      clearTimeout(timer);
      if (stopped || document.hidden) return;
      if (busy) { again = true; return; }
      busy = true;
      let wait = 1000;
      try {
        const wish = await work();
        if (typeof wish === "number") wait = wish;
        if (fails) problem("");
        fails = 0;
      } catch (error) {
        wait = 1000 * BACKOFF[Math.min(fails, BACKOFF.length - 1)];
        fails += 1;
        if (error.status === 401) problem("Signed out: reload the page.");
        else if (error.status) problem(`The studio answered ${error.status}.`);
        else problem("The studio does not respond; retrying. A running job continues.");
      } finally {
        busy = false;
      }
      if (again) { again = false; wait = 0; }
      if (!stopped) timer = setTimeout(tick, wait);
    }
    const wake = () => { if (!document.hidden) tick(); };
    document.addEventListener("visibilitychange", wake);
    tick();
    return { now: tick, stop() { stopped = true; clearTimeout(timer); document.removeEventListener("visibilitychange", wake); } };
  }

  /* ---- the selected job: in the address, in gradio's hidden box, and here ---- */

  function address() {
    return new URLSearchParams(location.hash.slice(1));
  }

  const TOGETHER = 600; // ms: what one click changes (the job, then the tab) is one step back
  let stepped = -Infinity;

  /** Write a part of the address; with `step`, so that the Back button comes back to what was there before. */
  function writeAddress(name, value, step = false) {
    const parts = address();
    if ((parts.get(name) || "") === value) return;
    if (value) parts.set(name, value); else parts.delete(name);
    const anew = step && performance.now() - stepped > TOGETHER;
    if (anew) stepped = performance.now();
    history[anew ? "pushState" : "replaceState"](history.state, "", `#${parts}`);
  }

  /** Put text into a gradio Textbox by its elem_id, as if it was typed: its events run. False if it is not there. */
  function setBox(elemId, text) {
    const box = document.querySelector(`#${elemId} textarea, #${elemId} input`);
    if (!box) return false;
    if (box.value !== text) {
      const prototype = box instanceof HTMLTextAreaElement ? HTMLTextAreaElement : HTMLInputElement;
      Object.getOwnPropertyDescriptor(prototype.prototype, "value").set.call(box, text);
      box.dispatchEvent(new Event("input", { bubbles: true }));
    }
    return true;
  }

  /** Select a job by id ("" for none). Called by the list, and by gradio when a handler returned to Page.job. */
  function select(id) {
    id = id || "";
    const changed = id !== state.job;
    writeAddress("job", id, changed && state.job !== "");
    state.job = id;
    setBox("job-id", id);
    if (changed) emit("job", id);
    if (id && !state.jobs.some((job) => job.id === id)) jobsPoll?.now();
  }

  const selected = () => state.jobs.find((job) => job.id === state.job) || null;

  /* ---- tabs ---- */

  const tabButton = (name) => document.getElementById(`tab-${name}-button`);
  const openTab = (name) => tabButton(name)?.click();

  /** Write the line under a tab's name. */
  function summary(name, text) {
    state.summaries[name] = text || "";
    dressTab(name);
    emit("summary", name);
  }

  function dressTab(name) {
    const button = tabButton(name);
    if (!button) return;
    let line = button.querySelector("small");
    if (!line) {
      line = h("small", { id: `tab-${name}-summary` });
      button.append(line);
      button.setAttribute("aria-describedby", line.id);
      button.setAttribute("aria-label", button.firstChild.textContent.trim());
    }
    put(line, state.summaries[name] || " ");
  }

  /** Once gradio has drawn the tabs: summaries, the tab of the address, and the address of the tab. */
  function dressTabs() {
    if (!TAB_NAMES.every(tabButton)) return void setTimeout(dressTabs, 50);
    TAB_NAMES.forEach(dressTab);
    const bar = tabButton("model").parentElement;
    let clicked = null; // a tab that gradio has not opened yet
    bar.addEventListener("click", (event) => { clicked = event.target.closest("[data-tab-id]")?.dataset.tabId ?? clicked; }, true);
    const noteTab = () => {
      const open = bar.querySelector('[aria-selected="true"]');
      if (open && (clicked === null || clicked === open.dataset.tabId)) {
        clicked = null;
        writeAddress("tab", open.dataset.tabId, address().has("tab"));
        if (state.tab !== open.dataset.tabId) { state.tab = open.dataset.tabId; emit("tab", state.tab); }
        open.scrollIntoView({ block: "nearest", inline: "nearest" });
      }
      TAB_NAMES.forEach(dressTab);
    };
    const asked = address().get("tab");
    if (TAB_NAMES.includes(asked)) openTab(asked); else noteTab();
    new MutationObserver(noteTab).observe(bar, { subtree: true, childList: true, attributes: true, attributeFilter: ["aria-selected"] });
    bar.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const buttons = TAB_NAMES.map(tabButton);
      const next = buttons[(buttons.indexOf(document.activeElement) + step + buttons.length) % buttons.length];
      next.focus();
      next.click();
    });
  }

  /* ---- light and dark ---- */

  const isDark = () => document.body.classList.contains("dark");

  function setDark(dark) {
    document.body.classList.toggle("dark", dark);
    localStorage.setItem("studio.theme", dark ? "dark" : "light");
  }

  function watchTheme() {
    const chosen = localStorage.getItem("studio.theme");
    let last = null;
    const look = () => {
      // Gradio follows the system; a choice made here wins over it.
      const wish = localStorage.getItem("studio.theme");
      if (wish && isDark() !== (wish === "dark")) return void document.body.classList.toggle("dark", wish === "dark");
      document.documentElement.style.colorScheme = isDark() ? "dark" : "light";
      if (isDark() !== last) { last = isDark(); emit("theme", last); }
    };
    if (chosen) document.body.classList.toggle("dark", chosen === "dark");
    new MutationObserver(look).observe(document.body, { attributes: true, attributeFilter: ["class"] });
    look();
  }

  /** Value of a colour token, for what cannot use CSS (Plotly). */
  const token = (name) => getComputedStyle(document.body).getPropertyValue(name).trim();

  /* ---- numbers: 4 significant digits, units always ---- */

  const MINUS = "\u2212", NONE = "\u2013";

  function number(value, digits = 4) {
    if (typeof value === "string") return value;
    if (value === null || value === undefined || !Number.isFinite(value)) return NONE;
    const size = Math.abs(value);
    let text;
    if (Number.isInteger(value) && size < 1e12) text = value.toLocaleString("en-US");
    else if (size !== 0 && (size < 1e-3 || size >= 1e6)) text = value.toExponential(digits - 2).replace(/\.?0+e/, "e").replace("e+", "e");
    else text = size >= 1000 ? Math.round(value).toLocaleString("en-US") : value.toPrecision(digits);
    return text.replace(/^-/, MINUS);
  }

  const signed = (value) => (value > 0 ? `+${number(value, 2)}` : number(value, 2));

  function duration(seconds) {
    if (!Number.isFinite(seconds) || seconds < 0) return NONE;
    const whole = Math.round(seconds);
    if (whole < 60) return `${whole} s`;
    const pad = (part) => String(part).padStart(2, "0");
    if (whole < 3600) return `${Math.floor(whole / 60)} min ${pad(whole % 60)} s`;
    const hours = Math.floor(whole / 3600);
    return hours < 48 ? `${hours} h ${pad(Math.floor((whole % 3600) / 60))} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
  }

  /** "12 min" for lists: one unit is enough there. */
  function roughly(seconds) {
    if (seconds < 60) return `${Math.max(1, Math.round(seconds))} s`;
    if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
    if (seconds < 129600) return `${Math.round(seconds / 3600)} h`;
    return `${Math.round(seconds / 86400)} days`;
  }

  function ago(unix) {
    const seconds = Date.now() / 1000 - unix;
    return seconds < 5 ? "just now" : `${roughly(seconds)} ago`;
  }

  /** Whole percent of a share, never more than there is: 0.999 is 99, and 0.29 is 29 although 100 × 0.29 is less. */
  const percent = (share) => Math.floor(100 * share + 1e-6);

  function bytes(count) {
    if (!Number.isFinite(count)) return NONE;
    if (count >= 1e9) return `${(count / 1e9).toPrecision(3)} GB`;
    if (count >= 1e6) return `${(count / 1e6).toPrecision(3)} MB`;
    return count >= 1000 ? `${(count / 1000).toPrecision(3)} kB` : `${count} bytes`;
  }

  /* ---- the list of jobs, polled for everybody ---- */

  let jobsPoll = null;
  const problems = [];

  const rows = new Map(); // the jobs by id, as of `version`
  let version = "";

  /** Take in what changed since the last answer; rows that did not change stay the same objects. */
  function takeRows(news) {
    if (news.all) rows.clear();
    news.gone.forEach((id) => rows.delete(id));
    const others = news.all || news.gone.length || news.rows.some((row) => !rows.has(row.id));
    news.rows.forEach((row) => rows.set(row.id, row));
    version = news.version;
    if (others) state.jobs = [...rows.values()].sort((one, other) => (one.id < other.id ? 1 : -1));
    else if (news.rows.length) state.jobs = state.jobs.map((row) => rows.get(row.id));
  }

  async function readJobs() {
    // At first what is seen at once; thousands of older rows come with the next answer.
    const news = await fetchJson(`/api/jobs?after=${version}${rows.size ? "" : "&newest=200"}`);
    takeRows(news);
    const wanted = address().get("job");
    if (!state.loaded && (!news.reading || !wanted || rows.has(wanted))) {
      state.loaded = true;
      chooseFirst();
    }
    emit("jobs", state.jobs);
    if (news.reading) return 100; // there are many, and the newest are here
    return state.jobs.some((job) => !isFinal(job)) ? 1000 : 2000;
  }

  /** What a status is called, and the look of its pill. */
  const WORDS = {
    queued: ["Waiting", ""], starting: ["Starting", "live"], running: ["Running", "live"], stopping: ["Stopping", "warn"],
    completed: ["Done", "ok"], stopped: ["Stopped", ""], failed: ["Failed", "bad"], lost: ["Lost", "bad"],
  };

  const isFinal = (job) => ["completed", "stopped", "failed", "lost"].includes(job.status);

  function chooseFirst() {
    if (state.job) return;
    const wanted = address().get("job");
    const running = state.jobs.find((job) => ["starting", "running", "stopping"].includes(job.status));
    const choice = state.jobs.find((job) => job.id === wanted) || running || state.jobs.find((job) => job.kind === "train") || state.jobs[0];
    if (choice) selectWhenReady(choice.id);
  }

  /** Gradio draws its boxes a moment after the page: try until the hidden one is there. */
  function selectWhenReady(id) {
    if (!document.querySelector("#job-id textarea, #job-id input")) return void setTimeout(() => selectWhenReady(id), 50);
    select(id);
    emit("jobs", state.jobs);
  }

  function start() {
    watchTheme();
    dressTabs();
    window.addEventListener("hashchange", () => {
      const parts = address();
      if (parts.get("job") && parts.get("job") !== state.job && state.jobs.some((job) => job.id === parts.get("job"))) select(parts.get("job"));
      if (TAB_NAMES.includes(parts.get("tab")) && tabButton(parts.get("tab"))?.getAttribute("aria-selected") !== "true") openTab(parts.get("tab"));
    });
    jobsPoll = poll(readJobs, (text) => problems.forEach((callback) => callback(text)));
  }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();

  return {
    state, WORDS, on, h, put, address, writeAddress, fetchJson, postJson, poll, select, selected, setBox, openTab, summary, token, isDark, setDark, isFinal,
    number, signed, duration, roughly, ago, bytes, percent, MINUS, NONE,
    refresh: () => jobsPoll?.now(),
    onProblem: (callback) => problems.push(callback),
  };
})();

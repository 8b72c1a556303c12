/* The page itself: the selected job, the tabs, light and dark, and the list of jobs, which is asked for once for all. */
"use strict";

Object.assign(window.studio, (() => {
  const { h, put, fetchJson, poll, isFinal } = window.studio;
  const TAB_NAMES = ["model", "data", "method", "training", "chat", "export"];
  const listeners = { job: [], jobs: [], theme: [], tab: [], summary: [] };
  const state = { job: "", tab: "", jobs: [], loaded: false, down: 0, summaries: {} };

  const on = (name, callback) => listeners[name].push(callback);
  const emit = (name, value) => listeners[name].forEach((callback) => callback(value));

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
      line = h("small", { id: `tab-${name}-summary`, "aria-hidden": "true" }); // it describes the tab, and is no part of its name
      button.append(line);
      button.setAttribute("aria-describedby", line.id);
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
    const edge = () => bar.parentElement.classList.toggle("more", bar.scrollLeft + bar.clientWidth < bar.scrollWidth - 4);
    bar.addEventListener("scroll", edge, { passive: true });
    new ResizeObserver(edge).observe(bar);
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

  function chooseFirst() {
    if (state.job) return;
    const wanted = address().get("job");
    const running = state.jobs.find((job) => !isFinal(job) && job.status !== "queued");
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
    state, on, address, writeAddress, select, selected, setBox, openTab, summary, token, isDark, setDark,
    refresh: () => jobsPoll?.now(),
    onProblem: (callback) => problems.push(callback),
  };
})());

/* Shared by evaluation.js and export.js: fetch from our own routes, follow one job, make elements.
   Everything that comes from a file or a model enters the page through textContent only. */
(() => {
  "use strict";
  const BACKOFF = [1000, 2000, 5000, 10000];
  const SECOND = 1000;

  const make = (tag, className = "", text = null, ...children) => {
    const node = document.createElement(tag);
    if (className) node.className = className;
    if (text !== null && text !== undefined) node.textContent = String(text);
    node.append(...children);
    return node;
  };

  /* Text in an element that may break after commas: JSON without spaces stays readable in a narrow column. */
  const breakable = (node, text) => {
    const parts = String(text ?? "").split(/(?<=,)/);
    node.replaceChildren(...parts.flatMap((part, index) => (index ? [document.createElement("wbr"), part] : [part])));
    return node;
  };

  const address = (path) => new URL(path, document.baseURI).toString();
  const fileAddress = (job, name) =>
    address(`api/jobs/${encodeURIComponent(job)}/files/${name.split("/").map(encodeURIComponent).join("/")}`);

  const fetchJson = async (path) => {
    const reply = await fetch(address(path), { signal: AbortSignal.timeout(8000) });
    if (!reply.ok) throw Object.assign(new Error(`the studio answered ${reply.status}`), { status: reply.status });
    return reply.json();
  };

  /* Follow a job's events until it is over. `onNews(view)` gets {state, summary, phases, notices}; `onTrouble(text)`
     gets a sentence while the server cannot be reached and "" when it answers again. Returns a function that stops. */
  const follow = (element, job, onNews, onTrouble) => {
    let offset = 0, fails = 0, over = false, timer = null;
    const phases = new Map(), notices = [];
    const again = (delay) => { if (!over) timer = setTimeout(tick, delay); };
    const take = (event) => {
      if (event.kind === "phase" && event.phase !== "stopping") phases.set(event.phase, event);
      if (event.kind === "notice") notices.push(event);
    };
    const tick = async () => {
      if (over) return;
      if (!element.isConnected) { over = true; return; }
      if (document.hidden) { again(SECOND); return; }
      try {
        const news = await fetchJson(`api/jobs/${encodeURIComponent(job)}/events?after=${offset}`);
        if (over) return;
        if (news.next < offset) { phases.clear(); notices.length = 0; }
        const more = Boolean(news.more);
        offset = news.next;
        news.events.forEach(take);
        fails = 0;
        onTrouble("");
        onNews({ state: news.state, summary: news.summary, phases: [...phases.values()], notices });
        if (isFinal(news.state.status) && !more) { over = true; return; }
        again(more ? 0 : SECOND);
      } catch (error) {
        if (error.status === 404) { over = true; onTrouble("This job's folder is gone."); return; }
        onTrouble(error.status === 401 ? "Signed out: reload the page." : "The studio does not respond; retrying …");
        again(BACKOFF[Math.min(fails++, BACKOFF.length - 1)]);
      }
    };
    tick();
    return () => { over = true; clearTimeout(timer); };
  };

  const isFinal = (status) => ["completed", "stopped", "failed", "lost"].includes(status);

  /* A phase with its bar: "quantizing q4_k_m  212 of 272 tensors". */
  const phaseRow = (event) => {
    const done = event.state === "end";
    const row = make("li", `phase ${done ? "over" : event.state === "broken" ? "broken" : "now"}`);
    row.append(make("span", "phase-name", event.phase));
    const bar = make("span", `bar ${done ? "ok" : event.state === "broken" ? "bad" : ""}`);
    const share = done ? 1 : event.total ? Math.min(1, event.done / event.total) : null;
    bar.setAttribute("role", "progressbar");
    bar.setAttribute("aria-label", event.phase);
    if (share === null) bar.classList.add("unknown");
    else bar.setAttribute("aria-valuenow", String(Math.round(share * 100)));
    const fill = make("i");
    fill.style.width = share === null ? "" : `${(share * 100).toFixed(1)}%`;
    bar.append(fill);
    row.append(bar, make("span", "muted num phase-count", done ? "done" : event.total ? countText(event) : "working …"));
    return row;
  };

  const countText = (event) =>
    event.unit === "bytes"
      ? `${bytes(event.done)} of ${bytes(event.total)}`
      : `${round4(event.done)} of ${round4(event.total)} ${event.unit || ""}`.trim();

  const round4 = (number) => (Number.isInteger(number) ? String(number) : Number(number.toPrecision(4)).toString());

  const bytes = (count) => {
    for (const unit of ["bytes", "kB", "MB", "GB"]) {
      if (count < 1000) return count >= 100 || unit === "bytes" ? `${Math.round(count)} ${unit}` : `${count.toFixed(1)} ${unit}`;
      count /= 1000;
    }
    return `${count.toFixed(1)} TB`;
  };

  const percent = (share, digits = 1) => `${(share * 100).toFixed(digits)} %`;

  const duration = (seconds) => {
    if (!Number.isFinite(seconds)) return "";
    if (seconds < 60) return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
    return `${Math.floor(seconds / 60)} min ${String(Math.round(seconds % 60)).padStart(2, "0")} s`;
  };

  const STATUS = {
    queued: ["waiting", ""], starting: ["starting", "live"], running: ["running", "live"], stopping: ["stopping", "live"],
    completed: ["done", "ok"], stopped: ["stopped", "warn"], failed: ["failed", "bad"], lost: ["lost", "bad"],
  };
  const statusPill = (status) => {
    const [word, look] = STATUS[status] || [status, ""];
    return make("span", `pill ${look}`, word);
  };

  const stopButton = (job) => {
    const button = make("button", "btn small danger", "Stop");
    button.type = "button";
    button.addEventListener("click", async () => {
      button.disabled = true;
      button.textContent = "Stopping …";
      try {
        const reply = await fetch(address(`api/jobs/${encodeURIComponent(job)}/stop`), {
          method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ now: false }),
        });
        if (!reply.ok) throw new Error(String(reply.status));
      } catch {
        button.disabled = false;
        button.textContent = "Stop";
      }
    });
    return button;
  };

  const copyButton = (text, label) => {
    const button = make("button", "btn small quiet", "Copy");
    button.type = "button";
    button.setAttribute("aria-label", label);
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(text);
        button.textContent = "Copied";
      } catch {
        button.textContent = "Select the text to copy it";
      }
      setTimeout(() => { button.textContent = "Copy"; }, 2000);
    });
    return button;
  };

  /* Ask every 3 s whether a run is over; calls `then` once. Returns a function that stops. */
  const untilFinal = (element, job, then) => {
    let over = false, timer = null;
    const tick = async () => {
      if (over || !element.isConnected) return;
      try {
        const reply = document.hidden ? null : await fetchJson(`api/jobs/${encodeURIComponent(job)}`);
        if (!over && reply && isFinal(reply.state.status)) { over = true; then(); return; }
      } catch { /* the next tick asks again; the run list says that the server is away */ }
      timer = setTimeout(tick, 3000);
    };
    timer = setTimeout(tick, 3000);
    return () => { over = true; clearTimeout(timer); };
  };

  /* What to show of a job that has no report yet: its phases, what it told, and why it ended. */
  const progress = (state, phases, notices) => {
    if (state.status === "queued") return [make("p", "muted", "Waiting for the job before it to finish.")];
    const rows = make("ul", "phases", null, ...phases.map(phaseRow));
    const told = notices.map((one) => make("p", `notice ${one.level}`, `${one.text} ${one.fix || ""}`.trim()));
    if (!isFinal(state.status)) return [rows, ...told];
    return [make("p", "notice error", `${state.reason || state.status}${state.fix ? `. ${state.fix}` : ""}`), rows, ...told];
  };

  const setTrouble = (root, text) => {
    let line = root.querySelector(":scope > .trouble");
    if (!line) {
      line = make("p", "trouble muted");
      line.setAttribute("role", "status");
      root.prepend(line);
    }
    line.textContent = text;
    line.hidden = !text;
  };

  window.studioWatch = {
    make, breakable, address, fileAddress, fetchJson, follow, untilFinal, isFinal, progress, setTrouble, phaseRow, round4, bytes, percent, duration, statusPill,
    stopButton, copyButton,
  };
})();

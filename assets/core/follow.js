/* One job that makes a report, followed until it is over: its phases, what it told, why it ended (evaluation.js, export.js). */
"use strict";

window.studio.follow = (() => {
  const { h, put, linked, fetchJson, postJson, jobPath, poll, statusOf, isFinal, amount } = window.studio;
  const RUN_MS = 3000;

  /** Follow a job's events until it is over. `onNews` gets {state, phases, notices}; `onTrouble` a sentence while the
   *  studio cannot be reached and "" when it answers again. Returns a function that stops. */
  function events(element, job, onNews, onTrouble) {
    const phases = new Map(), notices = [];
    let after = 0, over = false;
    const take = (event) => {
      if (event.kind === "phase" && event.phase !== "stopping") phases.set(event.phase, event);
      if (event.kind === "notice") notices.push(event);
    };
    const poller = poll(async () => {
      if (over || !element.isConnected) return false;
      let news;
      try {
        news = await fetchJson(`${jobPath(job)}/events?after=${after}`);
      } catch (error) {
        if (error.status !== 404) throw error;
        onTrouble("This job's folder is gone.");
        return false;
      }
      if (over) return false;
      if (news.next < after) { phases.clear(); notices.length = 0; }
      after = news.next;
      news.events.forEach(take);
      onTrouble("");
      onNews({ state: news.state, phases: [...phases.values()], notices });
      return news.more ? 0 : isFinal(news.state) ? false : 1000;
    }, onTrouble);
    return () => { over = true; poller.stop(); };
  }

  /** Ask every 3 s whether a run is over; calls `then` once. Returns a function that stops. */
  function untilFinal(element, job, then) {
    let over = false;
    // What cannot be reached is asked again; the list of runs says so.
    const poller = poll(async () => {
      if (over || !element.isConnected) return false;
      const { state } = await fetchJson(jobPath(job));
      if (over) return false;
      if (!isFinal(state)) return RUN_MS;
      then();
      return false;
    }, () => {}, RUN_MS);
    return () => { over = true; poller.stop(); };
  }

  /* ---- drawing ---- */

  /** A phase with its bar: "quantizing q4_k_m  212 of 272 tensors". */
  function phaseRow(phase) {
    const done = phase.state === "end", broken = phase.state === "broken";
    const share = done ? 1 : phase.total ? Math.min(1, phase.done / phase.total) : null;
    const look = ["bar", done ? "ok" : broken ? "bad" : "", share === null ? "unknown" : ""].filter(Boolean).join(" ");
    const width = share === null ? null : `width:${(100 * share).toFixed(1)}%`, value = share === null ? null : Math.round(100 * share);
    return h("li", { class: `phase ${done ? "over" : broken ? "broken" : "now"}` },
      h("span", { class: "phase-name" }, phase.phase),
      h("span", { class: look, role: "progressbar", "aria-label": phase.phase, "aria-valuenow": value }, h("i", { style: width })),
      h("span", { class: "muted num phase-count" }, done ? "done" : phase.total ? amount(phase) : "working …"));
  }

  /** What to show of a job that has no report yet. */
  function progress(state, phases, notices) {
    if (state.status === "queued") return [h("p", { class: "muted" }, "Waiting for the job before it to finish.")];
    const rows = h("ul", { class: "phases" }, ...phases.map(phaseRow));
    const told = notices.map((one) => h("p", { class: `notice ${one.level}` }, ...linked(`${one.text} ${one.fix || ""}`.trim())));
    if (!isFinal(state)) return [rows, ...told];
    return [h("p", { class: "notice error" }, ...linked(`${state.reason || state.status}${state.fix ? `. ${state.fix}` : ""}`)), rows, ...told];
  }

  /** How a job is, what it does, and Stop: elements that stay while their texts change, since a button that is made anew
   *  at each poll loses the focus. `of` names the job that is shown, `tell` gives its state; `beside` is put before Stop. */
  function line(...beside) {
    const look = h("span", {}), what = h("span", { class: "muted" });
    let job = "";
    const stop = h("button", { type: "button", class: "btn small danger", onclick: async () => {
      const asked = job;
      ready(false);
      try {
        await postJson(`${jobPath(asked)}/stop`, { now: false });
      } catch {
        if (asked === job) ready(true);
      }
    } });
    const ready = (can) => {
      stop.disabled = !can;
      put(stop, can ? "Stop" : "Stopping …");
    };
    return {
      parts: [look, what, h("span", { class: "grow" }), ...beside, stop],
      of: (id, text) => {
        job = id;
        put(what, text);
        look.hidden = stop.hidden = true;
        ready(true);
      },
      tell: (state) => {
        const { word, pill } = statusOf(state);
        put(look, word.toLowerCase());
        look.className = `pill ${pill}`;
        look.hidden = false;
        stop.hidden = isFinal(state);
      },
    };
  }

  /** The line above all else that says what is wrong with reaching the studio. */
  function setTrouble(root, text) {
    let line = root.querySelector(":scope > .trouble");
    if (!line) {
      line = h("p", { class: "trouble muted", role: "status" });
      root.prepend(line);
    }
    put(line, text);
    line.hidden = !text;
  }

  /** A table that scrolls in a narrow window, with the titles of its columns: [title, class]. */
  function table(label, columns, rows) {
    const titles = columns.map(([title, look]) => h("th", { scope: "col", class: look }, title));
    return h("div", { class: "scroll-x", tabindex: 0, role: "region", "aria-label": label },
      h("table", {}, h("thead", {}, h("tr", {}, ...titles)), h("tbody", {}, ...rows)));
  }

  return { events, untilFinal, progress, line, setTrouble, table };
})();

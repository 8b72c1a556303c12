/* Requests to the studio's own routes, once and again and again. */
"use strict";

Object.assign(window.studio, (() => {
  const BACKOFF = [1, 2, 5, 10];

  class HttpError extends Error {
    constructor(status, text) { super(text); this.status = status; }
  }

  /** The sentence of a refusal, which FastAPI wraps. */
  function said(text) {
    try { const { detail } = JSON.parse(text); return typeof detail === "string" ? detail : text; } catch { return text; }
  }

  async function request(path, options = {}) {
    const answer = await fetch(path, { signal: AbortSignal.timeout(8000), cache: "no-store", ...options });
    if (!answer.ok) throw new HttpError(answer.status, said(await answer.text()));
    return answer;
  }

  const fetchJson = async (path, options) => (await request(path, options)).json();
  const fetchText = async (path, options) => (await request(path, options)).text();

  const postJson = (path, body, options = {}) =>
    fetchJson(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body), ...options });

  /** Address of a job, and of one of its files. */
  const jobPath = (id) => `/api/jobs/${encodeURIComponent(id)}`;
  const filePath = (id, name) => `${jobPath(id)}/files/${name.split("/").map(encodeURIComponent).join("/")}`;

  /** Call `work` again and again: after `work`'s own wish in ms (default 1000), later after failures, never while the
   *  page is hidden, and no more once it returns false, which has told all itself. The first call comes after `delay` ms. `problem` is told the
   *  failure's text, "" when it is over. Returns {now, stop}. */
  function poll(work, problem = () => {}, delay = 0) {
    let timer = null, busy = false, again = false, fails = 0, stopped = false;
    async function tick() {
      clearTimeout(timer);
      if (stopped || document.hidden) return;
      if (busy) { again = true; return; }
      busy = true;
      let wait = 1000;
      try {
        const wish = await work();
        if (wish === false) stop();
        if (typeof wish === "number") wait = wish;
        if (fails && wish !== false) problem("");
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
    function stop() {
      stopped = true;
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", wake);
    }
    document.addEventListener("visibilitychange", wake);
    if (delay) timer = setTimeout(tick, delay); else tick();
    return { now: tick, stop };
  }

  return { fetchJson, fetchText, postJson, jobPath, filePath, poll };
})());

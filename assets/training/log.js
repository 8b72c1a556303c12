/* Samples and log of the selected job. Lines are appended as text nodes: a log can contain anything. */
"use strict";

window.studio.log = (() => {
  const KEPT = 5000;
  const ALERT = /\b(warning|error|exception|traceback|failed|critical)\b/i;
  let root = null, part = null, lines = [], alerts = 0, show = "follow", words = "", jobId = "", chosen = 0, offered = "0", told = () => {};
  let excerpt = null; // {first, line, lines}: a place of the log that is shown instead of its end

  function mount(element) {
    if (element.dataset.mounted) return;
    element.dataset.mounted = "yes";
    root = element;
    part = (name) => root.querySelector(`[data-part="${name}"]`);
    root.querySelectorAll("[data-show]").forEach((button) => button.addEventListener("click", () => {
      show = button.dataset.show;
      excerpt = null;
      draw();
    }));
    part("search").addEventListener("input", (event) => { words = event.target.value.toLowerCase(); excerpt = null; draw(); });
    part("rank").addEventListener("change", (event) => choose(Number(event.target.value)));
    point();
    draw();
  }

  /** Whose log is shown: that of the first rank, which is the job's, or of another one. */
  function choose(rank, show = true) {
    const same = rank === chosen;
    if (!same) {
      reset(jobId, rank);
      told();
    }
    if (show && root) part("log-card").scrollIntoView({ block: "nearest" });
  }

  /** Offer the logs of these ranks; a run of one process has one, and no choice. */
  function offer(ranks) {
    if (!root) return;
    const key = ranks.join();
    part("rank").hidden = ranks.length < 2;
    if (key !== offered) {
      offered = key;
      part("rank").replaceChildren(...ranks.map((rank) => window.studio.h("option", { value: String(rank) }, rank ? `rank ${rank}` : "rank 0, the run")));
    }
    part("rank").value = String(chosen);
  }

  const wanted = (line) => (show !== "warnings" || ALERT.test(line)) && (!words || line.toLowerCase().includes(words));

  function nodes(some) {
    const made = document.createDocumentFragment();
    for (const line of some) {
      if (!wanted(line)) continue;
      if (ALERT.test(line)) made.append(window.studio.h("span", { class: "alert" }, `${line}\n`));
      else made.append(`${line}\n`);
    }
    return made;
  }

  function draw() {
    if (!root) return;
    part("log-card").hidden = !jobId;
    root.querySelectorAll("[data-show]").forEach((button) => button.setAttribute("aria-pressed", String(!excerpt && button.dataset.show === show)));
    window.studio.put(part("alerts"), String(alerts));
    const box = part("lines");
    if (excerpt) return drawExcerpt(box);
    box.replaceChildren(nodes(lines));
    if (!box.childNodes.length) box.append(jobId && (words || show === "warnings") ? "No matching lines." : "Nothing yet.");
    if (show === "follow") box.scrollTop = box.scrollHeight;
  }

  function drawExcerpt(box) {
    const { h, number } = window.studio, { first, line } = excerpt, last = first + excerpt.lines.length - 1;
    box.replaceChildren(h("span", { class: "muted" }, `lines ${number(first)} to ${number(last)}\n`));
    excerpt.lines.forEach((text, index) => {
      if (first + index === line) box.append(h("span", { class: "at", "aria-current": "true" }, `${text}\n`));
      else box.append(`${text}\n`);
    });
    const mark = box.querySelector(".at");
    if (mark) box.scrollTop += mark.getBoundingClientRect().top - box.getBoundingClientRect().top - box.clientHeight / 2;
  }

  /** Show the log around a line, from 1, and mark it: also of a log of which only the end was read. */
  async function open(line) {
    choose(0, false); // problems are told by the first rank
    const mine = jobId, box = part("lines");
    try {
      const answer = await window.studio.fetchJson(`${window.studio.jobPath(mine)}/log/around?line=${line}`);
      if (mine !== jobId) return;
      excerpt = answer;
      draw();
    } catch (error) {
      box.append(`Could not read the line (${error.message}).\n`);
    }
    part("log-card").scrollIntoView({ block: "center" });
    box.focus({ preventScroll: true });
  }

  /** Begin with another job, or with the log of another of its ranks. */
  function reset(id, rank = 0) {
    chosen = rank;
    jobId = id; lines = []; alerts = 0; excerpt = null;
    if (!root) return;
    point();
    draw();
  }

  /** Point the download at the job, which may have been chosen before this card was drawn. */
  function point() {
    if (jobId) part("log-link").setAttribute("href", window.studio.filePath(jobId, chosen ? `rank-${chosen}.log` : "log.txt"));
  }

  /** Add lines; progress bars that rewrite their line (\r) count as their last state. */
  function add(more, skipped) {
    if (!more.length) return;
    const clean = more.map((line) => line.slice(line.lastIndexOf("\r", line.length - 2) + 1).replace(/\r$/, ""));
    if (skipped) clean.unshift("… the beginning is in the download");
    const first = !lines.length;
    lines.push(...clean);
    alerts += clean.filter((line) => ALERT.test(line)).length;
    if (!root) return;
    if (excerpt) return void (lines = lines.slice(-KEPT));
    if (first || lines.length > KEPT) {
      lines = lines.slice(-KEPT);
      return draw();
    }
    const box = part("lines");
    if (box.firstChild && box.childNodes.length === 1 && !lines.some(wanted)) return;
    if (lines.length === clean.length || box.textContent === "No matching lines.") return draw();
    box.append(nodes(clean));
    window.studio.put(part("alerts"), String(alerts));
    if (show === "follow") box.scrollTop = box.scrollHeight;
  }

  /** What an answer's rewards were, under it; null where there are none. */
  function scored(event) {
    const rewards = Object.entries(event.rewards || {});
    const { h, number } = window.studio;
    return rewards.length ? h("div", { class: "muted num" }, rewards.map(([name, value]) => `${name} ${number(value, 3)}`).join(" · ")) : null;
  }

  /** Table of samples: the first answer to each prompt beside the newest. */
  function samples(events) {
    if (!root) return;
    part("samples").hidden = !events.length;
    if (!events.length) return;
    const h = window.studio.h, answer = (event) => String(event.text ?? event.answer ?? event.output ?? "");
    const prompts = [...new Set(events.map((event) => String(event.prompt ?? "")))].slice(0, 8);
    const steps = events.map((event) => event.step ?? 0).sort((one, other) => one - other), first = steps[0], last = steps[steps.length - 1];
    window.studio.put(part("sample-step"), `step ${last}`);
    const names = ["Prompt", `Step ${first}`, ...(last > first ? [`Step ${last}`] : [])];
    part("sample-head").replaceChildren(...names.map((name) => h("th", { scope: "col" }, name)));
    part("sample-rows").replaceChildren(...prompts.map((prompt) => {
      const of = events.filter((event) => String(event.prompt ?? "") === prompt);
      const cells = [h("td", {}, prompt), h("td", { class: last > first ? "muted" : "mono" }, answer(of[0]), scored(of[0]))];
      if (last > first) cells.push(h("td", { class: "mono" }, answer(of[of.length - 1]), scored(of[of.length - 1])));
      return h("tr", {}, ...cells);
    }));
  }

  return { mount, reset, add, samples, open, choose, offer, rank: () => chosen, onRank: (listener) => { told = listener; } };
})();

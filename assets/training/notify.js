/* A desktop notification when a run is over, also while this tab is hidden: then nothing else here asks the studio,
   so while the switch is on and a run is not over yet, this does, a few times a minute. The browser is asked for its
   leave only by a click on the switch, which it remembers. */
"use strict";

window.studio.notify = (() => {
  const KEY = "studio.notify", HIDDEN_MS = 15000;
  const unfinished = new Map(); // id → status, as last seen
  const here = "Notification" in window && window.isSecureContext;
  let button = null, said = null, timer = null;

  const wanted = () => here && localStorage.getItem(KEY) === "on" && Notification.permission === "granted";

  function show(job) {
    const { number, duration } = window.studio;
    const facts = [
      job.reason || "", job.best === null || job.best === undefined ? "" : `best validation loss ${number(job.best)}`,
      job.started && job.finished ? `after ${duration(job.finished - job.started)}` : "",
    ];
    // The tag makes one notification of those of several tabs.
    const note = new Notification(`${job.name || job.id} ${window.studio.statusOf(job).ended}`, { body: facts.filter(Boolean).join(", "), tag: `studio-${job.id}` });
    note.onclick = () => { window.focus(); window.studio.select(job.id); window.studio.openTab("training"); note.close(); };
  }

  /** Compare with what was seen before; who was not over then and is now has come to its end. */
  function look(jobs) {
    for (const job of jobs) {
      if (!window.studio.isFinal(job)) unfinished.set(job.id, job.status);
      else if (unfinished.delete(job.id) && wanted()) show(job);
    }
  }

  async function ask() {
    if (!document.hidden || !wanted() || !unfinished.size) return;
    try { look(await window.studio.fetchJson("/api/jobs")); } catch { /* The studio is away; the next time tells. */ }
  }

  function draw() {
    if (!button) return;
    button.setAttribute("aria-checked", String(wanted()));
    window.studio.put(said, here && Notification.permission === "denied" ? "The browser blocks notifications from this page; allow them in its settings." : "");
  }

  async function turn() {
    const on = !wanted();
    if (on && Notification.permission === "default") await Notification.requestPermission();
    localStorage.setItem(KEY, on ? "on" : "off");
    draw();
  }

  function mount(element) {
    if (element.dataset.notify) return;
    element.dataset.notify = "yes";
    button = element.querySelector('[data-part="notify"]');
    said = element.querySelector('[data-part="notify-said"]');
    button.hidden = !here;
    button.addEventListener("click", turn);
    draw();
  }

  window.studio.on("jobs", look);
  timer ??= setInterval(ask, HIDDEN_MS);
  return { mount, ask };
})();

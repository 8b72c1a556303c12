/* The selected job, live. Reads /api/jobs/ID/events and /log from where it was, once a second while the Training
   tab is visible, and draws only what is new. A reader is thrown away when another job is selected. */
"use strict";

window.studio.monitor = (() => {
  const { statusOf, h, put, fetchJson, postJson, jobPath, amount, number, signed, duration, roughly, bytes, percent, NONE, Reader } = window.studio;
  const CHOICES = 200; // runs that a chart can be compared with, the newest: ten thousand options take seconds
  const UPDATES = []; // of the last updates [ms of drawing, ms of reading], for measuring

  let root = null, part = null, board = null, reader = null, other = null, poller = null, asked = null;

  const visible = () => root !== null && root.isConnected && root.offsetParent !== null;

  async function tick() {
    if (!visible() || !reader) return 1000;
    const mine = reader;
    if (mine.complete && window.studio.isFinal(window.studio.selected() || mine.state)) { drawHead(); return 5000; }
    mine.complete = false; // it goes on, maybe by another page
    // The settings of one that waits may have been changed; what is known of it stays until the answer is here.
    if (!mine.about || mine.state?.status === "queued") mine.about = await fetchJson(jobPath(mine.id));
    mine.name = mine.about.name || mine.id;
    const began = performance.now();
    const came = await mine.read(jobPath(mine.id), () => { if (mine === reader) draw(true); });
    const rank = window.studio.log.rank();
    const log = await fetchJson(`${jobPath(mine.id)}/log?after=${mine.logAfter}&rank=${rank}`);
    if (mine !== reader || rank !== window.studio.log.rank()) return 0;
    if (log.restarted) window.studio.log.reset(mine.id, rank);
    mine.logAfter = log.next;
    const drawing = performance.now();
    window.studio.log.add(log.lines, log.skipped);
    draw(came);
    await board.queue;
    UPDATES.push([performance.now() - drawing, drawing - began]);
    if (UPDATES.length > 200) UPDATES.shift();
    mine.logMore = log.lines.length > 0;
    // A final state was read before the events, so nothing can follow it; the environment may have changed since.
    if (mine.state.final && !mine.logMore) {
      mine.about = await fetchJson(jobPath(mine.id));
      mine.complete = rank === window.studio.log.rank(); // the log of another one may be wanted by now
      draw(false);
    }
    return mine.logMore && mine.state.final ? 0 : 1000;
  }

  /* ---- drawing ---- */

  function draw(came) {
    if (!reader || !reader.state) return;
    drawHead();
    window.studio.notices.draw(part("notices"), reader);
    window.studio.tracked.draw(part("trackers"), reader);
    const there = reader.about?.kind === "openai", training = reader.about?.kind === "train" || there;
    const begun = training && Object.keys(reader.series).length > 0;
    // Until the first numbers come, empty tiles and charts stand where they will be.
    part("training").hidden = !training || (!begun && reader.state.final);
    part("training").classList.toggle("skeleton", !begun);
    part("training").inert = !begun;
    if (begun) {
      drawTiles();
      window.studio.ranks.draw(part("ranks"), reader, (rank) => window.studio.log.choose(rank));
      // A service says nothing of its learning rate, speed or memory.
      for (const box of root.querySelectorAll(".tile")) box.hidden = there && !["loss", "eval_loss"].includes(box.dataset.tile) && !reader.series[box.dataset.tile];
      for (const name of ["learning_rate", "grad_norm", "tokens_per_second"]) board.plots[name].closest("section").hidden = there && !reader.series[name];
      board.setMetrics(reader.about.metrics.filter(({ name }) => reader.series[name] || reader.series[`eval_${name}`]));
      board.setTotal(reader.summary.total_steps);
      if (board.run !== reader || reader.redraw) board.show(reader); else if (came) board.extend();
      reader.redraw = false;
      label();
    }
    window.studio.log.samples(reader.samples);
    window.studio.log.offer(reader.about?.ranks || [0]);
  }

  function drawHead() {
    const { state, summary, about } = reader;
    if (!state || !about) return;
    const row = window.studio.selected();
    const stopping = !state.final && (state.status === "stopping" || state.stop_asked);
    const shown = statusOf(stopping ? { status: "stopping" } : state);
    put(part("pill"), shown.word);
    part("pill").className = `pill ${shown.pill}`;
    put(part("name"), row?.name || about.name || reader.id);
    const epochs = about.config?.training?.epochs;
    put(part("about"), [about.line, about.machine ? `on ${about.machine}` : state.device.startsWith("cuda") ? `on ${state.device}` : "", about.kind === "train" && summary.epoch !== null && epochs ? `epoch ${summary.epoch.toFixed(1)} of ${number(epochs)}` : ""].filter(Boolean).join(" · "));
    const there = about.elsewhere, paused = there && summary.phase === "paused at the service" && !state.final;
    part("resume").hidden = there ? !(paused || there.loose) : !state.final || about.resumable === null || about.resumable === undefined;
    put(part("resume"), there ? (paused ? "Resume" : "Follow again") : about.resumable ? `Resume from step ${number(about.resumable)}` : "Resume");
    part("pause").hidden = !there || state.final || stopping || summary.phase !== "training";
    part("stop").hidden = (state.final && !there?.loose) || stopping;
    part("stop-now").hidden = state.final || !stopping || state.stop_now;
    put(part("stop"), state.status === "queued" ? "Remove from the queue" : about.kind === "train" ? "Stop and save" : there ? "Cancel" : "Stop");
    const [share, count, left] = progress(row, stopping);
    const bar = part("bar");
    bar.className = ["bar", shown.bar, share === null && !state.final ? "unknown" : ""].filter(Boolean).join(" ");
    bar.firstElementChild.style.width = `${100 * (share ?? 0)}%`;
    if (share === null) bar.removeAttribute("aria-valuenow"); else bar.setAttribute("aria-valuenow", String(percent(share)));
    bar.setAttribute("aria-valuetext", count);
    put(part("count"), count);
    put(part("left"), left);
    put(part("phases"), phaseLine());
    drawNext(about.next || {});
    document.body.dataset.run = state.final || !["train", "openai"].includes(about.kind) ? "over" : "live";
  }

  /** What a finished run can be used for, each with what it takes. */
  function drawNext(next) {
    const words = {
      evaluate: ({ rows, seconds }) => `${rows} rows in about ${roughly(seconds)}`,
      chat: ({ seconds, bytes: size }) => `starts in about ${roughly(seconds)}, ${bytes(size)} of memory`,
      export: ({ type, seconds, bytes: size }) => `${type}, about ${bytes(size)} in ${roughly(seconds)}`,
    };
    part("next").hidden = !Object.keys(next).length;
    for (const [name, said] of Object.entries(words)) {
      if (next[name]) put(part("next").querySelector(`[data-next="${name}"] small`), said(next[name]));
    }
  }

  function goNext(name) {
    if (name !== "evaluate") return window.studio.openTab(name);
    document.getElementById("evaluation").scrollIntoView({ block: "start" });
    document.querySelector("#evaluate-start").focus({ preventScroll: true });
  }

  /** [share of the whole job or null, what it is at, time left] */
  function progress(row, stopping) {
    const { state, summary } = reader, total = summary.total_steps;
    const plan = reader.about.environment?.plan?.seconds, planned = plan && reader.about.kind === "train" ? ` (training was planned to take ${duration(plan)})` : "";
    const took = state.started && state.finished ? `in ${duration(Math.max(0, state.finished - state.started))}${planned}` : "";
    if (state.status === "queued") return [0, row?.word || "waiting", ""];
    if (state.final) {
      const share = state.status === "completed" ? 1 : reader.share || (total ? summary.step / total : 0);
      return [share, total ? `step ${number(summary.step)} of ${number(total)}` : state.status === "completed" ? "done" : state.status, took];
    }
    const phase = reader.phases[reader.phases.length - 1];
    const left = reader.left(), time = left === null ? "" : `${duration(left)} left`;
    const share = reader.share || null;
    if (stopping) return [share, summary.phase && summary.phase !== "stopping" && summary.phase !== "training" ? summary.phase : "finishing the step, then saving", ""];
    if (phase && phase.phase !== "training") {
      const step = phase.phase === "validating" && total ? `step ${number(summary.step)} of ${number(total)}, ` : "";
      if (!phase.total) return [share, `${step}${phase.phase}`, time];
      return [share, `${step}${phase.phase}: ${amount(phase)}`, time];
    }
    return [share, total ? `step ${number(summary.step)} of ${number(total)}` : phase?.phase || "starting", time];
  }

  /** The phases so far in the order they first came, each with its time in all: validations interrupt the training. */
  function phaseLine() {
    const spent = new Map();
    let open = null;
    reader.phases.forEach((phase, index) => {
      const end = phase.closed ?? reader.phases[index + 1]?.begun ?? (reader.state.final || phase.state === "end" ? Math.max(phase.time, phase.begun) : null);
      if (end === null) open = phase.phase;
      spent.set(phase.phase, (spent.get(phase.phase) || 0) + (end === null ? 0 : Math.max(0, end - phase.begun)));
    });
    return [...spent].map(([name, seconds]) => (name === open && !seconds ? name : `${name} ${duration(seconds)}`)).join(" · ");
  }

  function tile(name, value, note, look = "") {
    const box = root.querySelector(`[data-tile="${name}"]`);
    put(box.querySelector("b"), value);
    put(box.querySelector("em"), note);
    box.querySelector("em").className = look;
  }

  const newest = (name) => {
    const series = reader.series[name];
    return series ? series.y[series.length - 1] ?? (reader.summary.values[name] ?? null) : null;
  };

  function drawTiles() {
    const { series, summary, about } = reader, training = about.config?.training || {};
    const loss = series.loss?.y || [], back = Math.min(10, loss.length - 1);
    const now = loss[loss.length - 1], before = loss[loss.length - 1 - back], known = back > 0 && now !== null && before !== null;
    tile("loss", number(newest("loss")), known ? `${signed(now - before)} in ${back} step${back === 1 ? "" : "s"}` : "", known && now < before ? "good" : "");
    const best = summary.best, last = newest("eval_loss");
    if (best === null) tile("eval_loss", NONE, "not measured yet");
    else if (last === best[0]) tile("eval_loss", number(last), `best, step ${number(best[1])}`, "good");
    else tile("eval_loss", number(last), `best ${number(best[0])}, step ${number(best[1])}`);
    const warm = training.warmup && summary.total_steps ? Math.ceil(training.warmup * summary.total_steps) : 0;
    const schedule = String(training.scheduler || "").replaceAll("_", " ");
    tile("learning_rate", number(newest("learning_rate"), 4), [schedule, warm ? (summary.step < warm ? "warming up" : "warmup done") : ""].filter(Boolean).join(", "));
    const plan = about.environment?.plan || {};
    const seen = summary.tokens ? number(summary.tokens) : "";
    tile("tokens_per_second", number(rounded(newest("tokens_per_second"))), seen ? (plan.tokens ? `${seen} seen, ${number(plan.tokens)} planned` : `${seen} seen`) : "");
    const planned = plan.total_bytes;
    tile("memory", reader.memory ? `${reader.memory.toPrecision(3)} GB` : NONE, planned ? `planned ${bytes(planned)}` : "", planned && reader.memory * 1e9 > 1.1 * planned ? "warn" : "");
    const norm = newest("grad_norm"), limit = training.max_grad_norm;
    tile("grad_norm", number(norm), limit ? (norm > limit ? `clipped at ${plain(limit)}` : `below the clipping threshold ${plain(limit)}`) : "not clipped");
  }

  const plain = (value) => (Number.isInteger(value) ? value.toFixed(1) : number(value));
  const rounded = (value) => (typeof value === "number" && value >= 100 ? Math.round(value) : value);

  /** What the charts say, for those who cannot see them. */
  function label() {
    for (const [name, plot] of Object.entries(board.plots)) {
      const last = newest(name), text = `${plot.closest("section").getAttribute("aria-label")}: ${number(last)} at step ${reader.summary.step}`;
      plot.setAttribute("aria-label", text);
    }
  }

  /* ---- acts ---- */

  function ask(now) {
    asked = { id: reader.id, now };
    const name = window.studio.selected()?.name || reader.about.name, train = reader.about.kind === "train", waits = reader.state.status === "queued";
    put(part("ask-title"), now ? `Stop ${name} now?` : waits ? `Remove ${name} from the queue?` : `Stop ${name}?`);
    put(part("ask-no"), waits ? "Keep it queued" : "Keep running");
    put(part("ask-text"), now ? "The process is terminated at once. Unsaved progress is lost."
      : waits ? "It has not started. It stays in the list as stopped, with its settings."
      : reader.about.elsewhere ? "The job is cancelled at OpenAI. What was trained until then is paid for; its checkpoints stay there."
      : train ? "The current step is finished and the progress is saved. Then the device is free, and the run can be resumed." : "Work in progress is lost; finished files stay.");
    put(part("ask-yes"), now ? "Stop now" : waits ? "Remove" : train ? "Stop and save" : reader.about.elsewhere ? "Cancel the job" : "Stop");
    part("ask").showModal();
  }

  async function stop() {
    part("ask").close();
    try {
      await postJson(`${jobPath(asked.id)}/stop`, { now: asked.now });
    } catch (error) {
      problem(`Could not stop the job (${error.message}). Try again.`);
    }
    poller.now();
    window.studio.refresh();
  }

  async function goOn() {
    part("resume").disabled = true;
    problem("");
    try {
      await postJson(`${jobPath(reader.id)}/resume`, {});
      reader.about = null;
      reader.complete = false;
      await window.studio.refresh();
      poller.now();
    } catch (error) {
      problem(`Could not resume: ${error.message}`);
    }
    part("resume").disabled = false;
  }

  async function pause() {
    problem("");
    try {
      await postJson(`${jobPath(reader.id)}/pause`, {});
      poller.now();
    } catch (error) {
      problem(`Could not pause: ${error.message}`);
    }
  }

  function problem(text) {
    part("problem").hidden = !text;
    put(part("problem"), text);
  }

  function choose(id) {
    reader = id ? new Reader(id, board.factor) : null;
    window.studio.log.reset(id);
    window.studio.log.samples([]);
    part("training").hidden = part("next").hidden = true;
    for (const box of root.querySelectorAll(".tile")) tile(box.dataset.tile, NONE, "");
    part("ranks").hidden = true;
    part("notices").replaceChildren();
    delete part("notices").dataset.key;
    window.studio.tracked.draw(part("trackers"), null);
    for (const name of ["pill", "about", "count", "left", "phases"]) put(part(name), "");
    const row = window.studio.selected();
    put(part("name"), row ? row.name : "");
    part("pill").className = "pill";
    part("resume").hidden = part("pause").hidden = part("stop").hidden = part("stop-now").hidden = true;
    part("bar").className = "bar unknown";
    fillCompare();
    poller?.now();
  }

  /* ---- comparing ---- */

  function fillCompare() {
    const runs = window.studio.state.jobs.filter((job) => job.kind === "train" && job.id !== reader?.id && job.step > 0).slice(0, CHOICES);
    const select = part("compare");
    const key = runs.map((job) => `${job.id} ${job.name}`).join();
    if (select.dataset.key === key) return;
    select.dataset.key = key;
    const kept = runs.some((job) => job.id === select.value) ? select.value : "";
    select.replaceChildren(h("option", { value: "" }, "none"), ...runs.map((job) => h("option", { value: job.id }, job.name)));
    select.value = kept;
    if (!kept && other) compare("");
  }

  async function compare(id) {
    other = id ? new Reader(id, board.factor) : null;
    if (!other) return board.compare(null);
    const mine = other;
    try {
      mine.name = window.studio.state.jobs.find((job) => job.id === id)?.name || id;
      await mine.read(jobPath(id));
      if (mine === other) board.compare(mine);
    } catch (error) {
      problem(`Could not read the other run (${error.message}).`);
    }
  }

  /* ---- the tab's own line ---- */

  /** Of a studio without a job: how long the demo takes here, by its plan. */
  async function tellDemo() {
    const said = document.querySelector('[data-demo="takes"]');
    if (!said || said.dataset.asked) return;
    said.dataset.asked = "yes";
    const late = (error) => ({ preparing: error.name === "TimeoutError" }); // a busy machine is still being measured
    const { seconds, preparing } = await fetchJson("/api/demo", { signal: AbortSignal.timeout(60000) }).catch(late);
    if (seconds) put(said, `, in about ${roughly(seconds)} on this machine`);
    if (preparing) delete said.dataset.asked; // the next look asks again
  }

  function tabLine() {
    const { jobs, loaded, job: id } = window.studio.state, job = jobs.find((one) => one.id === id);
    if (loaded && !jobs.length) tellDemo();
    document.body.dataset.jobs = jobs.length ? "some" : "none";
    if (!job) return window.studio.summary("training", jobs.length ? "" : "nothing yet");
    const word = statusOf(job).word.toLowerCase();
    const share = job.share, done = window.studio.isFinal(job);
    window.studio.summary("training", !done && share ? `${word}, ${percent(share)} %` : done && job.best !== null && job.status === "completed" ? `${word}, loss ${number(job.best, 3)}` : word);
  }

  function mount(element) {
    if (element.dataset.mounted) return;
    element.dataset.mounted = "yes";
    root = element;
    part = (name) => root.querySelector(`[data-part="${name}"]`);
    board = new window.studio.charts.Board(root.querySelector(".charts"));
    window.studio.log.onRank(() => {
      if (!reader) return;
      Object.assign(reader, { logAfter: 0, complete: false });
      poller?.now();
    });
    board.open(root.querySelector(".monitor").dataset.plotly).catch(() => problem("Could not load the charts; reload the page."));
    window.studio.queue.mount(part("queue-acts"));
    window.studio.branch.mount(root.querySelector(".monitor"));
    part("resume").addEventListener("click", goOn);
    part("pause").addEventListener("click", pause);
    part("stop").addEventListener("click", () => ask(false));
    part("stop-now").addEventListener("click", () => ask(true));
    part("ask-no").addEventListener("click", () => part("ask").close());
    part("ask-yes").addEventListener("click", stop);
    for (const button of part("next").children) button.addEventListener("click", () => goNext(button.dataset.next));
    part("smooth").addEventListener("input", (event) => { board.setFactor(Number(event.target.value)); if (reader) reader.factor = board.factor; });
    part("compare").addEventListener("change", (event) => compare(event.target.value));
    const { segment } = window.studio.charts;
    segment(root, "x", (value) => board.setX(value));
    segment(root, "y", (value) => board.setScale(value));
    window.studio.on("job", choose);
    window.studio.on("jobs", fillCompare);
    choose(window.studio.state.job);
    poller = window.studio.poll(tick, problem);
    new IntersectionObserver(() => { if (visible()) poller.now(); }).observe(root);
  }

  window.studio.on("jobs", tabLine);
  window.studio.on("job", tabLine);
  tabLine();

  return { mount, UPDATES, get reader() { return reader; }, get board() { return board; } };
})();

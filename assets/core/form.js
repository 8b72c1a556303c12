/* The run's form: what is shown of a plan and of a choice, without a request and with text only.
   Handlers return plain values to pieces (studio/ui/components/choices.py); a piece publishes them on a topic and
   every other piece that is in the document draws from it. No value is ever read as markup. */
window.studioForm = window.studioForm || (() => {
  const { h, fetchJson, postJson, poll, isFinal } = window.studio;
  const latest = {}, listeners = {};
  const state = { name: "", row: 1, source: 0, asked: 0, set: {}, sweep: {}, sequence: 0, shown: 0, waiting: false };

  function publish(topic, data) {
    latest[topic] = data;
    listeners[topic] = (listeners[topic] || []).filter((one) => one.element.isConnected);
    for (const one of listeners[topic]) one.draw(data);
  }

  function subscribe(topic, element, draw) {
    (listeners[topic] = listeners[topic] || []).push({ element, draw });
    if (topic in latest) draw(latest[topic]);
  }

  function pill(level, text) {
    const words = { warning: "warn", error: "bad", info: "", good: "ok" };
    return h("span", { class: `pill ${words[level] ?? level}` }, text);
  }

  /* ---- what a handler is given besides the fields: the run's name, and a number that tells old replies. */
  function before(values) {
    state.sequence += 1;
    state.waiting = true;
    const mine = state.sequence;
    setTimeout(() => { if (state.waiting && mine === state.sequence) publish("busy", true); }, 350);
    const last = values.length - 1;
    restoreName(values[last]);
    values[last] = meta();
    return values;
  }

  const meta = () => JSON.stringify({ name: state.name, sequence: state.sequence, row: state.row, source: state.source,
    asked: state.asked, set: state.set, edit: source()?.edit ? source().job : "", sweep: state.sweep,
    branch: source()?.step ? source().job : "", step: source()?.step || 0 });

  /** The job whose settings the form was filled with: queue.js. */
  const source = () => window.studio.queue?.from;

  function withMeta(values) {
    values[values.length - 1] = meta();
    return values;
  }

  function restoreName(text) {
    if (state.restored || !text) return;
    try {
      const kept = JSON.parse(text);
      state.name = kept.restored || "";
      state.restored = true;
      setSweep(kept.sweep);
    } catch { /* what a handler left there */ }
  }

  function setSweep(values) {
    state.sweep = values || {};
    publish("sweep", state.sweep);
  }

  /** A run was started: the next one gets a name of its own. */
  function started() {
    state.name = "";
    setSweep({});
    window.studio.queue.saved();
    window.studio.refresh();
  }

  function receivePlan(data) {
    if (!data || data.sequence < state.shown) return;
    state.shown = data.sequence;
    if (data.sequence >= state.sequence) { state.waiting = false; publish("busy", false); }
    apply(data.method, data.tuning);
    publish("plan", data);
    mark();
  }

  /* ---- which fields apply: one rule, so that fields of tabs that are not open yet obey it too. */
  let applied;
  function apply(method, tuning) {
    if (!/^\w+$/.test(`${method}${tuning}`)) return;
    if (!applied) applied = document.head.appendChild(h("style"));
    applied.textContent = `.field.by-method:not(.for-method-${method}),.field.by-tuning:not(.for-tuning-${tuning})` +
      "{display:none!important}";
    state.method = method; state.tuning = tuning;
  }

  function mark() {
    const plan = latest.plan;
    if (!plan) return;
    const changed = new Set(plan.changed), kept = new Set(plan.kept), wrong = new Set(plan.errors.map((error) => error.field));
    for (const field of document.querySelectorAll(".field[id]")) {
      field.classList.toggle("changed", changed.has(field.id));
      field.classList.toggle("kept", kept.has(field.id));
      field.classList.toggle("wrong", wrong.has(field.id));
      const note = plan.notes[field.id];
      if (note) field.dataset.note = note; else delete field.dataset.note;
    }
  }

  /* ---- cards */
  function cards({ element, props, watch }, constants) {
    const group = element.querySelector(".choices");
    group.setAttribute("aria-label", constants.legend);
    const name = `cards-${Math.random().toString(36).slice(2)}`;
    let texts = {}, list = constants.cards;
    const draw = () => {
      group.replaceChildren(...list.map((card) => {
        const on = card.value === props.value;
        const off = !!card.lacks && !on;
        return h("label", { class: `choice${on ? " on" : ""}${off ? " off" : ""}` },
          h("input", { type: "radio", name, value: card.value, checked: on, disabled: off, onchange: () => choose(card.value) }),
          h("b", {}, card.title), card.badge ? pill(card.level || "info", card.badge) : null,
          h("small", {}, card.lacks ? `${card.text}. ${card.lacks}` : texts[card.value] || card.text));
      }));
    };
    const choose = (value) => {
      props.value = value;
      for (const label of group.children) label.classList.toggle("on", label.firstChild.value === value);
      if (constants.topic === "tuning.name") apply(state.method, value);
      if (constants.topic === "method.name") apply(value, state.tuning);
    };
    draw();
    watch("value", draw);
    subscribe(constants.topic, element, (newer) => { list = newer; draw(); });
    subscribe("plan", element, (plan) => {
      if (!plan.cards[constants.topic]) return;
      texts = plan.cards[constants.topic];
      for (const label of group.children) {
        const text = texts[label.firstChild.value];
        if (text) label.lastChild.textContent = text;
      }
    });
  }

  /* ---- the fold of advanced options */
  function fold({ element }, constants) {
    const button = element.querySelector("button");
    const target = () => document.getElementById(constants.target);
    const show = (open) => {
      button.setAttribute("aria-expanded", open);
      target()?.classList.toggle("open", open);
    };
    button.setAttribute("aria-controls", constants.target);
    button.addEventListener("click", () => show(button.getAttribute("aria-expanded") !== "true"));
    const title = (plan) => {
      const count = plan ? constants.fields.filter((id) => plan.changed.includes(id)).length : 0;
      button.textContent = count ? `Advanced (${count} changed)` : "Advanced";
      if (plan && plan.errors.some((error) => constants.fields.includes(error.field))) show(true);
    };
    title();
    subscribe("plan", element, title);
    requestAnimationFrame(mark);
  }

  /* ---- going to a field, whose tab may not have been opened yet */
  async function jump(field) {
    if (!field) return;
    const find = () => document.getElementById(field);
    window.studio.openTab({ model: "model", data: "data" }[field.split("-")[1]] || "method");
    for (let tries = 0; tries < 100 && !find()?.offsetParent; tries += 1) await new Promise((done) => setTimeout(done, 50));
    if (!find()) return;
    find().tabIndex = -1; // an empty list of files has nothing else to focus
    find().scrollIntoView({ block: "center" });
    (find().querySelector("input, textarea, button") || find()).focus({ preventScroll: true });
  }

  /* ---- the plan line */
  function planline({ element, props, trigger, watch }) {
    const find = (name) => element.querySelector(`.${name}`);
    const start = find("plan-start"), name = find("plan-name"), list = find("plan-errors");
    name.value = state.name;
    name.addEventListener("input", () => { state.name = name.value; });
    name.addEventListener("change", () => trigger("input"));
    const go = () => {
      state.name = name.value;
      const plan = latest.plan;
      if (plan && plan.errors.length) { // says what is wrong, all of it, and goes where the first of it is
        list.hidden = plan.errors.length < 2;
        jump(plan.errors[0].field);
        return;
      }
      start.disabled = true;
      setTimeout(() => { start.disabled = false; }, 1500);
      if (plan?.sweep) find("plan-busy").textContent = `checking ${plan.sweep.count} runs …`;
      trigger("submit");
    };
    start.addEventListener("click", go);
    name.addEventListener("keydown", (event) => { if (event.key === "Enter") go(); });
    find("plan-more").addEventListener("click", () => { list.hidden = !list.hidden; });
    find("plan-back").addEventListener("click", () => window.studio.queue.back());
    const label = () => {
      const busy = window.studio.state.jobs.some((job) => !isFinal(job)), from = source(), runs = latest.plan?.sweep?.count;
      start.textContent = from?.edit ? `Save changes to ${from.title}` : runs ? (busy ? `Add ${runs} runs to queue` : `Start ${runs} runs`)
        : busy ? "Add to queue" : "Start training";
      find("plan-named").hidden = !!from?.edit;
      find("plan-from").hidden = !from;
      if (from) window.studio.put(find("plan-from").firstElementChild, window.studio.queue.said());
      find("plan-back").textContent = from?.edit ? "Discard changes" : "Restore previous settings";
    };
    window.studio.on("jobs", () => { if (element.isConnected) label(); });
    subscribe("from", element, label);
    subscribe("plan", element, (plan) => {
      const errors = plan.errors;
      find("plan-what").textContent = plan.what;
      const text = find("plan-text");
      text.textContent = errors.length ? errors[0].sentence : [plan.line, runsText(plan.sweep)].filter(Boolean).join(" · ");
      text.classList.toggle("wrong", errors.length > 0);
      const more = find("plan-more");
      more.hidden = errors.length < 2;
      more.textContent = `all ${errors.length} problems`;
      list.replaceChildren(...errors.map((error) => h("li", {}, error.sentence)));
      if (errors.length < 2) list.hidden = true;
      const limits = find("plan-limits");
      limits.hidden = !plan.limits.length;
      limits.replaceChildren(...plan.limits.map((limit) => h("div", { class: "notice warning" }, limit)));
      label();
      start.classList.toggle("blocked", errors.length > 0);
      name.placeholder = plan.name;
      if (document.activeElement !== name) name.value = state.name;
    });
    subscribe("busy", element, (busy) => {
      element.querySelector(".plan").classList.toggle("busy", busy);
      find("plan-busy").textContent = busy ? (latest.phase || "counting tokens …") : "";
      counted(busy, element, find("plan-busy"));
    });
    const take = () => { if (props.value) receivePlan(props.value); };
    take();
    watch("value", take);
  }

  /** While rows are counted: how far that is, in `place`, and a button behind it that ends it. Short counts show neither. */
  function counted(busy, element, place) {
    place.counting?.stop();
    place.counting = null;
    place.nextElementSibling?.matches(".stop-counting") && place.nextElementSibling.remove();
    if (!busy) return;
    const cancel = () => { stop.disabled = true; postJson("/api/counting/cancel", {}); };
    const stop = h("button", { type: "button", class: "btn quiet small stop-counting", onclick: cancel }, "Stop counting");
    const began = Date.now();
    place.counting = poll(async () => {
      if (!element.isConnected) return false;
      if (Date.now() - began < 1500) return 500;
      const { text } = await fetchJson("/api/counting");
      if (!text || !place.counting) return 1000;
      place.textContent = `${text} …`;
      if (!stop.isConnected) place.after(stop);
      return 1000;
    });
  }

  /** "makes 6 runs: about 12 min" */
  function runsText(sweep) {
    if (!sweep) return "";
    return `makes ${sweep.count} ${sweep.count === 1 ? "run" : "runs"}${sweep.seconds === null ? "" : `: about ${window.studio.roughly(sweep.seconds)}`}`;
  }

  /* ---- memory of the plan */
  const SHADES = ["var(--c1)", "var(--c2)", "var(--c3)", "var(--c4)", "var(--c5)", "var(--line-2)"];
  const gigabytes = (bytes) => `${bytes >= 1e10 ? (bytes / 1e9).toFixed(1) : (bytes / 1e9).toFixed(2)} GB`;

  function stack(bar, legend, parts, whole, unit) {
    const shown = parts.filter((part) => part.value > 0);
    const said = (part) => `${part.name} ${unit(part.value)}`;
    bar.replaceChildren(...shown.map((part) =>
      h("i", { style: `width:${100 * part.value / whole}%;background:${part.color}`, title: said(part) })));
    legend.replaceChildren(...shown.map((part) => h("span", {}, h("i", { style: `background:${part.color}` }), said(part))));
  }

  function memory({ element }) {
    const find = (name) => element.querySelector(`.${name}`);
    subscribe("plan", element, (plan) => {
      const data = plan.memory;
      find("memory-empty").hidden = !!data;
      find("memory-body").hidden = !data;
      find("memory-total").textContent = data ? `${gigabytes(data.total)} of ${gigabytes(data.available)} free` : "";
      find("memory-total").classList.toggle("wrong", !!data && !data.fits);
      if (!data) return;
      const parts = data.parts.map((part, i) => ({ name: part.name, value: part.bytes, color: SHADES[i] }));
      stack(find("stack"), find("legend"), parts, Math.max(data.available, data.total), gigabytes);
    });
  }

  /* ---- the file of a Python reward */
  function code({ element }) {
    const shown = element.querySelector(".code-shown");
    subscribe("plan", element, (plan) => {
      shown.hidden = !plan.code;
      if (!plan.code) return;
      for (const part of ["title", "said", "text"]) shown.querySelector(`.code-${part}`).textContent = plan.code[part];
    });
  }

  /* ---- facts of the chosen model */
  function facts({ element, props, watch }) {
    const draw = () => {
      const data = props.value;
      if (!data) return;
      publish("models", data.cards);
      element.querySelector(".facts-title").textContent = data.title;
      const state = element.querySelector(".facts-state");
      state.textContent = data.state;
      state.className = `facts-state pill ${data.level}`;
      const note = element.querySelector(".facts-note");
      note.textContent = data.note;
      note.classList.toggle("wrong", data.level === "bad");
      element.querySelector(".facts").replaceChildren(...data.facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", { class: "num" }, value))));
    };
    /** Say how far the embedded model is, while it is prepared. */
    let asking = null;
    function ask() {
      asking?.stop();
      asking = poll(async () => {
        if (!element.isConnected || props.value?.level !== "live") return false;
        const { text } = await fetchJson("/api/preparing");
        if (text && props.value?.level === "live") element.querySelector(".facts-note").textContent = `Preparing the model (only once): ${text} …`;
        return 500;
      });
    }
    draw();
    ask();
    watch("value", () => { draw(); ask(); });
  }

  /* ---- the run as YAML */
  function yaml({ element, props, trigger, watch }) {
    const find = (name) => element.querySelector(`.${name}`);
    const show = find("yaml-show"), body = find("yaml-body"), said = find("yaml-said");
    show.addEventListener("click", () => {
      if (body.hidden) { trigger("click"); return; }
      body.hidden = true; show.textContent = "Show as YAML"; show.setAttribute("aria-expanded", false);
    });
    find("yaml-copy").addEventListener("click", async () => {
      try { await navigator.clipboard.writeText(find("yaml-text").textContent); said.textContent = "copied"; }
      catch { said.textContent = "the browser does not allow copying: select the text and press Ctrl+C"; }
    });
    find("yaml-save").addEventListener("click", () => {
      const url = URL.createObjectURL(new Blob([find("yaml-text").textContent], { type: "application/yaml" }));
      h("a", { href: url, download: `${(latest.plan || {}).name || "run"}.yaml` }).click();
      setTimeout(() => URL.revokeObjectURL(url), 1000);
    });
    watch("value", () => {
      const data = props.value || {};
      find("yaml-problem").replaceChildren(...(data.errors || []).map((text) => h("li", {}, text)));
      said.textContent = data.said || "";
      if (!data.text) return;
      find("yaml-text").textContent = data.text;
      body.hidden = false; show.textContent = "Hide YAML"; show.setAttribute("aria-expanded", true);
    });
  }

  function note({ element, props, watch }) {
    const draw = () => { element.querySelector(".note-text").textContent = props.value || ""; };
    draw();
    watch("value", draw);
  }

  return { publish, subscribe, pill, stack, counted, before, withMeta, started, setSweep, runsText, note, cards, fold, planline, memory, code, facts, yaml, latest, state };
})();

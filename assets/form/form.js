/* The run's form: choices, which fields apply, and what handlers are told besides the fields; plan.js shows the plan.
   Handlers return plain values to pieces (studio/ui/components/choices.py); a piece publishes them on a topic and
   every other piece that is in the document draws from it, without a request. No value is ever read as markup. */
window.studioForm = window.studioForm || (() => {
  const { h, put, saveText } = window.studio;
  const latest = {}, listeners = {};
  const state = { name: "", row: 1, source: 0, asked: 0, set: {}, sweep: {}, said: {}, sequence: 0, shown: 0, waiting: false };

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
    hide(unread(values));
    state.sequence += 1;
    state.waiting = true;
    publish("changed", state.sequence);
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
    if (data.sequence >= state.sequence) hide(data.unread);
    if (latest.choosing && data.sequence < state.sequence) return; // of the model before
    publish("choosing", false);
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

  /* ---- and which of them need another one: by its value now; studio/ui/form/reading.py has the same rule for the run */
  function unread(values) {
    const nothing = new Set(["", "off", "false", "0"]);
    return Object.entries(state.needs || {}).filter(([, [at, words]]) => {
      const given = [values[at]].flat().flatMap((one) => String(one ?? "").split(",")).map((one) => one.trim());
      return words.length ? !given.some((one) => words.includes(one)) : given.every((one) => nothing.has(one));
    }).map(([id]) => id);
  }

  let hidden;
  function hide(ids) {
    if (!hidden) hidden = document.head.appendChild(h("style"));
    put(hidden, ids.length ? `${ids.map((id) => `#${id}`).join(",")}{display:none!important}` : "");
  }

  /** Say something at a field that no plan tells; "" takes it away. */
  function say(field, text) {
    state.said[field] = text;
    mark();
  }

  function mark() {
    const plan = latest.plan;
    if (!plan) return;
    const changed = new Set(plan.changed), kept = new Set(plan.kept);
    const wrong = new Map(plan.errors.map((error) => [error.field, error.here]).reverse()); // of two the first
    for (const field of document.querySelectorAll(".field[id]")) {
      field.classList.toggle("changed", changed.has(field.id));
      field.classList.toggle("kept", kept.has(field.id));
      field.classList.toggle("wrong", wrong.has(field.id));
      for (const input of field.querySelectorAll("input, textarea")) {
        if (wrong.has(field.id)) input.setAttribute("aria-invalid", "true"); else input.removeAttribute("aria-invalid");
      }
      const note = state.said[field.id] || wrong.get(field.id) || plan.notes[field.id];
      if (note) field.dataset.note = note; else delete field.dataset.note;
    }
  }

  /* ---- cards */
  function cards({ element, props, trigger, watch }, constants) {
    const group = element.querySelector(".choices");
    group.setAttribute("aria-label", constants.legend);
    const name = `cards-${Math.random().toString(36).slice(2)}`;
    let texts = {}, list = constants.cards;
    const said = (card) => (card.lacks ? `${card.text}. ${card.lacks}` : texts[card.value] || card.text);
    // The plan says of a method only what its data lack for it.
    const unfit = (card) => constants.topic === "method.name" && Boolean(texts[card.value]);
    const draw = () => {
      group.replaceChildren(...list.map((card) => {
        const on = card.value === props.value;
        const off = !!card.lacks && !on;
        return h("label", { class: `choice${on ? " on" : ""}${off ? " off" : ""}${unfit(card) ? " unfit" : ""}` },
          h("input", { type: "radio", name, value: card.value, checked: on, disabled: off, onchange: () => choose(card.value) }),
          h("b", {}, card.title), card.badge ? pill(card.level || "info", card.badge) : null,
          h("small", {}, said(card)));
      }));
    };
    const choose = (value) => {
      props.value = value;
      for (const label of group.children) label.classList.toggle("on", label.firstChild.value === value);
      if (constants.topic === "models") publish("choosing", true);
      if (constants.topic === "tuning.name") apply(state.method, value);
      if (constants.topic === "method.name") apply(value, state.tuning);
      trigger("input"); // a person's choice, which handlers tell from a value that a reply brought
    };
    draw();
    watch("value", draw);
    subscribe(constants.topic, element, (newer) => { list = newer; draw(); });
    subscribe("plan", element, (plan) => {
      if (!plan.cards[constants.topic]) return;
      texts = plan.cards[constants.topic];
      [...group.children].forEach((label, at) => {
        put(label.lastChild, said(list[at]));
        label.classList.toggle("unfit", unfit(list[at]));
      });
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

  /* ---- the file of a Python reward */
  function code({ element }) {
    const shown = element.querySelector(".code-shown");
    subscribe("plan", element, (plan) => {
      shown.hidden = !plan.code;
      if (!plan.code) return;
      for (const part of ["title", "said", "text"]) shown.querySelector(`.code-${part}`).textContent = plan.code[part];
    });
  }

  /* ---- the run as YAML: while it is open it is made again at each change, so that it is always that of the form */
  function yaml({ element, props, trigger, watch }) {
    const find = (name) => element.querySelector(`.${name}`);
    const show = find("yaml-show"), body = find("yaml-body"), said = find("yaml-said");
    let open = false;
    const problems = (list) => find("yaml-problem").replaceChildren(...list.map((text) => h("li", {}, text)));
    // Later, since it is called while gradio gathers the values of another event.
    const ask = () => setTimeout(() => { if (open && element.isConnected) trigger("click"); });
    const set = (on) => {
      open = on;
      put(show, on ? "Hide YAML" : "Show as YAML");
      show.setAttribute("aria-expanded", on);
    };
    show.addEventListener("click", () => {
      set(!open);
      put(said, "");
      if (open) { ask(); return; }
      body.hidden = true;
      problems([]);
    });
    subscribe("changed", element, ask);
    find("yaml-copy").addEventListener("click", async () => {
      try { await navigator.clipboard.writeText(find("yaml-text").textContent); said.textContent = "copied"; }
      catch { said.textContent = "the browser does not allow copying: select the text and press Ctrl+C"; }
    });
    find("yaml-save").addEventListener("click", () =>
      saveText(`${(latest.plan || {}).name || "run"}.yaml`, find("yaml-text").textContent, "application/yaml"));
    watch("value", () => {
      const data = props.value || {}, made = data.text !== undefined;
      if (made && !open) return; // it was hidden meanwhile
      problems(data.errors || []);
      if (!made) put(said, data.said || "");
      if (made) put(find("yaml-text"), data.text);
      // What a preset or a file brought is another run than the text that is shown, until that is made again.
      if (made) body.hidden = !data.text;
      else if (data.said) { body.hidden = true; ask(); }
    });
  }

  function note({ element, props, watch }) {
    const draw = () => { element.querySelector(".note-text").replaceChildren(...window.studio.linked(props.value)); };
    draw();
    watch("value", draw);
  }

  return { publish, subscribe, pill, source, receivePlan, before, withMeta, started, setSweep, say, note, cards, fold, code, yaml, latest, state };
})();

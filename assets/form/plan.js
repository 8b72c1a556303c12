/* What the plan says of the form: the line with Start, which problems there are and where, and the memory. Loaded after
   form.js. Its texts name files and fields of anyone's, so all of it is put in as text. */
"use strict";

(() => {
  const { h, put, fetchJson, postJson, poll, isFinal } = window.studio;
  const { subscribe, source, receivePlan, latest, state } = window.studioForm;

  const SHOWN = 110; // characters of a problem that the line surely shows

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

  /* ---- the libraries of a training take seconds to import: that begins once a person does something on a page whose
     run could start, and is asked for again while it is used */
  const AGAIN = 120_000;
  let asked = -AGAIN;
  function ahead() {
    if (latest.plan?.errors.length !== 0 || Date.now() - asked < AGAIN) return;
    asked = Date.now();
    postJson("/api/ahead", {}).catch(() => {}); // Start says what is wrong
  }
  for (const kind of ["pointerdown", "keydown"]) document.addEventListener(kind, ahead, { capture: true, passive: true });

  /* ---- the plan line */
  function planline({ element, props, trigger, watch }, constants) {
    state.needs = constants.needs;
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
      text.replaceChildren(...window.studio.linked(errors.length ? errors[0].sentence : [plan.line, runsText(plan.sweep)].filter(Boolean).join(" · ")));
      text.classList.toggle("wrong", errors.length > 0);
      const more = find("plan-more");
      more.hidden = errors.length < 2 && (errors[0]?.sentence.length ?? 0) <= SHOWN;
      more.textContent = errors.length < 2 ? "in full" : `all ${errors.length} problems`;
      list.replaceChildren(...errors.map((error) => h("li", {}, ...window.studio.linked(error.sentence))));
      if (more.hidden) list.hidden = true;
      const limits = find("plan-limits");
      limits.hidden = !plan.limits.length && !plan.left_out;
      limits.replaceChildren(...plan.limits.map((limit) => h("div", { class: "notice warning" }, limit)),
        ...(plan.left_out ? [h("div", { class: "notice plan-left-out" }, plan.left_out)] : []));
      label();
      start.classList.toggle("blocked", errors.length > 0);
      name.placeholder = plan.name || "Run name"; // none is made of wrong values
      if (document.activeElement !== name) name.value = state.name;
    });
    subscribe("choosing", element, (on) => {
      if (on) for (const part of ["plan-what", "plan-text"]) put(find(part), "");
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
    const show = (data) => {
      find("memory-empty").hidden = !!data;
      find("memory-body").hidden = !data;
      find("memory-total").textContent = data ? `${gigabytes(data.total)} of ${gigabytes(data.available)} free` : "";
      find("memory-total").classList.toggle("wrong", !!data && !data.fits);
      if (!data) return;
      const parts = data.parts.map((part, i) => ({ name: part.name, value: part.bytes, color: SHADES[i] }));
      stack(find("stack"), find("legend"), parts, Math.max(data.available, data.total), gigabytes);
    };
    subscribe("plan", element, (plan) => show(plan.memory));
    subscribe("choosing", element, (on) => { if (on) show(null); });
  }

  Object.assign(window.studioForm, { planline, counted, runsText, stack, memory });
})();

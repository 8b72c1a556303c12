/* Models: what is known of the chosen one, its download from the Hub, and the list to choose from. Loaded after form.js.
   Names and licenses are of others, so all of it is put in as text. */
"use strict";

(() => {
  const { h, put, linked, fetchJson, postJson, poll } = window.studio;
  const { publish, subscribe, pill, say } = window.studioForm;
  const FIELD = "f-model-path", ASK_MS = 500, TYPING_MS = 400, PLANS_MS = 60000;

  const large = (number) => number.toLocaleString("en", { minimumFractionDigits: number < 100 ? 1 : 0, maximumFractionDigits: number < 100 ? 1 : 0 });
  const size = (bytes) => (bytes >= 9.995e8 ? `${large(bytes / 1e9)} GB` : `${Math.max(1, Math.round(bytes / 1e6))} MB`);
  const many = (count) => (count >= 9.995e8 ? `${large(count / 1e9)} B` : `${Math.round(count / 1e6)} M`);
  const button = (text, onclick, look = "") => h("button", { type: "button", class: `btn small ${look}`, onclick }, text);

  /* ---- facts of the chosen model */
  function facts({ element, props, trigger, watch }) {
    const find = (name) => element.querySelector(`.facts-${name}`);
    const remote = hubPart(find("hub"), (facts) => draw(facts), () => trigger("submit"));
    function draw(more = []) {
      const data = props.value;
      if (!data) return;
      put(find("title"), data.title);
      put(find("state"), data.state);
      find("state").className = `facts-state pill ${data.level}`;
      put(find("note"), data.note);
      find("note").classList.toggle("wrong", data.level === "bad");
      element.querySelector(".facts").replaceChildren(...[...data.facts, ...more].map(([name, value]) =>
        h("div", {}, h("dt", {}, name), h("dd", { class: "num" }, value))));
    }
    /** Say how far the embedded model is, while it is prepared. */
    let asking = null;
    function ask() {
      asking?.stop();
      asking = poll(async () => {
        if (!element.isConnected || props.value?.level !== "live") return false;
        const { text } = await fetchJson("/api/preparing");
        if (text && props.value?.level === "live") put(find("note"), `Preparing the model (only once): ${text} …`);
        return ASK_MS;
      });
    }
    function take() {
      if (props.value) publish("models", props.value.cards);
      draw();
      ask();
      remote.show(props.value?.hub || null);
    }
    take();
    watch("value", take);
    // Nothing of the model before stays beside the name of another one.
    subscribe("choosing", element, (on) => {
      if (!on) return;
      remote.show(null);
      put(find("title"), "Model");
      put(find("state"), "…");
      find("state").className = "facts-state pill";
      put(find("note"), "");
      element.querySelector(".facts").replaceChildren();
    });
  }

  /** A model of the Hub that is not here: what the Hub says of it, its download and how far that is. */
  function hubPart(place, onFacts, onHere) {
    let wanted = null, poller = null, timer = null;
    const query = (one) => new URLSearchParams({ name: one.name, revision: one.revision });
    const said = (level, ...children) => place.replaceChildren(h("p", { class: level, role: "status" }, ...children));

    function show(one) {
      if (one && wanted && one.name === wanted.name && one.revision === wanted.revision) return;
      wanted = one;
      poller?.stop();
      clearTimeout(timer);
      say(FIELD, "");
      place.hidden = !one;
      if (!one) return;
      said("muted", "Asking the Hub …");
      timer = setTimeout(look, TYPING_MS); // every letter of a name is a model of its own
    }

    async function look() {
      const one = wanted;
      try {
        const state = await fetchJson(`/api/models/download?${query(one)}`);
        if (one !== wanted) return;
        if (state.download?.running) { follow(); return; }
        const { card, problem } = await fetchJson(`/api/models/hub?${query(one)}`);
        if (one !== wanted) return;
        if (problem) refused(problem, "Try again", look);
        else offer(card, state.begun, state.download?.problem);
      } catch (error) {
        if (one === wanted) refused(error.message, "Try again", look);
      }
    }

    function refused(text, word, act) {
      say(FIELD, text);
      said("wrong", ...linked(text));
      place.append(button(word, act));
    }

    function offer(card, begun, problem) {
      onFacts([["Download", size(card.bytes)], ["License", card.license || "not named"],
        ["Access", card.gated ? (card.locked ? "gated" : "gated, your token has access") : "open to all"],
        ...(card.parameters ? [["Parameters", card.parameters.toLocaleString("en")]] : [])]);
      if (problem) say(FIELD, problem);
      said(problem || card.locked ? "wrong" : "muted", ...linked(problem || card.refusal
        || "Download it now, or let the first phase of the training do it."));
      const word = begun ? "Continue the download" : "Download";
      place.append(card.locked ? button("Check again", look) : button(`${word} (${size(card.bytes)})`, begin, "primary"));
    }

    async function begin({ currentTarget }) {
      currentTarget.disabled = true;
      try {
        await postJson("/api/models/download", wanted);
        follow();
      } catch (error) {
        refused(error.message, "Try again", begin);
      }
    }

    function follow() {
      const one = wanted, line = h("p", { class: "num", role: "status" }, "starting …"), bar = h("i", { style: "width:0%" });
      const track = h("span", { class: "bar", role: "progressbar", "aria-label": `Download of ${one.name}`, "aria-valuenow": 0 }, bar);
      const stop = button("Stop", () => { stop.disabled = true; postJson("/api/models/download/stop", one); }, "danger");
      place.replaceChildren(line, track, stop);
      poller = poll(async () => {
        if (one !== wanted || !place.isConnected) return false;
        const { here, download } = await fetchJson(`/api/models/download?${query(one)}`);
        if (one !== wanted) return false;
        if (here && !download?.running) { wanted = null; place.hidden = true; onHere(); return false; }
        if (!download?.running) { look(); return false; }
        const { done, total, text } = download, share = total ? Math.round(100 * done / total) : 0;
        put(line, total ? `${size(done)} of ${size(total)} · ${share} %` : `${text} …`);
        bar.style.width = `${share}%`;
        track.setAttribute("aria-valuenow", share);
        return ASK_MS;
      }, (problem) => { if (problem) put(line, problem); });
    }

    return { show };
  }

  document.addEventListener("input", ({ target }) => {
    if (target.closest?.(`#${FIELD}, #f-model-revision`)) publish("choosing", true);
  });

  /* ---- all models */
  const LEVELS = { fits: "ok", qlora: "ok", shorter: "warn", none: "bad" };
  const HERE = { ready: "on this computer", cached: "in the Hugging Face cache", "": "on the Hub" };

  function browser({ element, props, trigger }) {
    const find = (name) => element.querySelector(`.models-${name}`);
    const words = find("find"), fold = element.querySelector("details");
    let known = [], found = [], answer = ""; // of the Hub, to the search

    const choose = (name) => {
      publish("choosing", true);
      props.value = { name, at: Date.now() }; // the same one again is a choice too
      trigger("input");
    };

    function row(one) {
      const facts = [one.parameters ? `${many(one.parameters)} parameters` : "", one.bytes ? size(one.bytes) : "",
        one.downloads === undefined ? HERE[one.here] : `${one.downloads.toLocaleString("en")} downloads`, one.gated ? "gated" : "", one.words];
      return h("li", { class: "model-row" }, h("div", {}, h("b", {}, one.name), one.memory ? pill(LEVELS[one.fit], one.memory) : null,
        h("small", { class: "muted" }, facts.filter(Boolean).join(" · "))),
        h("button", { type: "button", class: "btn small", "aria-label": `Use ${one.name}`, onclick: () => choose(one.name) }, "Use"));
    }

    function draw() {
      const text = words.value.trim().toLowerCase();
      const all = [...known.filter((one) => `${one.family} ${one.name}`.toLowerCase().includes(text)), ...found];
      const groups = new Map();
      for (const one of all) groups.set(one.family, [...(groups.get(one.family) || []), one]);
      find("list").replaceChildren(...[...groups].map(([family, rows]) =>
        h("section", {}, h("h4", {}, family), h("ul", {}, ...rows.map(row)))));
      put(find("said"), answer || (!all.length && known.length ? "No model of this list has that name. The Hub may have one." : ""));
    }

    async function load() {
      put(find("said"), "Planning each model for this computer …");
      let problem = "";
      try {
        known = (await fetchJson("/api/models", { signal: AbortSignal.timeout(PLANS_MS) })).models;
      } catch (error) {
        problem = error.message;
      }
      draw();
      if (problem && !answer) put(find("said"), problem);
    }

    async function search() {
      const text = words.value.trim();
      if (!text) { put(find("said"), "Type a part of the name first."); return; }
      put(find("said"), answer = "Asking the Hub …");
      let models = [], problem = "";
      try {
        ({ models, problem } = await fetchJson(`/api/models/search?${new URLSearchParams({ words: text })}`));
      } catch (error) {
        problem = error.message;
      }
      if (words.value.trim() !== text) return; // another name is being typed
      found = models.map((one) => ({ ...one, family: "Found on the Hub" }));
      answer = problem || (found.length ? "" : "The Hub has no such model with .safetensors files.");
      draw();
    }

    fold.addEventListener("toggle", () => { if (fold.open) load(); });
    words.addEventListener("input", () => { found = []; answer = ""; draw(); });
    words.addEventListener("keydown", (event) => { if (event.key === "Enter") search(); });
    find("search").addEventListener("click", search);
  }

  Object.assign(window.studioForm, { facts, browser });
})();

/* The profile of the data, pairs of rows side by side, and the cleaned copy. Loaded after form.js.
   A card begins its work by a request of gradio's and polls for it at /api/data. Rows come from anyone's file, so
   all of it is put in as text. */
(() => {
  const { h, fetchJson, postJson, poll: repeat } = window.studio;
  const { pill, publish, subscribe, latest, state } = window.studioForm;
  const FEW = 8;
  // Which page asks: the server keeps what it does for each page apart.
  const page = Array.from(crypto.getRandomValues(new Uint8Array(12)), (byte) => byte.toString(16).padStart(2, "0")).join("");
  // For each card: number of its last request, the values it was about, and what else it asks with.
  const asked = {}, askedOf = {}, extras = {};
  const seenKey = (values, seen) => JSON.stringify(seen.map((at) => (typeof values[at] === "object" ? values[at] : String(values[at]))));

  /** The form's values changed: whoever shows something of them may say that it is of earlier ones. */
  function dataValues(values, seen) { publish("data-values", seenKey(values, seen)); }

  /** Put before a card's request: which page asks, and for what. */
  function asking(kind, values, seen) {
    asked[kind] = (asked[kind] || 0) + 1;
    dataValues(values, seen);
    askedOf[kind] = latest["data-values"];
    values[values.length - 1] = JSON.stringify({ page, number: asked[kind], ...extras[kind]?.() });
    return values;
  }

  const askingPage = () => JSON.stringify({ page, number: 0 });

  /* ---- work that takes its time: begin, progress, cancel, how it ended */
  function task(kind, { element, props, trigger, watch }, show, ended) {
    const find = (name) => element.querySelector(`.${name}`);
    const begin = find("task-begin"), cancel = find("task-cancel"), bar = find("bar");
    let poll = null, count = 0;
    const note = (text, level) => { find("task-note").textContent = text; find("task-note").className = `task-note ${level || ""}`; };
    const running = (on) => {
      begin.disabled = on; cancel.hidden = !on; cancel.disabled = false; find("task-progress").hidden = !on;
      element.querySelector(".card").setAttribute("aria-busy", on);
      if (!on) { poll?.stop(); poll = null; }
    };
    const progress = (text, share) => {
      find("task-text").textContent = `${text} …`;
      bar.classList.toggle("unknown", share === null);
      bar.firstElementChild.style.width = share === null ? "" : `${100 * share}%`;
    };
    begin.addEventListener("click", () => {
      note(""); running(true); progress("beginning", null);
      trigger("click");
    });
    cancel.addEventListener("click", async () => {
      cancel.disabled = true;
      progress("ending", null);
      try { await postJson(`/api/data/${page}/${kind}/cancel`, {}); poll?.now(); }
      catch { note("The studio does not respond; try again.", "wrong"); cancel.disabled = false; }
    });
    async function look() {
      let now;
      try { now = await fetchJson(`/api/data/${page}/${kind}?after=${count}`); }
      catch (error) {
        if (error.status !== 404) throw error;
        running(false);
        note("The studio was restarted: start again.", "wrong");
        return;
      }
      if (now.shown) { count = now.count; show(now.shown, askedOf[kind]); }
      if (now.state === "running") { if (!cancel.disabled) progress(now.text, now.share); return 400; }
      running(false);
      ended(now, note);
    }
    watch("value", () => {
      const reply = props.value;
      if (!reply || (reply.number && reply.number !== asked[kind])) return;
      if (reply.error) { running(false); note(reply.error, "wrong"); return; }
      count = 0;
      poll?.stop();
      poll = repeat(look, (text) => { if (poll) note(text, "wrong"); });
    });
    window.addEventListener("pagehide", () => {
      if (poll) postJson(`/api/data/${page}/${kind}/cancel`, {}, { keepalive: true }).catch(() => null);
    });
    return { find, note };
  }

  /* ---- the profile */
  function profile(piece) {
    const { element, trigger } = piece;
    let shown = null, of = "", partly = "";
    const { find, note } = task("profile", piece, (value, about) => { shown = value; of = about; partly = ""; draw(); }, (now, say) => {
      if (now.state === "failed") say(now.error, "wrong");
      else if (now.state === "stopped") { partly = "Canceled before everything was read."; say(""); }
      stale();
    });
    const stale = () => {
      if (!shown) { if (partly) note(partly, "muted"); return; }
      const old = latest["data-values"] !== of;
      if (old) note("The settings have changed: this is the profile of the earlier ones.", "warn");
      else if (partly) note(partly, "muted");
      else if (find("task-note").classList.contains("warn")) note("");
    };
    const draw = () => {
      find("profile-intro").hidden = true;
      find("profile-body").hidden = false;
      find("task-from").hidden = !shown.from;
      find("task-from").textContent = shown.from;
      find("task-begin").textContent = "Profile again";
      facts(find("profile-figures"), shown.figures);
      find("profile-findings").replaceChildren(...shown.findings.map((one) => finding(one, trigger)));
      find("profile-more").replaceChildren(...shown.lists.map(([title, lines]) => lined(title, lines)));
      find("profile-pairs").replaceChildren(...shown.pairs.map(pairs));
      if (shown.doubles === null) find("profile-pairs").append(h("p", { class: "muted" }, "Duplicates and leaks are counted once everything has been read."));
      publish("profile", shown);
      stale();
    };
    subscribe("data-values", element, stale);
  }

  function facts(list, figures) {
    list.replaceChildren(...figures.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
  }

  const lined = (title, lines) => h("div", {}, h("h4", {}, title), h("ul", { class: "lined" }, ...lines.map((line) => h("li", {}, line))));

  function finding(one, trigger) {
    const said = [one.now, one.fix].filter(Boolean).join(" ");
    const act = (action) => button(action.label, "btn small", () => { state.set = action.set; trigger("select"); });
    return h("li", { class: "finding", "data-check": one.check }, pill(one.level, one.label), h("div", {},
      h("b", {}, one.text), said ? h("p", { class: "muted" }, said) : null,
      listed("row row-links", one.places, (place) => button(place.label, "row-link", () => showRow(place))),
      h("div", { class: "row" }, ...one.actions.map(act))));
  }

  /** A few of a list, and a button for the rest. */
  function listed(look, all, draw) {
    const box = h("div", { class: look }, ...all.slice(0, FEW).map(draw));
    if (all.length <= FEW) return box;
    const more = button(`${all.length - FEW} more`, "row-link more", () => {
      const rest = all.slice(FEW).map(draw);
      more.replaceWith(...rest);
      rest[0].querySelector("button")?.focus();
      rest[0].focus();
    });
    box.append(more);
    return box;
  }

  const button = (text, look, act) => h("button", { type: "button", class: look, onclick: act }, text);

  /** Show a row in the row view, which listens. */
  function showRow({ source, at }) {
    state.source = source;
    publish("show-row", { source, at });
    document.getElementById("row-view")?.scrollIntoView({ block: "nearest" });
  }

  /* ---- pairs of rows */
  const pairs = ({ title, pairs: all }) => h("div", {}, h("h4", {}, title), listed("pair-list", all, onePair));

  function onePair(one) {
    const opened = h("div", { class: "pair-opened", hidden: true });
    const open = button(one.label, "row-link", async () => {
      opened.hidden = !opened.hidden;
      open.setAttribute("aria-expanded", !opened.hidden);
      if (opened.hidden || opened.childElementCount) return;
      opened.append(h("p", { class: "muted" }, "Reading the two rows …"));
      const at = ({ source, at: place }) => `${source}:${place}`;
      let answer;
      try { answer = await fetchJson(`/api/data/${page}/pair?first=${at(one.first)}&second=${at(one.second)}`, { signal: AbortSignal.timeout(120000) }); }
      catch { answer = { error: "The rows cannot be shown: profile the data again." }; }
      if (answer.error) { opened.replaceChildren(h("p", { class: "wrong" }, answer.error)); return; }
      opened.replaceChildren(h("p", { class: "muted" }, answer.said), sides(answer.sides));
    });
    open.setAttribute("aria-expanded", false);
    return h("div", { class: "pair-item" }, open, opened);
  }

  const sides = (two) => h("div", { class: "pair-sides" }, ...two.map((side) => h("div", { class: "pair-side" },
    button(side.title, "row-link", () => showRow(side)),
    h("div", { class: "pair-texts", tabindex: 0, role: "group", "aria-label": side.title },
      ...side.texts.flatMap(([role, text]) => [h("small", { class: "muted" }, role), h("div", { class: "said" }, text)])))));

  /* ---- the cleaned copy */
  function keep(piece, constants) {
    const { element, trigger } = piece;
    const ticked = new Set(), labels = Object.fromEntries(constants.checks.map((one) => [one.check, one.label]));
    let done = false;
    const { find } = task("keep", piece, (value) => {
      done = true;
      find("keep-result").hidden = false;
      facts(find("keep-figures"), value.figures);
      find("keep-train").disabled = false;
      find("keep-train").textContent = "Train on it";
      publish("kept", value.name);
    }, (now, say) => {
      if (now.state === "failed") say(now.error.replace(/drop: (\w+)/, (all, check) => labels[check] ? `the tick “${labels[check]}”` : all), "wrong");
      else if (now.state === "stopped") say("Canceled; nothing was written.", "muted");
    });
    find("keep-format").append(...constants.formats.map((word) => h("option", { value: word }, word)));
    find("task-begin").addEventListener("click", () => { done = false; find("keep-result").hidden = true; });
    find("keep-train").addEventListener("click", () => {
      if (!done) return;
      trigger("select");
      find("keep-train").disabled = true;
      find("keep-train").textContent = "The run now trains on it";
    });
    extras.keep = () => ({
      name: find("keep-name").value.trim() || find("keep-name").placeholder, format: find("keep-format").value,
      drop: constants.checks.map((one) => one.check).filter((check) => ticked.has(check)), hide: find("keep-hide").checked,
    });
    const draw = () => {
      const counts = latest.profile?.checks || {};
      const found = constants.checks.filter((one) => counts[one.check]);
      const others = constants.checks.filter((one) => !counts[one.check]);
      find("keep-found").replaceChildren(...found.map((one) => tick(one, counts[one.check])));
      find("keep-others").replaceChildren(...others.map((one) => tick(one, 0)));
      if (!found.length) {
        find("keep-found").append(h("p", { class: "muted" }, latest.profile ? "The profile found none of these." : "Profile the data first to see which rows there are."));
      }
      find("keep-more").textContent = `${others.length} more`;
      const doubles = latest.profile?.doubles;
      find("keep-doubles").textContent = `${doubles ? `${doubles.toLocaleString("en-US")} duplicates` : "Duplicates"}: “Duplicate rows” (data.deduplicate) decides whether they are dropped, here and in a run.`;
    };
    const turn = ({ target: box }) => ticked[box.checked ? "add" : "delete"](box.value);
    const tick = (one, count) => h("label", { class: "tick" },
      h("input", { type: "checkbox", checked: ticked.has(one.check), value: one.check, onchange: turn }), h("span", {}, one.label),
      count ? h("span", { class: "muted num" }, count.toLocaleString("en-US")) : null);
    draw();
    subscribe("profile", element, draw);
    subscribe("data", element, (data) => {
      const name = data.name.replace(/[^A-Za-z0-9._-]+/g, "-").replace(/^[^A-Za-z0-9]+/, "").slice(0, 56) || "data";
      find("keep-name").placeholder = `${name}-clean`;
    });
  }

  /* ---- the copy on the Hub */
  function push(piece) {
    const { element } = piece, card = element.querySelector(".card");
    let said = "";
    const { find, note } = task("push", piece, (value) => { said = value.said; }, (now, say) => {
      if (now.state === "failed") say(now.error, "wrong");
      else if (now.state === "stopped") say("Canceled. What was uploaded by then may be on the Hub.", "muted");
      else say(said, "good");
    });
    extras.push = () => ({ repo: find("push-repo").value, public: find("push-public").checked });
    subscribe("kept", element, (name) => {
      card.hidden = !name;
      find("push-name").textContent = name;
      note("");
    });
  }

  Object.assign(window.studioForm, { task, push, profile, keep, dataValues, asking, askingPage });
})();

/* The profile of the data, pairs of rows side by side, and the cleaned copy. Loaded after form.js.
   A card begins its work by a request of gradio's and polls for it at /api/data. Rows come from anyone's file, so
   all of it is put in as text. */
(() => {
  const { make, pill, publish, subscribe, latest, state } = window.studioForm;
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
      try { await window.studio.postJson(`/api/data/${page}/${kind}/cancel`, {}); poll?.now(); }
      catch { note("The studio does not respond; try again.", "wrong"); cancel.disabled = false; }
    });
    async function look() {
      let now;
      try { now = await window.studio.fetchJson(`/api/data/${page}/${kind}?after=${count}`); }
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
      poll = window.studio.poll(look, (text) => { if (poll) note(text, "wrong"); });
    });
    window.addEventListener("pagehide", () => {
      if (poll) window.studio.postJson(`/api/data/${page}/${kind}/cancel`, {}, { keepalive: true }).catch(() => null);
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
      if (shown.doubles === null) make("p", "muted", "Duplicates and leaks are counted once everything has been read.", find("profile-pairs"));
      publish("profile", shown);
      stale();
    };
    subscribe("data-values", element, stale);
  }

  function facts(list, figures) {
    list.replaceChildren(...figures.map(([name, value]) => {
      const item = make("div");
      make("dt", "", name, item);
      make("dd", "", value, item);
      return item;
    }));
  }

  function lined(title, lines) {
    const box = make("div");
    make("h4", "", title, box);
    const list = make("ul", "lined", null, box);
    for (const line of lines) make("li", "", line, list);
    return box;
  }

  function finding(one, trigger) {
    const item = make("li", "finding");
    item.dataset.check = one.check;
    pill(one.level, one.label, item);
    const text = make("div", "", null, item);
    make("b", "", one.text, text);
    const said = [one.now, one.fix].filter(Boolean).join(" ");
    if (said) make("p", "muted", said, text);
    listed(make("div", "row row-links", null, text), one.places, (place) =>
      button(place.label, "row-link", null, () => showRow(place)));
    const buttons = make("div", "row", null, text);
    for (const action of one.actions) {
      button(action.label, "btn small", buttons, () => { state.set = action.set; trigger("select"); });
    }
    return item;
  }

  /** A few of a list, and a button for the rest. */
  function listed(box, all, draw) {
    box.append(...all.slice(0, FEW).map(draw));
    if (all.length <= FEW) return;
    const more = button(`${all.length - FEW} more`, "row-link more", box, () => {
      const rest = all.slice(FEW).map(draw);
      more.replaceWith(...rest);
      rest[0].querySelector("button")?.focus();
      rest[0].focus();
    });
  }

  function button(text, look, parent, act) {
    const one = make("button", look, text, parent);
    one.type = "button";
    one.addEventListener("click", act);
    return one;
  }

  /** Show a row in the row view, which listens. */
  function showRow({ source, at }) {
    state.source = source;
    publish("show-row", { source, at });
    document.getElementById("row-view")?.scrollIntoView({ block: "nearest" });
  }

  /* ---- pairs of rows */
  function pairs({ title, pairs: all }) {
    const box = make("div");
    make("h4", "", title, box);
    listed(make("div", "pair-list", null, box), all, onePair);
    return box;
  }

  function onePair(one) {
    const box = make("div", "pair-item");
    const opened = make("div", "pair-opened");
    opened.hidden = true;
    const open = button(one.label, "row-link", box, async () => {
      opened.hidden = !opened.hidden;
      open.setAttribute("aria-expanded", !opened.hidden);
      if (opened.hidden || opened.childElementCount) return;
      make("p", "muted", "Reading the two rows …", opened);
      const at = ({ source, at: place }) => `${source}:${place}`;
      let answer;
      try { answer = await window.studio.fetchJson(`/api/data/${page}/pair?first=${at(one.first)}&second=${at(one.second)}`, { signal: AbortSignal.timeout(120000) }); }
      catch { answer = { error: "The rows cannot be shown: profile the data again." }; }
      if (answer.error) { opened.replaceChildren(make("p", "wrong", answer.error)); return; }
      opened.replaceChildren(make("p", "muted", answer.said), sides(answer.sides));
    });
    open.setAttribute("aria-expanded", false);
    box.append(opened);
    return box;
  }

  function sides(two) {
    const box = make("div", "pair-sides");
    for (const side of two) {
      const column = make("div", "pair-side", null, box);
      button(side.title, "row-link", column, () => showRow(side));
      const texts = make("div", "pair-texts", null, column);
      texts.tabIndex = 0;
      texts.setAttribute("role", "group");
      texts.setAttribute("aria-label", side.title);
      for (const [role, text] of side.texts) {
        make("small", "muted", role, texts);
        make("div", "said", text, texts);
      }
    }
    return box;
  }

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
    for (const word of constants.formats) make("option", "", word, find("keep-format")).value = word;
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
        make("p", "muted", latest.profile ? "The profile found none of these." : "Profile the data first to see which rows there are.", find("keep-found"));
      }
      find("keep-more").textContent = `${others.length} more`;
      const doubles = latest.profile?.doubles;
      find("keep-doubles").textContent = `${doubles ? `${doubles.toLocaleString("en-US")} duplicates` : "Duplicates"}: “Duplicate rows” (data.deduplicate) decides whether they are dropped, here and in a run.`;
    };
    const tick = (one, count) => {
      const label = make("label", "tick");
      const box = make("input", "", null, label);
      Object.assign(box, { type: "checkbox", checked: ticked.has(one.check), value: one.check });
      box.addEventListener("change", () => { ticked[box.checked ? "add" : "delete"](one.check); });
      make("span", "", one.label, label);
      if (count) make("span", "muted num", count.toLocaleString("en-US"), label);
      return label;
    };
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

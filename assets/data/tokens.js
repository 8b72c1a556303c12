/* The data as the model sees it: a row as coloured tokens, lengths, findings, sources, split.
   Loaded after form.js. Rows come from anyone's file, so all of it is put in as text. */
(() => {
  const { h, svg: shape, fileName, linked } = window.studio;
  const { pill, publish, subscribe, stack } = window.studioForm;
  const whole = (value) => Math.round(value).toLocaleString("en-US");

  /* ---- one row. A reply to an earlier request than the person's last one is not shown. */
  function tokens({ element, props, watch, trigger }) {
    const find = (name) => element.querySelector(`.${name}`);
    let view = "tokens", data = null, shown = window.studioForm.latest["show-row"];
    const ask = (row, source = data ? data.source : 0) => {
      const { state } = window.studioForm;
      Object.assign(state, { row, source, asked: state.asked + 1 });
      trigger("select");
      find("row-body").classList.add("stale");
    };
    const source = find("row-source");
    source.addEventListener("change", () => ask(1, source.selectedIndex));
    // A finding elsewhere on the page names a row.
    subscribe("show-row", element, (place) => {
      if (place === shown) return;
      shown = place;
      ask(place.at, place.source);
      element.scrollIntoView({ block: "nearest" });
    });
    find("row-back").addEventListener("click", () => ask(Math.max(1, (data ? data.index : 1) - 1)));
    find("row-next").addEventListener("click", () => ask(data ? Math.min(data.total, data.index + 1) : 1));
    find("row-number").addEventListener("change", (event) => {
      const row = parseInt(event.target.value, 10);
      if (row > 0) ask(data ? Math.min(data.total, row) : row);
    });
    for (const button of element.querySelectorAll(".seg [data-view]")) {
      button.addEventListener("click", () => { view = button.dataset.view; draw(); });
    }
    const draw = () => {
      for (const button of element.querySelectorAll(".seg [data-view]")) {
        const on = button.dataset.view === view;
        button.classList.toggle("on", on);
        button.setAttribute("aria-pressed", on);
      }
      const body = find("row-body");
      body.classList.remove("stale");
      find("row-counts").hidden = !data || data.problem || view !== "tokens";
      if (!data) return;
      find("row-number").value = data.index;
      find("row-number").max = data.total;
      find("row-total").textContent = `of ${whole(data.total)}`;
      source.hidden = data.sources.length < 2;
      source.replaceChildren(...data.sources.map((name, i) => h("option", { selected: i === data.source }, name)));
      find("row-back").disabled = data.index <= 1;
      find("row-next").disabled = data.index >= data.total;
      if (data.problem) { body.replaceChildren(h("p", { class: "problem" }, ...linked(data.problem))); return; }
      find("row-trained").textContent = `trained on: ${whole(data.trained)}`;
      find("row-context").textContent = `context: ${whole(data.context)}`;
      find("row-reason").textContent = data.reason ? `format: ${data.reason}` : "";
      find("row-more").textContent = data.more ? `the first ${whole(data.tokens.length)} of ${whole(data.length)} tokens` : "";
      body.replaceChildren({ tokens: asTokens, raw: asRaw, conversation: asConversation }[view](data));
    };
    const take = () => {
      const { state } = window.studioForm;
      if (!props.value || props.value.asked < state.asked) return;
      data = props.value;
      // A change of the form shows the same place again, as far as it is still there.
      Object.assign(state, { row: data.index, source: data.source });
      draw();
    };
    watch("value", take);
    draw();
    take();
  }

  function tokenRun(tokens) {
    return h("div", { class: "tokens" }, ...tokens.map(([text, id, trained, special, differs]) => h("span", {
      class: `${trained ? "t" : "s"}${special ? " sp" : ""}${differs ? " differs" : ""}`,
      title: `id ${id}${trained ? ", trained on" : ", context"}${differs ? ", not in the other answer" : ""}`,
    }, text)));
  }

  function asTokens(data) {
    if (!data.rejected?.length) return tokenRun(data.tokens);
    const both = [["Chosen: made more likely", data.tokens], ["Rejected: made less likely", data.rejected]];
    return h("div", { class: "pair" }, ...both.flatMap(([title, tokens]) => [h("small", { class: "muted" }, title), tokenRun(tokens)]));
  }

  function asRaw(data) { return h("pre", { class: "raw" }, data.raw); }

  function asConversation(data) {
    if (!data.messages) return h("p", { class: "muted" }, "This row is plain text, not a conversation.");
    return h("div", { class: "talk" }, ...data.messages.map((message) => h("div", { class: `turn ${message.role === "assistant" ? "it" : "you"}` },
      h("small", {}, message.role), h("div", {}, message.content))));
  }

  /* ---- histogram of tokens per row */
  function lengths({ element }) {
    const find = (name) => element.querySelector(`.${name}`);
    const draw = (data) => {
      const one = data && data.lengths;
      find("lengths-figures").textContent = one
        ? `median ${whole(one.median)} · 95 % under ${whole(one.p95 + 1)} · longest ${whole(one.longest)}` : "";
      find("lengths-plot").replaceChildren();
      element.querySelector("section").hidden = !one?.counts.length;
      if (!one || !one.counts.length) return;
      find("lengths-plot").append(histogram(one, find("lengths-plot").clientWidth || 560));
    };
    subscribe("data", element, draw);
    new ResizeObserver(() => draw(window.studioForm.latest.data)).observe(find("lengths-plot"));
  }

  function histogram(one, width) {
    const height = 190, floor = 160, top = 26, pad = 4;
    const first = one.edges[0], high = one.edges[one.edges.length - 1], reach = 0.6 * (high - first + 1);
    // The limit is drawn in where it is near the data; far from it, it would squeeze the bars into a corner.
    const near = one.limit <= high + reach && one.limit >= first - reach;
    const low = near ? Math.min(first, one.limit) : first;
    const end = near ? Math.max(high, one.limit + 1) : high;
    const x = (value) => pad + (value - low) / (end - low) * (width - 2 * pad);
    const most = Math.max(...one.counts);
    const svg = shape("svg", { viewBox: `0 0 ${width} ${height}`, height, width: "100%", role: "img" },
      shape("title", {}, `Tokens per row: from ${one.shortest} to ${one.longest}, median ${one.median}, limit ${one.limit}`));
    one.counts.forEach((count, i) => {
      const left = x(one.edges[i]), right = x(one.edges[i + 1]);
      const tall = count ? Math.max(1.5, count / most * (floor - top)) : 0;
      const over = one.edges[i + 1] - 1 > one.limit;
      svg.append(shape("rect", { x: left + 1, width: Math.max(1, right - left - 2), y: floor - tall, height: tall, rx: 2, fill: over ? "var(--c3)" : "var(--c1)" },
        shape("title", {}, `${one.edges[i]}–${one.edges[i + 1] - 1} tokens: ${whole(count)} rows`)));
    });
    svg.append(shape("line", { x1: pad, x2: width - pad, y1: floor + .5, y2: floor + .5, stroke: "var(--line-2)" }));
    const step = niceStep((end - low) / Math.max(3, width / 70));
    for (let tick = Math.ceil(low / step) * step; tick <= end; tick += step) {
      if (x(tick) < 14 || x(tick) > width - 14) continue;
      svg.append(shape("text", { x: x(tick), y: floor + 18, "text-anchor": "middle", class: "axis" }, whole(tick)));
    }
    const many = one.over_limit;
    const says = `limit ${whole(one.limit)} tokens: ${many ? `${whole(many)} row${many > 1 ? "s are" : " is"} longer` : "no row is longer"}`;
    if (near) {
      const at = x(one.limit), left = at > width / 2;
      svg.append(shape("line", { x1: at, x2: at, y1: 6, y2: floor, stroke: "var(--bad)", "stroke-dasharray": "4 3" }),
        shape("text", { x: at + (left ? -8 : 8), y: 16, "text-anchor": left ? "end" : "start", class: "limit" }, says));
    } else {
      const below = one.limit < first;
      svg.append(shape("text", { x: below ? pad : width - pad, y: 16, "text-anchor": below ? "start" : "end", class: "limit" },
        below ? `← ${says}` : `${says} →`));
    }
    return svg;
  }

  function niceStep(rough) {
    const power = 10 ** Math.floor(Math.log10(Math.max(1, rough)));
    return [1, 2, 5, 10].map((factor) => factor * power).find((step) => step >= rough) || 10 * power;
  }

  /* ---- head, findings, split: all from topic "data", which the head publishes */
  function dataHead({ element, props, watch }) {
    const find = (name) => element.querySelector(`.${name}`);
    const take = () => {
      const data = props.value;
      if (!data) return;
      find("data-name").replaceChildren(...fileName(data.name));
      const state = find("data-state");
      state.textContent = data.state;
      state.className = `data-state pill ${data.level}`;
      find("data-counts").textContent = data.counts;
      publish("reading", false);
      publish("data", data);
    };
    take();
    watch("value", take);
    subscribe("reading", element, (reading) => {
      window.studioForm.counted(reading, element, find("data-state"));
      if (!reading) return;
      find("data-state").textContent = "counting tokens …";
      find("data-state").className = "data-state pill live";
    });
  }

  function findings({ element, trigger }) {
    const box = element.querySelector(".findings");
    subscribe("data", element, (data) => {
      const act = (action, button) => {
        if (action.fetch) { button.disabled = true; button.textContent = "fetching …"; trigger("submit"); return; }
        window.studioForm.state.set = action.set;
        trigger("select");
      };
      box.replaceChildren(...data.findings.map((finding) => h("li", { class: "finding" }, pill(finding.level, finding.label), h("div", {},
        h("b", {}, ...linked(finding.text)), finding.fix ? h("p", { class: "muted" }, ...linked(finding.fix)) : null,
        h("div", { class: "row wrap" }, ...(finding.actions || []).map((action) =>
          h("button", { type: "button", class: "btn small", onclick: (event) => act(action, event.currentTarget) }, action.label)))))));
    });
  }

  function split({ element }) {
    const card = element.querySelector(".card");
    subscribe("data", element, (data) => {
      card.hidden = !data.split;
      if (!data.split) return;
      const parts = [
        { name: "training", value: data.split.train, color: "var(--c1)" },
        { name: "validation", value: data.split.validation, color: "var(--c3)" },
      ];
      stack(card.querySelector(".stack"), card.querySelector(".legend"), parts, data.split.train + data.split.validation, whole);
    });
  }

  /* ---- the list of files: the value is the option itself, a list of sources with the schema's keys */
  const asText = (value) => (value && typeof value === "object"
    ? Object.entries(value).map(([name, of]) => `${name}=${of}`).join(", ") : value ?? "");

  /** A file's row and its options, made once: an element that is made anew under a person's hand loses the focus and what
   *  is typed next. `draw` puts in what is known of it; the field that has the focus keeps what it holds. */
  function sourceRow(path, constants, { change, more, remove }) {
    const row = { path };
    const put = (field, value) => { if (field !== document.activeElement && field.value !== value) field.value = value; };
    const format = h("select", { "aria-label": `Format of ${path}`, onchange: () => change(row, { format: format.value }) },
      ...constants.formats.map((word) => h("option", { value: word }, word)));
    const counted = h("td", { class: "num" }), file = h("td", { class: "path" }, ...fileName(path.split("/").slice(-2).join("/")));
    const opener = h("button", { type: "button", class: "btn quiet small", "aria-label": `More options of ${path}`, onclick: () => more(row) }, "More");
    const line = h("tr", {}, file, h("td", {}, format), counted, h("td", { class: "num" }, opener,
      h("button", { type: "button", class: "btn quiet small", "aria-label": `Remove ${path}`, onclick: () => remove(row) }, "✕")));

    const columns = window.studioForm.columns((mapping) => change(row, { columns: mapping }));
    const fields = constants.fields.map((field) => {
      const choose = field.choices.length > 0;
      const input = h(choose ? "select" : "input", { class: "field-input", title: field.help, onchange: () => change(row, { [field.name]: input.value.trim() || undefined }) },
        ...field.choices.map((word) => h("option", { value: word }, word)));
      return { ...field, input, usual: choose ? field.choices[0] : "" };
    });
    const options = h("tr", { class: "source-options" }, h("td", { colspan: 5 }, columns.box, h("div", { class: "option-grid" },
      ...fields.map((field) => h("label", {}, h("span", {}, field.title), field.input, h("small", { class: "muted" }, field.help))))));

    row.draw = (source, told, open, again) => {
      file.title = told.file || path;
      format.title = told.reason || "";
      const auto = [...format.options].find((one) => one.value === "auto"), read = told.format ? `auto: ${told.format}` : "auto";
      if (auto && auto.textContent !== read) auto.textContent = read;
      put(format, source.format || "auto");
      counted.textContent = told.rows === undefined ? "" : whole(told.rows);
      opener.setAttribute("aria-expanded", String(open));
      if (!open) return [line];
      columns.show(source, again);
      for (const { name, input, usual } of fields) put(input, asText(source[name]) || usual);
      return [line, options];
    };
    return row;
  }

  function sources({ element, props, watch }, constants) {
    const body = element.querySelector("tbody");
    const open = new Set(), asked = new Set();
    let rows = [];
    const set = (list) => { props.value = list; draw(); };
    const acts = {
      change: (row, values) => set((props.value || []).map((one, i) => (rows[i] === row ? { ...one, ...values } : one))),
      more: ({ path }) => { if (!open.delete(path)) open.add(path); draw(true); },
      remove: (row) => { open.delete(row.path); set((props.value || []).filter((_, i) => rows[i] !== row)); },
    };

    const draw = (again = false) => {
      const list = props.value || [], known = ((window.studioForm.latest.data || {}).sources) || [], before = [...rows];
      element.querySelector(".sources-empty").hidden = list.length > 0;
      rows = list.map(({ path }) => {
        const at = before.findIndex((row) => row.path === path);
        return at < 0 ? sourceRow(path, constants, acts) : before.splice(at, 1)[0];
      });
      const lines = list.flatMap((source, i) => {
        const told = known[i] || {};
        if (told.unread === source.path && !asked.has(source.path)) { asked.add(source.path); open.add(source.path); } // which column is which
        return rows[i].draw(source, told, open.has(source.path), again);
      });
      // Only what differs is taken out or put in: a row that is put in again loses the focus too.
      for (const line of [...body.children]) if (!lines.includes(line)) line.remove();
      lines.forEach((line, i) => { if (body.children[i] !== line) body.insertBefore(line, body.children[i] || null); });
    };
    draw();
    watch("value", () => draw());
    subscribe("data", element, () => draw(true));
    // What a reply brought for the field that had the focus.
    body.addEventListener("focusout", () => setTimeout(() => draw()));
  }

  Object.assign(window.studioForm, { tokens, tokenRun, lengths, dataHead, findings, split, sources });
})();

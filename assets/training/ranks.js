/* What each rank of a run does just now: a row each with its share of the speed, its memory and how busy its GPU is. */
"use strict";

window.studio.ranks = (() => {
  const { h, put, number, percent, NONE } = window.studio;

  const gigabytes = (value) => (value >= 100 ? String(Math.round(value)) : value.toPrecision(3));

  /** A number beside a bar of its share; without one where the whole is not known. */
  function cell(text, share, label) {
    const filled = h("i", {});
    filled.style.width = `${100 * Math.min(1, Math.max(0, share ?? 0))}%`;
    const bar = share === null ? [] : [h("span", { class: "bar", role: "img", "aria-label": label }, filled)];
    return h("td", {}, h("span", { class: "ranks-figure" }, h("span", {}, text), ...bar));
  }

  /** Draw the newest figures into the card; hidden for a run of one process.
   *  `chooseLog` is told the rank whose log is wanted. */
  function draw(card, reader, chooseLog) {
    const ranks = reader.ranks?.ranks || [], part = (name) => card.querySelector(`[data-part="${name}"]`);
    card.hidden = ranks.length < 2;
    if (card.hidden || card.drawn === reader.ranks) return;
    card.drawn = reader.ranks;
    const plan = reader.about?.environment?.plan || {}, gpu = ranks.some((one) => one.of);
    const fastest = Math.max(...ranks.map((one) => one.tokens_per_second || 0));
    put(part("ranks-about"), [`${ranks.length} ${gpu ? "GPUs" : "processes"}`, plan.parallel || "", `step ${number(reader.ranks.step)}`].filter(Boolean).join(" · "));
    part("ranks-head").replaceChildren(...["Rank", "Tokens/s, its share", "Memory", ...(gpu ? ["Busy"] : []), "Log"].map((name) => h("th", { scope: "col" }, name)));
    part("ranks-rows").replaceChildren(...ranks.map((one, rank) => {
      const speed = one.tokens_per_second, button = h("button", { type: "button", class: "btn small", "aria-label": `Show the log of rank ${rank}` }, "Show");
      button.addEventListener("click", () => chooseLog(rank));
      const share = gpu ? one.memory / one.of : null, known = typeof one.busy === "number";
      return h("tr", {},
        h("th", { scope: "row" }, String(rank)),
        cell(typeof speed === "number" ? number(speed >= 100 ? Math.round(speed) : speed, 3) : NONE, fastest ? (speed || 0) / fastest : null, `${percent(fastest ? (speed || 0) / fastest : 0)} % of the fastest`),
        cell(typeof one.memory === "number" ? `${gigabytes(one.memory)}${one.of ? ` of ${gigabytes(one.of)}` : ""} GB` : NONE, share, `${percent(share || 0)} % of its memory`),
        ...(gpu ? [cell(known ? `${percent(one.busy)} %` : NONE, known ? one.busy : null, "share of the time in which it computed")] : []),
        h("td", {}, button));
    }));
  }

  return { draw };
})();

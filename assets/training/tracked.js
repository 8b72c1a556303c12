/* Where the selected run is seen in its trackers: a link to the page of each, or the command that shows it. */
"use strict";

window.studio.tracked = (() => {
  const { h, copyButton } = window.studio;

  // Events may come from elsewhere: an address is a link only if it is one of the web.
  const place = ({ title, url, command }) => (/^https?:\/\//.test(url)
    ? h("dd", {}, h("a", { class: "link", href: url, target: "_blank", rel: "noopener noreferrer" }, url))
    : h("dd", {}, h("code", { class: "mono" }, command), copyButton(command, `Copy the command for ${title}`)));

  const told = (one) => typeof one?.title === "string" && (/^https?:\/\//.test(one.url) || typeof one.command === "string");

  /** Draw the trackers of a reader of monitor.js into a list; without a reader, or without trackers, there is none. */
  function draw(list, reader) {
    const places = Object.values(reader?.summary?.results?.trackers || {}).filter(told), key = JSON.stringify(places);
    list.hidden = !places.length;
    if (list.dataset.key === key) return;
    list.dataset.key = key;
    list.replaceChildren(...places.map((one) => h("div", {}, h("dt", { class: "muted" }, one.title), place(one))));
  }

  return { draw };
})();

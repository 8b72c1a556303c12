/* What is seen until gradio has drawn the page: its frame with nothing in it. In the head, so before all else. */
"use strict";

(() => {
  const { h } = window.studio;
  const wish = localStorage.getItem("studio.theme");
  const dark = wish ? wish === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const blocks = (count) => Array.from({ length: count }, () => h("i"));
  const shell = h("div", { class: `shell${dark ? " dark" : ""}`, "aria-hidden": "true" },
    h("div", { class: "shell-side" }, h("b", {}, "Finetune Studio"), ...blocks(4)),
    h("div", { class: "shell-work" }, h("div", { class: "shell-tabs" },
      ...["Model", "Data", "Method", "Training", "Chat", "Export"].map((name) => h("b", {}, name))), ...blocks(3)));

  const drawn = () => document.getElementById("tab-export-button") && document.getElementById("run-list");

  function place() {
    if (!document.body) return void requestAnimationFrame(place);
    document.body.append(shell);
    const look = setInterval(() => {
      if (!drawn()) return;
      clearInterval(look);
      shell.remove();
    }, 50);
  }

  place();
})();

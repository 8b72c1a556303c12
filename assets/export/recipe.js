/* A recipe from a file, by its button or dropped onto the text, and the text as a file. */
"use strict";

window.studio.recipeFile = (() => {
  const { put, bytes, saveText, setBox } = window.studio;
  const MOST = 256 * 1024; // as studio/foreign.py reads one

  function mount(element) {
    const part = (name) => element.querySelector(`[data-recipe="${name}"]`), say = (text) => put(part("said"), text);
    const field = () => document.querySelector("#merge-recipe"), area = () => field().querySelector("textarea");

    async function take(file) {
      if (!file) return;
      if (file.size > MOST) return say(`${file.name} has ${bytes(file.size)}, and a recipe has at most ${bytes(MOST)}. Open a recipe in mergekit's YAML.`);
      try {
        setBox("merge-recipe", new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer()));
        say(`${file.name} is in the recipe now. Check says whether it can be merged.`);
      } catch {
        say(`${file.name} is not UTF-8. Save it as UTF-8, and open it again.`);
      }
    }

    function save() {
      const name = document.querySelector("#merge-name input, #merge-name textarea")?.value.trim() || "recipe";
      if (!area().value.trim()) return say("There is no recipe yet. Pick models, or open one.");
      saveText(`${name.replace(/[^\w.-]+/g, "-")}.yaml`, area().value, "application/yaml");
      say("");
    }

    part("open").addEventListener("click", () => part("file").click());
    part("file").addEventListener("change", ({ target }) => { take(target.files[0]); target.value = ""; });
    part("save").addEventListener("click", save);
    const held = ({ dataTransfer }) => [...(dataTransfer?.types || [])].includes("Files");
    field()?.addEventListener("dragover", (event) => { if (held(event)) event.preventDefault(); });
    field()?.addEventListener("drop", (event) => { if (held(event)) { event.preventDefault(); event.stopPropagation(); take(event.dataTransfer.files[0]); } });
  }

  return { mount };
})();

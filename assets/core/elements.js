/* Elements of the page. All text of others enters through these as text nodes, never as markup. The first script:
   it makes window.studio, on which everything else is built. No framework: the studio draws few pieces, and gradio
   brings the rest. */
"use strict";

window.studio = (() => {
  /** Give an element attributes, listeners ("onclick") and children; an attribute that is null, undefined or false is
   *  left out, and so is a child that is null or undefined. */
  function fill(element, attributes, children) {
    for (const [name, value] of Object.entries(attributes)) {
      if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
    }
    element.append(...children.filter((child) => child !== null && child !== undefined));
    return element;
  }

  /** Make an element: h("b", {class: "num"}, "text", child). */
  const h = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);

  /** Make an element of a drawing. */
  const svg = (tag, attributes = {}, ...children) => fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

  /** Set an element's text only when it differs, so that a selection or a screen reader is not disturbed. */
  function put(element, text) {
    if (element.textContent !== text) element.textContent = text;
  }

  const broken = (text, after) => String(text ?? "").split(after).flatMap((part, index) => (index ? [h("wbr"), part] : [part]));

  /** Text that may break after commas: JSON without spaces stays readable in a narrow column. */
  const breakable = (text) => broken(text, /(?<=,)/);

  /** A file's name, which breaks between its parts and not inside a word. */
  const fileName = (text) => broken(text, /(?<=[-_./])/);

  /** Text whose addresses on the Hub are links: the pages where terms are accepted and tokens are made. Other addresses
   *  stay text, since they may be of others. */
  const linked = (text) => String(text ?? "").split(/(https:\/\/huggingface\.co\/[\w./-]*\w)/).map((part, index) =>
    (index % 2 ? h("a", { class: "link", href: part, target: "_blank", rel: "noopener noreferrer" }, part) : part));

  /** Let the browser save a text as a file. */
  function saveText(name, text, type) {
    const href = URL.createObjectURL(new Blob([text], { type }));
    h("a", { href, download: name }).click();
    setTimeout(() => URL.revokeObjectURL(href), 1000);
  }

  /** A button that copies a text; its label begins with "Copy", and is what is read out. */
  function copyButton(text, label) {
    const say = (button, words, name) => { put(button, words); button.setAttribute("aria-label", name); };
    return h("button", { type: "button", class: "btn small quiet", "aria-label": label, onclick: async ({ currentTarget: button }) => {
      try {
        await navigator.clipboard.writeText(text);
        say(button, "Copied", label.replace("Copy", "Copied"));
      } catch {
        say(button, "Select the text to copy it", "Select the text to copy it");
      }
      setTimeout(() => say(button, "Copy", label), 2000);
    } }, "Copy");
  }

  return { h, svg, put, breakable, fileName, linked, saveText, copyButton };
})();

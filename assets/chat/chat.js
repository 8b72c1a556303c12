/* A chat pane: draws the value {"messages", "speed", "hint", "busy"} that Python sends about 20 times a second.
   The template of the component is constant, so gradio leaves these nodes alone; only changed texts are touched.
   Questions and answers enter through textContent: whatever a model writes stays text. */
"use strict";

window.studioChat = (() => {
  const { h, put, copyButton } = window.studio;

  const mount = (element, props, watch) => {
    const root = element.querySelector(".chat-pane");
    const list = root.querySelector(".chat-messages");
    const draw = () => drawPane(root, list, props.value || {});
    watch("value", draw);
    draw();
  };

  const drawPane = (root, list, value) => {
    put(root.querySelector(".chat-speed"), value.speed || "");
    const messages = value.messages || [];
    const stick = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
    list.setAttribute("aria-busy", value.busy ? "true" : "false");
    while (list.children.length > messages.length) list.lastElementChild.remove();
    messages.forEach((message, index) => drawMessage(list, list.children[index], message, value.busy && index === messages.length - 1));
    const hint = root.querySelector(".chat-hint");
    hint.hidden = messages.length > 0;
    put(hint, value.hint || "");
    if (stick) list.scrollTop = list.scrollHeight;
  };

  const drawMessage = (list, node, message, writing) => {
    const asked = message.role === "user";
    if (!node || node.dataset.role !== message.role) {
      const fresh = h("div", { class: `bubble ${asked ? "you" : "it"}`, "data-role": message.role },
        h("span", { class: "sr-only" }, asked ? "You: " : "Answer: "), h("span", { class: "bubble-text" }), h("p", { class: "bubble-note" }),
        asked ? null : h("div", { class: "bubble-tools" }));
      if (node) node.replaceWith(fresh);
      else list.append(fresh);
      node = fresh;
    }
    const text = node.querySelector(".bubble-text");
    put(text, message.content || "");
    text.classList.toggle("mono", !asked && /^\s*[[{]/.test(message.content || ""));
    node.classList.toggle("writing", Boolean(writing));
    const note = node.querySelector(".bubble-note");
    put(note, message.note || "");
    note.hidden = !message.note;
    node.classList.toggle("failed", Boolean(message.failed));
    if (!asked) drawTools(node, message, writing);
  };

  const drawTools = (node, message, writing) => {
    const tools = node.querySelector(".bubble-tools");
    const wanted = writing || !message.content ? "" : message.content;
    if (tools.dataset.copies === wanted) return;
    tools.dataset.copies = wanted;
    tools.replaceChildren(...(wanted ? [copyButton(wanted, "Copy the answer")] : []));
  };

  return { mount };
})();

/* What a handler refuses, and a file that is too large to be sent, as a notice: it stays until it is closed or the next
   one comes.
   Gradio 6.31 shows an error only of events that use its queue: of the others, and ours are such, its client leaves out
   the field by which the page decides to show it. So the answer is read here, where it passes. */
"use strict";

(() => {
  const send = window.fetch.bind(window);

  function close() {
    document.querySelector(".refused")?.remove();
  }

  function show(title, sentence) {
    const { h } = window.studio;
    close();
    const button = h("button", { type: "button", class: "btn small", onclick: close }, "Close");
    document.querySelector(".gradio-container").append(h("div", { class: "studio refused notice error", role: "alert" },
      h("b", {}, title), h("span", {}, sentence), button));
  }

  // Asked before anything is sent: what the server would refuse after the last byte.
  document.addEventListener("change", (event) => {
    const input = event.target, most = Number(document.querySelector("[data-upload-bytes]")?.dataset.uploadBytes);
    if (!(input instanceof HTMLInputElement) || input.type !== "file" || !most) return;
    const large = [...input.files].find((file) => file.size > most);
    if (!large) return;
    event.stopImmediatePropagation();
    input.value = "";
    const { bytes } = window.studio;
    show("Upload", `'${large.name}' is ${bytes(large.size)}; uploads are limited to ${bytes(most)}. Put the file on the studio's computer and enter its path instead.`);
  }, true);

  window.fetch = async (input, options) => {
    const answer = await send(input, options);
    const address = String(input instanceof Request ? input.url : input);
    if (answer.status === 500 && /\/gradio_api\/run\//.test(address)) {
      const body = await answer.clone().json().catch(() => ({}));
      if (typeof body.error === "string") show(body.title || "Error", body.error);
    }
    return answer;
  };
})();

/* The session of this page. A cookie goes to every port of a machine; the key, which lies in this origin's storage, does
   not, so every request of ours carries it as a header. This script is part of the sign-in page, which is what a browser
   gets by following an address; once the key is known it draws the page in its place, whose scripts find `fetch`
   wrapped already. It stays for downloads, new keys, and signing in again over a page that is half filled in. */
"use strict";

window.studioSession = (() => {
  const KEY = "studio.session", RENEWED = "studio.session.renewed", HEADER = "x-studio-key";
  const RENEW_MS = 3600000, LOOK_MS = 20000, AGAIN_MS = 1000;
  const DOWNLOADS = ["/api/", "/gradio_api/file="];
  const send = window.fetch.bind(window);
  const fields = document.querySelector("[data-fields]").innerHTML;
  const key = () => localStorage.getItem(KEY) || "";
  let dialog = null;

  function ours(address) {
    try { return new URL(address, document.baseURI).origin === location.origin; } catch { return false; }
  }

  /* ---- requests carry the key ---- */

  function withKey(input, options = {}) {
    const headers = new Headers(options.headers || (input instanceof Request ? input.headers : undefined));
    headers.set(HEADER, key());
    return send(input, { ...options, headers });
  }

  window.fetch = async (input, options) => {
    if (!ours(input instanceof Request ? input.url : input)) return send(input, options);
    const used = key(), answer = await withKey(input, options);
    // One that was on its way while the person signed in again says nothing of the new session.
    if (answer.status === 401 && key() === used) ask("Your session has ended.");
    return answer;
  };

  const { open, send: sendOld } = XMLHttpRequest.prototype;
  const marked = new WeakSet();
  XMLHttpRequest.prototype.open = function (method, address, ...more) {
    if (ours(address)) marked.add(this); else marked.delete(this);
    return open.call(this, method, address, ...more);
  };
  XMLHttpRequest.prototype.send = function (body) {
    if (marked.has(this)) this.setRequestHeader(HEADER, key());
    return sendOld.call(this, body);
  };

  const post = (path, values) => withKey(path, { method: "POST", body: new URLSearchParams(values) });

  /* ---- signing in and out ---- */

  function keep({ key: given }) {
    if (!given) return;
    localStorage.setItem(KEY, given);
    localStorage.setItem(RENEWED, String(Date.now()));
  }

  /** Send the form; returns what is wrong, "" when it was right. */
  async function signIn(values) {
    try {
      const answer = await post("/sign-in", values), said = await answer.json();
      if (!answer.ok) return said.error || `The studio answered ${answer.status}.`;
      keep(said);
      return "";
    } catch {
      return "The studio does not respond.";
    }
  }

  async function signOut(everywhere) {
    await post("/sign-out", { everywhere: everywhere ? "yes" : "no" }).catch(() => null);
    localStorage.removeItem(KEY);
    location.replace("/");
  }

  /** Ask for a new key now and then, in one of the open tabs. */
  async function renew() {
    if (!key() || Date.now() - Number(localStorage.getItem(RENEWED)) < RENEW_MS) return;
    localStorage.setItem(RENEWED, String(Date.now()));
    const answer = await post("/session/renew", {}).catch(() => null);
    if (answer?.ok) keep(await answer.json());
  }

  /** The code of a link that opens a session, which leaves the address. */
  function takeCode() {
    const parts = new URLSearchParams(location.hash.slice(1)), code = parts.get("link");
    if (code === null) return "";
    parts.delete("link");
    history.replaceState(history.state, "", `${location.pathname}${location.search}${String(parts) ? `#${parts}` : ""}`);
    return code;
  }

  function watchForm(form, after) {
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const button = form.querySelector("button"), values = Object.fromEntries(new FormData(form));
      button.disabled = true;
      say(form, "");
      const problem = await signIn(values);
      button.disabled = false;
      say(form, problem);
      if (!problem) after();
    });
  }

  function say(form, text) {
    const line = form.querySelector("[role=alert]");
    line.textContent = text;
    line.hidden = !text;
  }

  /* ---- over the page: what was typed stays ---- */

  function ask(why) {
    const box = document.querySelector(".gradio-container");
    if (dialog?.open || !box) return;
    dialog?.remove();
    dialog = document.createElement("dialog");
    dialog.className = "ask studio sign-in-again";
    dialog.setAttribute("aria-labelledby", "sign-in-again");
    dialog.innerHTML = `<form><h3 id="sign-in-again">Sign in again</h3><p data-why></p>${fields}
      <p role="alert" hidden></p><div class="row-flex"><span class="grow"></span><button class="btn primary">Sign in</button></div></form>`;
    dialog.querySelector("[data-why]").textContent = `${why} What you typed is still there, and running jobs continue.`;
    dialog.addEventListener("cancel", (event) => event.preventDefault());
    watchForm(dialog.querySelector("form"), close);
    box.append(dialog);
    dialog.showModal();
  }

  function close() {
    if (!dialog?.open) return;
    dialog.close();
    dialog.remove();
    window.studio?.refresh();
  }

  /* ---- downloads: the browser follows an address that opens once ---- */

  async function once(address) {
    const answer = await post("/session/link", { address: address.pathname + address.search });
    if (answer.status === 401) ask("Your session has ended.");
    return answer.ok ? (await answer.json()).address : null;
  }

  async function download(link) {
    const address = await once(new URL(link.href)).catch(() => null);
    if (!address) return;
    const again = document.createElement("a");
    again.href = address;
    if (link.hasAttribute("download")) again.download = link.download;
    again.click();
  }

  function clicked(event) {
    const out = event.target.closest?.("[data-sign-out]");
    if (out) return void signOut(out.dataset.signOut === "everywhere");
    const link = event.target.closest?.("a[href]");
    if (!link || event.button || event.ctrlKey || event.metaKey || event.shiftKey || !ours(link.href)) return;
    if (!DOWNLOADS.some((start) => new URL(link.href).pathname.startsWith(start))) return;
    event.preventDefault();
    download(link);
  }

  /** What the page needs for as long as it is open; set anew when it was drawn. */
  function listen() {
    document.addEventListener("click", clicked, true);
    window.addEventListener("storage", (event) => {
      if (event.key === KEY && event.newValue) close();
      else if (event.key === KEY) ask("You signed out in another tab.");
    });
    window.addEventListener("hashchange", async () => {
      const code = takeCode();
      if (code && dialog?.open && !(await signIn({ link: code }))) close();
    });
    setInterval(renew, LOOK_MS);
  }

  /* ---- from the sign-in page to the page ---- */

  async function enter() {
    if (!key()) return false;
    const page = ["/", "/sign-in"].includes(location.pathname);
    if (!page) {
      const address = await once(location);
      if (address) location.replace(address);
      return Boolean(address);
    }
    if (location.pathname !== "/") {
      location.replace(`/${location.hash}`);
      return true;
    }
    const answer = await withKey(`/${location.search}`, { cache: "no-store" });
    if (!answer.ok) return false;
    const text = await answer.text();
    document.open();
    listen();
    document.write(text);
    document.close();
    return true;
  }

  async function start() {
    const form = document.querySelector("form"), code = takeCode();
    const go = async () => {
      try {
        if (!(await enter())) document.body.dataset.signed = "no";
      } catch {
        document.body.dataset.signed = "no";
        say(form, "The studio does not respond; retrying …");
        setTimeout(go, AGAIN_MS);
      }
    };
    watchForm(form, go);
    if (document.body.dataset.signed === "yes") await go();
    if (code && document.body?.dataset.signed === "no") {
      const problem = await signIn({ link: code });
      say(form, problem);
      if (!problem) await go();
    }
  }

  start();
  return { renew, signOut };
})();

/* A server of another maker with what was exported: a button that starts it, how it is, what it said where it failed. */
"use strict";

window.studio.exportedTrying = (() => {
  const { h, fetchJson, postJson, jobPath, filePath, poll, copyButton, SERVER } = window.studio;

  const lastLines = (trial) => (trial.lines.length ? [h("pre", { class: "mono trying-lines", tabindex: 0, role: "region", "aria-label": `What ${trial.title} said last` }, trial.lines.join("\n"))] : []);

  const log = (trial, job) => h("a", { class: "link", href: filePath(job.id, trial.log), download: trial.log }, "Log");

  const running = (trial) => trial && (trial.state === "starting" || trial.state === "ready");

  return (report, job, trigger) => {
    const box = h("div", { class: "export-note export-trying" });
    const status = h("p", { role: "status", class: "row-flex wrap-flex" }), rest = h("div", {});
    let shown = "", following = false;

    const act = (path, body) => async ({ currentTarget: button }) => {
      button.disabled = true;
      try {
        draw(await postJson(`${jobPath(job.id)}/trying/${path}`, body, { signal: AbortSignal.timeout(30000) }));
        follow();
      } catch (error) {
        rest.replaceChildren(h("p", { class: "notice error" }, error.message));
        button.disabled = false;
      }
    };

    const offered = (one) => (one.reason
      ? [h("button", { type: "button", class: "btn", disabled: true }, `Try it with ${one.title}`), h("span", { class: "muted" }, `${one.reason}.`),
        ...(one.install ? [h("code", { class: "mono" }, one.install), copyButton(one.install, `Copy the command that installs ${one.title}`)] : [])]
      : [h("button", { type: "button", class: "btn", onclick: act("start", { server: one.server }) }, `Try it with ${one.title}`)]);

    const live = (trial) => [
      h("span", { class: `pill ${SERVER[trial.state].pill}` }, `${trial.title}: ${SERVER[trial.state].word}`),
      ...(trial.state === "ready" ? [h("button", { type: "button", class: "btn", onclick: () => trigger("chat", { job: job.id, served: true }) }, `Chat with it on ${trial.title}`),
        h("code", { class: "mono" }, trial.url)] : [h("span", { class: "muted num" }, `${trial.seconds} s`)]),
      h("button", { type: "button", class: "btn small danger", onclick: act("stop", {}) }, "Stop"),
    ];

    const ended = (trial) => (trial.state === "failed" ? [h("span", { class: "pill warn" }, `${trial.title}: failed`), h("span", {}, `${trial.title} ${trial.why}`)] : []);

    const draw = (told) => {
      const { trial, servers } = told, text = JSON.stringify(told);
      if (text === shown) return;
      shown = text;
      const now = running(trial) ? live(trial) : [...(trial ? ended(trial) : []), ...servers.flatMap(offered)];
      status.replaceChildren(...now);
      rest.replaceChildren(...(trial ? lastLines(trial) : []), ...(trial && trial.state !== "stopped" ? [log(trial, job)] : []));
    };

    /* Look once, and again while a server starts or runs. */
    const follow = () => {
      if (following) return;
      following = true;
      poll(async () => {
        following = !shown || box.isConnected;
        if (!following) return false;
        const told = await fetchJson(`${jobPath(job.id)}/trying`);
        draw(told);
        following = Boolean(running(told.trial));
        return following ? 1000 : false;
      });
    };

    box.append(status, rest);
    follow();
    return [box];
  };
})();

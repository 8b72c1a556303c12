/* What is seen of the selected job while another tab of the browser is looked at: the title and the icon. */
"use strict";

window.studio.headline = (() => {
  const HOME = document.title || "Finetune Studio";
  const ROUND = 2 * Math.PI * 12;
  let own = "", watched = ""; // the page's icon; the job that was seen before its end

  /** A ring that is filled to `share`. */
  const ring = (share, colour) => `data:image/svg+xml,${encodeURIComponent(
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32" fill="none" stroke-width="6"><circle cx="16" cy="16" r="12" stroke="${window.studio.token("--line-2")}"/>` +
    `<circle cx="16" cy="16" r="12" stroke="${colour}" stroke-dasharray="${(share * ROUND).toFixed(1)} 99" transform="rotate(-90 16 16)"/></svg>`)}`;

  function draw() {
    const icon = document.querySelector('link[rel="icon"]'), job = window.studio.selected();
    own ||= icon?.getAttribute("href") || "";
    if (job && !window.studio.isFinal(job)) watched = job.id;
    const over = job && window.studio.isFinal(job), told = job && (!over || watched === job.id);
    const named = over || job?.status === "queued";
    const word = !told ? "" : named ? window.studio.statusOf(job).word : `${window.studio.percent(job.share)} %`;
    const title = word ? `${word} · ${job.name || job.id}` : HOME;
    if (document.title !== title) document.title = title;
    const href = word ? ring(over ? 1 : job.share, window.studio.token(window.studio.statusOf(job).colour || "--brand")) : own;
    if (icon && icon.getAttribute("href") !== href) icon.setAttribute("href", href);
  }

  window.studio.on("jobs", draw);
  window.studio.on("job", draw);
  return { draw };
})();

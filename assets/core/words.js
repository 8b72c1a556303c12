/* How the page words what jobs report: states, numbers with 4 significant digits and always with their units. */
"use strict";

Object.assign(window.studio, (() => {
  /* ---- the states of a job ---- */

  /** What a state is called, with which others a person finds it, the look of its pill, of its dot in the list and of
   *  its bar, the colour of the browser's icon, and how a notification says that a job ended in it. */
  const STATUS = {
    queued: { word: "Waiting", group: "waiting", pill: "", dot: "wait" },
    starting: { word: "Starting", group: "running", pill: "live", dot: "run-ing" },
    running: { word: "Running", group: "running", pill: "live", dot: "run-ing" },
    stopping: { word: "Stopping", group: "running", pill: "warn", dot: "run-ing" },
    completed: { word: "Done", group: "done", pill: "ok", dot: "ok", bar: "ok", colour: "--good", ended: "is done" },
    stopped: { word: "Stopped", group: "stopped", pill: "", dot: "off", bar: "off", colour: "--ink-3", ended: "was stopped" },
    failed: { word: "Failed", group: "failed", pill: "bad", dot: "bad", bar: "bad", colour: "--bad", ended: "failed" },
    lost: { word: "Lost", group: "failed", pill: "bad", dot: "bad", bar: "bad", colour: "--bad", ended: "was lost" },
  };

  /** The same of a server that an export is tried with. */
  const SERVER = {
    starting: { word: "starting …", pill: "" }, ready: { word: "ready", pill: "ok" },
    failed: { word: "failed", pill: "warn" }, stopped: { word: "stopped", pill: "" },
  };

  const statusOf = (job) => STATUS[job.status] || { word: job.status, group: "running", pill: "", dot: "off" };
  const isFinal = (job) => Boolean(statusOf(job).ended);

  /* ---- numbers ---- */

  const MINUS = "\u2212", NONE = "\u2013";

  function number(value, digits = 4) {
    if (typeof value === "string") return value;
    if (value === null || value === undefined || !Number.isFinite(value)) return NONE;
    const size = Math.abs(value);
    let text;
    if (Number.isInteger(value) && size < 1e12) text = value.toLocaleString("en-US");
    else if (size !== 0 && (size < 1e-3 || size >= 1e6)) text = value.toExponential(digits - 2).replace(/\.?0+e/, "e").replace("e+", "e");
    else text = size >= 1000 ? Math.round(value).toLocaleString("en-US") : value.toPrecision(digits);
    return text.replace(/^-/, MINUS);
  }

  const signed = (value) => (value > 0 ? `+${number(value, 2)}` : number(value, 2));

  function duration(seconds) {
    if (!Number.isFinite(seconds) || seconds < 0) return NONE;
    const whole = Math.round(seconds);
    if (whole < 60) return `${whole} s`;
    const pad = (part) => String(part).padStart(2, "0");
    if (whole < 3600) return `${Math.floor(whole / 60)} min ${pad(whole % 60)} s`;
    const hours = Math.floor(whole / 3600);
    return hours < 48 ? `${hours} h ${pad(Math.floor((whole % 3600) / 60))} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
  }

  /** "12 min" for lists: one unit is enough there. */
  function roughly(seconds) {
    if (seconds < 60) return `${Math.max(1, Math.round(seconds))} s`;
    if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
    if (seconds < 129600) return `${Math.round(seconds / 3600)} h`;
    return `${Math.round(seconds / 86400)} days`;
  }

  function ago(unix) {
    const seconds = Date.now() / 1000 - unix;
    return seconds < 5 ? "just now" : `${roughly(seconds)} ago`;
  }

  /** Whole percent of a share, never more than there is: 0.999 is 99, and 0.29 is 29 although 100 × 0.29 is less. */
  const percent = (share) => Math.floor(100 * share + 1e-6);

  /** Percent with one decimal, for what was measured. */
  const rate = (share) => `${(100 * share).toFixed(1)} %`;

  function bytes(count) {
    if (!Number.isFinite(count)) return NONE;
    if (count < 1000) return `${count} bytes`;
    const units = ["kB", "MB", "GB", "TB"];
    let at = 0;
    for (count /= 1000; count >= 999.5 && at < units.length - 1; at += 1) count /= 1000;
    return `${count >= 999.5 ? Math.round(count) : count.toPrecision(3)} ${units[at]}`;
  }

  /** How far a phase is: "212 of 272 tensors". */
  const amount = ({ unit, done, total }) =>
    unit === "bytes" ? `${bytes(done)} of ${bytes(total)}` : `${number(Math.round(done))} of ${number(total)} ${unit || ""}`.trim();

  return { STATUS, SERVER, statusOf, isFinal, number, signed, duration, roughly, ago, percent, rate, bytes, amount, MINUS, NONE };
})());

/* Reads a job's events from where it was, and keeps what the charts, tiles and lists of the Training tab show of it. */
"use strict";

/** What is known of one job, and where its files were read to. */
window.studio.Reader = class Reader {
  constructor(id, factor) {
    Object.assign(this, { id, factor, name: id, after: 0, logAfter: 0, series: {}, phases: [], notices: [], samples: [], memory: 0, share: 0, ranks: null, state: null, summary: null, about: null, complete: false });
  }

  take(event) {
    this.memory = Math.max(this.memory, event.memory_gb || 0);
    if (event.kind === "phase") this.takePhase(event);
    else if (event.kind === "notice") this.notices.push(event);
    else if (event.kind === "sample") this.samples.push(event);
    else if (event.kind === "ranks") this.ranks = event;
    else if (event.kind === "resume") this.goBack(event);
    else if (event.kind === "metric") {
      for (const [name, value] of Object.entries(event.values || {})) {
        (this.series[name] ??= new window.studio.charts.Series()).push(event, value, this.factor);
      }
    }
  }

  /** The training goes on from a step: what came after it is done once more, and no phase lasted until now. */
  goBack(event) {
    for (const series of Object.values(this.series)) series.cut(event.step, this.factor);
    this.samples = this.samples.filter((sample) => sample.step <= event.step);
    const last = this.phases[this.phases.length - 1];
    if (last) last.closed = last.time;
    this.phases.push({ phase: "resuming", state: "end", done: 0, total: null, unit: "", begun: event.time, time: event.time, closed: event.time });
    this.redraw = true;
  }

  takePhase(event) {
    const last = this.phases[this.phases.length - 1];
    if (last && last.phase === event.phase) Object.assign(last, event, { begun: last.begun });
    else this.phases.push({ ...event, begun: event.time });
  }

  /** Read everything new; true when something came. Of a long log `show` is called now and then, before its end. */
  async read(path, show = () => {}) {
    let came = false, more = true, drawn = -Infinity;
    while (more) {
      const answer = await window.studio.fetchJson(`${path}/events?after=${this.after}`);
      if (answer.next < this.after) Object.assign(this, new Reader(this.id, this.factor), { about: this.about });
      answer.events.forEach((event) => this.take(event));
      came ||= answer.events.length > 0;
      this.after = answer.next;
      this.skew = answer.now - Date.now() / 1000;
      this.state = answer.state;
      this.summary = answer.summary;
      this.share = Math.max(this.share, answer.summary.share || 0);
      if (this.told !== answer.summary.left) Object.assign(this, { told: answer.summary.left, toldAt: performance.now() });
      more = answer.more;
      if (more && performance.now() - drawn > 1000) { show(); drawn = performance.now(); }
    }
    return came;
  }

  /** Seconds left of the whole job, counted down between reports; null while nobody knows. */
  left() {
    return typeof this.told === "number" ? Math.max(0, this.told - (performance.now() - this.toldAt) / 1000) : null;
  }
};

/** The scans that the server knows, newest first. */

import { api, type Job } from "./api";
import { h } from "./dom";
import { isOver } from "./follow";
import { clock, state } from "./words";

const BUSY_MS = 2000;
const QUIET_MS = 15000;

export class JobList {
  readonly element = h("nav", { class: "side", "aria-label": "Scans", hidden: true });
  private jobs: Job[] = [];
  private open: string | null = null;
  private timer = 0;
  private drawn = "";

  constructor(
    private readonly remove: (job: Job) => void,
    /** Told whether the server answers. */
    private readonly answers: (well: boolean) => void,
  ) {
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) void this.refresh();
    });
  }

  has(id: string): boolean {
    return this.jobs.some((job) => job.id === id);
  }

  label(id: string): string | null {
    return this.jobs.find((job) => job.id === id)?.label ?? null;
  }

  mark(id: string | null): void {
    this.open = id;
    this.draw();
  }

  /** Put in what is known of one job, ahead of the next look at the server. */
  put(job: Job): void {
    const known = this.jobs.findIndex((each) => each.id === job.id);
    if (known >= 0) this.jobs[known] = job;
    else this.jobs.unshift(job);
    this.draw();
  }

  async refresh(): Promise<void> {
    clearTimeout(this.timer);
    try {
      this.jobs = await api.jobs();
      this.draw();
      this.answers(true);
    } catch {
      this.answers(false);
    }
    clearTimeout(this.timer);
    const pause = this.jobs.every(isOver) ? QUIET_MS : BUSY_MS;
    if (!document.hidden) this.timer = window.setTimeout(() => void this.refresh(), pause);
  }

  private draw(): void {
    const now = JSON.stringify([this.jobs, this.open]);
    if (now === this.drawn) return; // what has the focus stays in place
    this.drawn = now;
    const focused = document.activeElement?.closest<HTMLElement>("[data-key]")?.dataset["key"];
    this.element.hidden = this.jobs.length === 0;
    this.element.replaceChildren(
      h("div", { class: "side-head" }, h("h2", {}, "Scans"), h("a", { class: "button", href: "#" }, "New scan")),
      h("ul", { class: "jobs" }, ...this.jobs.map((job) => this.item(job))),
    );
    if (focused) this.element.querySelector<HTMLElement>(`[data-key="${focused}"]`)?.focus();
  }

  private item(job: Job): HTMLElement {
    const link = h(
      "a",
      { href: `#${job.id}`, "data-key": `open-${job.id}` },
      h("span", { class: "name" }, job.label),
      h("span", { class: "state" }, h("span", { class: `dot ${job.status}`, "aria-hidden": "true" }), state(job)),
      h("span", { class: "where" }, `${job.corrects ? "corrected by hand, " : ""}${clock(job.submitted)}`),
    );
    if (job.id === this.open) link.setAttribute("aria-current", "page");
    const remove = h(
      "button",
      { type: "button", class: "quiet", "aria-label": `Delete ${job.label}`, "data-key": `delete-${job.id}` },
      "×",
    );
    remove.addEventListener("click", () => this.remove(job));
    return h("li", {}, link, remove);
  }
}

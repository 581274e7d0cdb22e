/** The list of the jobs on the server, newest first. */

import { api, type Job } from "./api";
import { h } from "./dom";
import { isOver } from "./follow";
import { clock, listState } from "./format";

const BUSY_POLL_MS = 2000; // while a job waits or runs
const IDLE_POLL_MS = 15000;
const FOLDED = "scans-folded"; // key in the storage of the tab
const NARROW = matchMedia("(max-width: 46rem)"); // where the list stands above the scan

export class JobList {
  readonly element = h("nav", { class: "side", "aria-label": "Scans", hidden: true });
  private jobs: Job[] = [];
  private openId: string | null = null;
  private timer = 0;
  private drawnState = "";

  constructor(
    private readonly remove: (job: Job) => void,
    /** Called with whether the server answers. */
    private readonly serverAnswers: (answers: boolean) => void,
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

  /** All jobs that are done but one, newest first. */
  othersDone(id: string): Job[] {
    return this.jobs.filter((job) => job.id !== id && job.status === "done");
  }

  /** Mark the job that is open. */
  mark(id: string | null): void {
    this.openId = id;
    this.draw();
  }

  /** Insert or update one job, ahead of the next poll. */
  put(job: Job): void {
    const index = this.jobs.findIndex(({ id }) => id === job.id);
    if (index >= 0) this.jobs[index] = job;
    else this.jobs.unshift(job);
    this.draw();
  }

  async refresh(): Promise<void> {
    clearTimeout(this.timer);
    try {
      this.jobs = await api.jobs();
      this.draw();
      this.serverAnswers(true);
    } catch {
      this.serverAnswers(false);
    }
    clearTimeout(this.timer);
    const pause = this.jobs.every(isOver) ? IDLE_POLL_MS : BUSY_POLL_MS;
    if (!document.hidden) this.timer = window.setTimeout(() => void this.refresh(), pause);
  }

  private draw(): void {
    const state = JSON.stringify([this.jobs, this.openId]);
    if (state === this.drawnState) return; // keeps the element with the focus
    this.drawnState = state;
    const keyed = (): HTMLElement[] => [...this.element.querySelectorAll<HTMLElement>("[data-key]")];
    const before = keyed();
    const at = before.findIndex((each) => each === document.activeElement);
    this.element.hidden = this.jobs.length === 0;
    this.element.replaceChildren(
      h("div", { class: "side-head" }, h("h2", {}, "Scans"), h("a", { class: "button", href: "#" }, "New scan"), this.foldButton()),
      h("ul", { class: "jobs" }, ...this.jobs.map((job) => this.item(job))),
    );
    if (at < 0) return;
    const after = keyed();
    const same = after.find((each) => each.dataset["key"] === before[at]!.dataset["key"]);
    (same ?? after[Math.min(at, after.length - 1)])?.focus(); // of a job that was deleted: to the one in its place
  }

  /** A button that folds the list away, to leave its room to the scan. */
  private foldButton(): HTMLElement {
    const chosen = sessionStorage.getItem(FOLDED);
    const isFolded = chosen === null ? NARROW.matches && this.openId !== null : chosen === "yes";
    this.element.classList.toggle("folded", isFolded);
    const fold = (): void => {
      sessionStorage.setItem(FOLDED, isFolded ? "no" : "yes");
      this.drawnState = "";
      this.draw();
    };
    const label = isFolded ? "Show the list of scans" : "Hide the list of scans";
    return h(
      "button",
      { type: "button", class: "quiet fold", title: label, "aria-label": label, "aria-expanded": String(!isFolded), "data-key": "fold", click: fold },
      isFolded ? "»" : "«",
    );
  }

  private item(job: Job): HTMLElement {
    const link = h(
      "a",
      { href: `#${job.id}`, "data-key": `open-${job.id}` },
      h("span", { class: "name", title: job.label }, job.label),
      h("span", { class: "state" }, h("span", { class: `dot ${job.status}`, "aria-hidden": "true" }), listState(job)),
      h("span", { class: "detail" }, ` ·\u00a0${job.corrects ? "corrected by hand, " : ""}${clock(job.submitted)}`),
    );
    if (job.id === this.openId) link.setAttribute("aria-current", "page");
    const remove = h(
      "button",
      { type: "button", class: "quiet", "aria-label": `Delete ${job.label}`, "data-key": `delete-${job.id}` },
      "×",
    );
    remove.addEventListener("click", () => this.remove(job));
    return h("li", {}, link, remove);
  }
}

/** The view of one job, from the queue to its result. */

import { api, type Job, RequestError } from "./api";
import { announce, h } from "./dom";
import { follow, isOver } from "./follow";
import { type Result, result } from "./result";
import type { ScanPanel } from "./scanpanel";
import { capital, clock, errorText, jobState, sentence, STAGES } from "./format";
import { seriesPicker } from "./seriespicker";
import { describeScan } from "./dialogs";

export interface JobView {
  element: HTMLElement;
  /** Stop following the job. */
  close: () => void;
  /** Ask the server whether the job still exists. */
  check: () => void;
  /** Ask before unsaved changes are discarded; returns whether the view may be left. */
  mayLeave: () => Promise<boolean>;
  hasUnsavedChanges: () => boolean;
}

export interface JobHooks {
  changed: (job: Job) => void;
  remove: (job: Job) => void;
  open: (id: string) => void;
  /** The label of a job in the list; null if it is not there. */
  labelOf: (id: string) => string | null;
  scanPanel: () => ScanPanel;
  /** All other jobs that are done. */
  others: (id: string) => Job[];
}

const DELETED = "It was deleted, or it has expired: results are not kept forever.";
const NAME_IS_SHOWN = "A name that you give stands in the report and in the names of downloads.";
const ANNOUNCE_EVERY = 10; // percent of the slices: a screen reader need not announce each one

export function jobView(id: string, hooks: JobHooks): JobView {
  const head = h("header", { class: "job-head" });
  const body = h("div", {});
  const disconnected = h(
    "p",
    { class: "warnings", role: "status", hidden: true },
    "The connection to the server is lost. The scan is kept; this page continues as soon as the server answers.",
  );
  const element = h("article", { class: "job" }, head, disconnected, body);
  let shown: Result | null = null;
  let stop = (): void => {};
  let announced = "";
  let drawnHead = "";
  /** The job as it is known now; the result holds the same object. */
  let latest: Job | null = null;

  function changed(job: Job): void {
    latest = job;
    hooks.changed(job);
    drawHead(job);
    element.dataset["status"] = job.status;
    if (job.status === "done") {
      shown = result(job, { scanPanel: hooks.scanPanel, created, others: () => hooks.others(id) });
      body.replaceChildren(shown.element);
      announce(`${job.label}: ${jobState(job)}`);
    } else if (job.status === "failed") {
      body.replaceChildren(failed(job), seriesPicker(job, created));
    } else {
      drawProgress(job);
    }
  }

  /** Open a job that was made from this one. */
  function created(next: Job): void {
    hooks.changed(next);
    hooks.open(next.id);
  }

  function drawHead(job: Job): void {
    document.title = `${isOver(job) ? job.label : `${percent(job)}${job.label}`} - groundglass`;
    const state = JSON.stringify([job.status, job.label, job.note, job.expires]);
    if (state === drawnHead) return; // keeps the button with the focus
    drawnHead = state;
    const remove = h("button", { type: "button", click: () => hooks.remove(job) }, isOver(job) ? "Delete" : "Stop and delete");
    const rename = h("button", { type: "button", click: () => void describe() }, "Name and note");
    const kept = job.expires ? `, kept until ${clock(job.expires)}` : "";
    head.replaceChildren(
      h("h1", { title: job.label }, job.label),
      job.note ? h("p", { class: "job-note" }, job.note) : "",
      job.status === "done" ? h("p", { class: "lead" }, sentence(jobState(job))) : "",
      h("p", { class: "detail" }, `uploaded ${clock(job.submitted)}${kept}`, origin(job)),
      h("div", { class: "answers" }, rename, remove),
    );
  }

  async function describe(): Promise<void> {
    if (!latest) return;
    const described = await describeScan({ title: "Name and note", text: NAME_IS_SHOWN, label: latest.label, note: latest.note, button: "Save" });
    if (!described) return;
    try {
      const { label, note } = await api.describe(id, described);
      Object.assign(latest, { label, note });
      hooks.changed(latest);
      drawHead(latest);
      head.querySelector("button")?.focus();
    } catch (error) {
      announce(`Not saved. ${errorText(error)}`);
    }
  }

  function origin(job: Job): HTMLElement | null {
    if (!job.corrects) return null;
    const name = hooks.labelOf(job.corrects);
    return h("span", {}, ". Corrected by hand; ", name ? h("a", { href: `#${job.corrects}` }, "see the original") : "the original was deleted");
  }

  function drawProgress(job: Job): void {
    const bar = h("progress", { "aria-label": "Slices done" });
    if (job.progress?.total) [bar.max, bar.value] = [job.progress.total, job.progress.done];
    const stages = Object.entries(STAGES).map(([stage, text]) => h("li", { "data-stage": stage }, capital(text)));
    const at = stages.findIndex((item) => item.dataset["stage"] === job.progress?.stage);
    stages.forEach((item, i) => (item.className = i < at ? "past" : i === at ? "present" : ""));
    stages[at]?.setAttribute("aria-current", "step");
    body.replaceChildren(
      h(
        "div",
        { class: "card running" },
        h("p", { class: "lead" }, capital(jobState(job))),
        bar,
        job.status === "running" ? h("ol", { class: "stages" }, ...stages) : "",
        h("p", { class: "note" }, "You can close this page: processing continues, and the scan is in the list when you come back."),
      ),
    );
    const share = job.progress?.total ? Math.floor((100 * job.progress.done) / job.progress.total / ANNOUNCE_EVERY) : -1;
    const key = `${job.status} ${job.position} ${job.progress?.stage} ${share}`;
    if (key !== announced) announce(`${job.label}: ${jobState(job)}`);
    announced = key;
  }

  function showMissing(reason: string): void {
    head.replaceChildren(h("h1", {}, "No such scan"));
    body.replaceChildren(
      h("p", {}, reason),
      h("p", {}, h("a", { class: "button primary", href: "#" }, "Drop a scan")),
    );
  }

  async function open(): Promise<void> {
    try {
      const job = await api.job(id);
      changed(job);
      if (isOver(job)) return;
    } catch (error) {
      if (isMissing(error)) return showMissing(DELETED);
      if (error instanceof RequestError && error.status !== 0) return showMissing(sentence(error.message));
      disconnected.hidden = false;
    }
    stop = follow(id, {
      changed,
      deleted: () => showMissing(DELETED),
      disconnected: (lost) => {
        disconnected.hidden = !lost;
      },
    });
  }

  void open();
  return {
    element,
    close: () => stop(),
    check: () => {
      api.job(id).catch((error: unknown) => {
        if (!isMissing(error)) return; // the server does not answer, which the page shows elsewhere
        stop();
        showMissing(DELETED);
      });
    },
    mayLeave: async () => (await shown?.mayLeave()) ?? true,
    hasUnsavedChanges: () => shown?.hasUnsavedChanges() ?? false,
  };
}

function isMissing(error: unknown): boolean {
  return error instanceof RequestError && error.status === 404;
}

function failed(job: Job): HTMLElement {
  return h(
    "div",
    { class: "card" },
    h("p", { class: "lead" }, "This scan could not be processed."),
    h("p", { class: "refused", role: "alert" }, sentence(job.reason ?? "no reason was given")),
    h("p", {}, h("a", { class: "button primary", href: "#" }, "Drop another scan")),
  );
}

function percent(job: Job): string {
  return job.progress?.total ? `${Math.floor((100 * job.progress.done) / job.progress.total)} % ` : "";
}

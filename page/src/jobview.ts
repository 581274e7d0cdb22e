/** One job, from the queue to its result. */

import { api, type Job, Refusal } from "./api";
import { announce, h } from "./dom";
import { follow, isOver } from "./follow";
import { type Result, result } from "./result";
import { capital, clock, sentence, state } from "./words";

export interface JobView {
  element: HTMLElement;
  /** Stop following it. */
  close: () => void;
  /** See whether the job is still there. */
  check: () => void;
  mayLeave: () => Promise<boolean>;
  unsaved: () => boolean;
}

export interface Hooks {
  changed: (job: Job) => void;
  remove: (job: Job) => void;
  open: (id: string) => void;
  labelOf: (id: string) => string | null;
}

const GONE = "It was deleted, or its time was up: results are not kept for ever.";
const SAID_EVERY = 10; // percent of the slices: a screen reader need not hear each

export function jobView(id: string, hooks: Hooks): JobView {
  const head = h("header", { class: "job-head" });
  const body = h("div", {});
  const lost = h(
    "p",
    { class: "warnings", role: "status", hidden: true },
    "The connection to the server is lost. The scan is kept; this page goes on as soon as the server answers.",
  );
  const element = h("article", { class: "job" }, head, lost, body);
  let shown: Result | null = null;
  let stop = (): void => {};
  let said = "";

  function changed(job: Job): void {
    hooks.changed(job);
    drawHead(job);
    document.title = `${isOver(job) ? job.label : `${percent(job)}${job.label}`} - groundglass`;
    if (job.status === "done") {
      shown = result(job, (next) => hooks.open(next.id));
      body.replaceChildren(shown.element);
      announce(`${job.label}: ${state(job)}`);
    } else if (job.status === "failed") {
      body.replaceChildren(failed(job));
    } else {
      drawProgress(job);
    }
  }

  function drawHead(job: Job): void {
    const remove = h("button", { type: "button", click: () => hooks.remove(job) }, isOver(job) ? "Delete" : "Stop and delete");
    const kept = job.expires ? `, kept until ${clock(job.expires)}` : "";
    head.replaceChildren(
      h("div", {}, h("h1", {}, job.label), job.status === "done" && h("p", { class: "lead" }, sentence(state(job)))),
      h("p", { class: "where" }, `sent ${clock(job.submitted)}${kept}`, origin(job)),
      remove,
    );
  }

  function origin(job: Job): HTMLElement | null {
    if (!job.corrects) return null;
    const name = hooks.labelOf(job.corrects);
    return h("span", {}, ". Corrected by hand; ", name ? h("a", { href: `#${job.corrects}` }, "see the original") : "the original was deleted");
  }

  function drawProgress(job: Job): void {
    const bar = h("progress", { "aria-label": "Slices done" });
    if (job.progress) [bar.max, bar.value] = [job.progress.total, job.progress.done];
    body.replaceChildren(
      h(
        "div",
        { class: "card running" },
        h("p", { class: "lead" }, capital(state(job))),
        bar,
        h("p", { class: "note" }, "You can close this page: the scan goes on, and is in the list when you come back."),
      ),
    );
    const share = job.progress ? Math.floor((100 * job.progress.done) / job.progress.total / SAID_EVERY) : -1;
    const words = `${job.status} ${job.position} ${share}`;
    if (words !== said) announce(`${job.label}: ${state(job)}`);
    said = words;
  }

  function missing(words: string): void {
    head.replaceChildren(h("h1", {}, "No such scan"));
    body.replaceChildren(
      h("p", {}, words),
      h("p", {}, h("a", { class: "button primary", href: "#" }, "Drop a scan")),
    );
  }

  async function open(): Promise<void> {
    try {
      const job = await api.job(id);
      changed(job);
      if (isOver(job)) return;
    } catch (error) {
      if (isMissing(error)) return missing(GONE);
      if (error instanceof Refusal && error.status !== 0) return missing(sentence(error.message));
      lost.hidden = false;
    }
    stop = follow(id, {
      changed,
      gone: () => missing(GONE),
      lost: (away) => {
        lost.hidden = !away;
      },
    });
  }

  void open();
  return {
    element,
    close: () => stop(),
    check: () => {
      api.job(id).catch((error: unknown) => {
        if (!isMissing(error)) return; // away, which is said elsewhere
        stop();
        missing(GONE);
      });
    },
    mayLeave: async () => (await shown?.mayLeave()) ?? true,
    unsaved: () => shown?.unsaved() ?? false,
  };
}

function isMissing(error: unknown): boolean {
  return error instanceof Refusal && error.status === 404;
}

function failed(job: Job): HTMLElement {
  return h(
    "div",
    { class: "card" },
    h("p", { class: "lead" }, "This could not be read as a chest CT."),
    h("p", { class: "refused", role: "alert" }, sentence(job.reason ?? "no reason was given")),
    h("p", {}, h("a", { class: "button primary", href: "#" }, "Drop another scan")),
  );
}

function percent(job: Job): string {
  return job.progress ? `${Math.floor((100 * job.progress.done) / job.progress.total)} % ` : "";
}

/** The page: which scan is open stands in the address, so that it survives a reload. */

import "./style.css";
import { api, type Job, type Limits, Refusal } from "./api";
import { question } from "./dialogs";
import { announce } from "./dom";
import { type Dropped, parcels } from "./grouping";
import { JobList } from "./joblist";
import { type JobView, jobView } from "./jobview";
import { enter } from "./session";
import { Uploads } from "./uploads";
import { takeDrops, welcome } from "./welcome";

const AGAIN_MS = 2000;
const main = document.getElementById("main") as HTMLElement;
const away = document.getElementById("away") as HTMLElement;

let limits: Limits | null = null;
let view: JobView | null = null;
let openId: string | null = null;

const list = new JobList((job) => void remove(job), (well) => {
  away.hidden = well;
  if (well && openId !== null && !list.has(openId) && view && !view.unsaved()) view.check();
});
const uploads = new Uploads(
  () => limits,
  (job) => {
    list.put(job);
    announce(`${job.label} is with the server.`);
    if (openId === null) location.hash = job.id;
  },
);
const start = welcome(take);

function take(files: Dropped[]): void {
  const found = parcels(files);
  if (found.length === 0) announce("Nothing to read in there: the files are empty or hidden.");
  location.hash = "";
  uploads.send(found);
}

async function remove(job: Job): Promise<void> {
  const running = job.status === "queued" || job.status === "running";
  const answer = await question({
    title: running ? `Stop and delete ${job.label}?` : `Delete ${job.label}?`,
    words: "The scan and all that was found in it are removed from the server for good. Corrections made from it stay.",
    answers: [
      { label: "Delete", value: "delete", danger: true },
      { label: "Keep it", value: "" },
    ],
  });
  if (answer !== "delete") return;
  try {
    await api.remove(job.id);
  } catch (error) {
    if (!(error instanceof Refusal && error.status === 404)) return announce(`Not deleted: ${String(error)}`);
  }
  if (openId === job.id) location.hash = "";
  await list.refresh();
}

function idInAddress(): string | null {
  return /^#([0-9a-f]{32})$/.exec(location.hash)?.[1] ?? null;
}

async function route(): Promise<void> {
  const id = idInAddress();
  if (id === openId && (view || id === null) && main.childElementCount > 1) return;
  if (view?.unsaved()) {
    const wanted = location.hash;
    history.replaceState(null, "", `#${openId}`);
    if (!(await view.mayLeave())) return;
    history.replaceState(null, "", wanted || "#");
  } else {
    await view?.mayLeave();
  }
  view?.close();
  openId = idInAddress();
  view = openId === null ? null : jobView(openId, hooks);
  document.title = "groundglass";
  main.replaceChildren(uploads.element, view?.element ?? start.element);
  list.mark(openId);
  scrollTo(0, 0);
}

const hooks = {
  changed: (job: Job) => list.put(job),
  remove: (job: Job) => void remove(job),
  open: (id: string) => void (location.hash = id),
  labelOf: (id: string) => list.label(id),
};

async function begin(): Promise<void> {
  limits = await api.limits();
  start.tell(limits);
  await list.refresh();
  if (view?.unsaved()) return; // signed in again in the middle of a correction
  view?.close();
  openId = null;
  view = null;
  main.replaceChildren();
  await route();
}

/** The first answer of a server that may still be starting. */
async function knock(): Promise<void> {
  try {
    await enter(() => void begin());
  } catch {
    away.hidden = false;
    setTimeout(() => void knock(), AGAIN_MS);
  }
}

document.querySelector(".skip")?.addEventListener("click", (event) => {
  event.preventDefault(); // the address names the open scan, and nothing else
  main.focus();
});
document.querySelector(".room")?.prepend(list.element);
addEventListener("hashchange", () => void route());
addEventListener("beforeunload", (event) => {
  if (view?.unsaved()) event.preventDefault();
});
takeDrops(take);
main.replaceChildren(uploads.element, start.element);
void knock();

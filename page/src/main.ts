/** The page. The address names the open job, so that it is open again after a reload. */

import "./style.css";
import "./print.css";
import { api, type Job, type Limits, RequestError } from "./api";
import { compareView } from "./compare";
import { question } from "./dialogs";
import { announce } from "./dom";
import { keepFocus } from "./focus";
import { errorText } from "./format";
import { type DroppedFile, groupIntoScans } from "./grouping";
import { JobList } from "./joblist";
import { type JobView, jobView } from "./jobview";
import { ScanPanel } from "./scanpanel";
import { openSession } from "./session";
import { Uploads } from "./uploads";
import { acceptDrops, welcome } from "./welcome";

const RETRY_MS = 2000;
const main = document.getElementById("main") as HTMLElement;
const offline = document.getElementById("offline") as HTMLElement;

let limits: Limits | null = null;
let view: JobView | null = null;
let openId: string | null = null;
let scanPanel: ScanPanel | null = null; // made when the first result is shown

const list = new JobList((job) => void remove(job), (answers) => {
  offline.hidden = answers;
  if (answers && openId !== null && !list.has(openId.split(":")[0]!) && view && !view.hasUnsavedChanges()) view.check();
});
const uploads = new Uploads(
  () => limits,
  (job) => {
    list.put(job);
    announce(`${job.label} was uploaded.`);
    if (openId === null) location.hash = job.id;
  },
);
const start = welcome(send);

function send(files: DroppedFile[]): void {
  const scans = groupIntoScans(files);
  location.hash = "";
  if (scans.length === 0) uploads.refuse("Nothing to read: what was dropped holds no files, or empty and hidden ones only.");
  uploads.send(scans);
}

async function remove(job: Job): Promise<void> {
  const running = job.status === "queued" || job.status === "running";
  const answer = await question({
    title: running ? `Stop and delete ${job.label}?` : `Delete ${job.label}?`,
    text: "The scan and all its results are deleted from the server for good. Corrections made from it are kept.",
    answers: [
      { label: "Delete", value: "delete", danger: true },
      { label: "Keep", value: "" },
    ],
  });
  if (answer !== "delete") return;
  try {
    await api.remove(job.id);
  } catch (error) {
    if (!(error instanceof RequestError && error.status === 404)) return announce(`Not deleted. ${errorText(error)}`);
  }
  announce(`${job.label} was deleted.`);
  if (openId?.includes(job.id)) location.hash = "";
  await list.refresh();
}

/** What the address names: a job, or two that are compared, separated by a colon. */
function idInAddress(): string | null {
  return /^#([0-9a-f]{32}(?::[0-9a-f]{32})?)$/.exec(location.hash)?.[1] ?? null;
}

function makeView(address: string): JobView {
  const [id, otherId] = address.split(":") as [string, string?];
  return otherId ? compareView(id, otherId, () => scanPanel?.viewer.show(null)) : jobView(id, hooks);
}

async function route(): Promise<void> {
  const id = idInAddress();
  if (id === openId && (view || id === null) && main.childElementCount > 1) return;
  if (view?.hasUnsavedChanges()) {
    const target = location.hash;
    history.replaceState(null, "", `#${openId}`);
    if (!(await view.mayLeave())) return;
    history.replaceState(null, "", target || "#");
  } else {
    await view?.mayLeave();
  }
  view?.close();
  openId = idInAddress();
  view = openId === null ? null : makeView(openId);
  document.title = "groundglass";
  main.replaceChildren(uploads.element, view?.element ?? start.element);
  list.mark(openId?.split(":")[0] ?? null);
  scrollTo(0, 0);
}

const hooks = {
  changed: (job: Job) => list.put(job),
  remove: (job: Job) => void remove(job),
  open: (id: string) => void (location.hash = id),
  labelOf: (id: string) => list.label(id),
  scanPanel: () => (scanPanel ??= new ScanPanel()),
  others: (id: string) => list.othersDone(id),
};

async function begin(): Promise<void> {
  limits = await api.limits();
  start.showLimits(limits);
  await list.refresh();
  if (view?.hasUnsavedChanges()) return; // signed in again during a correction
  view?.close();
  openId = null;
  view = null;
  main.replaceChildren();
  await route();
}

/** Ask before uploads or unsaved changes are lost; returns whether the page may be left. */
async function mayLeave(): Promise<boolean> {
  if (uploads.isBusy) {
    const answer = await question({
      title: "Sign out without sending?",
      text: "A scan is being sent or waits for it. If you sign out, it does not reach the server.",
      answers: [
        { label: "Sign out", value: "leave", danger: true },
        { label: "Stay", value: "" },
      ],
    });
    if (answer !== "leave") return false;
  }
  if (view && !(await view.mayLeave())) return false;
  uploads.cancel();
  return true;
}

/** Connect to a server that may still be starting. */
async function connect(): Promise<void> {
  try {
    await openSession(() => void begin(), mayLeave);
  } catch {
    offline.hidden = false;
    setTimeout(() => void connect(), RETRY_MS);
  }
}

document.querySelector(".skip")?.addEventListener("click", (event) => {
  event.preventDefault(); // the address names the open job and nothing else
  main.focus();
});
document.querySelector(".layout")?.prepend(list.element);
addEventListener("hashchange", () => void route());
addEventListener("beforeunload", (event) => {
  if (view?.hasUnsavedChanges() || uploads.isBusy) event.preventDefault();
});
keepFocus(main);
acceptDrops(send, (reason) => uploads.refuse(`It cannot be read. ${reason}`));
main.replaceChildren(uploads.element, start.element);
void connect();

/** A finished job: scan and mask, the numbers beside them, what can be downloaded, and corrections. */

import { api, type Findings, type Job } from "./api";
import { burdenPanel } from "./burden";
import { type Correction, correction } from "./correction";
import { question } from "./dialogs";
import { announce, h } from "./dom";
import { gunzip, readMask } from "./mask";
import { profileChart } from "./profile";
import { Stage } from "./stage";
import { fileInWords, lesionSize, sentence, size, sliceInWords } from "./words";

let stage: Stage | null = null;

export interface Result {
  element: HTMLElement;
  /** Ask before strokes are lost; whether to go on. */
  mayLeave: () => Promise<boolean>;
  unsaved: () => boolean;
}

/** Fetch and show what a job found. */
export function result(job: Job, corrected: (job: Job) => void): Result {
  let editing: Correction | null = null;
  const place = h("div", { class: "result" }, h("p", { class: "loading", role: "status" }, "Loading the scan …"));

  async function load(): Promise<void> {
    const [findings, numbers] = await Promise.all([api.findings(job.id), api.sliceNumbers(job.id)]);
    if (!place.isConnected) return;
    const shownStage = (stage ??= new Stage());
    const flat = findings.input.kind === "pictures";
    place.replaceChildren(shownStage.element, facts(job, findings, (target) => jump(shownStage, target)));
    shownStage.element.classList.add("waiting");
    const chart = profileChart(findings, flat ? null : ends(numbers), (slice) => shownStage.goToFileSlice(slice));
    shownStage.profilePlace.replaceChildren(
      h(
        "figure",
        {},
        chart.element,
        h("figcaption", {}, `Lesion of each slice, ${findings.profile.unit === "ml" ? "ml" : "pixels"}.`),
      ),
    );
    shownStage.sliceShown = chart.mark;
    shownStage.firstKey = (event) => editing?.key(event) ?? false;
    shownStage.correct.onclick = () => edit(shownStage, flat);
    shownStage.barPlace.replaceChildren();
    const [scan, mask] = await Promise.all([api.view(job.id, "scan"), api.view(job.id, "lesions").then(gunzip)]);
    if (!place.isConnected) return;
    await shownStage.show(scan, readMask(mask), numbers, flat, (slice) => sliceInWords(findings, slice));
    shownStage.element.classList.remove("waiting");
    const largest = findings.largest_lesions[0];
    if (largest) jump(shownStage, largest);
    else shownStage.goToFileSlice(numbers[Math.floor(numbers.length / 2)] ?? 0);
    place.dataset["ready"] = job.id;
    announce("The scan is shown.");
  }

  function edit(on: Stage, flat: boolean): void {
    on.setEditing(true);
    editing = correction(on.viewer, flat ? "px" : "mm", { save: () => void save(on), leave: () => void leave(on) });
    on.box.append(editing.layer);
    on.barPlace.replaceChildren(editing.bar);
    on.box.querySelector("canvas")?.focus();
    announce("Correcting: the brush adds lesion.");
  }

  function close(on: Stage): void {
    editing?.close();
    editing = null;
    on.setEditing(false);
    on.correct.focus();
  }

  async function leave(on: Stage): Promise<void> {
    if (!(await mayLeave())) return;
    close(on);
  }

  async function save(on: Stage): Promise<void> {
    if (!editing) return;
    const told = h("p", { class: "refused", role: "alert" });
    const button = editing.bar.querySelector<HTMLButtonElement>(".primary")!;
    button.disabled = true;
    try {
      const next = await api.correct(job.id, await editing.packed());
      close(on);
      corrected(next);
    } catch (error) {
      button.disabled = false;
      told.textContent = `Not saved. ${sentence(error instanceof Error ? error.message : String(error))}`;
      editing.bar.append(told);
    }
  }

  async function mayLeave(): Promise<boolean> {
    if (!editing) return true;
    if (editing.unsaved()) {
      const answer = await question({
        title: "Leave without saving?",
        words: "What you drew is not saved. Leaving throws it away; the mask stays as it was.",
        answers: [
          { label: "Throw it away", value: "leave", danger: true },
          { label: "Stay", value: "" },
        ],
      });
      if (answer !== "leave") return false;
      stage?.viewer.restore();
    }
    if (stage) close(stage);
    return true;
  }

  load().catch((error: unknown) => {
    place.replaceChildren(
      h("p", { class: "refused", role: "alert" }, `The result cannot be shown. ${sentence(error instanceof Error ? error.message : String(error))}`),
    );
  });
  return { element: place, mayLeave, unsaved: () => editing?.unsaved() ?? false };
}

type Target = Findings["largest_lesions"][number];

function jump(on: Stage, target: Target): void {
  if (target.centre_lps_mm) on.viewer.goToLps(target.centre_lps_mm);
  else on.goToFileSlice(target.slice);
}

/** What lies at the first and the last slice of the file. */
function ends(numberOf: number[]): [string, string] {
  return numberOf[0] === 0 ? ["feet", "head"] : ["head", "feet"];
}

function facts(job: Job, findings: Findings, go: (target: Target) => void): HTMLElement {
  return h(
    "div",
    { class: "facts" },
    warnings(findings),
    burdenPanel(findings),
    largest(findings, go),
    downloads(job),
    h(
      "p",
      { class: "note" },
      `${sentence(findings.intensity.reason)} Model ${findings.model.name} (sha256 ${findings.model.sha256.slice(0, 12)}), groundglass ${findings.version}. A program marked what looks like lesions of COVID-19 to it; other disease looks alike, and it misses some. Look at the slices.`,
    ),
  );
}

function warnings(findings: Findings): HTMLElement | null {
  if (findings.warnings.length === 0) return null;
  return h(
    "div",
    { class: "warnings", role: "note" },
    h("strong", {}, "Before you use these numbers:"),
    h("ul", {}, ...findings.warnings.map((text) => h("li", {}, sentence(text)))),
  );
}

function largest(findings: Findings, go: (target: Target) => void): HTMLElement {
  const items = findings.largest_lesions.map((each, i) =>
    h(
      "li",
      {},
      h(
        "button",
        { type: "button", class: "jump", click: () => go(each) },
        h("span", { class: "rank" }, `${i + 1}`),
        h("strong", {}, lesionSize(each)),
        h("span", { class: "where" }, `slice ${each.slice}`),
      ),
    ),
  );
  return h(
    "section",
    { class: "panel", "aria-labelledby": "largest" },
    h("h2", { id: "largest" }, "Largest lesions"),
    items.length ? h("ol", { class: "lesions" }, ...items) : h("p", {}, "No lesion was found."),
  );
}

function downloads(job: Job): HTMLElement {
  return h(
    "section",
    { class: "panel", "aria-labelledby": "downloads" },
    h("h2", { id: "downloads" }, "Downloads"),
    h(
      "ul",
      { class: "downloads" },
      ...(job.files ?? []).map(({ name, bytes }) => {
        const path = api.filePath(job.id, name);
        return h(
          "li",
          {},
          h("a", { href: `${path}?download=1`, download: name.split("/").at(-1) ?? name }, fileInWords(name)),
          name === "report.html" && h("a", { href: path, target: "_blank", rel: "noopener" }, "open"),
          h("span", { class: "where" }, size(bytes)),
        );
      }),
    ),
  );
}

/** A job that is done: scan and mask, the numbers beside them, the downloads, and corrections. */

import { api, type Findings, type Job } from "./api";
import { burdenPanel } from "./burden";
import { type Correction, correction } from "./correction";
import { question } from "./dialogs";
import { announce, h } from "./dom";
import { describeSlice, errorText, fileLabel, lesionSize, sentence, size } from "./format";
import { gunzip, readMask } from "./mask";
import { profileChart } from "./profile";
import type { ScanPanel } from "./scanpanel";

export interface Result {
  element: HTMLElement;
  /** Ask before unsaved strokes are discarded; returns whether the result may be left. */
  mayLeave: () => Promise<boolean>;
  hasUnsavedStrokes: () => boolean;
}

export interface ResultHooks {
  /** The scan panel of the page: one for all results, since a browser allows few graphics contexts. */
  scanPanel: () => ScanPanel;
  /** Called with the new job when a correction was sent. */
  corrected: (job: Job) => void;
}

/** Fetch and show the result of a job. */
export function result(job: Job, hooks: ResultHooks): Result {
  let editing: { brush: Correction; panel: ScanPanel } | null = null;
  const element = h("div", { class: "result" }, h("p", { class: "loading", role: "status" }, "Loading the scan …"));

  async function load(): Promise<void> {
    const [findings, fileSlices, { lung_window }] = await Promise.all([
      api.findings(job.id),
      api.sliceNumbers(job.id),
      api.display(),
    ]);
    if (!element.isConnected) return;
    const panel = hooks.scanPanel();
    const imagesOnly = findings.input.kind === "pictures";
    element.replaceChildren(panel.element, facts(job, findings, (target) => jump(panel, target)));
    panel.element.classList.add("waiting");
    const chart = profileChart(findings, imagesOnly ? null : ends(fileSlices), (slice) => panel.goToFileSlice(slice));
    const unit = findings.profile.unit === "ml" ? "ml" : "pixels";
    panel.profileSlot.replaceChildren(
      h("figure", {}, chart.element, h("figcaption", {}, `Lesion in each slice, in ${unit}.`)),
    );
    panel.sliceShown = chart.mark;
    panel.handleKeyFirst = (event) => editing?.brush.handleKey(event) ?? false;
    panel.correctButton.onclick = () => edit(panel, imagesOnly);
    panel.brushBarSlot.replaceChildren();
    const [scan, mask] = await Promise.all([api.view(job.id, "scan"), api.view(job.id, "lesions").then(gunzip)]);
    if (!element.isConnected) return;
    const lungWindow = [lung_window.low_hu, lung_window.high_hu] as const;
    const describe = (slice: number): string => describeSlice(findings, slice);
    await panel.show(scan, readMask(mask), lungWindow, fileSlices, imagesOnly, describe);
    panel.element.classList.remove("waiting");
    const largest = findings.largest_lesions[0];
    if (largest) jump(panel, largest);
    else panel.goToFileSlice(fileSlices[Math.floor(fileSlices.length / 2)] ?? 0);
    element.dataset["ready"] = job.id;
    announce("The scan is shown.");
  }

  function edit(panel: ScanPanel, imagesOnly: boolean): void {
    panel.setEditing(true);
    const brush = correction(panel.viewer, imagesOnly ? "px" : "mm", { save: () => void save(), leave: () => void mayLeave() });
    editing = { brush, panel };
    panel.box.append(brush.layer);
    panel.brushBarSlot.replaceChildren(brush.bar);
    panel.box.querySelector("canvas")?.focus();
    announce("Correcting: the brush adds lesion.");
  }

  function close(): void {
    if (!editing) return;
    editing.brush.close();
    editing.panel.setEditing(false);
    editing.panel.correctButton.focus();
    editing = null;
  }

  async function save(): Promise<void> {
    if (!editing) return;
    const { brush } = editing;
    const button = brush.bar.querySelector<HTMLButtonElement>(".primary")!;
    button.disabled = true;
    try {
      const next = await api.correct(job.id, await brush.packedMask());
      close();
      hooks.corrected(next);
    } catch (error) {
      button.disabled = false;
      brush.bar.append(h("p", { class: "refused", role: "alert" }, `Not saved. ${errorText(error)}`));
    }
  }

  async function mayLeave(): Promise<boolean> {
    if (!editing) return true;
    if (editing.brush.hasUnsavedStrokes()) {
      const answer = await question({
        title: "Leave without saving?",
        text: "Your correction is not saved. If you leave, it is discarded and the mask stays as it was.",
        answers: [
          { label: "Discard", value: "leave", danger: true },
          { label: "Stay", value: "" },
        ],
      });
      if (answer !== "leave") return false;
      editing.panel.viewer.restore();
    }
    close();
    return true;
  }

  load().catch((error: unknown) => {
    element.replaceChildren(
      h("p", { class: "refused", role: "alert" }, `The result cannot be shown. ${errorText(error)}`),
    );
  });
  return { element, mayLeave, hasUnsavedStrokes: () => editing?.brush.hasUnsavedStrokes() ?? false };
}

type Target = Findings["largest_lesions"][number];

function jump(panel: ScanPanel, target: Target): void {
  if (target.centre_lps_mm) panel.viewer.goToLps(target.centre_lps_mm);
  else panel.goToFileSlice(target.slice);
}

/** The ends of the body at which the first and the last slice of the file lie. */
function ends(fileSlices: number[]): [string, string] {
  return fileSlices[0] === 0 ? ["feet", "head"] : ["head", "feet"];
}

function facts(job: Job, findings: Findings, go: (target: Target) => void): HTMLElement {
  const { name, sha256 } = findings.model;
  return h(
    "div",
    { class: "facts" },
    warnings(findings),
    burdenPanel(findings),
    largestLesions(findings, go),
    downloads(job),
    h(
      "p",
      { class: "note" },
      `${sentence(findings.intensity.reason)} Model ${name} (sha256 ${sha256.slice(0, 12)}), groundglass ${findings.version}. A program marked what looks like COVID-19 lesions: other diseases look alike, and it misses some lesions. Check the slices.`,
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

function largestLesions(findings: Findings, go: (target: Target) => void): HTMLElement {
  const items = findings.largest_lesions.map((lesion, i) =>
    h(
      "li",
      {},
      h(
        "button",
        { type: "button", class: "jump", click: () => go(lesion) },
        h("span", { class: "rank" }, `${i + 1}`),
        h("strong", {}, lesionSize(lesion)),
        h("span", { class: "detail" }, `slice ${lesion.slice}`),
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
  const items = (job.files ?? []).map(({ name, bytes }) => {
    const path = api.filePath(job.id, name);
    return h(
      "li",
      {},
      h("a", { href: `${path}?download=1`, download: name.split("/").at(-1) ?? name }, fileLabel(name)),
      name === "report.html" && h("a", { href: path, target: "_blank", rel: "noopener" }, "open"),
      h("span", { class: "detail" }, size(bytes)),
    );
  });
  return h(
    "section",
    { class: "panel", "aria-labelledby": "downloads" },
    h("h2", { id: "downloads" }, "Downloads"),
    h("ul", { class: "downloads" }, ...items),
  );
}

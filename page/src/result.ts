/** A job that is done: scan and mask, the numbers beside them, the downloads, and corrections. */

import { api, type Findings, type Job, type ViewDescription } from "./api";
import { Correction } from "./correction";
import { describeScan, question } from "./dialogs";
import { announce, h } from "./dom";
import { facts } from "./facts";
import { errorText } from "./format";
import { loadScene } from "./images";
import { describeSent } from "./naming";
import { profileChart } from "./profile";
import { storedRulers, storeRulers } from "./rulers";
import type { Scene, WindowHu } from "./scene";
import type { ScanPanel } from "./scanpanel";

export interface Result {
  element: HTMLElement;
  /** Ask before unsaved changes are discarded; returns whether the result may be left. */
  mayLeave: () => Promise<boolean>;
  hasUnsavedChanges: () => boolean;
}

export interface ResultHooks {
  /** The scan panel of the page: one for all results, so that its settings stay. */
  scanPanel: () => ScanPanel;
  /** Called with the new job when a correction was sent or another series was taken. */
  created: (job: Job) => void;
  /** The other jobs that this one may be compared with. */
  others: () => Job[];
}

/** Fetch and show the result of a job. */
export function result(job: Job, hooks: ResultHooks): Result {
  let editing: { brush: Correction; panel: ScanPanel } | null = null;
  const element = h("div", { class: "result" }, h("p", { class: "loading", role: "status" }, "Loading the findings …"));

  async function load(): Promise<void> {
    const [findings, view, { lung_window }] = await Promise.all([
      api.findings(job.id),
      api.viewDescription(job.id),
      api.display(),
    ]);
    if (!element.isConnected) return;
    const panel = hooks.scanPanel();
    const go = (index: number): void => {
      const [z, y, x] = view.lesion_points[index]!;
      panel.viewer.goTo([x, y, z]);
    };
    const loading = h("p", { class: "loading", role: "status" }, "Loading the scan …");
    const stage = h("div", { class: "stage" }, loading);
    element.replaceChildren(stage, facts(job, findings, view, { go, ...hooks }));
    try {
      await showImages(panel, stage, loading, findings, view, [lung_window.low_hu, lung_window.high_hu]);
    } catch (error) {
      stage.replaceChildren(h("p", { class: "refused", role: "alert" }, `The scan cannot be shown. ${errorText(error)}`));
    }
  }

  async function showImages(
    panel: ScanPanel,
    stage: HTMLElement,
    loading: HTMLElement,
    findings: Findings,
    view: ViewDescription,
    lungWindow: WindowHu,
  ): Promise<void> {
    const scan = scanOf(job, hooks.others());
    const place = panel.scan === scan ? panel.viewer.scene?.place : null;
    panel.viewer.show(null); // frees the memory of the last scan before the next one arrives
    const scene = await loadScene(job.id, view, lungWindow, (share) => {
      loading.textContent = `Loading the scan: ${Math.floor(100 * share)} %`;
    });
    if (!element.isConnected) return;
    const imagesOnly = findings.input.kind === "pictures";
    const fileSlices = view.file_slice_of_view;
    const chart = profileChart(findings, imagesOnly || !view.has_directions ? null : ends(fileSlices), (slice) => panel.goToFileSlice(slice));
    panel.profileSlot.replaceChildren(chart.element);
    panel.sliceShown = chart.mark;
    panel.handleKeyFirst = (event) => editing?.brush.handleKey(event) ?? false;
    panel.correctButton.onclick = () => edit(panel);
    scene.rulers = storedRulers(scan);
    panel.scan = scan;
    panel.viewer.rulersChanged = () => storeRulers(scan, panel.viewer.scene?.rulers ?? []); // not `scene`: it would be kept
    stage.replaceChildren(panel.element);
    panel.show(scene, findings, view, lungWindow);
    leaveRoomFor(scene);
    const [largest] = view.lesion_points;
    if (place) panel.goBackTo(place);
    else if (largest) panel.viewer.goTo([largest[2], largest[1], largest[0]]);
    else panel.viewer.goToSlice(imagesOnly ? fileSlices.indexOf(0) : Math.floor(fileSlices.length / 2));
    element.dataset["ready"] = job.id;
    announce("The scan is shown.");
  }

  /** Give the numbers the room beside an axial slice that is as high as the window allows. */
  function leaveRoomFor({ field_mm: [width, height] }: Scene): void {
    element.closest<HTMLElement>(".job")?.style.setProperty("--scan-shape", (width / height).toFixed(3));
  }

  function edit(panel: ScanPanel): void {
    const { scene } = panel.viewer;
    if (!scene) return;
    panel.setEditing(true);
    const brush = new Correction(panel.viewer, scene, panel.brushPlaces, { save: () => void save(), leave: () => void mayLeave() });
    editing = { brush, panel };
    panel.viewer.focusedPane.canvas.focus();
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
    const described = await describeScan({
      title: "Save the correction",
      text: `Changed: ${brush.difference}. It becomes a result of its own with all numbers measured again; the original stays.`,
      label: job.label,
      note: "",
      button: "Save",
    });
    if (!described) return;
    brush.allowSaving(false);
    try {
      const next = await api.correct(job.id, await brush.packedMask(), "drawn");
      close();
      hooks.created(await describeSent(next, described));
    } catch (error) {
      brush.allowSaving(true);
      brush.say(`Not saved. ${errorText(error)}`);
    }
  }

  async function mayLeave(): Promise<boolean> {
    if (!editing) return true;
    if (editing.brush.isSending) {
      editing.brush.say("The correction is being sent. Stay until the server has answered.");
      return false;
    }
    if (editing.brush.hasUnsavedChanges) {
      const answer = await question({
        title: "Leave without saving?",
        text: "Your correction is not saved. If you leave, it is discarded and the mask stays as it was.",
        answers: [
          { label: "Discard", value: "leave", danger: true },
          { label: "Stay", value: "" },
        ],
      });
      if (answer !== "leave") return false;
      editing.brush.discard();
    }
    close();
    return true;
  }

  load().catch((error: unknown) => {
    element.replaceChildren(
      h("p", { class: "refused", role: "alert" }, `The result cannot be shown. ${errorText(error)}`),
    );
  });
  return { element, mayLeave, hasUnsavedChanges: () => editing?.brush.hasUnsavedChanges ?? false };
}

/** A name of the scan of a job, which its corrections share: the id of the job with which they began. */
export function scanOf(job: Job, others: Job[]): string {
  const source = others.find(({ id }) => id === job.corrects);
  return source ? scanOf(source, others) : (job.corrects ?? job.id);
}

/** The ends of the body at which the first and the last slice of the file lie. */
function ends(fileSlices: number[]): [string, string] {
  return fileSlices[0] === 0 ? ["feet", "head"] : ["head", "feet"];
}

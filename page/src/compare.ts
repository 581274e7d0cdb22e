/** Two scans of one patient side by side, scrolled together by their place in the lungs, with the change in ml and %. */

import { api, type Change, type Findings, type Job } from "./api";
import { announce, h } from "./dom";
import { bound, date, describeSlice, errorText, imageName, mlDigits, positionText, range, rounded, sentence, toFixed } from "./format";
import { loadScene } from "./images";
import { checkbox, choice, select } from "./inputs";
import type { JobView } from "./jobview";
import { nearestVoxel, type Voxel } from "./grid";
import { counterpart, type Matched } from "./matching";
import { SCROLLS, ZOOMS } from "./scankeys";
import type { Scene, WindowHu } from "./scene";
import { type Layout, Viewer } from "./viewer";
import { WINDOW_NAMES, windowLimits } from "./windows";

const LAYOUTS: [Layout, string][] = [
  ["axial", "Axial"],
  ["coronal", "Coronal"],
  ["sagittal", "Sagittal"],
];

/** One of the two scans. */
interface Side extends Matched {
  viewer: Viewer;
  findings: Findings;
  fileSlices: number[];
}

/** @param id The job that was open. @param otherId The job that it is compared with. */
export function compareView(id: string, otherId: string, panelClosed: () => void): JobView {
  const body = h("div", { class: "compare" }, h("p", { class: "loading", role: "status" }, "Loading both scans …"));
  const back = h("a", { class: "button", href: `#${id}` }, "Back to the scan");
  const head = h("header", { class: "job-head" }, h("h1", {}, "Comparison"), back);
  const element = h("article", { class: "job comparison" }, head, body);

  async function load(): Promise<void> {
    panelClosed();
    const [change, { lung_window }] = await Promise.all([api.change(id, otherId), api.display()]);
    const window: WindowHu = [lung_window.low_hu, lung_window.high_hu];
    const jobs = await Promise.all([change.earlier, change.later].map(api.job));
    const loaded = await Promise.all(jobs.map((job) => loadSide(job, window)));
    if (!element.isConnected) return;
    const [earlier, later] = loaded as [Side, Side];
    const panels = [earlier, later].map((side, i) => sidePanel(side, jobs[i]!, i, change));
    const both = (set: (viewer: Viewer) => void): void => [earlier, later].forEach(({ viewer }) => set(viewer));
    const controls = h(
      "div",
      { class: "bar" },
      choice("Layout", "compare-layout", LAYOUTS, (layout) => both((viewer) => viewer.setLayout(layout))),
      select("compare-window", "Window", WINDOW_NAMES, (name) => both((viewer) => viewer.setWindow(windowLimits(name, window)))),
      checkbox("compare-lesions", "Lesions", true, (visible) => both((viewer) => viewer.setLesion({ visible }))),
    );
    head.replaceChildren(h("h1", {}, "Comparison"), controls, back);
    body.replaceChildren(changePanel(change, earlier.findings, later.findings), h("div", { class: "pair" }, ...panels));
    shareField(earlier.viewer.scene!, later.viewer.scene!);
    follow(earlier, later);
    follow(later, earlier);
    const shown = later.findings.lesion_slices ? later : earlier;
    shown.viewer.goToSlice(worstSlice(shown));
    element.dataset["ready"] = `${id}:${otherId}`;
    announce(`Both scans are shown. ${change.in_words}`);
  }

  load().catch((error: unknown) => {
    body.replaceChildren(h("p", { class: "refused", role: "alert" }, `The scans cannot be compared. ${errorText(error)}`));
  });
  return {
    element,
    close: () => {},
    check: () => {},
    mayLeave: () => Promise.resolve(true),
    hasUnsavedChanges: () => false,
  };
}

async function loadSide(job: Job, window: WindowHu): Promise<Side> {
  const [findings, view] = await Promise.all([api.findings(job.id), api.viewDescription(job.id)]);
  const scene = await loadScene(job.id, view, window);
  scene.showCrosshair = false;
  const viewer = new Viewer();
  viewer.show(scene);
  return { viewer, findings, fileSlices: view.file_slice_of_view, grid: scene.grid, lungs: lungHeight(scene) };
}

function lungHeight({ lungs, grid }: Scene): [number, number] {
  const area = grid.dims[0] * grid.dims[1];
  const shown = Array.from({ length: grid.dims[2] }, (_, z) => z).filter((z) =>
    lungs.voxels.subarray(z * area, (z + 1) * area).some((value) => value > 0),
  );
  return shown.length ? [shown[0]!, shown.at(-1)!] : [0, grid.dims[2] - 1];
}

function worstSlice({ findings, fileSlices }: Side): number {
  const { lesion } = findings.profile;
  return Math.max(0, fileSlices.indexOf(lesion.indexOf(Math.max(...lesion))));
}

/** Let one scan follow the other: to the place that belongs to its own, in the same window and zoom. */
function follow(leader: Side, follower: Side): void {
  const [lead, behind] = [leader.viewer, follower.viewer];
  const describe = (side: Side): string => describeSlice(side.findings, side.fileSlices[side.viewer.slice] ?? 0);
  const moved = lead.moved;
  lead.moved = () => {
    moved();
    const { scene } = behind;
    if (!scene || !lead.scene) return;
    scene.cursor = nearestVoxel(scene.grid, counterpart(lead.scene.cursor, leader, follower));
    behind.redraw();
  };
  lead.windowChanged = () => behind.setWindow(lead.scene!.window);
  lead.zoomed = () => {
    const { scene } = behind;
    if (!scene || !lead.scene) return;
    scene.zoom = lead.scene.zoom;
    scene.centre = lead.scene.centre && counterpart(lead.scene.centre, leader, follower);
    behind.redraw();
  };
  lead.describe = (pane) => {
    const slice = leader.fileSlices[lead.slice] ?? 0;
    if (pane.name !== "axial") return "";
    return [imageName(leader.findings, slice), positionText(leader.findings, slice)].filter(Boolean).join(" · ");
  };
  lead.element.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key in ZOOMS) lead.zoom(ZOOMS[event.key]!);
    else if (event.key in SCROLLS) {
      lead.scroll(lead.focusedPane, SCROLLS[event.key]!);
      announce(describe(leader));
    } else return;
    event.preventDefault();
  });
}

/** Draw both scans to one scale: the larger of the two fills its pane. */
function shareField(...scenes: [Scene, Scene]): void {
  const field_mm = scenes[0].field_mm.map((mm, axis) => Math.max(mm, scenes[1].field_mm[axis]!)) as Voxel;
  for (const scene of scenes) scene.field_mm = field_mm;
}

/** What the two scans are called: by their order in time where their dates tell it. */
function names(change: Change): [string, string] {
  return change.by_date ? ["Earlier", "Later"] : ["First", "Second"];
}

function sidePanel({ viewer, findings }: Side, job: Job, index: number, change: Change): HTMLElement {
  const which = names(change)[index]!;
  const scanned = index === 0 ? change.earlier_scanned : change.later_scanned;
  return h(
    "section",
    { class: "side-scan", "aria-label": `${which} scan` },
    h(
      "header",
      {},
      h("h2", {}, `${which}: `, h("a", { href: `#${job.id}`, title: job.label }, job.label)),
      h("p", { class: "detail" }, `${job.corrects ? "corrected by hand · " : ""}${scanned ? date(scanned) : "no date stated"} · lung ${rounded(findings.lung_volume_ml, 0)} ml`),
    ),
    h("div", { class: "scan" }, viewer.element),
  );
}

function changePanel(change: Change, earlier: Findings, later: Findings): HTMLElement {
  const percent = change.volume_percent === null ? "" : `, ${plus(change.volume_percent, 0)} %${interval(change.volume_percent_interval, "%", 0)}`;
  const digits = mlDigits(change.volume_ml);
  const rows: [string, string, string, string][] = [
    [
      "Lesion",
      measured(earlier.lesion_volume_ml, earlier.lesion_volume_interval_ml, "ml", mlDigits(earlier.lesion_volume_ml)),
      measured(later.lesion_volume_ml, later.lesion_volume_interval_ml, "ml", mlDigits(later.lesion_volume_ml)),
      `${plus(change.volume_ml, digits)} ml${interval(change.volume_interval_ml, "ml", digits)}${percent}`,
    ],
    [
      "Share of the lung",
      measured(earlier.lesion_share_of_lung_percent, earlier.lesion_share_interval_percent, "%"),
      measured(later.lesion_share_of_lung_percent, later.lesion_share_interval_percent, "%"),
      `${plus(change.share_points)} points${interval(change.share_interval_points, "points")}`,
    ],
  ];
  const order = change.by_date ? "" : "The dates of the scans do not tell which is the earlier one.";
  const calibrated = earlier.lesion_share_interval_percent || later.lesion_share_interval_percent;
  const intervals = calibrated ? "In brackets beside a scan: by the model's calibration, the interval of 80 % of readings. " : "";
  return h(
    "section",
    { class: "panel", "aria-label": "Change" },
    change.warnings.length
      ? h("div", { class: "warnings", role: "note" }, h("strong", {}, "Before you compare these numbers"), h("ul", {}, ...change.warnings.map((text) => h("li", {}, sentence(text)))))
      : null,
    h(
      "div",
      { class: "table-scroll", tabindex: 0, role: "region", "aria-label": "Change from scan to scan" },
      h(
        "table",
        { class: "change" },
        h("caption", { class: "visually-hidden" }, "Change from the first to the second scan"),
        h("thead", {}, h("tr", {}, h("td", {}), ...[...names(change), "Change, with the interval of 95 % of repeats"].map((name) => h("th", { scope: "col" }, name)))),
        h("tbody", {}, ...rows.map(([name, ...cells]) => h("tr", {}, h("th", { scope: "row" }, name), ...cells.map((text) => h("td", {}, bound(text)))))),
      ),
    ),
    order ? h("p", { class: "note" }, order) : null,
    h("details", { class: "note" }, h("summary", {}, "How it is measured"), `${intervals}Repeats were simulated: breathing, contrast and position of the patient are not in the interval. The slices are matched by their place in the height of the lungs, and drawn to one scale.`),
  );
}

function plus(value: number | null, digits = 1): string {
  if (value === null) return "unknown";
  const size = toFixed(Math.abs(value), digits);
  return `${value < 0 && Number(size) > 0 ? "−" : "+"}${size}`;
}

/** A number of one scan, with the interval that the model's calibration gives. */
function measured(value: number | null, limits: [number, number] | null, unit: string, digits = 1): string {
  return `${rounded(value, digits)} ${unit}${limits ? ` (${range(limits, digits)})` : ""}`;
}

function interval(limits: [number, number] | null, unit: string, digits = 1): string {
  return limits && limits[0] !== limits[1] ? ` (${plus(limits[0], digits)} to ${plus(limits[1], digits)} ${unit})` : "";
}

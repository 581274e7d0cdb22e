/** The scan with its controls: tools at its edge, layouts and windows above it, slices and the chart below it. */

import type { Findings, ViewDescription } from "./api";
import { h } from "./dom";
import { describeSlice, imageName, positionText, signed } from "./format";
import { icon } from "./icons";
import { choice, select, toggle } from "./inputs";
import { KeyRuler } from "./keyruler";
import type { BrushPlaces } from "./brushcontrols";
import type { Tool } from "./gestures";
import { clamp } from "./grid";
import type { Pane } from "./pane";
import { type Projection, PLANES } from "./planes";
import { BRUSH_KEYS, CONTROL_KEYS, KEYS, keyTable, ROTATIONS, SCROLLS, STEPS, WINDOW_KEYS, ZOOMS } from "./scankeys";
import type { Place, Scene, WindowHu } from "./scene";
import { PROJECTIONS, SLABS } from "./slabs";
import { type Layout, Viewer } from "./viewer";
import { WINDOW_NAMES, type WindowName, windowLimits } from "./windows";

const LAYOUTS: [Layout, string][] = [
  ["axial", "Axial"],
  ["coronal", "Coronal"],
  ["sagittal", "Sagittal"],
  ["multiplanar", "3 planes"],
  ["3d", "3D"],
];
/** Letters of a layout's name that are left where the bar is narrow. */
const SHORT: Partial<Record<Layout, number>> = { axial: 2, coronal: 3, sagittal: 3 };
const TOOLS: [Tool, string][] = [
  ["window", "Window and level"],
  ["scroll", "Scroll through slices"],
  ["pan", "Move the image"],
  ["ruler", "Measure"],
];

export class ScanPanel {
  readonly viewer = new Viewer();
  readonly element: HTMLElement;
  /** Places for the controls of a correction. */
  readonly brushPlaces: BrushPlaces = {
    bar: h("div", {}),
    modes: h("div", { class: "modes" }),
    saving: h("span", { class: "group end" }),
  };
  readonly profileSlot = h("div", { class: "chart" });
  readonly correctButton = h("button", { type: "button", class: "primary" }, "Correct ", h("span", { class: "rest" }, "the "), "mask");
  /** Handles a key on the scan before the panel does; returns whether it has. */
  handleKeyFirst: (event: KeyboardEvent) => boolean = () => false;
  /** The name of the scan that is shown, which its corrections share. */
  scan: string | null = null;
  /** Called with the number of the slice in the file whenever another one is shown. */
  sliceShown: (slice: number) => void = () => {};

  private readonly slider = h("input", { type: "range", id: "slice", min: 0, max: 0, step: 1 });
  private readonly sliceText = h("output", { for: "slice", class: "slice-text" });
  private readonly layouts = choice<Layout>(
    "Layout",
    "layout",
    LAYOUTS.map(([name, text]) => [name, text, shortened(text, SHORT[name] ?? text.length)]),
    (name) => this.setLayout(name),
  );
  private readonly tools = choice<Tool>(
    "Tool",
    "tool",
    TOOLS.map(([name, text]) => [name, text, icon(name)]),
    (tool) => (this.viewer.tool = tool),
    this.viewer.tool,
  );
  private readonly windows = select<WindowName | "custom">("window", "Window", WINDOW_NAMES, (name) => this.setWindow(name));
  private readonly slabs = select<string>("slab", "Slab", SLABS, (value) => this.setSlab(value));
  private readonly opacity = h("input", {
    type: "range",
    id: "opacity",
    min: 0,
    max: 100,
    step: 5,
    value: 35,
    "aria-label": "Opacity of the lesions",
    title: "Opacity of the lesions",
    input: () => this.viewer.setLesion({ opacity: this.opacity.valueAsNumber / 100 }),
  });
  private readonly keys = h("div", { id: "scan-keys" }, keyTable(KEYS));
  private findings: Findings | null = null;
  private fileSlices: number[] = [];
  private lungWindow: WindowHu = [-1350, 150];
  private readonly keyRuler = new KeyRuler(this.viewer);

  constructor() {
    const { viewer } = this;
    viewer.moved = () => this.moved();
    viewer.windowChanged = () => this.showWindow(this.windowName);
    viewer.layoutAsked = (layout) => {
      if (!this.layouts.hidden) this.setLayout(layout);
    };
    viewer.describe = (pane) => this.describePane(pane);
    viewer.element.addEventListener("keydown", (event) => this.handleKey(event));
    this.slider.addEventListener("input", () => this.goToFileSlice(this.slider.valueAsNumber));
    const help = h("details", { class: "keys" }, h("summary", {}, "Keys"), this.keys);
    help.addEventListener("keydown", (event) => {
      if (event.key === "Escape") help.open = false;
    });
    this.element = h(
      "section",
      { class: "viewer", "aria-label": "Viewer" },
      h(
        "div",
        { class: "bar top-bar" },
        this.layouts,
        this.windows,
        this.slabs,
        h("label", { class: "opacity", title: "Opacity of the lesions" }, icon("opacity"), h("span", { class: "rest" }, "Opacity"), this.opacity),
        this.correctButton,
        this.brushPlaces.saving,
      ),
      this.brushPlaces.bar,
      h("div", { class: "scan" }, this.toolStrip(viewer), viewer.element),
      h("div", { class: "bar slice-bar" }, h("label", { class: "wide" }, "Slice", this.slider), this.sliceText, help),
      this.profileSlot,
    );
    this.showWindow("lung");
  }

  private toolStrip(viewer: Viewer): HTMLElement {
    const button = (name: string, label: string, click: () => void): HTMLElement =>
      h("button", { type: "button", class: "tool", title: label, "aria-label": label, click }, icon(name));
    const crosshair = button("crosshair", "Crosshair", () => this.toggleCrosshair(crosshair));
    crosshair.setAttribute("aria-pressed", "true");
    const full = button("full", "Full screen", () => this.toggleFullScreen());
    if (!document.fullscreenEnabled) full.hidden = true;
    return h(
      "div",
      { class: "tools", role: "group", "aria-label": "Tools" },
      this.brushPlaces.modes,
      this.tools,
      button("clear", "Remove the measurements", () => viewer.removeRulers()),
      crosshair,
      h(
        "div",
        { class: "overlays" },
        toggle("lesion", "Lesions", icon("lesion"), true, (visible) => viewer.setLesion({ visible })),
        toggle("contour", "Contours of the lesions", icon("contour"), true, (contour) => viewer.setLesion({ contour })),
        toggle("lungs", "Contours of the lungs", icon("lungs"), false, (on) => this.setScene((scene) => (scene.showLungs = on))),
      ),
      button("plus", "Zoom in", () => viewer.zoom(1)),
      button("minus", "Zoom out", () => viewer.zoom(-1)),
      button("fit", "Fit the whole slice", () => viewer.zoom(0)),
      full,
    );
  }

  /** Show a scan.
   *
   * @param imagesOnly The scan is a stack of unrelated images: no other planes, and no 3D.
   */
  show(scene: Scene, findings: Findings, view: ViewDescription, lungWindow: WindowHu): void {
    const imagesOnly = findings.input.kind === "pictures";
    [this.findings, this.fileSlices, this.lungWindow] = [findings, view.file_slice_of_view, lungWindow];
    this.layouts.hidden = imagesOnly;
    this.setEditing(false);
    if (imagesOnly) this.setLayout("axial");
    this.slider.max = String(this.fileSlices.length - 1);
    this.slider.parentElement!.hidden = this.profileSlot.hidden = this.fileSlices.length === 1;
    this.slabs.value = SLABS[0]![0];
    scene.showLungs = this.element.querySelector<HTMLInputElement>("#lungs")!.checked;
    scene.showCrosshair = this.element.querySelector("[aria-label=Crosshair]")!.getAttribute("aria-pressed") === "true";
    scene.lesion = {
      visible: this.element.querySelector<HTMLInputElement>("#lesion")!.checked,
      contour: this.element.querySelector<HTMLInputElement>("#contour")!.checked,
      opacity: this.opacity.valueAsNumber / 100,
    };
    this.viewer.show(scene);
    this.setWindow("lung");
    this.moved();
  }

  /** Go on where a reader was, in the same window and zoom. */
  goBackTo(place: Place): void {
    Object.assign(this.viewer.scene!, place);
    this.showWindow(this.windowName);
    this.moved();
    this.viewer.redraw();
  }

  goToFileSlice(slice: number): void {
    const index = this.fileSlices.indexOf(clamp(slice, 0, this.fileSlices.length - 1));
    if (index >= 0) this.viewer.goToSlice(index);
  }

  setLayout(layout: Layout): void {
    this.keyRuler.leave();
    this.layouts.querySelector<HTMLInputElement>(`[value="${layout}"]`)!.checked = true;
    this.viewer.setLayout(layout);
  }

  /** Switch between looking and correcting, which has other keys and no 3D, where nothing can be drawn. */
  setEditing(editing: boolean): void {
    this.element.classList.toggle("editing", editing);
    this.keyRuler.leave();
    this.correctButton.hidden = editing;
    this.keys.replaceChildren(keyTable(editing ? BRUSH_KEYS : KEYS));
    this.layouts.querySelector<HTMLInputElement>('[value="3d"]')!.disabled = editing;
    this.slabs.hidden = editing || this.layouts.hidden;
    if (!editing) return;
    if (this.viewer.layout === "3d") this.setLayout("axial");
    this.slabs.value = SLABS[0]![0];
    this.viewer.setSlab("none", 1);
  }

  private setScene(change: (scene: Scene) => void): void {
    if (this.viewer.scene) change(this.viewer.scene);
    this.viewer.redraw();
  }

  private setWindow(name: WindowName | "custom"): void {
    if (name === "custom") return;
    this.showWindow(name);
    this.viewer.setWindow(windowLimits(name, this.lungWindow));
  }

  private get windowName(): WindowName | "custom" {
    const shown = String(this.viewer.scene?.window);
    return WINDOW_NAMES.find(([name]) => String(windowLimits(name, this.lungWindow)) === shown)?.[0] ?? "custom";
  }

  /** Show which window is chosen; one that was dragged is named by its limits. */
  private showWindow(name: WindowName | "custom"): void {
    const limits = this.viewer.scene?.window ?? this.lungWindow;
    const names: [WindowName | "custom", string][] = [...WINDOW_NAMES];
    if (name === "custom") names.push(["custom", `${signed(limits[0])} … ${signed(limits[1])}`]);
    this.windows.replaceChildren(...names.map(([value, text]) => h("option", { value }, text)));
    this.windows.value = name;
  }

  private setSlab(value: string): void {
    const [projection, thickness] = value.split(" ") as [Projection, string];
    this.viewer.setSlab(projection, Number(thickness));
  }

  private toggleCrosshair(button: HTMLElement): void {
    const on = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(on));
    this.setScene((scene) => (scene.showCrosshair = on));
  }

  private toggleFullScreen(): void {
    if (document.fullscreenElement) void document.exitFullscreen();
    else void this.element.requestFullscreen();
  }

  /** Words in the lower corner of a pane: which slice it shows, and how thick it is. */
  private describePane(pane: Pane): string {
    const { scene } = this.viewer;
    if (!scene || !this.findings) return "";
    const { first, last, count } = pane.shownSlices;
    const { projection } = scene.slab;
    const slab = last > first ? `${PROJECTIONS[projection]} ${((last - first + 1) * scene.grid.spacing_mm[PLANES[pane.name].normal]).toFixed(0)} ${scene.unit}` : "";
    if (pane.name !== "axial") return [`${pane.name} ${scene.slice(pane.name) + 1} of ${count}`, slab].filter(Boolean).join(" · ");
    const thickness = this.findings.input.slice_thickness_mm;
    const parts = [
      imageName(this.findings, this.fileSlice),
      positionText(this.findings, this.fileSlice),
      thickness === null ? "" : `${thickness} mm thick`,
      slab,
    ];
    return parts.filter(Boolean).map((part) => part.replaceAll(" ", "\u00a0")).join(" · "); // a line ends between parts alone
  }

  private get fileSlice(): number {
    return this.fileSlices[this.viewer.slice] ?? 0;
  }

  private moved(): void {
    if (!this.findings) return;
    const slice = this.fileSlice;
    const text = describeSlice(this.findings, slice);
    this.slider.value = String(slice);
    this.slider.setAttribute("aria-valuetext", text);
    this.sliceText.textContent = text;
    this.sliceShown(slice);
  }

  private handleKey(event: KeyboardEvent): void {
    if (event.altKey || (event.target as HTMLElement).tagName !== "CANVAS") return;
    if (!this.handleKeyFirst(event) && !this.keyRuler.handleKey(event) && !this.handleOwnKey(event)) return;
    event.preventDefault();
    event.stopPropagation();
  }

  private handleOwnKey(event: KeyboardEvent): boolean {
    if (event.ctrlKey || event.metaKey) return false;
    const { viewer } = this;
    const isRendering = event.target === viewer.rendering.canvas;
    const rotation = ROTATIONS[event.key];
    if (isRendering && rotation) viewer.rendering.rotate(...rotation);
    else if (event.key in SCROLLS) viewer.scroll(viewer.focusedPane, SCROLLS[event.key]!);
    else if (event.key in STEPS) this.goToFileSlice(this.fileSlice + STEPS[event.key]!);
    else if (event.key in ZOOMS) viewer.zoom(ZOOMS[event.key]!);
    else if (event.key in WINDOW_KEYS) this.setWindow(WINDOW_KEYS[event.key]!);
    else {
      const control = this.element.querySelector<HTMLElement>(CONTROL_KEYS[event.key.toLowerCase()] ?? "none");
      if (!control) return false;
      control.click();
    }
    return true;
  }
}

/** A word of which only the first letters are left where there is little room. */
const shortened = (text: string, letters: number): HTMLElement =>
  h("span", { "aria-hidden": "true" }, text.slice(0, letters), h("span", { class: "rest" }, text.slice(letters)));

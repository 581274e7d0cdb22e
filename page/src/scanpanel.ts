/** The scan with its controls: layouts, windows, zoom, slices, and how the lesion is drawn. The page makes one only. */

import { h } from "./dom";
import { type Layout, Viewer, type WindowHu, type WindowName } from "./viewer";

const LAYOUTS: [Layout, string][] = [
  ["axial", "Axial"],
  ["multiplanar", "Three planes"],
  ["3d", "3D"],
];
const WINDOW_NAMES: [WindowName, string][] = [
  ["lung", "Lung"],
  ["mediastinum", "Mediastinum"],
];
const ROTATION_DEGREES = 10;
const ORIENTATION = "The patient’s right is on the left. ";
const KEYS = `${ORIENTATION}Wheel or arrow keys: slices. Ctrl and wheel, + and −: zoom. Right button: move. L hides the lesion, C draws its contour.`;
const BRUSH_KEYS = `${ORIENTATION}Draw on a slice; drag with the right button to move the image. Keys on the scan: arrows move the brush, faster with Shift; Space paints, A adds, E erases, Ctrl+Z undoes; Page Up and Page Down change the slice.`;

export class ScanPanel {
  readonly viewer: Viewer;
  readonly element: HTMLElement;
  /** Holds the canvas, and the brush's layer over it. */
  readonly box: HTMLElement;
  readonly brushBarSlot = h("div", {});
  readonly profileSlot = h("div", {});
  readonly correctButton = h("button", { type: "button", class: "primary" }, "Correct the mask");
  /** Handles a key on the scan before the panel does; returns whether it has. */
  handleKeyFirst: (event: KeyboardEvent) => boolean = () => false;
  /** Called with the number of the slice in the file whenever another one is shown. */
  sliceShown: (slice: number) => void = () => {};

  private readonly slider = h("input", { type: "range", id: "slice", min: 0, max: 0, step: 1 });
  private readonly sliceText = h("output", { for: "slice", class: "slice-text" });
  private readonly layouts: HTMLFieldSetElement;
  private readonly windows: HTMLFieldSetElement;
  private readonly keys = h("p", { class: "note", id: "scan-keys" }, KEYS);
  private describeSlice: (slice: number) => string = String;
  private fileSlices: number[] = [];

  constructor() {
    const canvas = h("canvas", {
      role: "application",
      tabindex: 0,
      "aria-label": "Scan with the lesion drawn over it",
      "aria-describedby": "scan-keys",
    });
    this.viewer = new Viewer(canvas);
    this.viewer.moved = () => this.moved();
    this.box = h("div", { class: "scan" }, canvas, this.zoomButtons());
    this.box.addEventListener("keydown", (event) => this.handleKey(event), { capture: true });
    this.box.addEventListener("wheel", (event) => this.handleWheel(event), { capture: true, passive: false });
    this.layouts = choice("Layout", "layout", LAYOUTS, (name) => this.setLayout(name));
    this.windows = choice("Window", "window", WINDOW_NAMES, (name) => this.viewer.setWindow(name));
    this.slider.addEventListener("input", () => this.goToFileSlice(this.slider.valueAsNumber));
    this.element = h(
      "section",
      { class: "viewer", "aria-label": "Scan" },
      h("div", { class: "bar top-bar" }, this.layouts, this.windows, this.correctButton),
      this.brushBarSlot,
      this.box,
      h("div", { class: "bar" }, h("label", { class: "wide" }, "Slice", this.slider), this.sliceText),
      this.profileSlot,
      h("div", { class: "bar" }, ...this.lesionControls()),
      this.keys,
    );
  }

  /** Show a scan.
   *
   * @param fileSlices For each slice of the view, from feet to head, its number in the file.
   * @param imagesOnly The scan is a stack of unrelated images: no other planes, and no 3D.
   * @param describeSlice Text beside the slider for a slice of the file.
   */
  async show(
    scan: ArrayBuffer,
    mask: Parameters<Viewer["show"]>[1],
    lungWindow: WindowHu,
    fileSlices: number[],
    imagesOnly: boolean,
    describeSlice: (slice: number) => string,
  ): Promise<void> {
    this.fileSlices = fileSlices;
    this.describeSlice = describeSlice;
    this.layouts.hidden = imagesOnly;
    this.setEditing(false);
    if (imagesOnly) this.setLayout("axial");
    this.slider.max = String(fileSlices.length - 1);
    await this.viewer.show(scan, mask, lungWindow);
  }

  goToFileSlice(slice: number): void {
    this.viewer.goToSlice(this.fileSlices.indexOf(slice));
  }

  setLayout(layout: Layout): void {
    (this.layouts.querySelector(`[value="${layout}"]`) as HTMLInputElement).checked = true;
    this.windows.disabled = layout === "3d";
    this.viewer.setLayout(layout);
  }

  /** Switch between looking and correcting, which has other keys and no 3D, where nothing can be drawn. */
  setEditing(editing: boolean): void {
    this.element.classList.toggle("editing", editing);
    this.correctButton.hidden = editing;
    this.keys.textContent = editing ? BRUSH_KEYS : KEYS;
    this.layouts.querySelector<HTMLInputElement>('[value="3d"]')!.disabled = editing;
    if (editing && this.viewer.layout === "3d") this.setLayout("axial");
  }

  private get fileSlice(): number {
    return this.fileSlices[this.viewer.slice] ?? 0;
  }

  private moved(): void {
    const slice = this.fileSlice;
    const text = this.describeSlice(slice);
    this.slider.value = String(slice);
    this.slider.setAttribute("aria-valuetext", text);
    this.sliceText.textContent = text;
    this.sliceShown(slice);
  }

  private handleKey(event: KeyboardEvent): void {
    if (event.altKey || (event.target as HTMLElement).tagName !== "CANVAS") return;
    if (!this.handleKeyFirst(event) && !this.handleOwnKey(event)) return;
    event.preventDefault();
    event.stopPropagation();
  }

  private handleOwnKey(event: KeyboardEvent): boolean {
    if (event.ctrlKey || event.metaKey) return false;
    const steps: Record<string, number> = {
      ...{ ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1 },
      ...{ PageUp: 10, PageDown: -10, Home: -1e6, End: 1e6 },
    };
    const rotations: Record<string, [number, number]> = {
      ArrowLeft: [-ROTATION_DEGREES, 0],
      ArrowRight: [ROTATION_DEGREES, 0],
      ArrowUp: [0, ROTATION_DEGREES],
      ArrowDown: [0, -ROTATION_DEGREES],
    };
    const rotation = this.viewer.layout === "3d" ? rotations[event.key] : undefined;
    const step = steps[event.key];
    if (rotation) this.viewer.rotate(...rotation);
    else if (step !== undefined) this.step(step);
    else if (event.key === "+" || event.key === "=") this.viewer.zoom(1);
    else if (event.key === "-") this.viewer.zoom(-1);
    else if (event.key === "0") this.viewer.zoom(0);
    else if (event.key === "l" || event.key === "c") {
      (this.element.querySelector(event.key === "l" ? "#lesion" : "#contour") as HTMLInputElement).click();
    } else return false;
    return true;
  }

  /** Move by slices of the file, so that keys, slider and chart run the same way. */
  private step(by: number): void {
    this.goToFileSlice(Math.min(this.fileSlices.length - 1, Math.max(0, this.fileSlice + by)));
  }

  private handleWheel(event: WheelEvent): void {
    if (!event.ctrlKey) return;
    event.preventDefault();
    event.stopPropagation();
    this.viewer.zoom(event.deltaY < 0 ? 1 : -1);
  }

  private zoomButtons(): HTMLElement {
    const button = (text: string, label: string, direction: 1 | -1 | 0): HTMLElement =>
      h("button", { type: "button", "aria-label": label, click: () => this.viewer.zoom(direction) }, text);
    return h(
      "div",
      { class: "group", role: "group", "aria-label": "Zoom" },
      button("−", "Zoom out", -1),
      button("+", "Zoom in", 1),
      button("Fit", "Fit the whole slice", 0),
    );
  }

  private lesionControls(): HTMLElement[] {
    const checkbox = (id: string, text: string, checked: boolean, change: (on: boolean) => void): HTMLElement =>
      h(
        "label",
        {},
        h("input", {
          type: "checkbox",
          id,
          checked,
          change: (event) => change((event.target as HTMLInputElement).checked),
        }),
        text,
      );
    const opacity = h("input", {
      type: "range",
      id: "opacity",
      min: 10,
      max: 100,
      step: 5,
      value: 50,
      input: () => this.viewer.setLesion({ opacity: opacity.valueAsNumber / 100 }),
    });
    return [
      checkbox("lesion", "Lesion", true, (visible) => this.viewer.setLesion({ visible })),
      checkbox("contour", "Contour", false, (contour) => this.viewer.setLesion({ contour })),
      h("label", { class: "wide short" }, "Opacity", opacity),
    ];
  }
}

function choice<T extends string>(
  title: string,
  name: string,
  options: [T, string][],
  chosen: (value: T) => void,
): HTMLFieldSetElement {
  return h(
    "fieldset",
    { class: "choice" },
    h("legend", { class: "visually-hidden" }, title),
    ...options.flatMap(([value, text], i) => [
      h("input", {
        type: "radio",
        name,
        id: `${name}-${value}`,
        value,
        checked: i === 0,
        change: () => chosen(value),
      }),
      h("label", { for: `${name}-${value}` }, text),
    ]),
  );
}

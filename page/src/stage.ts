/** The scan with its controls: layouts, windows, zoom, slices, the lesion's look. One for the life of the page. */

import { h } from "./dom";
import { type Layout, Viewer, type WindowName } from "./viewer";

const LAYOUTS: [Layout, string][] = [
  ["axial", "Axial"],
  ["multiplanar", "Three planes"],
  ["3d", "3D"],
];
const WINDOW_NAMES: [WindowName, string][] = [
  ["lung", "Lung"],
  ["mediastinum", "Mediastinum"],
];
const TURN_DEGREES = 10;
const SIDES = "The patient’s right is on the left. ";
const KEYS = `${SIDES}Wheel or arrow keys: slices. Ctrl and wheel, + and −: zoom. Right button: move. L hides the lesion, C draws its contour.`;
const BRUSH_KEYS = `${SIDES}Draw on a slice; the right button moves the picture. With keys, on the scan: arrows move the brush, Shift makes them quicker, Space paints, A adds, E erases, Ctrl+Z takes back, Page Up and Down change the slice.`;

export class Stage {
  readonly viewer: Viewer;
  readonly element: HTMLElement;
  /** Where the brush lies over the scan, and where its bar goes. */
  readonly box: HTMLElement;
  readonly barPlace = h("div", {});
  readonly profilePlace = h("div", {});
  readonly correct = h("button", { type: "button", class: "primary" }, "Correct the mask");
  /** A key on the scan goes here first. */
  firstKey: (event: KeyboardEvent) => boolean = () => false;

  private readonly slider = h("input", { type: "range", id: "slice", min: 0, max: 0, step: 1 });
  private readonly told = h("output", { for: "slice", class: "slice-words" });
  private readonly layouts: HTMLFieldSetElement;
  private readonly windows: HTMLFieldSetElement;
  private readonly keys = h("p", { class: "note", id: "scan-keys" }, KEYS);
  private sliceWords: (slice: number) => string = String;
  private numberOf: number[] = [];

  constructor() {
    const canvas = h("canvas", {
      role: "application",
      tabindex: 0,
      "aria-label": "Scan with the lesion drawn over it",
      "aria-describedby": "scan-keys",
    });
    this.viewer = new Viewer(canvas);
    this.viewer.moved = () => this.moved();
    this.box = h("div", { class: "stage" }, canvas, this.zoomButtons());
    this.box.addEventListener("keydown", (event) => this.key(event), { capture: true });
    this.box.addEventListener("wheel", (event) => this.wheel(event), { capture: true, passive: false });
    this.layouts = choice("Layout", "layout", LAYOUTS, (name) => this.setLayout(name));
    this.windows = choice("Window", "window", WINDOW_NAMES, (name) => this.viewer.setWindow(name));
    this.slider.addEventListener("input", () => this.goToFileSlice(this.slider.valueAsNumber));
    this.element = h(
      "section",
      { class: "viewer", "aria-label": "Scan" },
      h("div", { class: "bar top-bar" }, this.layouts, this.windows, this.correct),
      this.barPlace,
      this.box,
      h(
        "div",
        { class: "bar" },
        h("label", { class: "wide" }, "Slice", this.slider),
        this.told,
      ),
      this.profilePlace,
      h("div", { class: "bar" }, ...this.lesionControls()),
      this.keys,
    );
  }

  /** Show a scan.
   *
   * @param numberOf Of each slice of the view, from feet to head, its number in the file.
   * @param flat Pictures: no planes but their own, and no 3D.
   */
  async show(
    scan: ArrayBuffer,
    mask: Parameters<Viewer["show"]>[1],
    numberOf: number[],
    flat: boolean,
    sliceWords: (slice: number) => string,
  ): Promise<void> {
    this.numberOf = numberOf;
    this.sliceWords = sliceWords;
    this.layouts.hidden = flat;
    this.setEditing(false);
    if (flat) this.setLayout("axial");
    this.slider.max = String(numberOf.length - 1);
    await this.viewer.show(scan, mask);
  }

  /** Called with the slice of the file, whenever another one is shown. */
  sliceShown: (slice: number) => void = () => {};

  goToFileSlice(slice: number): void {
    this.viewer.goToSlice(this.numberOf.indexOf(slice));
  }

  setLayout(layout: Layout): void {
    (this.layouts.querySelector(`[value="${layout}"]`) as HTMLInputElement).checked = true;
    this.windows.disabled = layout === "3d";
    this.viewer.setLayout(layout);
  }

  /** Whether a brush is at work: other keys, and no 3D, where nothing can be drawn. */
  setEditing(editing: boolean): void {
    this.element.classList.toggle("editing", editing);
    this.correct.hidden = editing;
    this.keys.textContent = editing ? BRUSH_KEYS : KEYS;
    const solid = this.layouts.querySelector<HTMLInputElement>('[value="3d"]')!;
    solid.disabled = editing;
    if (editing && this.viewer.layout === "3d") this.setLayout("axial");
  }

  private moved(): void {
    const slice = this.numberOf[this.viewer.slice] ?? 0;
    this.slider.value = String(slice);
    const words = this.sliceWords(slice);
    this.slider.setAttribute("aria-valuetext", words);
    this.told.textContent = words;
    this.sliceShown(slice);
  }

  private key(event: KeyboardEvent): void {
    if (event.altKey || (event.target as HTMLElement).tagName !== "CANVAS") return;
    if (!this.firstKey(event) && !this.ownKey(event)) return;
    event.preventDefault();
    event.stopPropagation();
  }

  private ownKey(event: KeyboardEvent): boolean {
    if (event.ctrlKey || event.metaKey) return false;
    const steps: Record<string, number> = {
      ...{ ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1 },
      ...{ PageUp: 10, PageDown: -10, Home: -1e6, End: 1e6 },
    };
    const turns: Record<string, [number, number]> = {
      ArrowLeft: [-TURN_DEGREES, 0],
      ArrowRight: [TURN_DEGREES, 0],
      ArrowUp: [0, TURN_DEGREES],
      ArrowDown: [0, -TURN_DEGREES],
    };
    const turn = this.viewer.layout === "3d" ? turns[event.key] : undefined;
    const step = steps[event.key];
    if (turn) this.viewer.turn(...turn);
    else if (step !== undefined) this.step(step);
    else if (event.key === "+" || event.key === "=") this.viewer.zoom(1);
    else if (event.key === "-") this.viewer.zoom(-1);
    else if (event.key === "0") this.viewer.zoom(0);
    else if (event.key === "l" || event.key === "c") {
      (this.element.querySelector(event.key === "l" ? "#lesion" : "#contour") as HTMLInputElement).click();
    } else return false;
    return true;
  }

  /** By slices of the file, so that keys, slider and chart run the same way. */
  private step(by: number): void {
    const now = this.numberOf[this.viewer.slice] ?? 0;
    this.goToFileSlice(Math.min(this.numberOf.length - 1, Math.max(0, now + by)));
  }

  private wheel(event: WheelEvent): void {
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
    const box = (id: string, text: string, checked: boolean, change: (on: boolean) => void): HTMLElement =>
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
      box("lesion", "Lesion", true, (shown) => this.viewer.setLesion({ shown })),
      box("contour", "Contour", false, (contour) => this.viewer.setLesion({ contour })),
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
    h("legend", { class: "spoken" }, title),
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

/** The controls of a correction: what the brush does, its size, its class and its HU, steps back and forth, saving. */

import { h } from "./dom";
import { icon } from "./icons";
import { choice } from "./inputs";
import type { Scene } from "./scene";

export type Mode = "add" | "erase" | "remove" | "keep";

const SIZES = { min: 1, max: 60, value: 12 };
const RANGE_HU = [-750, 50] as const; // ground-glass to consolidation
/** Each with its title and the word below its icon. */
const MODES: [Mode, string, string][] = [
  ["add", "Add to the mask", "Add"],
  ["erase", "Erase from the mask", "Erase"],
  ["remove", "Remove the lesion that is clicked", "Remove"],
  ["keep", "Keep only the lesion that is clicked", "Keep"],
];

/** Where the controls of a correction stand. */
export interface BrushPlaces {
  bar: HTMLElement;
  /** Among the tools beside the scan. */
  modes: HTMLElement;
  /** At the end of the bar above the scan. */
  saving: HTMLElement;
}

export interface BrushActions {
  undo: () => void;
  redo: () => void;
  fill: () => void;
  save: () => void;
  leave: () => void;
}

export class BrushControls {
  mode: Mode = "add";
  private readonly size: HTMLInputElement;
  private readonly sizeText = h("output", { for: "brush" });
  private readonly classes: HTMLSelectElement | null;
  private readonly useRange = h("input", { type: "checkbox", id: "use-range" });
  private readonly low = huInput("Lowest HU to paint", RANGE_HU[0]);
  private readonly high = huInput("Highest HU to paint", RANGE_HU[1]);
  private readonly undo: HTMLButtonElement;
  private readonly redo: HTMLButtonElement;
  private readonly save: HTMLButtonElement;
  private readonly changed = h("output", { class: "changed" });
  private readonly modes = choice<Mode>(
    "Brush",
    "brush",
    MODES.map(([name, title, word]) => [name, title, h("span", { class: "worded", "aria-hidden": "true" }, icon(name), word)]),
    (chosen) => (this.mode = chosen),
  );

  constructor(
    private readonly places: BrushPlaces,
    private readonly unit: Scene["unit"],
    classes: readonly string[],
    actions: BrushActions,
  ) {
    this.size = h("input", { type: "range", id: "brush", ...SIZES, input: () => this.showSize() });
    this.classes = classes.length > 1 ? classChoice(classes) : null;
    this.undo = stepButton("undo", "Undo", actions.undo);
    this.redo = stepButton("redo", "Redo", actions.redo);
    this.save = h("button", { type: "button", class: "primary", "aria-label": "Save correction", click: actions.save }, "Save");
    places.bar.replaceChildren(this.bar(actions));
    places.modes.replaceChildren(this.modes);
    places.saving.replaceChildren(this.changed, this.save, h("button", { type: "button", click: actions.leave }, "Leave"));
    this.showSize();
  }

  get diameter_mm(): number {
    return this.size.valueAsNumber;
  }

  /** The lesion value that is painted, from 1. */
  get value(): number {
    return this.classes ? Number(this.classes.value) : 1;
  }

  /** The HU that are painted; null: all of them. */
  get range_hu(): readonly [number, number] | null {
    return this.useRange.checked ? [this.low.valueAsNumber, this.high.valueAsNumber] : null;
  }

  choose(mode: Mode): void {
    this.modes.querySelector<HTMLInputElement>(`#brush-${mode}`)!.click();
  }

  /** Show what was changed, and which steps there are. */
  showSteps(difference: string, canUndo: boolean, canRedo: boolean): void {
    this.changed.textContent = difference;
    this.undo.disabled = this.save.disabled = !canUndo;
    this.redo.disabled = !canRedo;
    // A button that is disabled would take the focus with it.
    if (document.activeElement === this.undo && !canUndo) this.redo.focus();
    if (document.activeElement === this.redo && !canRedo) this.undo.focus();
  }

  allowSaving(allowed: boolean): void {
    this.save.disabled = !allowed;
    if (allowed && document.activeElement === document.body) this.save.focus(); // lost when it was forbidden
  }

  remove(): void {
    for (const place of Object.values(this.places) as HTMLElement[]) place.replaceChildren();
  }

  private bar({ fill }: BrushActions): HTMLElement {
    return h(
      "div",
      { class: "bar brush-bar", role: "group", "aria-label": "Correct the mask" },
      this.classes,
      h("label", { class: "size" }, "Size", this.size, this.sizeText),
      h("span", { class: "group" }, this.undo, this.redo),
      h("span", { class: "range" }, h("label", { class: "check" }, this.useRange, "Only"), this.low, "to", this.high, "HU"),
      h("button", { type: "button", click: fill, title: "Fill the slices between two that you have drawn" }, "Fill between"),
    );
  }

  private showSize(): void {
    this.sizeText.textContent = `${this.size.value} ${this.unit}`;
  }
}

function huInput(label: string, value: number): HTMLInputElement {
  return h("input", { type: "number", class: "hu", step: 10, value, "aria-label": label });
}

function stepButton(name: "undo" | "redo", label: string, click: () => void): HTMLButtonElement {
  return h("button", { type: "button", class: "step", title: label, "aria-label": label, click }, icon(name));
}

function classChoice(classes: readonly string[]): HTMLSelectElement {
  const options = classes.map((name, i) => h("option", { value: i + 1 }, name));
  return h("select", { "aria-label": "Class that is painted", title: "Class that is painted" }, ...options);
}

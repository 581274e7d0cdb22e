/** Correcting the mask by hand: a brush over the slices, by pointer or by keys, and lesions removed or kept by a click. */

import { Brush, type Stroke } from "./brush";
import { announce, h } from "./dom";
import { capital } from "./format";
import { type Axis, nearestVoxel, type Voxel, voxelMl } from "./grid";
import { icon } from "./icons";
import { choice } from "./inputs";
import { gzip, writeMask } from "./nifti";
import type { Pane } from "./pane";
import { PLANES } from "./planes";
import type { Scene } from "./scene";
import type { Viewer } from "./viewer";

type Mode = "add" | "erase" | "remove" | "keep";

const SIZES = { min: 1, max: 60, initial: 12 };
/** Each with its title and the word below its icon. */
const MODES: [Mode, string, string][] = [
  ["add", "Add to the mask", "Add"],
  ["erase", "Erase from the mask", "Erase"],
  ["remove", "Remove the lesion that is clicked", "Remove"],
  ["keep", "Keep only the lesion that is clicked", "Keep"],
];
const SAID: Record<Mode, string> = {
  add: "painted",
  erase: "erased",
  remove: "lesion removed",
  keep: "all other lesions removed",
};
const RANGE_HU = [-750, 50] as const; // ground-glass to consolidation

/** Where the controls of a correction stand. */
export interface BrushPlaces {
  bar: HTMLElement;
  /** Among the tools beside the scan. */
  modes: HTMLElement;
  /** At the end of the bar above the scan. */
  saving: HTMLElement;
}

export interface Correction {
  hasUnsavedChanges: () => boolean;
  /** Handle a key; returns whether it was one of the brush. */
  handleKey: (event: KeyboardEvent) => boolean;
  /** The mask as it is drawn, as .nii.gz. */
  packedMask: () => Promise<Blob>;
  /** What was changed, in words. */
  difference: () => string;
  /** Allow or forbid to save, while a correction is being sent. */
  allowSaving: (allowed: boolean) => void;
  /** Show a message over the scan until the mask is changed again. */
  say: (words: string) => void;
  /** Take back all changes. */
  discard: () => void;
  close: () => void;
}

export interface CorrectionHooks {
  save: () => void;
  leave: () => void;
}

/** Start to correct the mask that the viewer shows. */
export function correction(viewer: Viewer, scene: Scene, places: BrushPlaces, hooks: CorrectionHooks): Correction {
  const brush = new Brush(scene.mask.voxels, scene.scan.voxels, scene.grid);
  const ring = h("div", { class: "brush-ring", hidden: true });
  let mode: Mode = "add";
  let normal: Axis = 2;
  let strokeStarted = false;

  const size = h("input", { type: "range", id: "brush", min: SIZES.min, max: SIZES.max, value: SIZES.initial, input: showSize });
  const sizeText = h("output", { for: "brush" });
  const useRange = h("input", { type: "checkbox", id: "use-range" });
  const [low, high] = RANGE_HU.map((value, i) =>
    h("input", { type: "number", class: "hu", step: 10, value, "aria-label": i ? "Highest HU to paint" : "Lowest HU to paint" }),
  ) as [HTMLInputElement, HTMLInputElement];
  const [undoButton, redoButton] = (["undo", "redo"] as const).map((name) => {
    const label = capital(name);
    return h("button", { type: "button", class: "step", title: label, "aria-label": label, click: () => step(name), disabled: true }, icon(name));
  }) as [HTMLButtonElement, HTMLButtonElement];
  const fillButton = h("button", { type: "button", click: fill, title: "Fill the slices between two that you have drawn" }, "Fill between");
  const saveButton = h("button", { type: "button", class: "primary", "aria-label": "Save correction", click: () => hooks.save(), disabled: true }, "Save");
  const changed = h("output", { class: "changed" });
  const classes = scene.classes.length > 1 ? classChoice(scene.classes) : null;
  const message = h("p", { class: "hud said", role: "alert", hidden: true });
  const modes = choice<Mode>(
    "Brush",
    "brush",
    MODES.map(([name, title, word]) => [name, title, h("span", { class: "worded", "aria-hidden": "true" }, icon(name), word)]),
    (chosen) => (mode = chosen),
  );
  const bar = h(
    "div",
    { class: "bar brush-bar", role: "group", "aria-label": "Correct the mask" },
    classes,
    h("label", { class: "size" }, "Size", size, sizeText),
    h("span", { class: "range" }, h("label", { class: "check" }, useRange, "Only"), low, "to", high, "HU"),
    fillButton,
    h("span", { class: "group" }, undoButton, redoButton),
  );
  places.bar.replaceChildren(bar);
  places.modes.replaceChildren(modes);
  places.saving.replaceChildren(changed, saveButton, h("button", { type: "button", click: () => hooks.leave() }, "Leave"));
  viewer.element.append(message);

  function showSize(): void {
    sizeText.textContent = `${size.value} ${scene.unit}`;
  }

  function difference(): string {
    const { added, removed } = brush.difference;
    const amount = (voxels: number): string => (scene.inMm ? `${(voxels * voxelMl(scene.grid)).toFixed(2)} ml` : `${voxels} px`);
    return `+${amount(added)}, −${amount(removed)}`;
  }

  function say(words: string): void {
    message.textContent = words;
    message.hidden = words === "";
  }

  function update(): void {
    viewer.maskChanged();
    say("");
    undoButton.disabled = saveButton.disabled = brush.changeCount === 0;
    redoButton.disabled = brush.undoneCount === 0;
    changed.textContent = difference();
  }

  function stroke(): Stroke {
    const value = classes ? Number(classes.value) : 1;
    const range_hu = useRange.checked ? ([low.valueAsNumber, high.valueAsNumber] as const) : null;
    return { normal, diameter_mm: size.valueAsNumber, erase: mode === "erase", value, range_hu };
  }

  function step(direction: "undo" | "redo"): void {
    lift();
    const did = brush[direction]();
    update();
    announce(did ? `${direction === "undo" ? "undone" : "done again"}: ${difference()}` : `nothing to ${direction}`);
  }

  function fill(): void {
    const pane = viewer.focusedPane;
    const slices = brush.interpolate(PLANES[pane.name].normal, scene.slice(pane.name), stroke().value);
    update();
    if (slices) announce(`${slices} slices filled`);
    else say("Nothing to fill: draw on a slice below and on one above first.");
  }

  function lift(): void {
    strokeStarted = false;
    if (brush.lift()) update();
  }

  function useAt(at: Voxel): void {
    if (mode === "add" || mode === "erase") brush.paint(at, stroke());
    else if (!strokeStarted) brush.takeLesion(at, mode);
    strokeStarted = true;
    update();
  }

  viewer.brush = {
    stroke: (pane, x, y) => {
      const at = pane.voxelAt(x, y);
      if (!at || (strokeStarted && PLANES[pane.name].normal !== normal)) return;
      ({ normal } = PLANES[pane.name]);
      scene.cursor = at;
      viewer.moved();
      useAt(at);
    },
    lift,
    cancel: () => {
      brush.cancel();
      strokeStarted = false;
      update();
    },
  };

  /** Show the brush at a point of a pane. */
  function showRing(pane: Pane, point: [number, number] | null): void {
    const isBrush = mode === "add" || mode === "erase";
    ring.hidden = !point || !isBrush;
    if (!point) return;
    if (ring.parentElement !== pane.element) pane.element.append(ring);
    const radius = Math.max(3, (size.valueAsNumber * pane.pixelsPerMm) / 2);
    ring.style.width = ring.style.height = `${2 * radius}px`;
    ring.style.transform = `translate(${point[0] - radius}px, ${point[1] - radius}px)`;
  }
  const hovered = viewer.hovered;
  viewer.hovered = (pane, at, point) => {
    hovered(pane, at, point);
    showRing(pane, at && point);
  };

  const steps: Record<string, Voxel> = {
    ArrowLeft: [-1, 0, 0],
    ArrowRight: [1, 0, 0],
    ArrowUp: [0, -1, 0],
    ArrowDown: [0, 1, 0],
    PageUp: [0, 0, 1],
    PageDown: [0, 0, -1],
  };

  function handleKey(event: KeyboardEvent): boolean {
    const key = event.key.toLowerCase();
    if (event.ctrlKey || event.metaKey) {
      if (key !== "z" && key !== "y") return false;
      step(key === "y" || event.shiftKey ? "redo" : "undo");
      return true;
    }
    const move = steps[event.key];
    if (move) {
      const length = event.shiftKey ? 8 : 1;
      viewer.goTo(nearestVoxel(scene.grid, scene.cursor.map((n, axis) => n + length * move[axis]!)));
      showRing(viewer.panes.axial, viewer.panes.axial.pointOf(scene.cursor));
      return true;
    }
    if (event.key === " ") {
      normal = 2;
      useAt(scene.cursor);
      lift();
      announce(`${SAID[mode]}: ${difference()}`);
      return true;
    }
    const chosen = { a: "add", e: "erase" }[key];
    if (chosen) modes.querySelector<HTMLInputElement>(`#brush-${chosen}`)!.click();
    return chosen !== undefined;
  }

  showSize();
  changed.textContent = difference();
  return {
    handleKey,
    difference,
    allowSaving: (allowed) => (saveButton.disabled = !allowed),
    say,
    hasUnsavedChanges: () => brush.changeCount > 0,
    packedMask: () => gzip(writeMask(scene.mask, scene.mask.voxels)),
    discard: () => {
      while (brush.undo());
      update();
    },
    close: () => {
      viewer.brush = null;
      viewer.hovered = hovered;
      for (const place of Object.values(places) as HTMLElement[]) place.replaceChildren();
      ring.remove();
      message.remove();
    },
  };
}

function classChoice(classes: readonly string[]): HTMLSelectElement {
  const options = classes.map((name, i) => h("option", { value: i + 1 }, name));
  return h("select", { "aria-label": "Class that is painted", title: "Class that is painted" }, ...options);
}


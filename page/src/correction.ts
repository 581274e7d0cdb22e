/** Correcting the mask by hand with a brush over the slices, by pointer or by keys. */

import { Brush, type Voxel } from "./brush";
import { announce, h } from "./dom";
import { counted } from "./format";
import { gzip, writeMask } from "./mask";
import type { Viewer } from "./viewer";

const SIZES = { min: 1, max: 60, initial: 12 };

export interface Correction {
  bar: HTMLElement;
  layer: HTMLElement;
  hasUnsavedStrokes: () => boolean;
  /** Handle a key; returns whether it was one of the brush. */
  handleKey: (event: KeyboardEvent) => boolean;
  /** The mask as it is drawn, as .nii.gz. */
  packedMask: () => Promise<Blob>;
  close: () => void;
}

export interface CorrectionHooks {
  save: () => void;
  leave: () => void;
}

/** Start to correct the mask that the viewer shows; `unit` is that of the brush's diameter. */
export function correction(viewer: Viewer, unit: "mm" | "px", hooks: CorrectionHooks): Correction {
  const brush = new Brush(viewer.drawing, viewer.grid);
  let normal = 2;
  let pan: ((x: number, y: number) => void) | null = null;

  const size = h("input", { type: "range", id: "brush", min: SIZES.min, max: SIZES.max, value: SIZES.initial });
  const sizeText = h("output", { for: "brush" });
  const undoButton = h("button", { type: "button", click: undoStroke, disabled: true }, "Undo");
  const saveButton = h("button", { type: "button", class: "primary", click: () => hooks.save(), disabled: true }, "Save correction");
  const bar = h(
    "div",
    { class: "bar brush-bar", role: "group", "aria-label": "Correct the mask" },
    h(
      "fieldset",
      { class: "choice" },
      h("legend", { class: "visually-hidden" }, "Brush"),
      ...(["add", "erase"] as const).flatMap((name) => [
        h("input", { type: "radio", name: "brush-mode", id: `brush-${name}`, value: name, checked: name === "add" }),
        h("label", { for: `brush-${name}` }, name === "add" ? "Add" : "Erase"),
      ]),
    ),
    h("label", { class: "wide" }, "Size", size, sizeText),
    undoButton,
    saveButton,
    h("button", { type: "button", click: () => hooks.leave() }, "Leave"),
  );
  const ring = h("div", { class: "brush-ring", hidden: true });
  const layer = h("div", { class: "brush-layer" }, ring);
  const erasing = (): boolean => (bar.querySelector("#brush-erase") as HTMLInputElement).checked;
  const diameter = (): number => size.valueAsNumber;

  function showSize(): void {
    sizeText.textContent = `${size.value} ${unit}`;
  }

  function updateButtons(): void {
    undoButton.disabled = saveButton.disabled = brush.strokeCount === 0;
  }

  function paint(voxel: Voxel): void {
    viewer.updateDrawing(...brush.paint(voxel, normal, diameter(), erasing()));
  }

  function lift(): void {
    if (brush.lift()) updateButtons();
  }

  function undoStroke(): void {
    lift();
    const changed = brush.undo();
    if (changed) viewer.updateDrawing(...changed);
    updateButtons();
    announce(changed ? `undone, ${counted(brush.strokeCount, "stroke")} left` : "nothing to undo");
  }

  function pointOf(event: MouseEvent): [number, number] {
    const box = layer.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  function showRing(x: number, y: number, pixels: number): void {
    ring.hidden = false;
    const radius = Math.max(3, pixels / 2);
    ring.style.width = ring.style.height = `${2 * radius}px`;
    ring.style.transform = `translate(${x - radius}px, ${y - radius}px)`;
  }

  layer.addEventListener("pointerdown", (event) => {
    layer.setPointerCapture(event.pointerId);
    const [x, y] = pointOf(event);
    if (event.button !== 0) {
      pan = viewer.panFrom(x, y);
      return;
    }
    const picked = viewer.pick(x, y);
    if (!picked) return;
    normal = picked.normal;
    viewer.goToVoxel(picked.voxel);
    paint(picked.voxel);
  });
  layer.addEventListener("pointermove", (event) => {
    const [x, y] = pointOf(event);
    const picked = viewer.pick(x, y);
    if (picked) showRing(x, y, diameter() * picked.pixelsPerMm);
    else ring.hidden = true;
    if (!layer.hasPointerCapture(event.pointerId)) return;
    if (pan) pan(x, y);
    else if (picked && picked.normal === normal) paint(picked.voxel);
  });
  for (const end of ["pointerup", "pointercancel"]) {
    layer.addEventListener(end, () => {
      pan = null;
      lift();
    });
  }
  layer.addEventListener("pointerleave", () => {
    ring.hidden = true;
  });
  layer.addEventListener("contextmenu", (event) => event.preventDefault());
  layer.addEventListener("wheel", (event) => {
    event.preventDefault();
    if (event.ctrlKey) viewer.zoom(event.deltaY < 0 ? 1 : -1);
    else viewer.scroll(event.deltaY < 0 ? 1 : -1, ...pointOf(event));
  }, { passive: false });
  size.addEventListener("input", showSize);
  showSize();

  // The right of the screen is the patient's left, so that x runs to the left of the screen.
  const steps: Record<string, Voxel> = {
    ArrowLeft: [1, 0, 0],
    ArrowRight: [-1, 0, 0],
    ArrowUp: [0, 1, 0],
    ArrowDown: [0, -1, 0],
    PageUp: [0, 0, 1],
    PageDown: [0, 0, -1],
  };

  function handleKey(event: KeyboardEvent): boolean {
    if (event.key.toLowerCase() === "z" && (event.ctrlKey || event.metaKey)) {
      undoStroke();
      return true;
    }
    const step = steps[event.key];
    if (step) {
      const { dims } = viewer.grid;
      const length = event.shiftKey ? 8 : 1;
      viewer.goToVoxel(viewer.crosshair.map((n, i) => Math.min(dims[i]! - 1, Math.max(0, n + length * step[i]!))) as Voxel);
      const point = viewer.pointOf(viewer.crosshair);
      const picked = point && viewer.pick(point.x, point.y);
      if (point && picked) showRing(point.x, point.y, diameter() * picked.pixelsPerMm);
      return true;
    }
    if (event.key === " ") {
      normal = 2;
      paint(viewer.crosshair);
      lift();
      announce(`${erasing() ? "erased" : "painted"}, stroke ${brush.strokeCount}`);
      return true;
    }
    const mode = { a: "add", e: "erase" }[event.key];
    if (mode) (bar.querySelector(`#brush-${mode}`) as HTMLInputElement).checked = true;
    return mode !== undefined;
  }

  return {
    bar,
    layer,
    handleKey,
    hasUnsavedStrokes: () => brush.strokeCount > 0,
    packedMask: () => {
      const { file, voxels } = viewer.mask();
      return gzip(writeMask(file, voxels));
    },
    close: () => {
      bar.remove();
      layer.remove();
    },
  };
}

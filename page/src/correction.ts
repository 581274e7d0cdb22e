/** Correcting the mask by hand: a brush over the slices, by pointer or by keys, and saving what was drawn. */

import { Brush, type Voxel } from "./brush";
import { announce, h } from "./dom";
import { gzip, writeMask } from "./mask";
import type { Viewer } from "./viewer";

const SIZES = { min: 1, max: 60, start: 12 };

export interface Correction {
  bar: HTMLElement;
  layer: HTMLElement;
  unsaved: () => boolean;
  /** Whether the key was the brush's. */
  key: (event: KeyboardEvent) => boolean;
  /** The mask as drawn, packed. */
  packed: () => Promise<Blob>;
  close: () => void;
}

export interface Outcome {
  save: () => void;
  leave: () => void;
}

/** Begin to correct what the viewer shows; `unit` is what the brush is measured in. */
export function correction(viewer: Viewer, unit: "mm" | "px", outcome: Outcome): Correction {
  const brush = new Brush(viewer.drawing, viewer.grid);
  let normal = 2;
  let pan: ((x: number, y: number) => void) | null = null;

  const size = h("input", { type: "range", id: "brush", min: SIZES.min, max: SIZES.max, value: SIZES.start });
  const shownSize = h("output", { for: "brush" });
  const undo = h("button", { type: "button", click: takeBack, disabled: true }, "Undo");
  const save = h("button", { type: "button", class: "primary", click: () => outcome.save(), disabled: true }, "Save correction");
  const bar = h(
    "div",
    { class: "bar brush-bar", role: "group", "aria-label": "Correct the mask" },
    h(
      "fieldset",
      { class: "choice" },
      h("legend", { class: "spoken" }, "Brush"),
      ...(["add", "erase"] as const).flatMap((name) => [
        h("input", { type: "radio", name: "brush-mode", id: `brush-${name}`, value: name, checked: name === "add" }),
        h("label", { for: `brush-${name}` }, name === "add" ? "Add" : "Erase"),
      ]),
    ),
    h("label", { class: "wide" }, "Size", size, shownSize),
    undo,
    save,
    h("button", { type: "button", click: () => outcome.leave() }, "Leave"),
  );
  const ring = h("div", { class: "ring", hidden: true });
  const layer = h("div", { class: "brush-layer" }, ring);
  const erasing = (): boolean => (bar.querySelector("#brush-erase") as HTMLInputElement).checked;
  const diameter = (): number => size.valueAsNumber;

  function sized(): void {
    shownSize.textContent = `${size.value} ${unit}`;
  }

  function counted(): void {
    undo.disabled = save.disabled = brush.strokeCount === 0;
  }

  function paint(voxel: Voxel): void {
    viewer.painted(...brush.paint(voxel, normal, diameter(), erasing()));
  }

  function lift(): void {
    if (brush.lift()) counted();
  }

  function takeBack(): void {
    lift();
    const touched = brush.undo();
    if (touched) viewer.painted(...touched);
    counted();
    announce(touched ? `taken back, ${brush.strokeCount} left` : "nothing to take back");
  }

  function at(event: MouseEvent): [number, number] {
    const box = layer.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  function circle(x: number, y: number, pixels: number): void {
    ring.hidden = false;
    const radius = Math.max(3, pixels / 2);
    ring.style.width = ring.style.height = `${2 * radius}px`;
    ring.style.transform = `translate(${x - radius}px, ${y - radius}px)`;
  }

  layer.addEventListener("pointerdown", (event) => {
    layer.setPointerCapture(event.pointerId);
    const [x, y] = at(event);
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
    const [x, y] = at(event);
    const picked = viewer.pick(x, y);
    if (picked) circle(x, y, diameter() * picked.pixelsPerMm);
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
    else viewer.scroll(event.deltaY < 0 ? 1 : -1, ...at(event));
  }, { passive: false });
  size.addEventListener("input", sized);
  sized();

  /** Right on the screen is the patient's left: x runs to the left on it. */
  const steps: Record<string, Voxel> = {
    ArrowLeft: [1, 0, 0],
    ArrowRight: [-1, 0, 0],
    ArrowUp: [0, 1, 0],
    ArrowDown: [0, -1, 0],
    PageUp: [0, 0, 1],
    PageDown: [0, 0, -1],
  };

  function key(event: KeyboardEvent): boolean {
    if (event.key.toLowerCase() === "z" && (event.ctrlKey || event.metaKey)) {
      takeBack();
      return true;
    }
    const step = steps[event.key];
    if (step) {
      const { dims } = viewer.grid;
      const far = event.shiftKey ? 8 : 1;
      viewer.goToVoxel(viewer.crosshair.map((n, i) => Math.min(dims[i]! - 1, Math.max(0, n + far * step[i]!))) as Voxel);
      const place = viewer.place(viewer.crosshair);
      const picked = place && viewer.pick(place.x, place.y);
      if (place && picked) circle(place.x, place.y, diameter() * picked.pixelsPerMm);
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
    key,
    unsaved: () => brush.strokeCount > 0,
    packed: () => {
      const { file, voxels } = viewer.mask();
      return gzip(writeMask(file, voxels));
    },
    close: () => {
      bar.remove();
      layer.remove();
    },
  };
}

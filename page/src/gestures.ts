/** Pointer, touch and wheel on a pane: what they move is decided by the tool that is chosen. */

import type { Pane } from "./pane";

/** What the primary button does when it is dragged. */
export type Tool = "window" | "scroll" | "pan" | "ruler";

export interface Target {
  readonly tool: Tool;
  scroll: (pane: Pane, slices: number) => void;
  pan: (pane: Pane, dx: number, dy: number) => void;
  zoomAt: (pane: Pane, factor: number, x: number, y: number) => void;
  dragWindow: (dx: number, dy: number) => void;
  measure: (pane: Pane, from: [number, number], to: [number, number], isOver: boolean) => void;
  /** Remember what a drag may change; the function that is returned takes the drag back. */
  remember: (pane: Pane) => () => void;
  click: (pane: Pane, x: number, y: number) => void;
  hover: (pane: Pane, point: [number, number] | null) => void;
  doubleClick: (pane: Pane) => void;
  /** Takes over the primary button while the mask is corrected. */
  brush: BrushTarget | null;
}

export interface BrushTarget {
  /** Start or continue a stroke. */
  stroke: (pane: Pane, x: number, y: number) => void;
  lift: () => void;
  /** Take back the stroke that was begun: it was the first finger of two. */
  cancel: () => void;
}

const CLICK_PX = 4; // a press that moves less is a click
const WHEEL_STEP_PX = 60; // of a wheel or a trackpad for one slice; a notch of a usual wheel has 100 to 120
const LINE_PX = 20; // of wheels that count in lines
const WHEEL_REST_MS = 250; // after which what is left of a step is forgotten
const TOUCH_STEP_PX = 12; // for one slice
const ZOOM_PER_PX = 1.003;

export function handleGestures(pane: Pane, target: Target): void {
  const { canvas } = pane;
  const pressed = new Map<number, { x: number; y: number }>();
  let start: [number, number] = [0, 0];
  let action: Tool | "brush" | "none" = "none";
  let moved = false;
  let travelled = 0; // of a drag through the slices, in pixels that have made no slice yet
  let takeBack = (): void => {}; // what the first finger of two has done before the second came
  let pinch = { distance: 1, x: 0, y: 0 };

  const pointOf = (event: MouseEvent): [number, number] => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };

  function pinched(): typeof pinch {
    const [one, other] = [...pressed.values()] as [{ x: number; y: number }, { x: number; y: number }];
    return {
      distance: Math.max(1, Math.hypot(one.x - other.x, one.y - other.y)),
      x: (one.x + other.x) / 2,
      y: (one.y + other.y) / 2,
    };
  }

  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    const [x, y] = pointOf(event);
    pressed.set(event.pointerId, { x, y });
    if (pressed.size >= 2) {
      if (action === "brush") target.brush?.cancel();
      else if (action !== "none") takeBack();
      [action, moved, pinch] = ["none", true, pinched()];
      return;
    }
    [start, moved, travelled, takeBack] = [[x, y], false, 0, target.remember(pane)];
    if (event.button !== 0 || event.shiftKey) action = "pan";
    else action = target.brush ? "brush" : target.tool;
    if (action === "brush") target.brush?.stroke(pane, x, y);
  });

  canvas.addEventListener("pointermove", (event) => {
    const [x, y] = pointOf(event);
    target.hover(pane, [x, y]);
    const before = pressed.get(event.pointerId);
    if (!before) return;
    pressed.set(event.pointerId, { x, y });
    if (pressed.size >= 2) {
      const now = pinched();
      target.zoomAt(pane, now.distance / pinch.distance, pinch.x, pinch.y);
      target.pan(pane, now.x - pinch.x, now.y - pinch.y);
      pinch = now;
      return;
    }
    if (action === "brush") return target.brush?.stroke(pane, x, y);
    if (!moved && Math.hypot(x - start[0], y - start[1]) < CLICK_PX) return;
    moved = true;
    drag(x, y, x - before.x, y - before.y);
  });

  function drag(x: number, y: number, dx: number, dy: number): void {
    if (action === "pan") target.pan(pane, dx, dy);
    else if (action === "window") target.dragWindow(dx, dy);
    else if (action === "ruler") target.measure(pane, start, [x, y], false);
    else if (action === "scroll") {
      travelled += dy;
      const slices = Math.trunc(travelled / TOUCH_STEP_PX);
      travelled -= slices * TOUCH_STEP_PX;
      if (slices) target.scroll(pane, -slices);
    }
  }

  for (const end of ["pointerup", "pointercancel"] as const) {
    canvas.addEventListener(end, (event) => {
      if (!pressed.delete(event.pointerId)) return;
      const [x, y] = pointOf(event);
      if (action === "brush") target.brush?.lift();
      else if (action === "ruler" && moved) target.measure(pane, start, [x, y], true);
      else if (!moved && event.button === 0 && action !== "none") target.click(pane, x, y);
      if (pressed.size === 0) action = "none";
      else if (pressed.size >= 2) pinch = pinched(); // of the fingers that are left
    });
  }
  canvas.addEventListener("pointerleave", () => target.hover(pane, null));
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("dblclick", () => target.doubleClick(pane));
  handleWheel(pane, target, pointOf);
}

/** One slice for a notch of a wheel; the small steps of a trackpad are added up until they make one. */
function handleWheel(pane: Pane, target: Target, pointOf: (event: MouseEvent) => [number, number]): void {
  let sum = 0;
  let last = 0;
  pane.canvas.addEventListener(
    "wheel",
    (event) => {
      event.preventDefault();
      const delta = event.deltaY * (event.deltaMode === WheelEvent.DOM_DELTA_LINE ? LINE_PX : 1);
      if (event.ctrlKey) return target.zoomAt(pane, ZOOM_PER_PX ** -delta, ...pointOf(event));
      if (event.timeStamp - last > WHEEL_REST_MS || Math.sign(delta) !== Math.sign(sum)) sum = 0;
      last = event.timeStamp;
      sum += delta;
      const isNotch = Math.abs(delta) >= WHEEL_STEP_PX;
      const slices = isNotch ? Math.sign(delta) : Math.trunc(sum / WHEEL_STEP_PX);
      if (!slices) return;
      sum = isNotch ? 0 : sum - slices * WHEEL_STEP_PX;
      target.scroll(pane, -slices);
    },
    { passive: false },
  );
}

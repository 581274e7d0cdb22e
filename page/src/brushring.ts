/** The ring that shows place and size of the brush on a pane. */

import { h } from "./dom";
import type { Pane } from "./pane";

const LEAST_RADIUS_PX = 3;

export class BrushRing {
  private readonly element = h("div", { class: "brush-ring", hidden: true });

  /** Show the ring around a point of a pane, in CSS pixels; null hides it. */
  show(pane: Pane, point: [number, number] | null, diameter_mm: number): void {
    this.element.hidden = point === null;
    if (point === null) return;
    if (this.element.parentElement !== pane.element) pane.element.append(this.element);
    const radius = Math.max(LEAST_RADIUS_PX, (diameter_mm * pane.pixelsPerMm) / 2);
    this.element.style.width = this.element.style.height = `${2 * radius}px`;
    this.element.style.transform = `translate(${point[0] - radius}px, ${point[1] - radius}px)`;
  }

  remove(): void {
    this.element.remove();
  }
}

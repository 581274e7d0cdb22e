/** The 3-D view: translucent lungs and lesions by class, by WebGL2; without it a projection from the front. */

import { h } from "./dom";
import { FrontView } from "./frontview";
import { clamp } from "./grid";
import type { Scene } from "./scene";
import { sidesAt, Solid } from "./solid";

const TURN_DEGREES_PER_S = 24;
const BUILD_AFTER_MS = 60;
const REBUILD_AFTER_MS = 400; // while the mask is being drawn
const TURN_HINT = "Drag to turn, wheel to zoom.";
const START = { azimuth: 25, elevation: 8, zoom: 1 };
const ZOOM_RANGE = [0.5, 8] as const;
const ZOOM_PER_PX = 1.0015;
const LINE_PX = 20; // of wheels that count in lines

export class Rendering {
  readonly canvas = h("canvas", {
    role: "application",
    tabindex: 0,
    "aria-label": "Lungs and lesions in three dimensions; arrow keys turn them, plus and minus zoom",
  });
  readonly element: HTMLElement;
  private readonly foot = h("p", { class: "hud bottom-left" });
  private readonly sides = ["left", "right"].map((edge) => h("p", { class: `hud side-letter at-${edge}`, "aria-hidden": "true" }));
  private building = 0;
  /** The surfaces; null without WebGL2. */
  private readonly solid: Solid | null;
  private readonly front = new FrontView();
  private scene: Scene | null = null;
  private built = "";
  private view = { ...START };
  /** Called when a double click asks for this view alone, or for all. */
  doubleClicked: () => void = () => {};
  private turning = 0;
  private readonly turnButton = h("button", { type: "button", "aria-pressed": "false", click: () => this.toggleTurning() }, "Turn");

  constructor() {
    const gl = this.canvas.getContext("webgl2", { antialias: true, alpha: false, preserveDrawingBuffer: true });
    this.solid = gl && new Solid(gl);
    this.foot.textContent = gl ? TURN_HINT : "Seen from the front: this browser has no WebGL2, which turning needs.";
    this.element = h(
      "div",
      { class: "pane", "data-plane": "3d" },
      this.canvas,
      this.foot,
      ...this.sides,
      gl ? h("div", { class: "pane-buttons" }, this.turnButton) : null,
    );
    this.handlePointers();
    this.canvas.addEventListener("webglcontextlost", (event) => {
      event.preventDefault(); // so that it is given back, as after the sleep of a computer
      this.solid?.lost();
      this.built = "";
    });
    this.canvas.addEventListener("webglcontextrestored", () => this.draw());
  }

  /** One pointer turns the view, two zoom it, and so does a wheel. */
  private handlePointers(): void {
    const { canvas } = this;
    const pressed = new Map<number, [number, number]>();
    const spread = (): number => {
      const [one, other] = [...pressed.values()];
      return one && other ? Math.max(1, Math.hypot(one[0] - other[0], one[1] - other[1])) : 0;
    };
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      pressed.set(event.pointerId, [event.clientX, event.clientY]);
    });
    canvas.addEventListener("pointermove", (event) => {
      const from = pressed.get(event.pointerId);
      if (!from) return;
      const before = spread();
      pressed.set(event.pointerId, [event.clientX, event.clientY]);
      if (before) this.zoomBy(spread() / before);
      else this.rotate((event.clientX - from[0]) * 0.5, (event.clientY - from[1]) * 0.5);
    });
    for (const end of ["pointerup", "pointercancel"] as const) canvas.addEventListener(end, (event) => pressed.delete(event.pointerId));
    canvas.addEventListener("dblclick", () => this.doubleClicked());
    const wheel = (event: WheelEvent): void => {
      event.preventDefault();
      this.zoomBy(ZOOM_PER_PX ** (-event.deltaY * (event.deltaMode === WheelEvent.DOM_DELTA_LINE ? LINE_PX : 1)));
    };
    canvas.addEventListener("wheel", wheel, { passive: false });
  }

  show(scene: Scene | null): void {
    this.scene = scene;
    this.built = "";
    this.view = { ...START };
    this.front.forget();
    this.stopTurning();
  }

  rotate(azimuth: number, elevation: number): void {
    this.view.azimuth += azimuth;
    this.view.elevation = clamp(this.view.elevation + elevation, -90, 90);
    this.draw();
  }

  zoomBy(factor: number): void {
    this.view.zoom = clamp(this.view.zoom * factor, ...ZOOM_RANGE);
    this.draw();
  }

  /** Show the whole lungs again. */
  fit(): void {
    this.view.zoom = START.zoom;
    this.draw();
  }

  stopTurning(): void {
    cancelAnimationFrame(this.turning);
    this.turning = 0;
    this.turnButton.setAttribute("aria-pressed", "false");
  }

  private toggleTurning(): void {
    if (this.turning) return this.stopTurning();
    this.turnButton.setAttribute("aria-pressed", "true");
    let last = performance.now();
    const step = (now: number): void => {
      this.turning = requestAnimationFrame(step);
      this.rotate(((now - last) / 1000) * TURN_DEGREES_PER_S, 0);
      last = now;
    };
    this.turning = requestAnimationFrame(step);
  }

  draw(): void {
    const { scene, canvas } = this;
    if (!scene || canvas.clientWidth === 0) return this.stopTurning();
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [Math.round(canvas.clientWidth * ratio), Math.round(canvas.clientHeight * ratio)];
    if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
    this.nameSides(scene);
    if (!this.solid) return this.front.draw(canvas, scene, this.view.zoom);
    const key = String(scene.maskVersion);
    if (key === this.built) return this.solid.render(this.view, scene.lesion.visible);
    this.foot.textContent = "Building the surfaces …";
    clearTimeout(this.building);
    this.building = window.setTimeout(() => this.build(scene, key), this.built ? REBUILD_AFTER_MS : BUILD_AFTER_MS);
  }

  /** Write at the edges which side of the patient lies there, as on the planes. */
  private nameSides(scene: Scene): void {
    const letters = sidesAt(this.solid ? this.view.azimuth : 0);
    this.sides.forEach((side, i) => (side.textContent = scene.hasDirections ? letters[i]! : ""));
  }

  /** Build the surfaces of the masks as they are, once the page has drawn what else has changed. */
  private build(scene: Scene, key: string): void {
    if (scene !== this.scene || this.solid?.isLost) return;
    this.solid?.build(scene);
    this.built = key;
    this.foot.textContent = TURN_HINT;
    this.draw();
  }
}

/** The 3-D view: translucent lungs and lesions by class, by WebGL2; without it a projection from the front. */

import { LUNG, type Rgb } from "./colours";
import { h } from "./dom";
import { clamp } from "./grid";
import type { Scene } from "./scene";
import { type Surface, surfacesOf } from "./surface";

const LUNG_CELL_MM = 3;
const LESION_CELL_MM = 1.5;
const LESION_LEVEL = 0.3; // below a half, so that small lesions stay visible
const TURN_DEGREES_PER_S = 24;
const BUILD_AFTER_MS = 60;
const REBUILD_AFTER_MS = 400; // while the mask is being drawn
const TURN_HINT = "Drag to turn, wheel to zoom.";
const START = { azimuth: 25, elevation: 8, zoom: 1 };
const ZOOM_RANGE = [0.5, 8] as const;
const ZOOM_PER_PX = 1.0015;
const LINE_PX = 20; // of wheels that count in lines

const VERTEX = `#version 300 es
in vec3 position; in vec3 normal; uniform mat3 turn; uniform vec3 scale; uniform vec3 middle;
out vec3 facing;
void main() {
  vec3 at = turn * (position - middle);
  facing = turn * normal;
  gl_Position = vec4(at.x * scale.x, at.z * scale.y, at.y * scale.z, 1.0);
}`;
const FRAGMENT = `#version 300 es
precision highp float;
in vec3 facing; uniform vec3 colour; uniform int look; out vec4 pixel;
void main() {
  vec3 n = normalize(facing);
  float ahead = abs(n.y);
  float light = 0.35 + 0.65 * max(0.0, dot(n, normalize(vec3(-0.45, -0.75, 0.5))));
  if (look == 2) {
    float opacity = 0.045 + 0.4 * pow(1.0 - ahead, 2.5);
    pixel = vec4(colour * opacity * (0.6 + 0.4 * light), opacity * 0.55);
  } else if (look == 1) {
    float opacity = 0.55 + 0.4 * pow(1.0 - ahead, 1.5);
    pixel = vec4(colour * min(1.0, 1.25 * light) * opacity, opacity);
  } else {
    pixel = vec4(colour * light + 0.25 * pow(max(0.0, -n.y), 24.0), 1.0);
  }
}`;

/** How a surface is drawn, in this order: solid, so that what it encloses is seen through it, or as a faint shell. */
enum Look {
  Solid,
  Veil,
  Shell,
}

interface Mesh {
  vertices: WebGLVertexArrayObject;
  count: number;
  colour: Rgb;
  look: Look;
}

export class Rendering {
  readonly canvas = h("canvas", {
    role: "application",
    tabindex: 0,
    "aria-label": "Lungs and lesions in three dimensions; arrow keys turn them, plus and minus zoom",
  });
  readonly element: HTMLElement;
  private readonly foot = h("p", { class: "hud bottom-left" });
  private building = 0;
  private readonly gl: WebGL2RenderingContext | null;
  private program: WebGLProgram | null = null;
  private meshes: Mesh[] = [];
  private scene: Scene | null = null;
  private built = "";
  private extent = { middle: [0, 0, 0], radius: 1 };
  private azimuth = START.azimuth;
  private elevation = START.elevation;
  private scale = START.zoom;
  /** Called when a double click asks for this view alone, or for all. */
  doubleClicked: () => void = () => {};
  private turning = 0;
  private readonly turnButton = h("button", { type: "button", "aria-pressed": "false", click: () => this.toggleTurning() }, "Turn");

  constructor() {
    this.gl = this.canvas.getContext("webgl2", { antialias: true, alpha: false, preserveDrawingBuffer: true });
    this.foot.textContent = this.gl ? TURN_HINT : "Seen from the front: this browser has no WebGL2, which turning needs.";
    this.element = h(
      "div",
      { class: "pane", "data-plane": "3d" },
      this.canvas,
      this.foot,
      this.gl ? h("div", { class: "pane-buttons" }, this.turnButton) : null,
    );
    this.handlePointers();
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
    [this.azimuth, this.elevation, this.scale] = [START.azimuth, START.elevation, START.zoom];
    this.stopTurning();
  }

  rotate(azimuth: number, elevation: number): void {
    this.azimuth += azimuth;
    this.elevation = Math.min(90, Math.max(-90, this.elevation + elevation));
    this.draw();
  }

  zoomBy(factor: number): void {
    this.scale = clamp(this.scale * factor, ...ZOOM_RANGE);
    this.draw();
  }

  /** Show the whole lungs again. */
  fit(): void {
    this.scale = START.zoom;
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
    if (!this.gl) return drawFromFront(canvas, scene);
    const key = String(scene.maskVersion);
    if (key === this.built) return this.render(this.gl);
    this.foot.textContent = "Building the surfaces …";
    clearTimeout(this.building);
    this.building = window.setTimeout(() => this.build(this.gl!, scene, key), this.built ? REBUILD_AFTER_MS : BUILD_AFTER_MS);
  }

  /** Build the surfaces of the masks as they are, once the page has drawn what else has changed. */
  private build(gl: WebGL2RenderingContext, scene: Scene, key: string): void {
    if (scene !== this.scene) return;
    this.program ??= makeProgram(gl);
    for (const { vertices } of this.meshes) gl.deleteVertexArray(vertices);
    const { mask, lungs, grid, colours } = scene;
    const lesions = surfacesOf(mask.voxels, grid, colours.map((_, i) => i + 1), LESION_CELL_MM, LESION_LEVEL);
    const lungSurfaces = surfacesOf(lungs.voxels, grid, [1, 2], LUNG_CELL_MM, 0.5);
    this.extent = extentOf([...lesions, ...lungSurfaces]);
    const isVeil = (i: number): boolean => i === 0 && lesions.slice(1).some((other) => other.triangles.length > 0);
    this.meshes = [
      ...lesions.map((surface, i) => makeMesh(gl, this.program!, surface, colours[i]!, isVeil(i) ? Look.Veil : Look.Solid)),
      ...lungSurfaces.map((surface) => makeMesh(gl, this.program!, surface, LUNG, Look.Shell)),
    ].filter(({ count }) => count > 0);
    this.built = key;
    this.foot.textContent = TURN_HINT;
    this.draw();
  }

  private render(gl: WebGL2RenderingContext): void {
    const program = this.program!;
    const { middle, radius } = this.extent;
    const [width, height] = [this.canvas.width, this.canvas.height];
    const fit = (0.96 * this.scale * Math.min(width, height)) / radius;
    gl.viewport(0, 0, width, height);
    gl.clearColor(0.03, 0.035, 0.045, 1);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.enable(gl.DEPTH_TEST);
    gl.useProgram(program);
    gl.uniformMatrix3fv(gl.getUniformLocation(program, "turn"), false, turnMatrix(this.azimuth, this.elevation));
    gl.uniform3f(gl.getUniformLocation(program, "scale"), fit / width, fit / height, 0.9 / radius);
    gl.uniform3f(gl.getUniformLocation(program, "middle"), middle[0]!, middle[1]!, middle[2]!);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    gl.depthFunc(gl.LEQUAL);
    for (const look of [Look.Solid, Look.Veil, Look.Shell]) {
      if (look !== Look.Shell && !this.scene?.lesion.visible) continue;
      const meshes = this.meshes.filter((mesh) => mesh.look === look);
      gl.uniform1i(gl.getUniformLocation(program, "look"), look);
      if (look === Look.Veil) {
        // Only the foremost layer of a veil is drawn: its depth comes first.
        gl.colorMask(false, false, false, false);
        meshes.forEach((mesh) => this.drawMesh(gl, mesh));
        gl.colorMask(true, true, true, true);
      }
      gl.depthMask(look === Look.Solid);
      meshes.forEach((mesh) => this.drawMesh(gl, mesh));
      gl.depthMask(true);
    }
  }

  private drawMesh(gl: WebGL2RenderingContext, { colour, vertices, count }: Mesh): void {
    gl.uniform3fv(gl.getUniformLocation(this.program!, "colour"), colour.map((n) => n / 255));
    gl.bindVertexArray(vertices);
    gl.drawElements(gl.TRIANGLES, count, gl.UNSIGNED_INT, 0);
  }
}

/** The middle of the box around surfaces, and the radius of the sphere around that middle. */
function extentOf(surfaces: Surface[]): { middle: number[]; radius: number } {
  const [low, high] = [[Infinity, Infinity, Infinity], [-Infinity, -Infinity, -Infinity]];
  for (const { positions } of surfaces) {
    for (let i = 0; i < positions.length; i++) {
      low[i % 3] = Math.min(low[i % 3]!, positions[i]!);
      high[i % 3] = Math.max(high[i % 3]!, positions[i]!);
    }
  }
  if (low[0] === Infinity) return { middle: [0, 0, 0], radius: 1 };
  const middle = low.map((n, axis) => (n + high[axis]!) / 2);
  let radius = 1;
  for (const { positions } of surfaces) {
    for (let i = 0; i < positions.length; i += 3) {
      radius = Math.max(radius, Math.hypot(...middle.map((n, axis) => positions[i + axis]! - n)));
    }
  }
  return { middle, radius };
}

/** Column by column: turned about the axis through the head, then tilted. */
function turnMatrix(azimuth: number, elevation: number): Float32Array {
  const [a, e] = [azimuth, elevation].map((degrees) => (degrees * Math.PI) / 180) as [number, number];
  const [ca, sa, ce, se] = [Math.cos(a), Math.sin(a), Math.cos(e), Math.sin(e)];
  return Float32Array.of(ca, sa * ce, sa * se, -sa, ca * ce, ca * se, 0, -se, ce);
}

function makeProgram(gl: WebGL2RenderingContext): WebGLProgram {
  const program = gl.createProgram();
  for (const [type, source] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]] as const) {
    const shader = gl.createShader(type)!;
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(program) ?? "no program");
  return program;
}

function makeMesh(gl: WebGL2RenderingContext, program: WebGLProgram, surface: Surface, colour: Rgb, look: Look): Mesh {
  const vertices = gl.createVertexArray();
  gl.bindVertexArray(vertices);
  for (const [name, numbers] of [["position", surface.positions], ["normal", surface.normals]] as const) {
    gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ARRAY_BUFFER, numbers, gl.STATIC_DRAW);
    const place = gl.getAttribLocation(program, name);
    gl.enableVertexAttribArray(place);
    gl.vertexAttribPointer(place, 3, gl.FLOAT, false, 0, 0);
  }
  gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer());
  gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, surface.triangles, gl.STATIC_DRAW);
  return { vertices, count: surface.triangles.length, colour, look };
}

/** Draw lungs and lesions from the front, brighter where they are deeper. */
function drawFromFront(canvas: HTMLCanvasElement, scene: Scene): void {
  const [nx, ny, nz] = scene.grid.dims;
  const [dx, dy, dz] = scene.grid.spacing_mm;
  const image = new ImageData(nx, nz);
  const sums = new Uint16Array(nx * (1 + scene.colours.length));
  for (let z = 0; z < nz; z++) {
    sums.fill(0);
    for (let i = nx * ny * z, y = 0; y < ny; y++) {
      for (let x = 0; x < nx; x++, i++) {
        if (scene.lungs.voxels[i]) sums[x]!++;
        if (scene.mask.voxels[i]) sums[nx * scene.mask.voxels[i]! + x]!++;
      }
    }
    for (let x = 0; x < nx; x++) {
      const rgb = LUNG.map((n) => (n * 0.45 * Math.min(160, sums[x]! * dy)) / 160);
      scene.colours.forEach((colour, i) => {
        const share = Math.min(1, (sums[nx * (i + 1) + x]! * dy) / 25);
        colour.forEach((n, channel) => (rgb[channel] = rgb[channel]! * (1 - share) + n * share));
      });
      image.data.set([...rgb, 255], 4 * ((nz - 1 - z) * nx + x));
    }
  }
  const drawn = document.createElement("canvas");
  [drawn.width, drawn.height] = [nx, nz];
  drawn.getContext("2d")!.putImageData(image, 0, 0);
  const context = canvas.getContext("2d")!;
  const scale = 0.94 * Math.min(canvas.width / (nx * dx), canvas.height / (nz * dz));
  const [width, height] = [nx * dx * scale, nz * dz * scale];
  context.fillStyle = "#000";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(drawn, (canvas.width - width) / 2, (canvas.height - height) / 2, width, height);
}

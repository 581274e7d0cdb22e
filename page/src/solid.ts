/** Surfaces of lungs and lesions, drawn by WebGL2. */

import { LUNG, type Rgb } from "./colours";
import type { Scene } from "./scene";
import { type Surface, surfacesOf } from "./surface";

const LUNG_CELL_MM = 3;
const LESION_CELL_MM = 1.5;
const LESION_LEVEL = 0.3; // below a half, so that small lesions stay visible

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

/** From where the surfaces are seen: degrees about the axis through the head, degrees from above, and how near. */
export interface ViewPoint {
  azimuth: number;
  elevation: number;
  zoom: number;
}

export class Solid {
  private program: WebGLProgram | null = null;
  private meshes: Mesh[] = [];
  private extent = { middle: [0, 0, 0], radius: 1 };

  constructor(private readonly gl: WebGL2RenderingContext) {}

  get isLost(): boolean {
    return this.gl.isContextLost();
  }

  /** Forget what the graphics card held, which it has lost. */
  lost(): void {
    this.program = null;
    this.meshes = [];
  }

  /** Build the surfaces of the masks of a scan as they are now. */
  build({ mask, lungs, grid, colours }: Scene): void {
    const { gl } = this;
    this.program ??= makeProgram(gl);
    for (const { vertices } of this.meshes) gl.deleteVertexArray(vertices);
    const lesions = surfacesOf(mask.voxels, grid, colours.map((_, i) => i + 1), LESION_CELL_MM, LESION_LEVEL);
    const lungSurfaces = surfacesOf(lungs.voxels, grid, [1, 2], LUNG_CELL_MM, 0.5);
    this.extent = extentOf([...lesions, ...lungSurfaces]);
    const isVeil = (i: number): boolean => i === 0 && lesions.slice(1).some((other) => other.triangles.length > 0);
    this.meshes = [
      ...lesions.map((surface, i) => makeMesh(gl, this.program!, surface, colours[i]!, isVeil(i) ? Look.Veil : Look.Solid)),
      ...lungSurfaces.map((surface) => makeMesh(gl, this.program!, surface, LUNG, Look.Shell)),
    ].filter(({ count }) => count > 0);
  }

  /** Draw the surfaces; the lungs alone without `lesions`. */
  render({ azimuth, elevation, zoom }: ViewPoint, lesions: boolean): void {
    const { gl, program } = this;
    if (!program) return;
    const { middle, radius } = this.extent;
    const [width, height] = [gl.drawingBufferWidth, gl.drawingBufferHeight];
    const fit = (0.96 * zoom * Math.min(width, height)) / radius;
    gl.viewport(0, 0, width, height);
    gl.clearColor(0.03, 0.035, 0.045, 1);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.enable(gl.DEPTH_TEST);
    gl.useProgram(program);
    gl.uniformMatrix3fv(gl.getUniformLocation(program, "turn"), false, turnMatrix(azimuth, elevation));
    gl.uniform3f(gl.getUniformLocation(program, "scale"), fit / width, fit / height, 0.9 / radius);
    gl.uniform3f(gl.getUniformLocation(program, "middle"), middle[0]!, middle[1]!, middle[2]!);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
    gl.depthFunc(gl.LEQUAL);
    for (const look of [Look.Solid, Look.Veil, Look.Shell]) {
      if (look !== Look.Shell && !lesions) continue;
      const meshes = this.meshes.filter((mesh) => mesh.look === look);
      gl.uniform1i(gl.getUniformLocation(program, "look"), look);
      if (look === Look.Veil) {
        // Only the foremost layer of a veil is drawn: its depth comes first.
        gl.colorMask(false, false, false, false);
        meshes.forEach((mesh) => this.drawMesh(mesh));
        gl.colorMask(true, true, true, true);
      }
      gl.depthMask(look === Look.Solid);
      meshes.forEach((mesh) => this.drawMesh(mesh));
      gl.depthMask(true);
    }
  }

  private drawMesh({ colour, vertices, count }: Mesh): void {
    const { gl } = this;
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

/** Seen from the front, and after each quarter of a turn. */
const SIDES: [string, string][] = [["R", "L"], ["P", "A"], ["L", "R"], ["A", "P"]];

/** The sides of the patient at the left and at the right edge of the view, by their letters. */
export function sidesAt(azimuth: number): [string, string] {
  const quarter = ((Math.round(azimuth / 90) % 4) + 4) % 4;
  return SIDES[quarter]!;
}

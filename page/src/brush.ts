/** A round brush on a grid of voxels, with strokes that can be undone. */

export type Voxel = [number, number, number];

export interface Grid {
  /** Voxels along x, y, z; x is the fastest. */
  dims: Voxel;
  spacing_mm: Voxel;
}

interface Stroke {
  indices: number[];
  before: number[];
}

/** Paints into `voxels` in place; what is painted between two calls of `lift` is one stroke. */
export class Brush {
  private readonly strokes: Stroke[] = [];
  private stroke: Stroke | null = null;
  private last: Voxel | null = null;

  constructor(
    private readonly voxels: Uint8Array,
    private readonly grid: Grid,
  ) {}

  get strokeCount(): number {
    return this.strokes.length;
  }

  /** Start or continue a stroke: paint everything within the brush on its way from the last voxel to this one.
   *
   * @param to Voxel that the brush has reached.
   * @param normal Axis across the slice that is painted: 0, 1 or 2. The brush never leaves the slice.
   * @returns The first and the last slice along z that may have changed.
   */
  paint(to: Voxel, normal: number, diameter_mm: number, erase: boolean): [number, number] {
    this.stroke ??= { indices: [], before: [] };
    const from = this.last && this.last[normal] === to[normal] ? this.last : to;
    this.last = to;
    const [u, v] = [0, 1, 2].filter((axis) => axis !== normal) as [number, number];
    const { dims, spacing_mm } = this.grid;
    const low = (axis: number): number =>
      Math.max(0, Math.ceil(Math.min(from[axis]!, to[axis]!) - diameter_mm / 2 / spacing_mm[axis]!));
    const high = (axis: number): number =>
      Math.min(dims[axis]! - 1, Math.floor(Math.max(from[axis]!, to[axis]!) + diameter_mm / 2 / spacing_mm[axis]!));
    const voxel: Voxel = [...to];
    for (voxel[v] = low(v); voxel[v]! <= high(v); voxel[v]!++) {
      for (voxel[u] = low(u); voxel[u]! <= high(u); voxel[u]!++) {
        if (this.distance_mm(voxel, from, to, u, v) <= diameter_mm / 2) this.set(voxel, erase);
      }
    }
    this.set(to, erase); // a brush smaller than a voxel still paints one
    return normal === 2 ? [to[2], to[2]] : [Math.min(low(2), to[2]), Math.max(high(2), to[2])];
  }

  /** End the stroke; returns whether it changed anything. */
  lift(): boolean {
    const changed = this.stroke !== null && this.stroke.indices.length > 0;
    if (changed) this.strokes.push(this.stroke as Stroke);
    this.stroke = this.last = null;
    return changed;
  }

  /** Undo the last stroke; returns the first and the last slice along z that it changed, or null if there is none. */
  undo(): [number, number] | null {
    const stroke = this.strokes.pop();
    if (!stroke) return null;
    const area = this.grid.dims[0] * this.grid.dims[1];
    let [first, last] = [Infinity, -Infinity];
    for (let i = 0; i < stroke.indices.length; i++) {
      const index = stroke.indices[i]!;
      this.voxels[index] = stroke.before[i]!;
      const z = Math.floor(index / area);
      [first, last] = [Math.min(first, z), Math.max(last, z)];
    }
    return [first, last];
  }

  private set(voxel: Voxel, erase: boolean): void {
    const index = voxel[0] + this.grid.dims[0] * (voxel[1] + this.grid.dims[1] * voxel[2]);
    const before = this.voxels[index]!;
    if (erase === (before === 0)) return; // nothing to erase, or already lesion of some class
    this.stroke!.indices.push(index);
    this.stroke!.before.push(before);
    this.voxels[index] = erase ? 0 : 1;
  }

  /** Distance of a voxel from the line between two others, in the plane of the axes u and v. */
  private distance_mm(voxel: Voxel, from: Voxel, to: Voxel, u: number, v: number): number {
    const mm = this.grid.spacing_mm;
    const along = [(to[u]! - from[u]!) * mm[u]!, (to[v]! - from[v]!) * mm[v]!] as const;
    const offset = [(voxel[u]! - from[u]!) * mm[u]!, (voxel[v]! - from[v]!) * mm[v]!] as const;
    const length2 = along[0] ** 2 + along[1] ** 2;
    const share = length2 === 0 ? 0 : Math.min(1, Math.max(0, (along[0] * offset[0] + along[1] * offset[1]) / length2));
    return Math.hypot(offset[0] - share * along[0], offset[1] - share * along[1]);
  }
}

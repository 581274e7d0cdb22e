/** A scan with its masks, and what is shown of it. All panes of a viewer draw from one scene. */

import { classColours, type Rgb } from "./colours";
import { distance_mm, type Grid, type Voxel } from "./grid";
import type { MaskFile, ScanFile } from "./nifti";
import { type PlaneName, PLANES, projectedAt, type Slab } from "./planes";

/** Lower and upper limit of an intensity window, in HU. */
export type WindowHu = readonly [number, number];

/** A distance that was measured in a slice, between two points in voxels. */
export interface Ruler {
  plane: PlaneName;
  slice: number;
  from: Voxel;
  to: Voxel;
}

/** Where a reader is in a scan, and how it is shown. */
export type Place = Pick<Scene, "cursor" | "window" | "zoom" | "centre">;

export class Scene {
  readonly grid: Grid;
  readonly colours: Rgb[];
  cursor: Voxel;
  window: WindowHu;
  slab: Slab = { projection: "none", thickness_mm: 10 };
  lesion = { visible: true, opacity: 0.35, contour: true };
  showLungs = false;
  showCrosshair = true;
  zoom = 1;
  /** Size along each axis that a pane shows at zoom 1: that of the scan, or of the larger one of two. */
  field_mm: Voxel;
  /** Point of the patient, in voxels, that lies in the middle of every pane; null: the middle of the slice. */
  centre: Voxel | null = null;
  rulers: Ruler[] = [];
  /** Counts the changes of the mask, so that what was drawn of it before is drawn anew. */
  maskVersion = 0;

  constructor(
    readonly scan: ScanFile,
    readonly mask: MaskFile,
    readonly lungs: MaskFile,
    readonly classes: readonly string[],
    /** Whether lengths are in mm, else in pixels. */
    readonly inMm: boolean,
    /** Whether it is known how the patient lies. */
    readonly hasDirections: boolean,
    window: WindowHu,
  ) {
    for (const { grid } of [mask, lungs]) {
      if (grid.dims.some((n, axis) => n !== scan.grid.dims[axis])) throw new Error("the mask does not fit the scan");
    }
    this.grid = scan.grid;
    this.colours = classColours(classes);
    this.field_mm = this.grid.dims.map((n, axis) => n * this.grid.spacing_mm[axis]!) as Voxel;
    this.cursor = this.grid.dims.map((n) => Math.floor(n / 2)) as Voxel;
    this.window = window;
  }

  slice(plane: PlaneName): number {
    return this.cursor[PLANES[plane].normal];
  }

  /** The HU that a plane shows at a voxel: in a slab, those of its projection. */
  hu(plane: PlaneName, at: Voxel): number {
    return projectedAt(this.scan.voxels, this.grid, plane, at, this.slab);
  }

  length(from: Voxel, to: Voxel): number {
    return distance_mm(this.grid, from, to);
  }

  get place(): Place {
    const { cursor, window, zoom, centre } = this;
    return { cursor, window, zoom, centre };
  }

  get unit(): "mm" | "px" {
    return this.inMm ? "mm" : "px";
  }
}

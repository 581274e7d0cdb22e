/** The usual intensity windows of chest CT; the lung window is the one of the report, which the server names. */

import type { WindowHu } from "./scene";

export type WindowName = "lung" | "lesion" | "mediastinum" | "bone";

export const WINDOW_NAMES: readonly [WindowName, string][] = [
  ["lung", "Lung"],
  ["lesion", "Lesion"],
  ["mediastinum", "Mediastinum"],
  ["bone", "Bone"],
];
const WINDOWS_HU: Record<Exclude<WindowName, "lung">, WindowHu> = {
  lesion: [-1000, 100],
  mediastinum: [-160, 240],
  bone: [-700, 1300],
};

export function windowLimits(name: WindowName, lungWindow: WindowHu): WindowHu {
  return name === "lung" ? lungWindow : WINDOWS_HU[name];
}

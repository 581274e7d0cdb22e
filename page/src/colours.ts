/** Colours of the classes of lesions, as in the preview and the DICOM Segmentation, and of the lungs. */

export type Rgb = readonly [number, number, number];

const BY_NAME: Record<string, Rgb> = {
  lesion: [255, 110, 30],
  "ground-glass": [255, 122, 48],
  consolidation: [232, 62, 86],
  effusion: [90, 110, 230],
};
const OTHERS: Rgb[] = [
  [255, 215, 60],
  [150, 220, 90],
  [200, 130, 255],
];
export const LUNG: Rgb = [95, 195, 207];

/** Colour of each value of the mask, from 1, by the names of the classes. */
export function classColours(classes: readonly string[]): Rgb[] {
  return classes.map((name, i) => BY_NAME[name] ?? OTHERS[i % OTHERS.length]!);
}

export const css = ([red, green, blue]: Rgb, opacity = 1): string => `rgb(${red} ${green} ${blue} / ${opacity})`;

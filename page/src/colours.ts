/** Colours of the classes of lesions and of the lungs, those of src/groundglass/report/colours.py. */

export type Rgb = readonly [number, number, number];

const BY_NAME: Record<string, Rgb> = {
  lesion: [255, 150, 50],
  "ground-glass": [255, 150, 50],
  consolidation: [230, 25, 85],
  effusion: [80, 90, 235],
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

/** The numbers beside the scan: burden by lung and by zone, and what is not known. */

import type { Findings, Zone } from "./api";
import { h } from "./dom";
import { rounded, sentence, unknownBurden } from "./words";

export function burdenPanel(findings: Findings): HTMLElement {
  const share = findings.lesion_share_of_lung_percent;
  const volume = findings.lesion_volume_ml;
  const of = findings.input.kind === "pictures" ? "% of the lung’s area" : "% of the lung";
  return h(
    "section",
    { class: "panel", "aria-labelledby": "burden" },
    h("h2", { id: "burden" }, "Burden"),
    h(
      "p",
      { class: "burden" },
      h("span", { class: "figure" }, h("strong", {}, rounded(share)), " ", share === null ? "share" : of),
      h("span", { class: "figure" }, h("strong", {}, rounded(volume)), " ", volume === null ? "volume" : "ml of lesion"),
    ),
    sides(findings),
    ...unknownBurden(findings).map((reason) => h("p", { class: "note" }, sentence(reason))),
    zoneMap(findings),
  );
}

function sides(findings: Findings): HTMLElement {
  const rows = [
    ["right lung", findings.right_lung],
    ["left lung", findings.left_lung],
    ["both lungs", findings],
  ] as const;
  return h(
    "table",
    {},
    h("caption", { class: "spoken" }, "Burden by lung"),
    h("thead", {}, row("th", ["", "lesion, %", "lesion, ml", "lung, ml"])),
    h(
      "tbody",
      {},
      ...rows.map(([name, each]) =>
        row("td", [
          name,
          rounded(each.lesion_share_of_lung_percent),
          rounded(each.lesion_volume_ml),
          rounded(each.lung_volume_ml, 0),
        ]),
      ),
    ),
  );
}

function row(cell: "th" | "td", texts: string[]): HTMLElement {
  return h(
    "tr",
    {},
    ...texts.map((text, i) =>
      i === 0 && cell === "td" ? h("th", { scope: "row" }, text) : h(cell, cell === "th" ? { scope: "col" } : {}, text),
    ),
  );
}

/** Thirds of each lung where they lie: the patient's right on the left, as in the slices. */
function zoneMap(findings: Findings): HTMLElement {
  const { zones } = findings;
  if (!zones) {
    return h("p", { class: "note" }, `Zones unknown: ${findings.unknown["zones"] ?? "no reason was given"}.`);
  }
  const cell = (side: Zone["side"], third: Zone["third"]): HTMLElement => {
    const zone = zones.find((each) => each.side === side && each.third === third);
    const share = zone?.lesion_share_of_lung_percent ?? null;
    return h("td", { class: `zone shade-${shade(share)}` }, share === null ? "unknown" : `${share.toFixed(1)} %`);
  };
  return h(
    "table",
    { class: "zones" },
    h("caption", {}, "Lesion, % of each zone: thirds of each lung’s height"),
    h("thead", {}, h("tr", {}, h("td", {}), h("th", { scope: "col" }, "right"), h("th", { scope: "col" }, "left"))),
    h(
      "tbody",
      {},
      ...(["upper", "middle", "lower"] as const).map((third) =>
        h("tr", {}, h("th", { scope: "row" }, third), cell("right", third), cell("left", third)),
      ),
    ),
  );
}

/** 0 without lesion, then the quarters that the report scores by. */
function shade(share: number | null): number {
  return share === null ? 0 : [0, 25, 50, 75].filter((limit) => share > limit).length;
}

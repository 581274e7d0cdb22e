/** Controls of the page that several parts use. */

import { h } from "./dom";

/** A row of buttons of which one is chosen. */
export function choice<T extends string>(
  title: string,
  name: string,
  options: readonly [T, string, (Node | null)?][],
  chosen: (value: T) => void,
  initial: T = options[0]![0],
): HTMLFieldSetElement {
  return h(
    "fieldset",
    { class: "choice" },
    h("legend", { class: "visually-hidden" }, title),
    ...options.flatMap(([value, text, icon]) => [
      h("input", {
        type: "radio",
        name,
        id: `${name}-${value}`,
        value,
        checked: value === initial,
        change: () => chosen(value),
      }),
      h(
        "label",
        { for: `${name}-${value}`, title: text },
        icon ?? null,
        icon ? h("span", { class: "visually-hidden" }, text) : text,
      ),
    ]),
  );
}

export function checkbox(id: string, text: string, checked: boolean, change: (on: boolean) => void): HTMLLabelElement {
  return h(
    "label",
    { class: "check" },
    h("input", {
      type: "checkbox",
      id,
      checked,
      change: (event) => change((event.target as HTMLInputElement).checked),
    }),
    text,
  );
}

/** A checkbox that is drawn as a pressed or unpressed button with an icon. */
export function toggle(id: string, text: string, sign: Node, checked: boolean, change: (on: boolean) => void): HTMLLabelElement {
  const label = checkbox(id, "", checked, change);
  label.className = "toggle";
  label.title = text;
  label.append(sign, h("span", { class: "visually-hidden" }, text));
  return label;
}

/** A drop-down list with a visible or hidden label. */
export function select<T extends string>(
  id: string,
  label: string,
  options: readonly [T, string][],
  chosen: (value: T) => void,
): HTMLSelectElement {
  return h(
    "select",
    { id, "aria-label": label, title: label, change: (event) => chosen((event.target as HTMLSelectElement).value as T) },
    ...options.map(([value, text]) => h("option", { value }, text)),
  );
}

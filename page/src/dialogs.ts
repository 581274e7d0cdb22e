/** Questions that the page must ask; Escape is always "no". */

import { h } from "./dom";

export interface Question {
  title: string;
  words: string;
  /** The answers, the safe one last. */
  answers: { label: string; value: string; danger?: boolean }[];
}

/** The answer, or null where the dialog was left. */
export function question(asked: Question): Promise<string | null> {
  const dialog = h(
    "dialog",
    { "aria-labelledby": "asked", "aria-describedby": "asked-words" },
    h(
      "form",
      { method: "dialog" },
      h("h2", { id: "asked" }, asked.title),
      h("p", { id: "asked-words" }, asked.words),
      h(
        "div",
        { class: "answers" },
        ...asked.answers.map(({ label, value, danger }) =>
          h("button", { value, class: danger ? "danger" : "" }, label),
        ),
      ),
    ),
  );
  document.body.append(dialog);
  dialog.showModal();
  (dialog.querySelector("button:last-of-type") as HTMLElement).focus();
  return new Promise((answer) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      answer(dialog.returnValue || null);
    });
  });
}

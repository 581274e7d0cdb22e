/** Questions to the user; Escape chooses none of the answers. */

import { h } from "./dom";

export interface Question {
  title: string;
  text: string;
  /** The safe answer comes last. */
  answers: { label: string; value: string; danger?: boolean }[];
}

/** Ask a question; the value of the chosen answer, or null where the dialog was closed without one. */
export function question({ title, text, answers }: Question): Promise<string | null> {
  const dialog = h(
    "dialog",
    { "aria-labelledby": "question-title", "aria-describedby": "question-text" },
    h(
      "form",
      { method: "dialog" },
      h("h2", { id: "question-title" }, title),
      h("p", { id: "question-text" }, text),
      h(
        "div",
        { class: "answers" },
        ...answers.map(({ label, value, danger }) =>
          h("button", { value, class: danger ? "danger" : "" }, label),
        ),
      ),
    ),
  );
  document.body.append(dialog);
  dialog.showModal();
  (dialog.querySelector("button:last-of-type") as HTMLElement).focus();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue || null);
    });
  });
}

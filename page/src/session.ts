/** Signing in: the token is sent to the server once, which returns a cookie that scripts cannot read. */

import { api, signIn } from "./api";
import { h } from "./dom";
import { errorText } from "./format";

/** Ask for the token until the server accepts it. */
function askForToken(): Promise<void> {
  const message = h("p", { class: "refused", role: "alert" });
  const token = h("input", {
    type: "password",
    id: "token",
    autocomplete: "current-password",
    required: true,
    spellcheck: "false",
  });
  const form = h(
    "form",
    {},
    h("h2", { id: "sign-in" }, "Sign in"),
    h("p", {}, "This server needs a token. Ask the person who runs it."),
    h("label", { for: "token" }, "Token"),
    token,
    message,
    h("div", { class: "answers" }, h("button", { class: "primary" }, "Sign in")),
  );
  const dialog = h("dialog", { "aria-labelledby": "sign-in", class: "sign-in" }, form);
  dialog.addEventListener("cancel", (event) => event.preventDefault());
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => {
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      api.signIn(token.value).then(
        () => {
          dialog.close();
          dialog.remove();
          resolve();
        },
        (error: unknown) => {
          message.textContent = errorText(error);
          token.select();
        },
      );
    });
  });
}

/**
 * Sign in if the server needs it; `signedIn` is called then, and again after each later sign-in. `mayLeave` is asked
 * before a sign-out.
 */
export async function openSession(signedIn: () => void, mayLeave: () => Promise<boolean>): Promise<void> {
  const session = await api.session();
  let asking: Promise<void> | null = null;
  signIn.required = () => {
    asking ??= askForToken().then(() => {
      asking = null;
      showSignOut(mayLeave);
      signedIn();
    });
  };
  if (session.needs_token && !session.signed_in) return signIn.required();
  if (session.needs_token) showSignOut(mayLeave);
  signedIn();
}

function showSignOut(mayLeave: () => Promise<boolean>): void {
  const button = document.getElementById("sign-out") as HTMLButtonElement;
  button.hidden = false;
  button.onclick = async () => {
    if (!(await mayLeave())) return;
    await api.signOut();
    location.reload();
  };
}

/** Signing in: the token goes to the server once, which answers with a cookie that scripts cannot read. */

import { api, Refusal, signIn } from "./api";
import { h } from "./dom";
import { sentence } from "./words";

let open: Promise<void> | null = null;

/** Ask for the token until it is the right one. */
function askForToken(): Promise<void> {
  const told = h("p", { class: "refused", role: "alert" });
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
    h("p", {}, "This groundglass is open to the network. Whoever started it has the token."),
    h("label", { for: "token" }, "Token"),
    token,
    told,
    h("div", { class: "answers" }, h("button", { class: "primary" }, "Sign in")),
  );
  const dialog = h("dialog", { "aria-labelledby": "sign-in", class: "sign-in" }, form);
  dialog.addEventListener("cancel", (event) => event.preventDefault());
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((done) => {
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      api.signIn(token.value).then(
        () => {
          dialog.close();
          dialog.remove();
          done();
        },
        (error: unknown) => {
          told.textContent = error instanceof Refusal ? sentence(error.message) : String(error);
          token.select();
        },
      );
    });
  });
}

/** Sign in where the server wants it; `entered` runs then, and again after each later sign-in. */
export async function enter(entered: () => void): Promise<void> {
  signIn.needed = () => {
    open ??= askForToken().then(() => {
      open = null;
      showSignOut();
      entered();
    });
  };
  const session = await api.session();
  if (session.needs_token && !session.signed_in) return signIn.needed();
  if (session.needs_token) showSignOut();
  entered();
}

function showSignOut(): void {
  const button = document.getElementById("sign-out") as HTMLButtonElement;
  button.hidden = false;
  button.onclick = () => void api.signOut().then(() => location.reload());
}

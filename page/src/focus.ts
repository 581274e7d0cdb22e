/** Keys go on where a change of the page took the element that had the focus with it. */

/** Give the focus to the main part whenever the element that had it is gone, and nothing else has taken it. */
export function keepFocus(main: HTMLElement): void {
  let focused: Element | null = null;
  addEventListener("focusin", (event) => (focused = event.target as Element));
  new MutationObserver(() => {
    if (focused === null || focused.isConnected) return;
    focused = null;
    if (document.activeElement === document.body) main.focus({ preventScroll: true });
  }).observe(document.body, { childList: true, subtree: true });
}

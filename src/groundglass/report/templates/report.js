"use strict";
// The slice viewer: an image with a contour over it; slider, wheel, keys, bars of the profile and lesions choose the slice.
(() => {
  const element = (name) => document.getElementById(name);
  const slices = JSON.parse(element("slices").textContent);
  document.documentElement.classList.add("js");
  element("copy").addEventListener("click", async () => {
    const range = document.createRange();
    range.selectNodeContents(element("sentence"));
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    const copied = await navigator.clipboard?.writeText(range.toString()).then(() => true, () => false);
    element("copy").textContent = copied || document.execCommand("copy") ? "Copied" : "Selected";
  });
  if (!slices.length) return;
  const [stage, image, contour, slider, caption, shown] =
    ["stage", "slice", "contour", "slider", "words", "shown"].map(element);
  const marker = element("here");
  const middle = Math.floor(slices.length / 2); // shown first where there is no lesion
  const mostLesion = slices.reduce((best, slice, i) => (slice.lesion > slices[best].lesion ? i : best), middle);
  const pixelsForSlice = 50; // a notch of a wheel is about 100, a touch pad sends many small steps
  let current = mostLesion;
  let turned = 0;

  function show(index) {
    current = Math.min(slices.length - 1, Math.max(0, index));
    const slice = slices[current];
    image.src = slice.image;
    image.alt = slice.words;
    contour.hidden = !shown.checked || !slice.contour;
    if (slice.contour) contour.src = slice.contour;
    slider.value = current;
    slider.setAttribute("aria-valuetext", slice.words);
    caption.textContent = slice.words;
    if (marker) { marker.setAttribute("x1", slice.x); marker.setAttribute("x2", slice.x); }
  }

  const steps = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 10, PageDown: -10 };
  stage.addEventListener("keydown", (event) => {
    if (event.key in steps) { show(current + steps[event.key]); event.preventDefault(); }
    else if (event.key === "Home") { show(0); event.preventDefault(); }
    else if (event.key === "End") { show(slices.length - 1); event.preventDefault(); }
    else if (event.key === "c") { shown.checked = !shown.checked; show(current); }
  });
  stage.addEventListener("wheel", (event) => {
    event.preventDefault();
    if (event.deltaMode) { show(current - Math.sign(event.deltaY)); return; } // lines, as Firefox counts a wheel
    if (turned * event.deltaY < 0) turned = 0;
    turned += event.deltaY;
    const count = Math.min(3, Math.trunc(Math.abs(turned) / pixelsForSlice));
    if (!count) return;
    show(current - Math.sign(turned) * (Math.abs(event.deltaY) > pixelsForSlice ? 1 : count));
    turned = 0;
  }, { passive: false });
  slider.addEventListener("input", () => show(Number(slider.value)));
  shown.addEventListener("change", () => show(current));
  element("most").addEventListener("click", () => show(mostLesion));
  for (const target of document.querySelectorAll("[data-slice]")) {
    target.addEventListener("click", () => {
      const index = slices.findIndex((slice) => slice.number === Number(target.dataset.slice));
      if (index < 0) return;
      show(index);
      stage.focus({ preventScroll: target.tagName !== "BUTTON" });
    });
  }
  show(current);
})();

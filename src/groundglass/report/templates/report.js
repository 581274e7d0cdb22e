"use strict";
// The slice viewer: an image with a contour over it; slider, wheel, keys and clicks on the profile choose the slice.
(() => {
  const slices = JSON.parse(document.getElementById("slices").textContent);
  if (!slices.length) return;
  document.documentElement.classList.add("js");
  const element = (name) => document.getElementById(name);
  const [stage, image, contour, slider, caption, shown] =
    ["stage", "slice", "contour", "slider", "words", "shown"].map(element);
  const marker = element("here");
  const mostLesion = slices.reduce((best, slice, i) => (slice.lesion > slices[best].lesion ? i : best), 0);
  let current = mostLesion;

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
  stage.addEventListener("wheel", (event) => { show(current + (event.deltaY < 0 ? 1 : -1)); event.preventDefault(); },
    { passive: false });
  slider.addEventListener("input", () => show(Number(slider.value)));
  shown.addEventListener("change", () => show(current));
  element("most").addEventListener("click", () => show(mostLesion));
  for (const bar of document.querySelectorAll("[data-slice]")) {
    bar.addEventListener("click", () => {
      const index = slices.findIndex((slice) => slice.number === Number(bar.dataset.slice));
      if (index >= 0) { show(index); stage.focus(); }
    });
  }
  show(current);
})();

"use strict";
// The slice viewer: one image, one contour over it, moved by slider, wheel, keys, and clicks on the profile.
(() => {
  const slices = JSON.parse(document.getElementById("slices").textContent);
  if (!slices.length) return;
  document.documentElement.classList.add("js");
  const part = (name) => document.getElementById(name);
  const [stage, image, contour, slider, words, shown] =
    ["stage", "slice", "contour", "slider", "words", "shown"].map(part);
  const marker = part("here");
  let place = slices.reduce((best, each, i) => (each.lesion > slices[best].lesion ? i : best), 0);

  function show(to) {
    place = Math.min(slices.length - 1, Math.max(0, to));
    const each = slices[place];
    image.src = each.image;
    image.alt = each.words;
    contour.hidden = !shown.checked || !each.contour;
    if (each.contour) contour.src = each.contour;
    slider.value = place;
    slider.setAttribute("aria-valuetext", each.words);
    words.textContent = each.words;
    if (marker) { marker.setAttribute("x1", each.x); marker.setAttribute("x2", each.x); }
  }

  const steps = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 10, PageDown: -10 };
  stage.addEventListener("keydown", (event) => {
    if (event.key in steps) { show(place + steps[event.key]); event.preventDefault(); }
    else if (event.key === "Home") { show(0); event.preventDefault(); }
    else if (event.key === "End") { show(slices.length - 1); event.preventDefault(); }
    else if (event.key === "c") { shown.checked = !shown.checked; show(place); }
  });
  stage.addEventListener("wheel", (event) => { show(place + (event.deltaY < 0 ? 1 : -1)); event.preventDefault(); },
    { passive: false });
  slider.addEventListener("input", () => show(Number(slider.value)));
  shown.addEventListener("change", () => show(place));
  part("most").addEventListener("click", () => {
    show(slices.reduce((best, each, i) => (each.lesion > slices[best].lesion ? i : best), 0));
  });
  for (const bar of document.querySelectorAll("[data-slice]")) {
    bar.addEventListener("click", () => {
      const to = slices.findIndex((each) => each.number === Number(bar.dataset.slice));
      if (to >= 0) { show(to); stage.focus(); }
    });
  }
  show(place);
})();

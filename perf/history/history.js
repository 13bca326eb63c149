// Says value, date and commit of the point nearest to the pointer, or of the one that the arrow
// keys are at. All texts are in attributes of the page, and are shown as text.
"use strict";

for (const plot of document.querySelectorAll(".plot")) {
  const mark = plot.querySelector(".mark"), tip = plot.querySelector(".tip");
  let points = null, at = 0;

  function load() {
    const size = plot.querySelector("svg").viewBox.baseVal;
    const path = plot.querySelector(".dots").getAttribute("d");
    const runs = document.querySelector("main").dataset.runs.split("|");
    const texts = plot.dataset.texts.split("|"), numbers = plot.dataset.runs.split(" ");
    points = Array.from(path.matchAll(/M(\d+) (\d+)/g), ([, x, y], index) => (
      {x: x / size.width, y: y / size.height, value: texts[index], run: runs[numbers[index]]}));
    at = points.length - 1;
  }

  function show(index) {
    if (points === null) load();
    at = Math.max(0, Math.min(points.length - 1, index ?? at));
    const {x, y, value, run} = points[at];
    mark.style.left = tip.style.left = `${100 * x}%`;
    mark.style.top = tip.style.top = `${100 * y}%`;
    tip.style.transform = `translate(${-100 * x}%, ${y < 0.5 ? "0.8rem" : "calc(-100% - 0.8rem)"})`;
    tip.firstChild.textContent = value;
    tip.lastChild.textContent = run;
    mark.hidden = tip.hidden = false;
    plot.setAttribute("aria-valuenow", at + 1);
    plot.setAttribute("aria-valuemax", points.length);
    plot.setAttribute("aria-valuetext", `${value}, ${run}`);
  }

  function hide() {
    mark.hidden = tip.hidden = true;
  }

  function follow(event) {
    if (points === null) load();
    const {left, top, width, height} = plot.getBoundingClientRect();
    // What is beside the pointer counts more than what is above it: charts are read by their date.
    const distance = ({x, y}) => 4 * (left + x * width - event.clientX) ** 2 + (top + y * height - event.clientY) ** 2;
    let nearest = 0, least = Infinity;
    for (let index = 0; index < points.length; index++) {
      const far = distance(points[index]);
      if (far < least) { nearest = index; least = far; }
    }
    show(nearest);
  }

  plot.tabIndex = 0;
  plot.setAttribute("role", "slider");
  plot.setAttribute("aria-valuemin", 1);
  plot.addEventListener("pointermove", follow);
  plot.addEventListener("pointerdown", follow);
  plot.addEventListener("pointerleave", () => { if (document.activeElement !== plot) hide(); });
  plot.addEventListener("focus", () => show());
  plot.addEventListener("blur", hide);
  plot.addEventListener("keydown", (event) => {
    const steps = {ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageUp: -10, PageDown: 10,
      Home: -Infinity, End: Infinity};
    if (event.key === "Escape") hide();
    if (!(event.key in steps)) return;
    event.preventDefault();
    show(at + steps[event.key]);
  });
}

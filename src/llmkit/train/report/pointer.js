// Under the pointer, a chart's caption says the values of that step.
for (const figure of document.querySelectorAll("figure.chart")) {
  const svg = figure.querySelector("svg"), caption = figure.querySelector("figcaption");
  const line = svg.querySelector(".pointer"), sentence = caption.textContent;
  const series = JSON.parse(svg.dataset.series);
  const [first, last, left, right] = JSON.parse(svg.dataset.frame);
  const show = (event) => {
    const box = svg.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width * svg.viewBox.baseVal.width;
    const wanted = first + (x - left) / (right - left) * (last - first);
    const near = series.map(([label, points]) =>
      [label, points.reduce((best, point) => Math.abs(point[0] - wanted) < Math.abs(best[0] - wanted) ? point : best)]);
    const step = near.reduce((best, [, point]) =>
      Math.abs(point[0] - wanted) < Math.abs(best - wanted) ? point[0] : best, near[0][1][0]);
    const place = last > first ? left + (step - first) / (last - first) * (right - left) : left;
    line.setAttribute("x1", place);
    line.setAttribute("x2", place);
    line.setAttribute("visibility", "visible");
    caption.textContent = near.map(([label, point]) => `step ${point[0]}: ${label} ${point[1]}`).join("; ");
  };
  const hide = () => { line.setAttribute("visibility", "hidden"); caption.textContent = sentence; };
  svg.addEventListener("pointermove", show);
  svg.addEventListener("pointerdown", show);
  svg.addEventListener("pointerleave", hide);
}

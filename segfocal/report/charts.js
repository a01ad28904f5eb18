"use strict";
// The charts of an evaluation.
{
  const classes = report.classes.map(({ name, colour }) => ({ name: plain(name), colour }));
  const { checkpoints } = report;
  const several = checkpoints.length > 1;
  const classesOn = new Set(report.first);
  const checkpointsOn = new Set(checkpoints.keys());
  const dashes = ["", "9px,9px", "3px,3px", "9px,3px,3px,3px", "15px,15px", "15px,6px,3px,6px"]; // as Plotly and as SVG take them
  const dashOf = (number) => dashes[number % dashes.length];

  const called = (number, label) => (several ? `${number + 1}, ${classes[label].name}` : classes[label].name);
  const each = (make) => checkpoints.flatMap((checkpoint, number) => (checkpointsOn.has(number)
    ? classes.flatMap((_, label) => (classesOn.has(label) ? make(checkpoint, label, number) : [])) : []));

  /** A class's colour as a thin line that is seen on any card: those of the pictures may be as light as paper, and take some ink then. */
  function inkOf(label) {
    const [colour, ink, card] = [classes[label].colour, colourOf("--ink"), colourOf("--card")].map((text) => text.match(/[\d.]+/g).map(Number));
    const light = ([red, green, blue]) => (0.21 * red + 0.72 * green + 0.07 * blue) / 255;
    const share = Math.min(0.5, Math.max(0, 0.6 - Math.abs(light(colour) - light(card))));
    return `rgb(${[0, 1, 2].map((part) => Math.round((1 - share) * colour[part] + share * ink[part])).join(", ")})`;
  }

  function line(x, y, name, colour, number, more) {
    return { type: "scatter", mode: "lines", x, y, name, line: { color: colour, width: 2, dash: dashOf(number) }, ...more };
  }

  const nearest = (thresholds, value) => thresholds.reduce(
    (best, threshold, place) => (Math.abs(threshold - value) < Math.abs(thresholds[best] - value) ? place : best), 0);

  /** Where a curve is at 0.5, and at the threshold that was fitted. */
  function marks(x, y, curve, name, colour, hover) {
    const places = [nearest(curve.threshold, 0.5), ...(curve.chosen === null ? [] : [nearest(curve.threshold, curve.chosen)])];
    return { type: "scatter", mode: "markers", x: places.map((place) => x[place]), y: places.map((place) => y[place]), name,
      customdata: places.map((place) => curve.threshold[place]), hovertemplate: hover,
      marker: { symbol: ["circle-open", "diamond"], color: colour, size: [9, 11], line: { width: [2, 1.5], color: [colour, colourOf("--ink")] } } };
  }

  /** The line of a checkpoint, to stand before its name. */
  function sample(number) {
    const template = document.createElement("template");
    template.innerHTML = `<svg class="dashes" viewBox="0 0 48 4" aria-hidden="true"><line x2="48" y1="2" y2="2" stroke-dasharray="${dashOf(number)}"/></svg>`;
    return template.content.firstChild;
  }

  /** A chart over the classes and checkpoints that are switched on, from two columns of their curves. */
  function curves(horizontal, vertical, titles, layout = {}, note = "") {
    const hover = `<b>%{fullData.name}</b><br>${titles[0]} %{x:.3g}<br>${titles[1]} %{y:.3f}${note}<extra></extra>`;
    return () => [each((checkpoint, label, number) => {
      const curve = checkpoint.curves[label];
      const [x, y, name, colour] = [curve[horizontal], curve[vertical], called(number, label), inkOf(label)];
      return [line(x, y, name, colour, number, { customdata: curve.threshold, hovertemplate: hover }), marks(x, y, curve, name, colour, hover)];
    }), { xaxis: { title: { text: titles[0] }, range: [-0.01, 1.01] }, yaxis: { title: { text: titles[1] }, range: [-0.02, 1.02] }, ...layout }];
  }

  const diagonal = (shape = {}) => ({ shapes: [{ type: "line", x0: 0, y0: 0, x1: 1, y1: 1, layer: "below", line: { color: colourOf("--quiet"), width: 1, dash: "dot" }, ...shape }] });
  const above = "<br>above %{customdata:.3g}";

  const log = document.getElementById("log");
  const isLog = () => log.getAttribute("aria-pressed") === "true";
  log.addEventListener("click", () => {
    log.setAttribute("aria-pressed", String(!isLog()));
    draw("chart-roc");
  });
  drawn.set("chart-roc", () => curves("fpr", "recall", ["false positive rate", "recall"], isLog() ? { xaxis: { title: { text: "false positive rate" }, type: "log", range: [-5, 0], exponentformat: "power", dtick: 1 } } : diagonal(), above)());
  drawn.set("chart-pr", curves("recall", "precision", ["recall", "precision"], {}, above));
  drawn.set("chart-iou", curves("threshold", "iou", ["threshold", "IoU"]));
  drawn.set("chart-f_beta", curves("threshold", "f_beta", ["threshold", `F${report.beta}`]));
  drawn.set("chart-reliability", () => [each((checkpoint, label, number) => {
    const [predicted, observed, pixels] = checkpoint.curves[label].reliability;
    return [line(predicted, observed, called(number, label), inkOf(label), number, { mode: "lines+markers", customdata: pixels,
      hovertemplate: "<b>%{fullData.name}</b><br>says %{x:.3f}<br>is so %{y:.3f}<br>%{customdata:,} pixels<extra></extra>" })];
  }), { xaxis: { title: { text: "predicted probability" }, range: [-0.01, 1.01] }, yaxis: { title: { text: "share that is so" }, range: [-0.02, 1.02] }, ...diagonal() }]);
  drawn.set("chart-spread", () => [checkpoints.flatMap((checkpoint, number) => (checkpointsOn.has(number) ? [{
    type: "histogram", x: checkpoint.images.map((value) => (value === null ? null : Math.min(value, 0.9999))), name: `${of(number)}images`, xbins: { start: 0, end: 1.0001, size: 0.05 }, opacity: several ? 0.6 : 1,
    marker: { color: several ? ["#4878a8", "#c9772b", "#5b9a5b", "#9467bd"][number % 4] : colourOf("--accent") }, hovertemplate: "%{fullData.name}: %{y} with %{x}<extra></extra>" }] : [])),
  { barmode: "overlay", bargap: 0.06, xaxis: { title: { text: "mean IoU of the image" }, range: [0, 1] }, yaxis: { title: { text: "images" } }, showlegend: several }]);

  const trained = checkpoints.map((checkpoint, number) => [checkpoint, number]).filter(([checkpoint]) => checkpoint.training);
  const seen = () => trained.filter(([, number]) => checkpointsOn.has(number));
  const points = { mode: "lines+markers", marker: { size: 5 }, connectgaps: true };  // epochs without a validation
  const of = (number) => (several ? `${number + 1}, ` : "");
  drawn.set("chart-loss", () => [seen().flatMap(([checkpoint, number]) => ["train", "val"].map((stage, place) => line(
    checkpoint.training.epochs, checkpoint.training[stage], of(number) + stage, [colourOf("--quiet"), colourOf("--accent")][place], number,
    { ...points, hovertemplate: "<b>%{fullData.name}</b><br>epoch %{x}<br>%{y:.4g}<extra></extra>" }))),
  { xaxis: { title: { text: "epoch" } }, yaxis: { rangemode: "tozero" }, showlegend: true }]);
  drawn.set("chart-progress", () => [[
    ...each((checkpoint, label, number) => (checkpoint.training ? [line(checkpoint.training.epochs, checkpoint.training.iou[label], called(number, label), inkOf(label), number,
      { ...points, hovertemplate: "<b>%{fullData.name}</b><br>epoch %{x}<br>IoU %{y:.3f}<extra></extra>" })] : [])),
    ...(classes.length > 1 ? seen().map(([checkpoint, number]) => line(checkpoint.training.epochs, checkpoint.training.mean, `${of(number)}mean`, colourOf("--ink"), number,
      { ...points, hovertemplate: "<b>%{fullData.name}</b><br>epoch %{x}<br>IoU %{y:.3f}<extra></extra>" })) : []),
  ], { xaxis: { title: { text: "epoch" } }, yaxis: { title: { text: "IoU" }, range: [-0.02, 1.02] } }]);
  drawn.set("chart-rate", () => [seen().map(([checkpoint, number]) => line(checkpoint.training.steps, checkpoint.training.rates, `${of(number)}rate`, colourOf("--accent"), number,
    { hovertemplate: "step %{x}<br>%{y:.3g}<extra></extra>" })), { xaxis: { title: { text: "step" } }, yaxis: { rangemode: "tozero", exponentformat: "power" } }]);

  const matrices = checkpoints.flatMap(({ confusion }, number) => (confusion ? [`chart-confusion-${number}`] : []));
  matrices.forEach((id, number) => drawn.set(id, () => {
    const { confusion } = checkpoints[number];
    const names = report.classes.map(({ name }) => plain(name.length > 18 ? `${name.slice(0, 17)}…` : name));
    const places = classes.map((_, place) => place);
    const longest = Math.max(...report.classes.map(({ name }) => Math.min(18, name.length)));
    const room = (document.getElementById(id).clientWidth - 45 - 7 * longest) / classes.length; // of a column
    const size = Math.min(12, room / 2.1); // of figures that do not touch each other
    const shares = confusion.map((row) => { const total = row.reduce((sum, count) => sum + count, 0); return row.map((count) => (total ? count / total : null)); });
    const axis = { tickvals: places, ticktext: names, showgrid: false, zeroline: false };
    return [[{ type: "heatmap", z: shares, x: places, y: places, zmin: 0, zmax: 1, xgap: 2, ygap: 2, showscale: false, colorscale: [[0, colourOf("--faint")], [1, colourOf("--accent")]],
      text: shares.map((row, truth) => row.map((share, label) => `<b>${classes[truth].name}</b> taken for <b>${classes[label].name}</b><br>${confusion[truth][label].toLocaleString("en")} pixels, ${share === null ? "–" : `${(100 * share).toFixed(2)} %`}`)),
      hovertemplate: "%{text}<extra></extra>" }],
    { xaxis: { ...axis, title: { text: "predicted" }, side: "top", showticklabels: room > 11 }, yaxis: { ...axis, title: { text: "truth" }, autorange: "reversed" },
      height: 90 + Math.max(180, 38 * classes.length), margin: { l: 90, t: 60, r: 10, b: 10 },
      annotations: classes.length > 15 || size < 8 ? [] : shares.flatMap((row, truth) => row.map((share, label) => ({ x: label, y: truth, showarrow: false, text: share === null ? "–" : share >= 0.9995 ? "100" : (100 * share).toFixed(share < 0.1 ? 1 : 0),
        font: { size, color: share > 0.55 ? colourOf("--card") : colourOf("--ink") } }))) }];
  }));

  addEventListener("resize", () => window.Plotly && matrices.forEach(draw)); // a telephone that is turned

  chips(document.getElementById("curve-classes"), report.classes.map(({ name }) => name), report.classes.map(({ colour }) => colour), classesOn, drawAll);
  if (several) {
    const names = report.checkpoints.map(({ name }, number) => `${number + 1} ${name}`);
    const [holder, legend] = ["curve-checkpoints", "training-checkpoints"].map((id) => document.getElementById(id));
    chips(holder, names, null, checkpointsOn, drawAll);
    [...holder.children].forEach((button, number) => button.prepend(sample(number)));
    if (legend) legend.append(...trained.map(([, number]) => { const entry = document.createElement("span"); entry.append(sample(number), names[number]); return entry; }));
  }
  startDrawing();
}

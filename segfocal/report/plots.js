"use strict";
// What draws charts, whatever they show. Plotly reads names as markup: every name goes through `plain`.

const plain = (name) => name.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
const drawn = new Map(); // id of the element -> how to draw it

function draw(id) {
  const [traces, layout] = drawn.get(id)();
  const [ink, grid] = [colourOf("--quiet"), colourOf("--line")];
  const axis = (own) => ({ gridcolor: grid, zeroline: false, linecolor: grid, automargin: true, fixedrange: false, ...own, title: { standoff: 8, font: { size: 12 }, ...(own ?? {}).title } });
  return Plotly.react(id, traces, {
    margin: { l: 48, r: 12, t: 10, b: 42 }, showlegend: false, hovermode: "closest", paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", legend: { orientation: "h", y: 1.12, font: { size: 11 } },
    font: { family: "system-ui, sans-serif", size: 12, color: ink }, hoverlabel: { bgcolor: colourOf("--card"), bordercolor: grid, font: { color: colourOf("--ink"), size: 12 } }, ...layout,
    xaxis: axis(layout.xaxis), yaxis: axis(layout.yaxis),
  }, { displayModeBar: false, responsive: true, doubleClick: "reset" });
}

const drawAll = () => [...drawn.keys()].filter((id) => document.getElementById(id)).forEach(draw);

/** Unpack Plotly, and draw: now, in another theme, on paper. */
async function startDrawing() {
  const script = document.createElement("script");
  script.textContent = await (await inflated(document.getElementById("plotly").textContent)).text();
  document.head.append(script);
  drawAll();
  document.addEventListener("theme", drawAll);
  // A page of paper is narrower than the window, and its width is not known beforehand.
  let before;
  addEventListener("beforeprint", () => {
    before = document.documentElement.dataset.theme;
    document.documentElement.dataset.theme = "light";
    drawAll();
    document.querySelectorAll(".js-plotly-plot").forEach((plot) => Plotly.relayout(plot, { width: plot.matches(".matrix, .wide *") ? 640 : 325, autosize: false }));
  });
  addEventListener("afterprint", () => {
    if (before) document.documentElement.dataset.theme = before; else delete document.documentElement.dataset.theme;
    document.querySelectorAll(".js-plotly-plot").forEach((plot) => Plotly.purge(plot));
    drawAll();
  });
}

"use strict";
// The charts of a sweep.
{
  const { jobs, parameters, minimised } = report;
  const UNKNOWN = "–"; // of a parameter that a job has not got
  const objective = plain(report.objective);
  const values = jobs.map(({ value }) => value);
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const short = (text) => plain(text.length > 18 ? `${text.slice(0, 17)}…` : text);
  const said = (place) => [`<b>job ${jobs[place].number}: ${values[place].toPrecision(4)}</b>`,
    ...parameters.filter(({ texts }) => texts[place] !== UNKNOWN).map(({ name, texts }) => `${plain(name)}=${plain(texts[place])}`), ...(jobs[place].seed ? [`seed=${plain(jobs[place].seed)}`] : [])].join("<br>");
  const texts = jobs.map((_, place) => said(place));
  const hover = { text: texts, hovertemplate: "%{text}<extra></extra>" };

  /** From 0, the worst, to 1. */
  const goodness = (value) => (high === low ? 1 : minimised ? (high - value) / (high - low) : (value - low) / (high - low));

  /** Between two colours of the style sheet; the probe of `colourOf` answers in rgb. */
  function between(one, other, share) {
    const [from, to] = [one, other].map((colour) => colour.match(/[\d.]+/g).map(Number));
    return `rgb(${[0, 1, 2].map((part) => Math.round(from[part] + (to[part] - from[part]) * share)).join(", ")})`;
  }

  /** Where the values of a parameter lie between 0 and 1, and what is written there. */
  function scaled({ places, kinds, log, texts: written }) {
    const on = log ? places.map(Math.log10) : places;
    const [least, most] = [Math.min(...on), Math.max(...on)];
    const at = on.map((place) => (most === least ? 0.5 : (place - least) / (most - least)));
    const ticks = new Map(at.map((place, job) => [place, written[job]]));
    const several = [...ticks].sort(([one], [other]) => one - other);
    const shown = kinds || several.length <= 9 ? several : several.filter((_, place) => place % Math.ceil(several.length / 8) === 0);
    return { at, ticks: shown };
  }

  const dots = (more = {}) => ({ color: colourOf("--accent"), size: 8, opacity: 0.75, ...more });

  drawn.set("chart-parallel", () => {
    const axes = [...parameters.map(scaled), { at: values.map((value) => (high === low ? 0.5 : (value - low) / (high - low))),
      ticks: [0, 0.25, 0.5, 0.75, 1].map((place) => [place, (low + place * (high - low)).toPrecision(3)]) }];
    const names = [...parameters.map(({ name }) => short(name)), objective];
    const [quiet, accent, line] = ["--line", "--accent", "--quiet"].map(colourOf);
    const order = jobs.map((_, place) => place).sort((one, other) => goodness(values[one]) - goodness(values[other])); // the best on top
    return [order.map((place) => ({ type: "scatter", mode: "lines", x: axes.map((_, axis) => axis), y: axes.map(({ at }) => at[place]), text: axes.map(() => texts[place]),
      hovertemplate: "%{text}<extra></extra>", line: { width: place === order[order.length - 1] ? 3.5 : 1.8, color: between(quiet, accent, 0.15 + 0.85 * goodness(values[place])) } })),
    { margin: { l: 90, r: 90, t: 30, b: 12 }, xaxis: { tickvals: axes.map((_, axis) => axis), ticktext: names, side: "top", showgrid: false, showline: false, range: [-0.12, axes.length - 0.88], fixedrange: true },
      yaxis: { visible: false, range: [-0.06, 1.06], fixedrange: true },
      shapes: axes.map((_, axis) => ({ type: "line", x0: axis, x1: axis, y0: 0, y1: 1, line: { color: line, width: 1 } })),
      annotations: axes.flatMap(({ ticks }, axis) => ticks.map(([place, text]) => ({ x: axis, y: place, text: short(text), showarrow: false, xanchor: axis === axes.length - 1 ? "left" : "right",
        xshift: axis === axes.length - 1 ? 6 : -6, font: { size: 11, color: colourOf("--ink") }, bgcolor: colourOf("--card"), borderpad: 1 }))) }];
  });

  drawn.set("chart-changes", () => {
    const [{ texts: changes }] = parameters;
    const mean = (change) => { const there = values.filter((_, place) => changes[place] === change); return there.reduce((sum, value) => sum + value, 0) / there.length; };
    const names = [...new Set(changes)].sort((one, other) => goodness(mean(one)) - goodness(mean(other))); // the best on top
    const at = changes.map((change) => names.indexOf(change));
    const first = changes.includes("nothing") ? [mean("nothing")] : [];
    return [[{ type: "scatter", mode: "markers", x: values, y: at, marker: dots({ size: 6, opacity: 0.5 }), ...hover },
      { type: "scatter", mode: "markers", x: names.map(mean), y: names.map((_, place) => place), marker: { symbol: "circle-open", size: 11, color: colourOf("--ink"), line: { width: 2 } }, hoverinfo: "skip" }],
    { margin: { l: 12, t: 8, b: 44 }, xaxis: { title: { text: objective } }, shapes: first.map((x) => ({ type: "line", x0: x, x1: x, yref: "paper", y0: 0, y1: 1, line: { color: colourOf("--quiet"), width: 1.5, dash: "dot" } })),
      yaxis: { tickvals: names.map((_, place) => place), ticktext: names.map(plain), range: [-0.7, names.length - 0.3], automargin: true } }];
  });

  drawn.set("chart-trials", () => {
    const best = values.map((_, place) => (minimised ? Math.min : Math.max)(...values.slice(0, place + 1)));
    const numbers = jobs.map(({ number }) => number);
    return [[{ type: "scatter", mode: "lines", x: numbers, y: best, line: { shape: "hv", color: colourOf("--quiet"), width: 1.5 }, hoverinfo: "skip" },
      { type: "scatter", mode: "markers", x: numbers, y: values, marker: dots(), ...hover }],
    { xaxis: { title: { text: "job" }, ...(jobs.length < 12 ? { dtick: 1 } : {}) }, yaxis: { title: { text: objective } } }];
  });

  parameters.forEach(({ places, kinds, log, texts: written }, number) => drawn.set(`chart-slice-${number}`, () => {
    const means = [...new Set(places)].sort((one, other) => one - other).map((place) => {
      const there = values.filter((_, job) => places[job] === place);
      return [place, there.reduce((sum, value) => sum + value, 0) / there.length, written[places.indexOf(place)]];
    });
    const ticks = kinds || means.length <= 8 ? { tickvals: means.map(([place]) => place), ticktext: means.map(([, , text]) => short(text)) } : {};
    const line = { type: "scatter", mode: "lines", x: means.map(([place]) => place), y: means.map(([, mean]) => mean), line: { color: colourOf("--quiet"), width: 1.5, dash: kinds ? "dot" : "solid" }, hoverinfo: "skip" };
    const { means: wanted } = document.getElementById(`chart-slice-${number}`).dataset;
    return [[...(wanted === undefined ? [] : [line]),
      { type: "scatter", mode: "markers", x: places, y: values, marker: dots(), ...hover }],
    { xaxis: { ...ticks, ...(log ? { type: "log" } : {}), ...(kinds ? { range: [-0.5, kinds.length - 0.5] } : {}) }, yaxis: { title: { text: objective } } }];
  }));

  if (jobs.length) startDrawing();
}

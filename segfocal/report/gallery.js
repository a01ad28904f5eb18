"use strict";
// Overlays: labels are bytes, coloured here onto a canvas over each image. Canvases are only written, never read.
if (report.shown.length) {
  const FOUND = [40, 220, 120], MISSED = [255, 70, 70], MADE_UP = [255, 190, 0], CONFUSED = [190, 60, 255], IGNORED = [128, 128, 128, 110]; // as in overlay.py; fainter where nothing counts
  const colours = report.classes.map(({ colour }) => colour.match(/\d+/g).map(Number));
  const on = new Set(report.classes.keys());
  if (report.task === "multiclass") report.backdrop.forEach((label) => on.delete(label));
  const shots = [...document.querySelectorAll(".shot")];
  const decoded = new Map(); // place -> promise of bytes
  let mode = document.querySelector("input[name=mode]:checked").value;

  const packed = ([red, green, blue, alpha = 255]) => new Uint32Array(new Uint8Array([red, green, blue, alpha]).buffer)[0];
  const bytesOf = (place) => {
    if (!decoded.has(place)) decoded.set(place, inflated(report.shown[place].labels).then((answer) => answer.arrayBuffer()).then((buffer) => new Uint8Array(buffer)));
    return decoded.get(place);
  };

  /** Multiclass: what stands for each pair of true and predicted id; 0 is clear. */
  function ofPairs(what) {
    const table = new Uint32Array(65536);
    for (let truth = 0; truth < 256; truth += 1) {
      for (let label = 0; label < 256; label += 1) {
        const [is, says] = [on.has(truth), on.has(label)];
        let colour = null;
        if (what === "truth" && is) colour = colours[truth];
        if (what === "prediction" && says) colour = colours[label];
        if (what === "errors" && truth !== 255) {
          if (truth === label) colour = is && on.size === 1 ? FOUND : null;
          else if (is && says) colour = CONFUSED;
          else if (is) colour = MISSED;
          else if (says) colour = MADE_UP;
        }
        if (what === "errors" && truth === 255) colour = IGNORED;
        table[256 * truth + label] = colour ? packed(colour) : 0;
      }
    }
    return table;
  }

  /** A class of binary and multilabel: what stands for 1 where it is true + 2 where it is predicted + 4 where it is ignored. */
  const ofCodes = (label, what) => Uint32Array.from({ length: 8 }, (_, code) => {
    if (what === "truth") return code & 1 ? packed(colours[label]) : 0;
    if (what === "prediction") return code & 2 ? packed(colours[label]) : 0;
    return code & 4 ? packed(IGNORED) : [0, packed(MISSED), packed(MADE_UP), packed(FOUND)][code & 3];
  });

  function coloured(bytes, count, what) {
    const result = new Uint32Array(count);
    if (what === "image") return result;
    if (report.task === "multiclass") {
      const table = ofPairs(what);
      for (let pixel = 0; pixel < count; pixel += 1) result[pixel] = table[256 * bytes[pixel] + bytes[count + pixel]];
      return result;
    }
    const worse = [packed(MISSED), packed(MADE_UP)]; // what is wrong in one class stands above what is right in another
    for (const label of on) {
      const table = ofCodes(label, what);
      for (let pixel = 0; pixel < count; pixel += 1) {
        const colour = table[bytes[label * count + pixel]];
        if (colour && !worse.includes(result[pixel])) result[pixel] = colour;
      }
    }
    return result;
  }

  async function paint(canvas, place, what) {
    const bytes = await bytesOf(place);
    const { width, height } = report.shown[place];
    const pixels = coloured(bytes, width * height, what);
    canvas.getContext("2d").putImageData(new ImageData(new Uint8ClampedArray(pixels.buffer), width, height), 0, 0);
  }

  const inSight = new Set();
  const stale = new Set(shots);
  let waiting = 0;
  const renewed = (shot) => stale.delete(shot) && paint(shot.querySelector("canvas"), Number(shot.dataset.index), mode);

  /** What is in sight at once, the others when there is time: they may be printed. */
  function repaint() {
    inSight.forEach(renewed);
    clearTimeout(waiting);
    const next = async () => {
      const [shot] = stale;
      if (!shot) return;
      await renewed(shot);
      waiting = setTimeout(next, 10);
    };
    waiting = setTimeout(next, 200);
  }
  const watcher = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) if (isIntersecting) inSight.add(target); else inSight.delete(target);
    repaint();
  }, { rootMargin: "300px" });
  shots.forEach((shot) => watcher.observe(shot));

  function legend() {
    const one = report.task !== "multiclass" || on.size === 1;
    const entries = mode !== "errors" ? [] : [...(one ? [["found", FOUND]] : []), ["missed", MISSED], ["made up", MADE_UP],
      ...(report.task === "multiclass" && on.size > 1 ? [["one taken for another", CONFUSED]] : []), ["ignored", IGNORED]];
    document.getElementById("legend").replaceChildren(...entries.map(([name, colour]) => {
      const entry = document.createElement("span");
      const swatch = entry.appendChild(document.createElement("i"));
      swatch.className = "swatch";
      swatch.style.background = `rgb(${colour.slice(0, 3)})`;
      entry.append(name);
      return entry;
    }));
  }

  function changed() {
    shots.forEach((shot) => stale.add(shot));
    legend();
    repaint();
    if (large.open) enlarge(current);
  }

  chips(document.getElementById("layers"), report.classes.map(({ name }) => name), report.classes.map(({ colour }) => colour), on, changed);
  document.querySelectorAll("input[name=mode]").forEach((input) => input.addEventListener("change", () => { mode = input.value; changed(); }));
  document.querySelectorAll("input[name=why]").forEach((input) => input.addEventListener("change", () => {
    for (const shot of shots) { const figure = shot.closest("figure"); figure.hidden = input.value !== "all" && figure.dataset.why !== input.value; }
  }));
  document.getElementById("opacity").addEventListener("input", (event) => document.documentElement.style.setProperty("--opacity", event.target.value / 100));

  const large = document.getElementById("large");
  let current = 0;
  function enlarge(place) {
    current = place;
    document.getElementById("large-name").textContent = report.shown[place].name;
    const image = shots[place].querySelector("img");
    large.style.setProperty("--ratio", report.shown[place].width / report.shown[place].height);
    large.querySelector(".panes").replaceChildren(...["image", "truth", "prediction", "errors"].map((what) => {
      const figure = document.createElement("figure");
      const stack = figure.appendChild(document.createElement("div"));
      stack.className = "stack";
      stack.append(image.cloneNode());
      const canvas = stack.appendChild(document.createElement("canvas"));
      canvas.width = report.shown[place].width;
      canvas.height = report.shown[place].height;
      paint(canvas, place, what);
      figure.appendChild(document.createElement("figcaption")).textContent = what;
      return figure;
    }));
    if (!large.open) large.showModal();
  }
  function step(by) {
    const visible = shots.map((_, place) => place).filter((place) => !shots[place].closest("figure").hidden);
    enlarge(visible[(visible.indexOf(current) + by + visible.length) % visible.length]);
  }
  shots.forEach((shot, place) => shot.addEventListener("click", () => enlarge(place)));
  large.addEventListener("click", (event) => {
    if (event.target === large) large.close();
    const button = event.target.closest("button[data-step]");
    if (button) { if (button.dataset.step === "0") large.close(); else step(Number(button.dataset.step)); }
  });
  large.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by) step(by);
  });
  legend();
}

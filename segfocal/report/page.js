"use strict";
// Light and dark, tables that sort, chips. What the other two scripts share: `report`, `inflated`, `chips`, `colourOf`.

const report = JSON.parse(document.getElementById("report-data").textContent);

async function inflated(base64) {
  const packed = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  return new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate")));
}

const isDark = () => getComputedStyle(document.documentElement).getPropertyValue("color-scheme") === "dark"
  || (document.documentElement.dataset.theme === undefined && matchMedia("(prefers-color-scheme: dark)").matches);

/** What a colour variable of the style sheet comes to. */
function colourOf(variable) {
  const probe = document.body.appendChild(document.createElement("i"));
  probe.style.color = `var(${variable})`;
  const colour = getComputedStyle(probe).color;
  probe.remove();
  return colour;
}

function themeChanged() {
  document.dispatchEvent(new Event("theme"));
}

document.getElementById("theme").addEventListener("click", () => {
  document.documentElement.dataset.theme = isDark() ? "light" : "dark";
  themeChanged();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", themeChanged);

/** Buttons that switch names on and off; `on` is a Set of places that they change. A click with Shift shows that one alone. */
function chips(holder, names, colours, on, changed) {
  const buttons = names.map((name, place) => {
    const button = holder.appendChild(document.createElement("button"));
    button.type = "button";
    button.title = "Shift and click: this one alone";
    if (colours) {
      const swatch = button.appendChild(document.createElement("i"));
      swatch.className = "swatch";
      swatch.style.background = colours[place];
    }
    button.append(name);
    button.addEventListener("click", (event) => {
      if (event.shiftKey) {
        on.clear();
        on.add(place);
      } else if (!on.delete(place)) {
        on.add(place);
      }
      shown();
      changed();
    });
    return button;
  });
  const shown = () => buttons.forEach((button, place) => button.setAttribute("aria-pressed", String(on.has(place))));
  shown();
}

/** Rows by a column: numbers from the highest, names from A; once more turns it round. The mean stays below. */
function sortBy(table, column) {
  const headers = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  const header = headers[column];
  const numbers = header.classList.contains("n");
  const before = header.getAttribute("aria-sort");
  const rising = before === "none" ? !numbers : before === "descending";
  headers.filter((other) => other.hasAttribute("aria-sort")).forEach((other) => other.setAttribute("aria-sort", "none"));
  header.setAttribute("aria-sort", rising ? "ascending" : "descending");
  const valueOf = (row) => {
    const cell = row.cells[column];
    return numbers ? (cell.dataset.sort === "" || cell.dataset.sort === undefined ? null : Number(cell.dataset.sort)) : cell.textContent;
  };
  const compare = (first, second) => {
    const [one, two] = [valueOf(first), valueOf(second)];
    if (one === null || two === null) return (one === null) - (two === null); // what is not known is last
    const order = numbers ? one - two : one.localeCompare(two);
    return rising ? order : -order;
  };
  const body = table.tBodies[0];
  const mean = [...body.rows].filter((row) => row.classList.contains("mean"));
  body.append(...[...body.rows].filter((row) => !mean.includes(row)).sort(compare), ...mean);
}

for (const table of document.querySelectorAll("table.sortable")) {
  for (const button of table.tHead.querySelectorAll("th button")) {
    button.addEventListener("click", () => sortBy(table, button.parentElement.cellIndex));
  }
}

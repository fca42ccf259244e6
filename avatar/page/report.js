// Tables sort by the title of a column; a video steps frame by frame. Without this script, everything is readable.

function value(cell) {
  const text = cell.firstChild ? cell.firstChild.textContent.trim() : "";
  const found = /^[+\-\u2212]?\d[\d,]*(\.\d+)?/.exec(text);
  return found ? Number(found[0].replace("\u2212", "-").replaceAll(",", "")) : text.toLowerCase();
}

function compare(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  if (typeof a !== typeof b) return typeof a === "number" ? -1 : 1; // what is no number comes last
  return a < b ? -1 : a > b ? 1 : 0;
}

for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0], rows = [...body.rows], titles = [...table.tHead.rows[0].cells];
  titles.forEach((title, column) => {
    if (rows.length && rows.every((row) => row.cells[column].classList.contains("n"))) title.classList.add("n");
    if (rows.length < 2) return;
    const button = document.createElement("button");
    button.type = "button";
    button.title = "Sort by this column";
    button.append(...title.childNodes);
    title.append(button);
    button.addEventListener("click", () => {
      const next = { ascending: "descending", descending: null }[title.getAttribute("aria-sort")];
      const order = next === undefined ? "ascending" : next; // the third click brings back how it was
      for (const other of titles) other.removeAttribute("aria-sort");
      if (order) title.setAttribute("aria-sort", order);
      const sorted = order ? [...rows].sort((a, b) => compare(value(a.cells[column]), value(b.cells[column]))) : rows;
      body.append(...(order === "descending" ? sorted.reverse() : sorted));
    });
  });
}

for (const figure of document.querySelectorAll("figure.video")) {
  const video = figure.querySelector("video"), steps = figure.querySelector(".steps"), shown = steps.querySelector("output");
  const fps = Number(figure.dataset.fps), last = () => Math.max(0, Math.round(video.duration * fps) - 1 || 0);
  const frame = () => Math.min(last(), Math.floor(video.currentTime * fps + 0.01));
  const show = () => { shown.textContent = `frame ${frame()} of ${last()}, ${(frame() / fps).toFixed(2)} s`; };
  const step = (count) => {
    video.pause();
    video.currentTime = (Math.min(last(), Math.max(0, frame() + count)) + 0.5) / fps; // the middle of a frame
  };
  steps.hidden = false;
  for (const name of ["timeupdate", "seeked", "loadedmetadata"]) video.addEventListener(name, show);
  for (const button of steps.querySelectorAll("button")) {
    button.addEventListener("click", () => step(Number(button.dataset.step)));
  }
  document.addEventListener("keydown", (event) => {
    if (event.altKey || event.ctrlKey || event.metaKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
    const count = { ",": -1, ".": 1 }[event.key];
    if (!count) return;
    event.preventDefault();
    step(count);
  });
}

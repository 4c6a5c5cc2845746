"use strict";
// Only the tiles in view exist. What a file is called enters as textContent, never as markup.
const { pictures, colours, ellipses } = JSON.parse(document.getElementById("data").textContent);
const at = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
const GAP = 12, CAPTION = 44;

const make = (tag, className, text) => {
  const element = document.createElement(tag);
  element.className = className || "";
  if (text !== undefined) element.textContent = text;
  return element;
};
const counted = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
const facts = (picture) => {
  if (picture.why) return picture.why[0];
  if (!picture.faces) return "no face";
  return `${counted(picture.faces, "face")}, smallest ${Math.round(picture.smallest)} px`;
};
const searched = pictures.map((picture) => picture.path.toLowerCase());

// The grid

const grid = at("grid"), tiles = new Map();
let order = pictures.map((_, number) => number), shape = {};

const orders = {
  chosen: (a, b) => a - b,
  name: (a, b) => (searched[a] < searched[b] ? -1 : searched[a] > searched[b] ? 1 : a - b),
  faces: (a, b) => pictures[b].faces - pictures[a].faces || a - b,
  smallest: (a, b) => (pictures[a].smallest ?? Infinity) - (pictures[b].smallest ?? Infinity) || a - b,
  errors: (a, b) => !pictures[a].why - !pictures[b].why || a - b,
};

const arrange = () => {
  const part = at("filter").value.trim().toLowerCase();
  order = pictures.map((_, number) => number).filter((number) => searched[number].includes(part));
  order.sort(orders[at("order").value]);
  const faces = order.reduce((sum, number) => sum + pictures[number].faces, 0);
  const failed = order.reduce((sum, number) => sum + (pictures[number].why ? 1 : 0), 0);
  const of = order.length < pictures.length ? ` of ${pictures.length.toLocaleString("en")}` : "";
  at("counts").textContent =
    `${counted(order.length, "picture")}${of}, ${counted(faces, "face")}` + (failed ? `, ${failed.toLocaleString("en")} not shown` : "");
  for (const tile of tiles.values()) tile.remove();
  tiles.clear();
  layOut();
};

const layOut = () => {
  const width = grid.clientWidth, least = width < 600 ? 150 : 210;
  const columns = Math.max(1, Math.floor((width + GAP) / (least + GAP)));
  const tile = Math.floor((width - GAP * (columns - 1)) / columns);
  shape = { columns, tile, picture: Math.round(tile * 0.75), row: Math.round(tile * 0.75) + CAPTION + GAP };
  grid.style.setProperty("--picture", `${shape.picture}px`);
  grid.style.height = `${Math.max(0, Math.ceil(order.length / columns) * shape.row - GAP)}px`;
  for (const [place, tile] of tiles) put(tile, place);
  draw();
};

const put = (tile, place) => {
  const column = place % shape.columns, row = Math.floor(place / shape.columns);
  tile.style.transform = `translate(${column * (shape.tile + GAP)}px, ${row * shape.row}px)`;
  tile.style.width = `${shape.tile}px`;
  tile.style.height = `${shape.picture + CAPTION}px`;
};

let was = { above: 0, time: 0 }, hurried = false;
const draw = () => {
  const above = -grid.getBoundingClientRect().top, ahead = innerHeight / 2, time = performance.now();
  hurried = Math.abs(above - was.above) / (time - was.time) > (4 * innerHeight) / 1000; // four screens a second
  was = { above, time };
  const first = Math.max(0, Math.floor((above - ahead) / shape.row)) * shape.columns;
  const last = Math.min(order.length, Math.ceil((above + innerHeight + ahead) / shape.row) * shape.columns);
  for (const [place, tile] of tiles) {
    if (place >= first && place < last) continue;
    tile.remove();
    tiles.delete(place);
  }
  for (let place = first; place < last; place++) {
    if (tiles.has(place)) continue;
    const tile = makeTile(place);
    tiles.set(place, tile);
    put(tile, place);
    grid.append(tile);
  }
};

const makeTile = (place) => {
  const picture = pictures[order[place]], tile = make("div", "tile"), button = make("button");
  tile.setAttribute("role", "listitem");
  tile.setAttribute("aria-setsize", order.length);
  tile.setAttribute("aria-posinset", place + 1);
  const frame = make("span", "picture");
  if (picture.why) {
    frame.append(whyOf(picture));
  } else {
    const image = make("img");
    image.decoding = "async";
    image.alt = "";
    const load = () => tile.isConnected && (image.src = `small/${picture.file}`);
    setTimeout(load, hurried ? 100 : 0); // what flies past is not loaded
    frame.append(image);
  }
  button.title = picture.path;
  button.append(frame, make("span", "name", picture.name), make("span", "facts", facts(picture)));
  button.addEventListener("click", () => view(place));
  tile.append(button);
  return tile;
};

const whyOf = (picture) => {
  const why = make("span", "why");
  why.append(make("b", "", picture.why[0]), document.createElement("br"), picture.why[1]);
  return why;
};

let waiting = false;
const soon = (work) => () => {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    work();
  });
};
addEventListener("scroll", soon(draw), { passive: true });
addEventListener("resize", soon(layOut));
at("filter").addEventListener("input", arrange);
at("order").addEventListener("change", arrange);

// The closer look

const viewer = at("viewer"), stage = at("stage");
let place = 0, zoom = 1, sheet = null;

const view = (wanted) => {
  place = Math.min(Math.max(wanted, 0), order.length - 1);
  const picture = pictures[order[place]];
  const left = picture.left ? `, the ${picture.left.toLocaleString("en")} least certain not drawn` : "";
  at("viewer-name").textContent = picture.name;
  at("viewer-facts").textContent = `${facts(picture)}${left} · ${(place + 1).toLocaleString("en")} of ${order.length.toLocaleString("en")}`;
  at("viewer-path").replaceChildren(pathOf(picture));
  at("cuts").hidden = !picture.cuts;
  if (picture.cuts) at("cuts").src = `cuts/${picture.file}`;
  at("before").disabled = place === 0;
  at("after").disabled = place === order.length - 1;
  zoom = 1;
  sheet = picture.why ? sheetOfError(picture) : sheetOf(picture);
  stage.replaceChildren(sheet);
  if (!viewer.open) viewer.showModal();
  showMarks();
  fitSheet();
  stage.focus();
};

const pathOf = (picture) => {
  if (!picture.link) return document.createTextNode(picture.path);
  const link = make("a", "", picture.path);
  link.href = picture.link;
  return link;
};

const sheetOfError = (picture) => {
  const outer = make("div", "sheet");
  outer.append(whyOf(picture));
  return outer;
};

const sheetOf = (picture) => {
  const outer = make("div", "sheet"), image = make("img"), layer = document.createElementNS(SVG, "svg");
  image.alt = picture.name;
  image.src = `large/${picture.file}`;
  layer.setAttribute("viewBox", `0 0 ${picture.size[0]} ${picture.size[1]}`);
  layer.setAttribute("preserveAspectRatio", "none");
  const marks = picture.marks.map((mark) => faceOf(mark, picture.zoom));
  marks.sort((a, b) => b.area - a.area); // the smallest last, so that one inside another can be pointed at
  for (const { element } of marks) {
    const casing = element.cloneNode();
    casing.setAttribute("class", "casing");
    casing.removeAttribute("stroke");
    layer.append(casing);
  }
  layer.append(...marks.map(({ element }) => element));
  outer.append(image, layer);
  return outer;
};

const faceOf = (mark, scale) => {
  const score = mark[mark.length - 1], height = mark[mark.length - 2];
  const element = document.createElementNS(SVG, ellipses ? "ellipse" : "rect");
  const values = ellipses
    ? { cx: mark[0], cy: mark[1], rx: mark[2], ry: mark[3], transform: `rotate(${mark[4]} ${mark[0]} ${mark[1]})` }
    : { x: mark[0], y: mark[1], width: mark[2], height: mark[3] };
  for (const [name, value] of Object.entries(values)) element.setAttribute(name, value);
  element.setAttribute("class", "face");
  element.setAttribute("stroke", colours[Math.round(score * 100)]);
  const title = document.createElementNS(SVG, "title");
  title.textContent = `score ${score.toFixed(2)}, ${Math.round(height / scale)} px high`;
  element.append(title);
  return { element, area: mark[2] * mark[3] };
};

const fitSheet = () => {
  const picture = pictures[order[place]];
  if (!viewer.open || !picture || picture.why) return;
  const [width, height] = picture.size;
  const middle = [stage.scrollLeft + stage.clientWidth / 2, stage.scrollTop + stage.clientHeight / 2];
  const before = sheet.clientWidth || 1;
  const whole = Math.min(stage.offsetWidth / width, stage.offsetHeight / height, 4); // scroll bars that come do not shrink it
  sheet.style.width = `${Math.floor(width * whole * zoom)}px`;
  sheet.style.height = `${Math.floor(height * whole * zoom)}px`;
  const grown = sheet.clientWidth / before;
  stage.scrollTo(middle[0] * grown - stage.clientWidth / 2, middle[1] * grown - stage.clientHeight / 2);
  at("smaller").disabled = zoom <= 1;
  at("larger").disabled = zoom >= 16;
};

const zoomBy = (factor) => {
  zoom = Math.min(Math.max(zoom * factor, 1), 16);
  fitSheet();
};
const showMarks = () => sheet.classList.toggle("plain", at("marks").getAttribute("aria-pressed") === "false");
const flipMarks = () => {
  const pressed = at("marks").getAttribute("aria-pressed") === "true";
  at("marks").setAttribute("aria-pressed", String(!pressed));
  showMarks();
};

new ResizeObserver(() => fitSheet()).observe(stage);
at("before").addEventListener("click", () => view(place - 1));
at("after").addEventListener("click", () => view(place + 1));
at("marks").addEventListener("click", flipMarks);
at("smaller").addEventListener("click", () => zoomBy(0.5));
at("larger").addEventListener("click", () => zoomBy(2));
at("close").addEventListener("click", () => viewer.close());
viewer.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const keys = {
    ArrowLeft: () => zoom === 1 && view(place - 1),
    ArrowRight: () => zoom === 1 && view(place + 1),
    f: flipMarks,
    "+": () => zoomBy(2),
    "=": () => zoomBy(2),
    "-": () => zoomBy(0.5),
  };
  if (!(event.key in keys)) return;
  if (zoom > 1 && event.key.startsWith("Arrow")) return; // the enlarged picture scrolls
  event.preventDefault();
  keys[event.key]();
});
viewer.addEventListener("close", () => {
  const row = Math.floor(place / shape.columns) * shape.row + grid.offsetTop, head = document.querySelector("header").offsetHeight;
  if (row < scrollY + head || row + shape.row > scrollY + innerHeight) scrollTo(0, row - head - GAP);
  draw();
  tiles.get(place)?.firstChild.focus({ preventScroll: true });
});

arrange();

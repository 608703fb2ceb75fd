"use strict";
(() => {
  const source = document.getElementById("plot-data");
  if (!source) return;
  const plot = JSON.parse(source.textContent);
  const canvas = document.getElementById("canvas"), tip = document.getElementById("tip");
  const choice = document.getElementById("axis"), log = document.getElementById("log");
  const note = document.getElementById("axis-note");
  const rows = document.querySelectorAll("#row tbody tr");
  const byNumber = new Map([...rows].map((row) => [Number(row.id.slice("row-".length)), row]));
  const MANY = 30;
  let chosen = null;

  const make = (parent, name, attributes, text) => {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    if (text !== undefined) node.textContent = text;
    return parent.appendChild(node);
  };
  const numeral = (value) => value.toLocaleString("en-US", { maximumSignificantDigits: 6 });

  // From a range of values to pixels, with ticks at round numbers.
  function scale(values, from, to, isLog, room) {
    let low = Math.min(...values), high = Math.max(...values);
    if (isLog) {
      const wide = Math.max((high / low) ** room, 1.3);
      low = Math.log(low / wide), high = Math.log(high * wide);
      const place = (value) => from + (Math.log(value) - low) / (high - low) * (to - from);
      const wanted = [];
      for (const steps of [[1], [1, 2, 5], [1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9]]) {
        wanted.length = 0;
        for (let power = Math.floor(low / Math.LN10); power <= high / Math.LN10; power++)
          for (const step of steps) wanted.push(step * 10 ** power);
        if (wanted.filter((value) => Math.log(value) >= low && Math.log(value) <= high).length >= 4) break;
      }
      return { place, ticks: wanted.filter((value) => Math.log(value) >= low && Math.log(value) <= high) };
    }
    const margin = (high - low) * room || Math.abs(high) * 0.05 || 1;
    low -= margin, high += margin;
    const raw = (high - low) / Math.max(3, Math.abs(to - from) / 90);
    const step = [1, 2, 5, 10].map((each) => each * 10 ** Math.floor(Math.log10(raw))).find((each) => each >= raw);
    const ticks = [];
    for (let count = Math.ceil(low / step); count * step <= high; count++) ticks.push(Number((count * step).toPrecision(12)));
    return { place: (value) => from + (value - low) / (high - low) * (to - from), ticks };
  }

  function draw() {
    const axis = plot.axes.find((each) => each.key === choice.value);
    const points = plot.points.filter((point) => point.x[axis.key]);
    const width = Math.max(canvas.clientWidth, 280), height = Math.round(Math.min(Math.max(width * 0.45, 300), 520));
    const left = 52, right = width - 14, top = 14, bottom = height - 46;
    canvas.replaceChildren();
    tip.hidden = true;
    note.textContent = [axis.note, missing(points.length)].filter(Boolean).join(" ");
    const svg = make(canvas, "svg", { width, height, viewBox: `0 0 ${width} ${height}`, role: "group",
      "aria-label": `${plot.title} against ${axis.title}` });
    const all = (get) => points.flatMap((point) => [get(point).value, ...(get(point).ends || [])]);
    const x = scale(all((point) => point.x[axis.key]).filter((value) => value > 0 || !log.checked), left, right, log.checked, 0.12);
    const y = scale(all((point) => point.y), bottom, top, false, 0.08);
    grid(svg, x, y, { left, right, top, bottom, width, height }, axis);
    const places = points.map((point) => ({ point, x: x.place(point.x[axis.key].value), y: y.place(point.y.value) }));
    const front = axis.front.map((row) => places.find((place) => place.point.row === row)).filter(Boolean);
    if (front.length > 1) make(svg, "path", { class: "stairs", d: front.map((place, number) =>
      number ? `H${place.x} V${place.y}` : `M${place.x} ${place.y}`).join(" ") });
    const taken = places.map((place) => [place.x - 8, place.y - 8, place.x + 8, place.y + 8]);
    // Those in front last, so that nothing covers them.
    const order = [...places].sort((a, b) => axis.front.includes(a.point.row) - axis.front.includes(b.point.row));
    for (const place of order) mark(svg, place, axis, x, y);
    // Of many points only the front has names; the others are told under the pointer.
    const named = places.length > MANY ? order.filter((place) => axis.front.includes(place.point.row)) : order;
    for (const place of [...named].reverse()) label(svg, place, taken, { left, right, top, bottom });
    choose(chosen, false);
  }

  function missing(count) {
    const without = plot.points.length - count;
    return without ? `${without} of ${plot.points.length} rows have no figure on this axis.` : "";
  }

  function grid(svg, x, y, frame, axis) {
    let last = -Infinity;
    for (const value of x.ticks) {
      const at = x.place(value), text = numeral(value);
      make(svg, "line", { class: "grid", x1: at, x2: at, y1: frame.top, y2: frame.bottom });
      if (at - last < 12 + 7 * text.length) continue;
      last = at;
      make(svg, "text", { class: "tick", x: at, y: frame.bottom + 18, "text-anchor": "middle" }, text);
    }
    for (const value of y.ticks) {
      const at = y.place(value);
      make(svg, "line", { class: "grid", x1: frame.left, x2: frame.right, y1: at, y2: at });
      make(svg, "text", { class: "tick", x: frame.left - 7, y: at + 4, "text-anchor": "end" }, numeral(value));
    }
    const title = log.checked ? `${axis.title} (log scale)` : axis.title;
    make(svg, "text", { class: "title", x: (frame.left + frame.right) / 2, y: frame.height - 8, "text-anchor": "middle" }, title);
    const middle = (frame.top + frame.bottom) / 2;
    make(svg, "text", { x: 13, y: middle, "text-anchor": "middle", transform: `rotate(-90 13 ${middle})` }, plot.title);
  }

  function mark(svg, place, axis, x, y) {
    const { point } = place, side = point.x[axis.key];
    const kind = !point.valid ? "unfit" : axis.front.includes(point.row) ? "front" : "";
    const group = make(svg, "g", { class: `mark ${kind}`, tabindex: "0", role: "button", "data-row": point.row,
      "aria-label": `${point.name}, ${point.badge}: ${point.hover.map((pair) => pair.join(" ")).join(", ")}` });
    const bars = [];
    if (side.ends) {
      const ends = side.ends.map((end) => x.place(log.checked && end <= 0 ? side.value : end));
      bars.push(`M${ends[0]} ${place.y} H${ends[1]} M${ends[0]} ${place.y - 4} v8 M${ends[1]} ${place.y - 4} v8`);
    }
    if (point.y.ends) {
      const ends = point.y.ends.map(y.place);
      bars.push(`M${place.x} ${ends[0]} V${ends[1]} M${place.x - 4} ${ends[0]} h8 M${place.x - 4} ${ends[1]} h8`);
    }
    if (bars.length) make(group, "path", { class: "interval", d: bars.join(" ") });
    make(group, "circle", { class: "reach", cx: place.x, cy: place.y, r: 14 });
    if (point.valid) make(group, "circle", { class: "dot", cx: place.x, cy: place.y, r: 5 });
    else make(group, "path", { class: "dot", d: `M${place.x} ${place.y - 6.5} l6.5 6.5 -6.5 6.5 -6.5 -6.5 z` });
    group.addEventListener("pointerenter", () => show(place));
    group.addEventListener("pointerleave", () => { tip.hidden = true; });
    group.addEventListener("focus", () => show(place));
    group.addEventListener("blur", () => { tip.hidden = true; });
    group.addEventListener("click", () => choose(point.row, true));
    group.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      choose(point.row, true);
    });
  }

  // Beside its point where it covers nothing; without room the name stays in the hover.
  function label(svg, place, taken, frame) {
    const long = place.point.name.length > 28 ? `${[...place.point.name].slice(0, 27).join("")}…` : place.point.name;
    const text = make(svg, "text", { class: "name", "aria-hidden": "true" }, long);
    const wide = text.getComputedTextLength(), tall = 13;
    for (const [dx, dy] of [[10, -6], [10, 18], [-10 - wide, -6], [-10 - wide, 18], [10, -20], [10, 32],
      [-10 - wide, -20], [-10 - wide, 32], [-wide / 2, -30], [-wide / 2, 42]]) {
      const box = [place.x + dx, place.y + dy - tall + 3, place.x + dx + wide, place.y + dy + 3];
      const inside = box[0] >= frame.left && box[2] <= frame.right && box[1] >= frame.top && box[3] <= frame.bottom;
      if (!inside || taken.some((other) => box[0] < other[2] && other[0] < box[2] && box[1] < other[3] && other[1] < box[3])) continue;
      text.setAttribute("x", box[0]);
      text.setAttribute("y", place.y + dy);
      taken.push(box);
      return;
    }
    text.remove();
  }

  function show(place) {
    const { point } = place;
    tip.replaceChildren();
    const add = (parent, name, text) => Object.assign(parent.appendChild(document.createElement(name)), { textContent: text });
    add(tip, "b", point.valid ? point.name : `${point.name} (${point.badge})`);
    const list = tip.appendChild(document.createElement("dl"));
    for (const [heading, text] of point.hover) add(list, "dt", heading), add(list, "dd", text);
    tip.hidden = false;
    const room = canvas.clientWidth - tip.offsetWidth;
    const beside = place.x + 18 > room ? place.x - tip.offsetWidth - 18 : place.x + 18;
    tip.style.left = `${Math.max(0, Math.min(beside, room))}px`;
    tip.style.top = `${canvas.offsetTop + Math.max(0, place.y - tip.offsetHeight / 2)}px`;
  }

  function choose(row, scroll) {
    chosen = row;
    for (const each of document.querySelectorAll(".chosen")) each.classList.remove("chosen");
    if (row === null) return;
    const line = byNumber.get(row), point = canvas.querySelector(`[data-row="${row}"]`);
    line?.classList.add("chosen");
    point?.classList.add("chosen");
    if (scroll) line?.scrollIntoView({ block: "nearest" });
  }

  for (const [number, row] of byNumber) row.addEventListener("click", () => choose(number, false));
  choice.addEventListener("change", draw);
  log.addEventListener("change", draw);
  let wait = 0, width = 0;
  addEventListener("resize", () => {
    if (canvas.clientWidth === width) return;
    width = canvas.clientWidth;
    cancelAnimationFrame(wait);
    wait = requestAnimationFrame(draw);
  });
  draw();
})();

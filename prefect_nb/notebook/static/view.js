// The live panel of one flow run. It shows what the kernel sends and computes nothing about states.
// Text from runs only ever becomes text nodes.

const ANNOUNCE_EVERY = 1000; // milliseconds

function element(tag, className, parent, attributes = {}) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (parent) parent.append(node);
  return node;
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function state(parent) {
  const glyph = element("span", "pnb-glyph", parent, { "aria-hidden": "true" });
  const word = element("span", "pnb-word", parent);
  return (type, text, palette) => {
    const [mark, color] = palette[type];
    setText(glyph, mark);
    setText(word, text);
    glyph.style.color = color;
  };
}

function headline(parent) {
  const line = element("div", "pnb-headline", parent);
  const setState = state(element("strong", "", line));
  const flow = element("strong", "pnb-flow", line, { dir: "auto" });
  const run = element("span", "pnb-run", line, { dir: "auto" });
  const took = element("span", "pnb-took", line);
  return (picture) => {
    setState(picture.state[0], picture.state[1], picture.palette);
    setText(flow, picture.flow);
    setText(run, picture.run);
    setText(took, picture.took);
  };
}

function progress(parent) {
  const bar = element("div", "pnb-bar", parent, {
    role: "progressbar",
    "aria-label": "Task runs done",
    "aria-valuemin": "0",
  });
  const fill = element("div", "pnb-fill", bar);
  return ({ done, total, counted }) => {
    bar.hidden = total === 0;
    bar.setAttribute("aria-valuemax", String(total));
    bar.setAttribute("aria-valuenow", String(done));
    bar.setAttribute("aria-valuetext", counted);
    fill.style.width = total ? `${(100 * done) / total}%` : "0";
  };
}

function counts(parent) {
  const line = element("div", "pnb-counts", parent);
  const shown = [];
  return ({ counts: numbers, palette }) => {
    while (shown.length > numbers.length) shown.pop().item.remove();
    while (shown.length < numbers.length) {
      const item = element("span", "pnb-count", line);
      shown.push({ item, set: state(item) });
    }
    numbers.forEach(([type, text], place) => shown[place].set(type, text, palette));
  };
}

function table(parent) {
  const frame = element("div", "pnb-scroll", parent, { role: "region", "aria-label": "Task runs", tabindex: "0" });
  const whole = element("table", "pnb-table", frame);
  const caption = element("caption", "", whole);
  const heads = element("tr", "", element("thead", "", whole));
  for (const title of ["State", "Task run", "Attempts", "Duration", "Note"]) {
    element("th", "", heads, { scope: "col" }).textContent = title;
  }
  const body = element("tbody", "", whole);
  const known = new Map();

  function newRow() {
    const line = element("tr");
    const setState = state(element("td", "", line));
    const name = element("th", "", line, { scope: "row", dir: "auto" });
    const attempts = element("td", "pnb-number", line);
    const took = element("td", "pnb-number", line);
    const note = element("td", "pnb-note", line, { dir: "auto" });
    return {
      line,
      set([, type, word, text, tries, time, remark], palette) {
        setState(type, word, palette);
        setText(name, text);
        setText(attempts, tries);
        setText(took, time);
        setText(note, remark);
        note.title = remark;
      },
    };
  }

  return ({ rows, caption: title, palette }) => {
    frame.hidden = rows.length === 0;
    setText(caption, title);
    const wanted = new Set(rows.map(([id]) => id));
    for (const [id, row] of known) {
      if (!wanted.has(id)) {
        row.line.remove();
        known.delete(id);
      }
    }
    let next = body.firstChild;
    for (const values of rows) {
      let row = known.get(values[0]);
      if (!row) known.set(values[0], (row = newRow()));
      row.set(values, palette);
      // A row already in its place is not touched: moving nodes would cost layout and the reader's selection.
      if (row.line === next) next = next.nextSibling;
      else body.insertBefore(row.line, next);
    }
  };
}

const SVG = "http://www.w3.org/2000/svg";

function drawing(tag, parent, attributes = {}) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  parent.append(node);
  return node;
}

function polyline(parent, { color, dashes }) {
  const line = drawing("polyline", parent, { fill: "none", "stroke-width": "1.5", "stroke-linecap": "round" });
  line.style.stroke = color;
  if (dashes) line.setAttribute("stroke-dasharray", dashes);
  return line;
}

function heads(parent, titles, numbers = []) {
  const line = element("tr", "", element("thead", "", parent));
  for (const title of titles) element("th", "", line, { scope: "col" }).textContent = title;
  for (const title of numbers) element("th", "pnb-number", line, { scope: "col" }).textContent = title;
}

// One metric: a chart with a line for each run, and the numbers beside it.
function chart(body, metric, [width, height]) {
  const several = metric.strokes.length > 1;
  const span = { rowspan: String(metric.strokes.length + (metric.left_out ? 1 : 0)) };
  let line = element("tr", "", body);
  element("th", "", line, { scope: "rowgroup", dir: "auto", ...span }).textContent = metric.name;
  const svg = drawing("svg", element("td", "", line, span), {
    class: "pnb-chart",
    role: "img",
    viewBox: `0 0 ${width} ${height}`,
  });
  const title = drawing("title", svg);
  drawing("path", svg, { class: "pnb-base", d: `M0 ${height - 0.5}H${width}` });
  const strokes = metric.strokes.map((stroke, place) => {
    if (place > 0) line = element("tr", "", body);
    const whose = element("td", "", line, { dir: "auto" });
    if (several) {
      const sample = drawing("svg", whose, { class: "pnb-sample", viewBox: "0 0 24 10", "aria-hidden": "true" });
      polyline(sample, stroke).setAttribute("points", "1,5 23,5");
    }
    const label = element("span", "", whose);
    const values = stroke.values.map(() => element("td", "pnb-number", line));
    return { label, values, drawn: polyline(svg, stroke) };
  });
  const rest = metric.left_out ? element("td", "", element("tr", "", body), { colspan: "5" }) : null;
  return (now) => {
    setText(title, now.says);
    now.strokes.forEach((stroke, place) => {
      const { label, values, drawn } = strokes[place];
      setText(label, stroke.label);
      stroke.values.forEach((text, column) => setText(values[column], text));
      drawn.setAttribute("points", stroke.points);
    });
    if (rest) setText(rest, `… and ${now.left_out} more`);
  };
}

function metrics(parent) {
  const frame = element("div", "pnb-reports", parent, { role: "region", "aria-label": "Metrics", tabindex: "0" });
  const whole = element("table", "pnb-table", frame);
  element("caption", "", whole).textContent = "Metrics";
  heads(whole, ["Metric", "Over steps", "Run"], ["Last", "Least", "Greatest", "Values"]);
  const known = [];

  return ({ metrics: now, chart: size }) => {
    frame.hidden = now.length === 0;
    while (known.length > now.length) known.pop().body.remove();
    now.forEach((metric, place) => {
      const form = `${metric.name}/${metric.strokes.length}/${metric.left_out > 0}`;
      if (!known[place]) known.push({ body: element("tbody", "", whole), form: null, set: null });
      const shown = known[place];
      if (shown.form !== form) {
        shown.body.replaceChildren();
        shown.form = form;
        shown.set = chart(shown.body, metric, size);
      }
      shown.set(metric);
    });
  };
}

function artifacts(parent) {
  const frame = element("div", "pnb-reports", parent, { role: "region", "aria-label": "Artifacts", tabindex: "0" });
  const whole = element("table", "pnb-table", frame);
  element("caption", "", whole).textContent = "Artifacts";
  heads(whole, ["Artifact", "Type", "What"]);
  const body = element("tbody", "", whole);
  let before = "[]";

  return ({ artifacts: now }) => {
    frame.hidden = now.length === 0;
    const text = JSON.stringify(now);
    if (text === before) return;
    before = text;
    body.replaceChildren();
    for (const { key, type, about, progress, image } of now) {
      const line = element("tr", "", body);
      element("th", "", line, { scope: "row", dir: "auto" }).textContent = key;
      element("td", "", line).textContent = type;
      const what = element("td", "pnb-about", line, { dir: "auto" });
      if (progress !== undefined) {
        element("progress", "", what, { max: "100", value: String(progress), "aria-label": key || "Progress" });
      }
      // The kernel lets only addresses of images through.
      if (image !== undefined) element("img", "", what, { src: image, alt: about || "image", loading: "lazy" });
      element("span", "", what).textContent = about;
    }
  };
}

function announcer(parent) {
  const region = element("div", "pnb-unseen", parent, { role: "status", "aria-live": "polite" });
  let timer = null;
  let last = -Infinity;
  let text = "";
  function say() {
    timer = null;
    last = performance.now();
    setText(region, text);
  }
  return {
    set(announcement) {
      text = announcement;
      if (timer === null && region.textContent !== text) {
        timer = setTimeout(say, Math.max(0, last + ANNOUNCE_EVERY - performance.now()));
      }
    },
    stop: () => clearTimeout(timer),
  };
}

function render({ model, el }) {
  const panel = element("section", "pnb-panel", el, { "aria-label": "Flow run" });
  const parts = [headline(panel), progress(panel), counts(panel)];
  const message = element("div", "pnb-message", panel, { dir: "auto" });
  parts.push(table(panel), metrics(panel), artifacts(panel));
  const voice = announcer(panel);
  const decoder = new TextDecoder();
  let frame = null;

  function draw() {
    frame = null;
    const data = model.get("data");
    if (!data || data.byteLength === 0) return;
    const picture = JSON.parse(decoder.decode(data));
    for (const part of parts) part(picture);
    panel.style.borderLeftColor = picture.palette[picture.state[0]][1];
    message.hidden = !picture.message;
    setText(message, picture.message);
    voice.set(picture.counted);
  }

  function changed() {
    if (frame === null) frame = requestAnimationFrame(draw);
  }

  draw();
  model.on("change:data", changed);
  return () => {
    model.off("change:data", changed);
    cancelAnimationFrame(frame);
    voice.stop();
  };
}

export default { render };

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
  parts.push(table(panel));
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

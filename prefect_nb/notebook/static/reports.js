// Metrics and artifacts.

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

// The graph: boxes where the kernel has put them. It says nothing that the table does not say.

function graph(parent, onChoose) {
  const frame = element("div", "pnb-scroll pnb-graph", parent, { tabindex: "0", role: "region", "aria-label": "Graph" });
  const svg = drawing("svg", frame, { role: "img" });
  const title = drawing("title", svg);
  const lines = drawing("g", svg, { class: "pnb-edges" });
  const boxes = drawing("g", svg);
  const known = new Map();
  let form = "";

  function box(key) {
    const group = drawing("g", boxes, { class: "pnb-box" });
    const rect = drawing("rect", group, { class: "pnb-card" });
    const name = drawing("text", group, { class: "pnb-box-name", x: "10", y: "18" });
    const state = drawing("text", group, { class: "pnb-box-state", x: "10", y: "34" });
    const glyph = drawing("tspan", state);
    const words = drawing("tspan", state);
    const tip = drawing("title", group);
    const parts = new Map();
    group.addEventListener("click", () => onChoose(key));
    return (data, height, palette) => {
      const [x, y, width] = data.at;
      const [type, text] = data.state;
      const [mark, color] = palette[type];
      setAttribute(group, "transform", `translate(${x} ${y})`);
      for (const [attribute, value] of [["width", width], ["height", height], ["rx", data.kind === "flow" ? 2 : 6]]) {
        setAttribute(rect, attribute, String(value));
      }
      rect.style.stroke = color;
      glyph.style.fill = color;
      setText(name, data.name);
      setText(glyph, mark);
      setText(words, ` ${text}`);
      setText(tip, `${data.name}: ${text}`);
      setAttribute(group, "data-state", type);
      if (data.shares) bar(group, parts, data.shares, width, height, palette);
    };
  }

  function bar(group, parts, shares, width, height, palette) {
    const total = shares.reduce((sum, [, number]) => sum + number, 0);
    const numbers = new Map(shares);
    let x = 8;
    for (const type of BAR_ORDER) {
      const wide = ((width - 16) * (numbers.get(type) ?? 0)) / total;
      if (!parts.has(type)) parts.set(type, drawing("rect", group, { y: String(height - 6), height: "3", class: "pnb-share" }));
      const part = parts.get(type);
      setAttribute(part, "x", x.toFixed(1));
      setAttribute(part, "width", wide.toFixed(1));
      part.style.fill = palette[type][1];
      x += wide;
    }
  }

  return {
    frame,
    draw({ graph: data, palette, counted }) {
      if (!data) return;
      const [width, height] = data.size;
      setAttribute(svg, "viewBox", `0 0 ${width} ${height}`);
      setAttribute(svg, "width", String(width));
      setAttribute(svg, "height", String(height));
      setText(title, `Graph of ${data.boxes.length} tasks: ${counted}`);
      const nowForm = data.lines.join();
      if (nowForm !== form) {
        form = nowForm;
        lines.replaceChildren();
        for (const d of data.lines) drawing("path", lines, { d });
      }
      for (const one of data.boxes) {
        if (!known.has(one.key)) known.set(one.key, box(one.key));
        known.get(one.key)(one, data.box, palette);
      }
    },
  };
}

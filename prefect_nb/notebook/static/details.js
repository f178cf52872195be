// What a row opens into, asked of the kernel when it is opened, and again while the run changes.

const ASK_AGAIN = 2000; // milliseconds
const PATIENCE = 1500;

function detailsView(view, table) {
  const line = element("tr", "pnb-details", null, { role: "row" });
  const cell = element("td", "", line, { colspan: String(COLUMNS.length), role: "gridcell" });
  const frame = element("div", "pnb-inside", cell, { role: "region", "aria-label": `Details of ${view.data.name}` });
  element("p", "pnb-quiet", frame).textContent = "…";
  line.style.setProperty("--pnb-level", String(view.data.level - 1));
  let known = "";
  let asked = -Infinity;
  let waiting = false;
  let shown = "";

  async function ask(run) {
    waiting = true;
    asked = performance.now();
    const patience = setTimeout(() => {
      if (!shown) frame.firstChild.textContent = "The kernel is busy and will tell when it can.";
    }, PATIENCE);
    const answer = await table.control.ask({ command: "details", run });
    clearTimeout(patience);
    waiting = false;
    const parts = answer.details ?? [{ kind: "fact", name: "Details", text: answer.message ?? "There is no answer." }];
    const text = JSON.stringify(parts);
    if (text === shown) return;
    const first = !shown;
    shown = text;
    const unfolded = new Set([...frame.querySelectorAll("details[open]")].map((node) => node.dataset.key));
    frame.replaceChildren();
    parts.forEach((part, place) => PARTS[part.kind]?.(frame, part, String(place)));
    for (const node of frame.querySelectorAll("details")) node.open = unfolded.has(node.dataset.key);
    if (first) line.scrollIntoView({ block: "nearest" });
  }

  return {
    line,
    refresh(data) {
      const state = `${data.type} ${data.word} ${data.tries}`;
      const due = data.took && !["COMPLETED", "FAILED", "CRASHED", "CANCELLED"].includes(data.type);
      if (waiting || (state === known && !(due && performance.now() > asked + ASK_AGAIN))) return;
      known = state;
      ask(data.run);
    },
  };
}

const PARTS = {
  error(parent, { message, where, line, traceback }, key) {
    const box = element("div", "pnb-error", parent);
    element("div", "pnb-message", box, { dir: "auto" }).textContent = message;
    if (where) {
      const place = element("div", "pnb-place", box);
      element("span", "pnb-where", place).textContent = where;
      if (line) element("code", "", place).textContent = line;
    }
    if (!traceback) return;
    const whole = element("details", "", box);
    whole.dataset.key = `traceback ${key}`;
    element("summary", "", whole).textContent = "Traceback";
    element("pre", "", whole).textContent = traceback;
  },

  fact(parent, { name, text }) {
    const line = element("div", "pnb-fact", parent);
    element("span", "pnb-label", line).textContent = name;
    element("span", "", line, { dir: "auto" }).textContent = text;
  },

  log(parent, { lines, left_out }) {
    const box = element("div", "pnb-log", parent, { role: "log", "aria-label": "Log", "aria-live": "off", tabindex: "0" });
    if (left_out) element("div", "pnb-quiet", box).textContent = `… ${left_out.toLocaleString("en")} earlier lines`;
    for (const [time, level, message] of lines) {
      const line = element("div", `pnb-log-line pnb-level-${/^[A-Z]+$/.test(level) ? level : ""}`, box);
      element("span", "pnb-quiet", line).textContent = time;
      element("span", "pnb-level", line).textContent = level;
      element("span", "pnb-said-line", line, { dir: "auto" }).textContent = message;
    }
  },

  text(parent, { text, stream }) {
    element("pre", `pnb-text${stream === "stderr" ? " pnb-stderr" : ""}`, parent, { tabindex: "0" }).textContent = text;
  },

  html(parent, { html }) {
    const box = element("div", "pnb-html jp-RenderedHTMLCommon", parent, { tabindex: "0" });
    harmless(new DOMParser().parseFromString(String(html), "text/html").body, box);
  },

  image(parent, { src, alt }) {
    if (!/^data:image\/(png|jpeg|gif|webp);base64,[A-Za-z0-9+/=\s]+$/.test(src)) return;
    element("img", "pnb-image", parent, { src, alt: alt || "image" });
  },
};

// Tags that mean nothing but structure and emphasis; of the others only the text inside stays, of these nothing at all.
const KEPT =
  "a abbr b br caption code col colgroup dd div dl dt em figcaption figure h1 h2 h3 h4 h5 h6 hr i kbd li mark ol p pre s samp " +
  "small span strong sub summary sup table tbody td tfoot th thead tr u ul var";
const KEPT_TAGS = new Set(KEPT.toUpperCase().split(" "));
const DROPPED_TAGS = new Set("SCRIPT STYLE TEMPLATE IFRAME OBJECT EMBED NOSCRIPT SVG MATH HEAD TITLE".split(" "));

function harmless(from, to) {
  for (const node of from.childNodes) {
    if (node.nodeType === Node.TEXT_NODE) to.append(node.data);
    if (node.nodeType !== Node.ELEMENT_NODE) continue;
    const tag = node.tagName.toUpperCase();
    if (DROPPED_TAGS.has(tag)) continue;
    if (!KEPT_TAGS.has(tag)) {
      harmless(node, to);
      continue;
    }
    const copy = element(tag === "A" ? "span" : tag.toLowerCase(), "", to);
    for (const name of ["colspan", "rowspan"]) {
      const value = Number(node.getAttribute(name));
      if (value > 0 && value < 1000) copy.setAttribute(name, String(value));
    }
    harmless(node, copy);
  }
}

// The live panel of one flow run. It shows what the kernel sends and computes nothing about states.
// Text from runs only ever becomes text nodes. The files beside this one are joined in order; this is the first.

const SVG = "http://www.w3.org/2000/svg";

function element(tag, className, parent, attributes = {}) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (parent) parent.append(node);
  return node;
}

function drawing(tag, parent, attributes = {}) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  parent.append(node);
  return node;
}

function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function setAttribute(node, name, value) {
  if (value === null) node.removeAttribute(name);
  else if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}

// Glyph and word; only the glyph is coloured.
function stateMark(parent) {
  const glyph = element("span", "pnb-glyph", parent, { "aria-hidden": "true" });
  const word = element("span", "pnb-word", parent);
  return (type, text, palette) => {
    const [mark, color] = palette[type];
    setText(glyph, mark);
    setText(word, text);
    if (glyph.style.color !== color) glyph.style.color = color;
  };
}

// How many runs are in which state, as a bar; the words beside it say the same.
const BAR_ORDER = ["COMPLETED", "CANCELLED", "FAILED", "CRASHED", "CANCELLING", "PAUSED", "RUNNING"];

function stackedBar(bar) {
  const parts = BAR_ORDER.map((type) => [type, element("span", `pnb-part pnb-part-${type}`, bar)]);
  const rest = element("span", "pnb-part", bar);
  const set = (counts, palette) => {
    const numbers = new Map();
    for (const [type, number] of counts) numbers.set(type, (numbers.get(type) ?? 0) + number);
    let others = 0;
    for (const [type, number] of numbers) if (!BAR_ORDER.includes(type)) others += number;
    for (const [type, part] of parts) {
      part.style.flexGrow = String(numbers.get(type) ?? 0);
      part.style.backgroundColor = palette[type][1];
    }
    rest.style.flexGrow = String(others);
  };
  set.bar = bar;
  return set;
}

// `✓ 3,210 Completed  ▶ 8 Running`
function countWords(parent) {
  const shown = [];
  return (counts, palette, brief = false) => {
    while (shown.length > counts.length) shown.pop().item.remove();
    while (shown.length < counts.length) {
      const item = element("span", "pnb-count", parent);
      shown.push({ item, set: stateMark(item) });
    }
    counts.forEach(([type, number, word], place) => {
      const text = number.toLocaleString("en");
      shown[place].set(type, brief ? text : `${text} ${word}`, palette);
      setAttribute(shown[place].item, "title", brief ? `${text} ${word}` : null);
      setAttribute(shown[place].item, "aria-label", brief ? `${text} ${word}` : null);
      setAttribute(shown[place].item, "role", brief ? "img" : null);
    });
  };
}

const COMMANDS = {
  R: ["retry", "Retry"],
  S: ["skip", "Skip"],
  C: ["cancel", "Cancel"],
  P: ["pause", "Pause"],
  U: ["resume", "Resume"],
};

// The buttons for what can be done with a run, and beside them what came of the last click.
function actions(parent, control) {
  const frame = element("span", "pnb-actions", parent);
  const said = element("span", "pnb-said", parent);
  const buttons = new Map();
  return (can, run, name) => {
    const wanted = [...can];
    const { pending, answers, gone } = control.of(run);
    for (const letter of pending) if (!wanted.includes(letter)) wanted.push(letter);
    for (const [letter, button] of buttons) {
      if (!wanted.includes(letter)) {
        button.remove();
        buttons.delete(letter);
      }
    }
    for (const letter of wanted) {
      const [command, label] = COMMANDS[letter];
      let button = buttons.get(letter);
      if (!button) {
        button = element("button", `pnb-button pnb-${command}`, frame, { type: "button", tabindex: "-1" });
        button.addEventListener("click", (event) => {
          event.stopPropagation();
          if (button.getAttribute("aria-disabled") !== "true") control.give(letter, button.dataset.run, button.dataset.name);
        });
        buttons.set(letter, button);
      }
      const waiting = pending.includes(letter);
      button.dataset.run = run;
      button.dataset.name = name;
      setText(button, waiting ? `${label}…` : label);
      setAttribute(button, "aria-label", name ? `${label} ${name}` : label);
      setAttribute(button, "aria-busy", waiting ? "true" : null);
      setAttribute(button, "aria-disabled", waiting || gone ? "true" : null);
      setAttribute(button, "title", gone || `${label} (${letter})`);
    }
    setText(said, answers);
    setAttribute(said, "title", answers || null);
    said.hidden = !answers;
  };
}

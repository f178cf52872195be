// The task table: a treegrid. A group (a mapped task, a child flow run) opens into its runs, a run into its details.

const COLUMNS = ["State", "Task run", "Attempts", "Duration", "Note", ""];

function lineView(key, table) {
  const line = element("tr", "pnb-line", null, { role: "row", tabindex: "-1" });
  const mark = stateMark(element("td", "pnb-state", line, { role: "gridcell" }));
  const head = element("th", "pnb-name", line, { scope: "row", role: "rowheader" });
  const twisty = element("span", "pnb-twisty", head, { "aria-hidden": "true" });
  const name = element("span", "", head, { dir: "auto" });
  const times = element("span", "pnb-times");
  const tries = element("td", "pnb-number", line, { role: "gridcell" });
  const duration = element("td", "pnb-number", line, { role: "gridcell" });
  const took = element("span", "", duration);
  const left = element("span", "pnb-left", duration);
  const about = element("td", "pnb-note", line, { role: "gridcell" });
  const note = element("span", "", about, { dir: "auto" });
  const acts = element("td", "pnb-acts", line, { role: "gridcell" });
  const view = { key, line, data: null, details: null };
  let setSummary = null;
  let setButtons = null;

  // Of a mapped task: the bar and the numbers.
  function summary() {
    head.append(times);
    const setBar = stackedBar(element("span", "pnb-small-bar", null, { "aria-hidden": "true" }));
    about.prepend(setBar.bar, element("span", "pnb-brief"));
    const setCounts = countWords(about.children[1]);
    return (counts, palette) => {
      setBar(counts, palette);
      setCounts(counts, palette, true);
    };
  }

  // What waits can be skipped and cancelled, too; but a thousand of them need their buttons only where somebody is.
  view.act = () => {
    const { data } = view;
    const isWaiting = data.type === "PENDING" || data.type === "SCHEDULED";
    if (!setButtons && (!data.can || (isWaiting && table.current !== key && !line.matches(":hover, :focus-within")))) return;
    setButtons ??= actions(acts, table.control);
    setButtons(data.can, data.run, data.name);
  };
  line.pnbView = view;

  view.set = (data, palette) => {
    view.data = data;
    mark(data.type, data.word, palette);
    setText(name, data.name);
    if (data.total !== undefined) setText(times, ` × ${data.total.toLocaleString("en")}`);
    setText(twisty, data.expands ? (data.open ? "▾" : "▸") : "");
    setText(tries, data.tries);
    setText(took, data.took);
    setText(left, data.left ? ` · ${data.left}` : "");
    if (data.counts) (setSummary ??= summary())(data.counts, palette);
    setText(note, data.note);
    setAttribute(about, "title", data.note || null);
    setAttribute(line, "aria-level", String(data.level));
    setAttribute(line, "aria-expanded", String(data.open));
    setLevel(line, data.level);
    if (line.dataset.state !== data.type) line.dataset.state = data.type;
    if (line.dataset.kind !== data.kind) line.dataset.kind = data.kind;
    view.act();
    setTabStops(view, table.current === key);
  };
  return view;
}

function setLevel(line, level) {
  const shift = String(level - 1);
  if (line.style.getPropertyValue("--pnb-level") !== shift) line.style.setProperty("--pnb-level", shift);
}

// Only the current row, and in it the buttons, are in the page's tab order.
function setTabStops(view, current) {
  setAttribute(view.line, "tabindex", current ? "0" : "-1");
  for (const button of view.line.querySelectorAll("button")) setAttribute(button, "tabindex", current ? "0" : "-1");
}

function ofRun([run, type, word, name, tries, took, left, note, can], level, kind, table) {
  const open = table.opened.has(run);
  return { key: run, run, kind, type, word, name, tries, took, left, note, can, level, open, expands: true };
}

// What is visible, in order: groups that are closed hide what is below them.
function visibleLines(items, table) {
  const lines = [];
  let hiddenBelow = Infinity;
  for (const item of items) {
    if (item.depth > hiddenBelow) continue;
    hiddenBelow = Infinity;
    const level = item.depth + 1;
    if (item.row) {
      lines.push(ofRun(item.row, level, item.kind, table));
      continue;
    }
    const key = `group ${item.key}`;
    const isFlow = item.kind === "flow";
    const open = isFlow !== table.turned.has(key);
    lines.push({
      key,
      kind: item.kind,
      group: item.key,
      run: item.run ?? "",
      type: item.state[0],
      word: item.state[1],
      name: item.called ? `${item.name} / ${item.called}` : item.name,
      total: isFlow ? undefined : item.total,
      tries: "",
      took: item.took,
      left: item.left,
      counts: isFlow ? null : item.counts,
      note: item.note ?? "",
      can: "",
      level,
      open,
      expands: true,
    });
    if (!open) {
      hiddenBelow = item.depth;
      continue;
    }
    for (const row of item.rows) lines.push(ofRun(row, level + 1, "task", table));
    const more = isFlow ? 0 : item.total - item.rows.length;
    if (more > 0) lines.push({ key: `${key} more`, more: `… ${more.toLocaleString("en")} more`, level: level + 1 });
  }
  return lines;
}

function taskTable(parent, control) {
  const frame = element("div", "pnb-scroll", parent);
  const whole = element("table", "pnb-table pnb-tasks", frame, { role: "treegrid", "aria-label": "Task runs" });
  const heads = element("tr", "", element("thead", "", whole, { role: "rowgroup" }), { role: "row" });
  for (const title of COLUMNS) {
    const head = element("th", /Att|Dur/.test(title) ? "pnb-number" : "", heads, { scope: "col", role: "columnheader" });
    if (title) head.textContent = title;
    else element("span", "pnb-unseen", head).textContent = "Actions";
  }
  const body = element("tbody", "", whole, { role: "rowgroup" });
  const known = new Map();
  const table = { control, frame, current: null, opened: new Set(), turned: new Set() };
  let order = [];
  let latest = null;

  table.toggle = (view) => {
    const { data } = view;
    if (!data.expands) return;
    const chosen = data.group === undefined ? table.opened : table.turned;
    const key = data.group === undefined ? data.run : data.key;
    if (!chosen.delete(key)) chosen.add(key);
    if (data.kind === "map") {
      const open = [...table.turned].filter((one) => known.get(one)?.data.kind === "map");
      control.ask({ command: "rows", groups: open.map((one) => known.get(one).data.group) });
    }
    table.draw(latest);
    view.details?.line.scrollIntoView({ block: "nearest" });
  };

  table.moveTo = (view, focus = true) => {
    const before = known.get(table.current);
    table.current = view.key;
    if (before) setTabStops(before, false);
    view.act?.();
    setTabStops(view, true);
    if (focus && !view.line.contains(document.activeElement)) view.line.focus();
  };

  // From the graph: the row of a box.
  table.show = (key) => {
    const item = latest?.items.find((one) => one.key === key);
    const view = item && known.get(item.row ? item.row[0] : `group ${key}`);
    if (!view) return;
    if (!view.data.open) table.toggle(view);
    table.moveTo(view);
    view.line.scrollIntoView({ block: "nearest" });
  };

  function step(view, by) {
    const next = order[order.indexOf(view.key) + by];
    if (next !== undefined) table.moveTo(known.get(next));
  }

  function outOf(view) {
    const above = order.slice(0, order.indexOf(view.key)).reverse();
    const parent = above.find((key) => known.get(key).data.level < view.data.level);
    if (parent !== undefined) table.moveTo(known.get(parent));
  }

  const viewOf = (event) => event.target.closest?.("tr.pnb-line")?.pnbView;
  body.addEventListener("mouseover", (event) => viewOf(event)?.act());
  body.addEventListener("focusin", (event) => {
    const view = viewOf(event);
    if (view) table.moveTo(view, false);
  });
  body.addEventListener("click", (event) => {
    const view = viewOf(event);
    if (!view || event.target.closest("button")) return;
    if (!document.getSelection()?.toString()) table.toggle(view);
    table.moveTo(view);
  });

  // A key pressed somewhere in the panel; whether it meant something here.
  table.press = ({ key, target }) => {
    const view = known.get(table.current);
    if (!view?.line.contains(target)) return false;
    const letter = key.toUpperCase();
    if (view.data.can?.includes(letter) && key.length === 1) control.give(letter, view.data.run, view.data.name);
    else if (target !== view.line) return false; // its buttons know what to do
    else if (key === "ArrowDown") step(view, 1);
    else if (key === "ArrowUp") step(view, -1);
    else if (key === "Home") table.moveTo(known.get(order[0]));
    else if (key === "End") table.moveTo(known.get(order.at(-1)));
    else if (key === "Enter") table.toggle(view);
    else if (key === "ArrowRight" && !view.data.open) table.toggle(view);
    else if (key === "ArrowLeft" && view.data.open) table.toggle(view);
    else if (key === "ArrowLeft") outOf(view);
    else return false;
    return true;
  };

  function place(node, next) {
    // A row already in its place is not touched: moving nodes would cost layout and the reader's selection.
    if (node === next) return next.nextSibling;
    body.insertBefore(node, next);
    return next;
  }

  table.draw = (picture) => {
    latest = picture;
    if (!picture) return;
    const lines = visibleLines(picture.items, table);
    if (picture.more > 0) lines.push({ key: "more", more: `… ${picture.more.toLocaleString("en")} more tasks`, level: 1 });
    frame.hidden = lines.length === 0;
    const wanted = new Set(lines.map((line) => line.key));
    const focused = known.get(table.current)?.line.contains(document.activeElement);
    for (const [key, view] of known) {
      if (wanted.has(key)) continue;
      view.line.remove();
      view.details?.line.remove();
      known.delete(key);
    }
    order = lines.filter((line) => !line.more).map((line) => line.key);
    if (!wanted.has(table.current)) {
      table.current = order[0] ?? null;
      if (focused && known.has(table.current)) known.get(table.current).line.focus();
    }
    let next = body.firstChild;
    for (const line of lines) {
      let view = known.get(line.key);
      if (!view) known.set(line.key, (view = line.more ? moreView(line) : lineView(line.key, table)));
      if (line.more) setText(view.cell, line.more);
      else view.set(line, picture.palette);
      next = place(view.line, next);
      if (line.group === undefined && line.open) {
        view.details ??= detailsView(view, table);
        view.details.refresh(line);
        next = place(view.details.line, next);
      } else if (view.details) {
        if (view.details.line === next) next = next.nextSibling;
        view.details.line.remove();
        view.details = null;
      }
    }
  };
  return table;
}

function moreView({ key, level }) {
  const line = element("tr", "pnb-more", null, { role: "row", "aria-level": String(level) });
  const cell = element("td", "", line, { colspan: String(COLUMNS.length), role: "gridcell" });
  line.style.setProperty("--pnb-level", String(level - 1));
  return { key, line, cell, details: null, data: { level } };
}

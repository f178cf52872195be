// The whole panel: headline, progress, table or graph, reports; and what is said to the kernel. The last of the files.

const ANNOUNCE_EVERY = 1000; // milliseconds
const ANSWER_SHOWN = 8000;
const IDLE_FRAME = 17;
const LOOK_FOR = 10_000;
const FINAL = ["COMPLETED", "FAILED", "CANCELLED", "CRASHED"];
const GONE = "The kernel is gone. In a new one, %runs shows this run and what can be done with it.";

function headline(parent, control) {
  const line = element("div", "pnb-headline", parent);
  const setState = stateMark(element("strong", "pnb-state", line));
  const flow = element("strong", "pnb-flow", line, { dir: "auto" });
  const run = element("span", "pnb-run", line, { dir: "auto" });
  const took = element("span", "pnb-took", line);
  const left = element("span", "pnb-left", line);
  const setButtons = actions(element("span", "pnb-head-actions", line), control);
  return (picture) => {
    setState(picture.state[0], picture.state[1], picture.palette);
    setText(flow, picture.flow);
    setText(run, picture.run);
    setText(took, picture.took);
    setText(left, picture.left);
    setButtons(picture.can, picture.id, "");
    for (const button of line.querySelectorAll("button")) setAttribute(button, "tabindex", "0");
  };
}

function progress(parent) {
  const bar = element("div", "pnb-bar", parent, {
    role: "progressbar",
    "aria-label": "Task runs done",
    "aria-valuemin": "0",
  });
  const setBar = stackedBar(bar);
  return ({ done, total, counted, counts, palette }) => {
    bar.hidden = total === 0;
    setAttribute(bar, "aria-valuemax", String(total));
    setAttribute(bar, "aria-valuenow", String(done));
    setAttribute(bar, "aria-valuetext", counted);
    setBar(counts, palette);
  };
}

function viewSwitch(parent, choose) {
  const frame = element("span", "pnb-switch", parent, { role: "group", "aria-label": "View" });
  const buttons = ["Table", "Graph"].map((label) => {
    const button = element("button", "pnb-button", frame, { type: "button" });
    button.textContent = label;
    button.addEventListener("click", () => choose(label === "Graph"));
    return button;
  });
  return (available, graphShown) => {
    frame.hidden = !available;
    buttons.forEach((button, place) => setAttribute(button, "aria-pressed", String(graphShown === (place === 1))));
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

// The way to the kernel: questions with answers, and commands with what came of them.
function makeControl(model, leave, changed, announce, isOver) {
  const waiting = new Map();
  const pending = new Set();
  const answers = new Map();
  let seq = 0;
  let gone = "";

  function received(message) {
    if (!message || message.answer !== true) return;
    waiting.get(message.seq)?.(message);
    waiting.delete(message.seq);
  }

  function ask(message) {
    seq += 1;
    const mine = seq;
    const answer = new Promise((resolve) => waiting.set(mine, resolve));
    if (gone) received({ answer: true, seq: mine, ok: false, message: gone });
    else model.send({ ...message, seq: mine });
    return answer;
  }

  function lost() {
    if (gone || isOver()) return;
    gone = GONE;
    for (const one of [...waiting.keys()]) received({ answer: true, seq: one, ok: false, message: GONE });
    announce(GONE);
    changed();
  }

  model.on("msg:custom", received);
  model.on("comm_live_update", lost);
  return {
    ask,
    leave,
    of: (run) => ({
      pending: [...pending].filter((one) => one.slice(1) === run).map((one) => one[0]),
      answers: answers.get(run) ?? "",
      gone,
    }),
    async give(letter, run, name) {
      const key = letter + run;
      if (gone || pending.has(key)) return;
      pending.add(key);
      answers.delete(run);
      changed();
      const answer = await ask({ command: COMMANDS[letter][0], run });
      pending.delete(key);
      const said = ofThisRun(answer.message) || (answer.ok ? "Done" : "That did not work");
      answers.set(run, said);
      announce(name ? `${name}: ${said}` : said);
      setTimeout(() => {
        if (answers.get(run) === said) answers.delete(run);
        changed();
      }, ANSWER_SHOWN);
      changed();
    },
    isGone: () => gone,
    lost,
    stop() {
      model.off("msg:custom", received);
      model.off("comm_live_update", lost);
    },
  };
}

// The line or the headline that an answer stands in names the run already.
function ofThisRun(message) {
  const rest = (message ?? "").replace(/^(?:Task|Flow) run (['"]).*?\1 /, "");
  return rest.charAt(0).toUpperCase() + rest.slice(1);
}

// Progress is announced in steps of a tenth, everything else as it comes.
function announcement({ state, done, total, counts }) {
  const broken = counts.filter(([type]) => type === "FAILED" || type === "CRASHED").reduce((sum, [, n]) => sum + n, 0);
  const tenth = total ? Math.floor((10 * done) / total) * 10 : 0;
  return `${state[1]}, ${tenth} % of ${total.toLocaleString("en")} task runs done${broken ? `, ${broken} failed` : ""}`;
}

// Draws the panel into `el` for as long as the model lives, or until the function it returns is called.
function mount(model, el) {
  const panel = element("section", "pnb-panel", el, { "aria-label": "Flow run" });
  const decoder = new TextDecoder();
  let picture = null;
  let frame = null;
  let timer = null;
  let rest = 0;
  let graphShown = false;

  const leave = () => (el.closest(".jp-Cell") ?? el.closest("[tabindex]"))?.focus();
  const isOver = () => picture !== null && FINAL.includes(picture.state[0]);
  const control = makeControl(model, leave, redraw, (text) => voice.set(text), isOver);
  const parts = [headline(panel, control), progress(panel)];
  const line = element("div", "pnb-counts", panel);
  const setCounts = countWords(element("span", "pnb-words", line));
  const setSwitch = viewSwitch(line, (chosen) => {
    graphShown = chosen;
    redraw();
  });
  const message = element("div", "pnb-message", panel, { dir: "auto" });
  const table = taskTable(panel, control);
  const picturedGraph = graph(panel, (key) => {
    graphShown = false;
    redraw();
    table.show(key);
  });
  parts.push(metrics(panel), artifacts(panel));
  const voice = announcer(panel);

  // Lab listens on the document, before anything in it: its R would make the cell a raw one, its X cut it. Keys with
  // Ctrl, Alt or Cmd, and Shift+Enter, stay Lab's.
  function guard(event) {
    if (!panel.contains(event.target) || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Tab" || (event.shiftKey && event.key.length > 1)) return;
    event.stopPropagation();
    if (table.press(event)) event.preventDefault();
    else if (event.key === "Escape") leave();
  }

  function redraw() {
    if (!picture) return;
    for (const part of parts) part(picture);
    setCounts(picture.counts, picture.palette);
    const hasGraph = picture.graph !== null;
    const showsGraph = graphShown && hasGraph;
    setSwitch(hasGraph, showsGraph);
    table.draw(picture);
    table.frame.hidden ||= showsGraph;
    picturedGraph.frame.hidden = !showsGraph;
    if (showsGraph) picturedGraph.draw(picture);
    panel.style.borderLeftColor = picture.palette[picture.state[0]][1];
    const said = control.isGone() || picture.message;
    message.hidden = !said;
    setText(message, said);
  }

  function draw() {
    frame = null;
    const data = model.get("data");
    if (!data || data.byteLength === 0) return;
    picture = JSON.parse(decoder.decode(data));
    redraw();
    if (!control.isGone()) voice.set(announcement(picture));
  }

  // However much there is to draw, the page has three quarters of its time for everything else.
  function changed() {
    if (frame !== null || timer !== null) return;
    const wait = rest - performance.now();
    if (wait > 0) timer = setTimeout(() => ((timer = null), changed()), wait);
    else frame = requestAnimationFrame(measured);
  }

  function measured() {
    const began = performance.now();
    draw();
    requestAnimationFrame(() => {
      const cost = performance.now() - began - IDLE_FRAME;
      rest = performance.now() + 3 * cost;
    });
  }

  draw();
  model.on("change:data", changed);
  window.addEventListener("keydown", guard, true);
  return {
    isOver,
    lost: control.lost,
    stop() {
      model.off("change:data", changed);
      window.removeEventListener("keydown", guard, true);
      cancelAnimationFrame(frame);
      clearTimeout(timer);
      control.stop();
      voice.stop();
    },
  };
}

// Where a front end shows the widget as an output of its own.
function render({ model, el }) {
  return mount(model, el).stop;
}

// Elsewhere the output is plain HTML with a place in it, which is what gets saved: a notebook without its kernel shows
// that, and no dead widget. The panel moves in as soon as model and place are both there.
function initialize({ model }) {
  const mounted = new Map();
  const began = performance.now();
  let timer = null;

  function look() {
    const name = model.get("place");
    const hosts = name ? document.querySelectorAll(`[data-pnb-place="${CSS.escape(name)}"]`) : [];
    for (const host of hosts) {
      if (mounted.has(host)) continue;
      for (const child of host.children) child.style.display = "none";
      mounted.set(host, mount(model, element("div", "", host)));
    }
    for (const [host, panel] of mounted) {
      if (host.isConnected || !panel.isOver()) continue;
      panel.stop();
      mounted.delete(host);
    }
    const since = performance.now() - began;
    const idle = mounted.size === 0 && since > LOOK_FOR;
    timer = idle && isFinal(model) ? null : setTimeout(look, mounted.size ? 500 : since < LOOK_FOR ? 50 : 1000);
  }

  look();
  return () => {
    clearTimeout(timer);
    for (const panel of mounted.values()) panel.lost();
  };
}

function isFinal(model) {
  const data = model.get("data");
  return Boolean(data?.byteLength) && FINAL.includes(JSON.parse(new TextDecoder().decode(data)).state[0]);
}

export default { initialize, render };

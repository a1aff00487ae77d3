"use strict";

const CONTENT = JSON.parse(document.getElementById("content").textContent);
const STUDIES = CONTENT.studies;
const COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8C6BB1", "#7F7F7F"];
const ROWS = STUDIES.flatMap((study, s) =>
  study.networks.map((network, n) => ({ ...network, id: `${s}:${n}`, study: s })));
const BY_ID = new Map(ROWS.map((row) => [row.id, row]));
const PLACES = [...new Set(ROWS.map((row) => row.place))];
const METRIC = STUDIES[0].metric;
const FIRST_ROWS = 50;
const state = { places: new Set(PLACES), knobs: new Map(), selected: null, sort: null, descending: true, all: false };

const get = (id) => document.getElementById(id);

/** Returns a new element. Text is set as text, so nothing in a study can become HTML. */
function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

function drawn(name, attributes = {}, text = null) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== null) made.textContent = text;
  return made;
}

/* Numbers. */

function figure(value, digits = 4) {
  if (value === undefined || value === null) return "";
  if (value === 0) return "0";
  const rounded = Number(value.toPrecision(digits));
  const size = Math.floor(Math.log10(Math.abs(value)));
  return rounded.toLocaleString("en", { maximumFractionDigits: Math.max(digits - 1 - size, 0) });
}

const speedText = (row) => row.speed_text ?? "";
const valueText = (row) => row.value_text ?? "";
const nameOf = (row) => (row.number === undefined ? `network ${row.key}` : `trial ${row.number}`);
const percent = (share) => (share > 0.99 ? ">99 %" : share < 0.01 ? "<1 %" : `${Math.round(100 * share)} %`);

/* Theme: plots take their colours from the page. */

function theme() {
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(`--${name}`).trim();
  return { text: colour("text"), line: colour("line"), panel: colour("panel"), back: colour("back") };
}

function themed(layout) {
  const { text, line, panel } = theme();
  const axis = { gridcolor: line, linecolor: line, tickfont: { color: text }, title: { font: { color: text } } };
  const merged = {
    ...layout,
    font: { ...layout.font, color: text },
    hoverlabel: { ...layout.hoverlabel, bgcolor: panel, bordercolor: line, font: { color: text } },
  };
  for (const name of ["xaxis", "yaxis"]) {
    const own = layout[name] ?? {};
    merged[name] = { ...own, ...axis, title: { ...own.title, ...axis.title } };
  }
  if (layout.annotations) merged.annotations = layout.annotations.map((own) => ({ ...own, font: { ...own.font, color: text } }));
  return merged;
}

const CONFIG = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["select2d", "lasso2d"] };

/** Draws a figure of the report in an element, or says why there is none. */
function show(id, name, change = (figure) => figure) {
  const place = get(id);
  const found = CONTENT.figures[name];
  if (!found) {
    Plotly.purge(place);
    place.style.height = "";
    place.classList.add("missing");
    place.textContent = CONTENT.missing[name] ?? "";
    return;
  }
  if (place.classList.contains("missing")) { place.classList.remove("missing"); place.textContent = ""; }
  const { data, layout } = change(found);
  const merged = { ...themed(layout), uirevision: name };  // keeps the zoom and hidden legend entries
  if (id === "importances") place.style.height = `${Math.max(260, 130 + 26 * data[0].y.length)}px`;
  const entries = layout.showlegend === false ? 0 : data.filter((trace) => trace.showlegend !== false).length;
  const perRow = Math.max(Math.floor(place.clientWidth / 190), 1);
  merged.margin = { ...merged.margin, b: (id === "parallel" ? 90 : 64) + (entries > 1 ? 22 * Math.ceil(entries / perRow) : 0) };
  if (place.clientWidth < 600) {
    merged.margin = { ...merged.margin, l: 48, r: 8 };
    if (merged.xaxis.type === "log") merged.xaxis.tickangle = -45;
    if (id === "front") place.style.height = `${360 + merged.margin.b}px`;
  } else if (id === "front") place.style.height = "";
  Plotly.react(place, data, merged, CONFIG);
  place.removeAllListeners("plotly_click");
  place.on("plotly_click", (event) => {
    const id = event.points[0]?.customdata;
    if (id) select(id);
  });
}

/* Filters. */

function passes(row) {
  if (!state.places.has(row.place)) return false;
  for (const [knob, hidden] of state.knobs) {
    if (row.knobs && knob in row.knobs && hidden.has(String(row.knobs[knob]))) return false;
  }
  return true;
}

/** Returns a figure with the networks that pass the filters. */
function filtered(whole) {
  const hasFront = state.places.has("on the front");
  const data = whole.data.filter((trace) => trace.customdata || hasFront || trace.mode !== "lines").map((trace) => {
    if (!trace.customdata) return trace;
    const kept = trace.customdata.map((id) => passes(BY_ID.get(id)));
    const pick = (list) => (Array.isArray(list) ? list.filter((_, i) => kept[i]) : list);
    const errors = (bars) => bars && { ...bars, array: pick(bars.array), arrayminus: pick(bars.arrayminus) };
    return {
      ...trace, x: pick(trace.x), y: pick(trace.y), text: pick(trace.text), customdata: pick(trace.customdata),
      error_x: errors(trace.error_x), error_y: errors(trace.error_y),
    };
  });
  return { data, layout: whole.layout };
}

/** Returns the filtered front with a ring around the selected network. */
function frontWithRing(whole) {
  const { data, layout } = filtered(whole);
  const chosen = state.selected && data.find((t) => t.mode === "markers" && t.customdata?.includes(state.selected));
  if (chosen) {
    const i = chosen.customdata.indexOf(state.selected);
    data.push({
      type: "scatter", mode: "markers", x: [chosen.x[i]], y: [chosen.y[i]], hoverinfo: "skip", showlegend: false,
      marker: { symbol: "circle-open", size: 20, color: theme().text, line: { width: 2 } },
    });
  }
  return { data, layout };
}

function buildFilters() {
  const box = (text, isOn, change) => element("label", {},
    element("input", { type: "checkbox", checked: isOn ? "" : null, onchange: (event) => { change(event.target.checked); update(); } }), ` ${text}`);
  get("places").replaceChildren(...PLACES.map((place) => {
    const count = ROWS.filter((row) => row.place === place).length;
    return box(`${place} (${count})`, state.places.has(place),
      (isOn) => (isOn ? state.places.add(place) : state.places.delete(place)));
  }));
  const knobs = new Map();
  for (const row of ROWS) {
    for (const [knob, value] of Object.entries(row.knobs ?? {})) {
      if (!knobs.has(knob)) knobs.set(knob, new Map());
      knobs.get(knob).set(String(value), value);
    }
  }
  const sets = [];
  for (const [knob, values] of knobs) {
    if (values.size < 2) continue;
    if (!state.knobs.has(knob)) state.knobs.set(knob, new Set());
    const hidden = state.knobs.get(knob);
    const sorted = [...values.values()].sort((a, b) => (typeof a === "number" ? a - b : String(a).localeCompare(String(b))));
    sets.push(element("fieldset", {}, element("legend", {}, knob),
      element("div", { class: "chips" }, ...sorted.map((value) => box(String(value), !hidden.has(String(value)),
        (isOn) => (isOn ? hidden.delete(String(value)) : hidden.add(String(value))))))));
  }
  get("knobs").replaceChildren(...sets);
}

/* The selected network. */

/** Draws an architecture stage by stage: a bar per block, as wide as its channels, split into its heads. */
function drawArchitecture(stages, patchSize) {
  const widest = Math.max(...stages.map((stage) => stage.embed_dim));
  const width = 340, most = 110;
  const svg = drawn("svg", { class: "arch", role: "img" });
  svg.append(drawn("title", {}, stages.map((stage, i) => describeStage(stage, i)).join("; ")));
  let y = 12;
  svg.append(drawn("text", { x: 0, y, class: "soft" }, `image, patches of ${patchSize} × ${patchSize} pixels`));
  y += 8;
  stages.forEach((stage, i) => {
    const length = (width * 0.98 * stage.embed_dim) / widest;
    const step = Math.min(11, most / stage.depth);
    const bar = Math.max(step - 2, 1);
    y += 13;
    svg.append(drawn("text", { x: 0, y: y - 3 }, describeStage(stage, i)));
    for (let block = 0; block < stage.depth; block += 1) {
      const half = stage.attention === "none" ? 0 : length / 2;
      let x = 0;
      const piece = (size, kind) => {
        if (size > 0) svg.append(drawn("rect", { x, y, width: Math.max(size - 1, 0.5), height: bar, class: kind }));
        x += size;
      };
      if (half && stage.hifi_heads !== undefined) {
        piece((half * stage.hifi_heads) / stage.num_heads, "hifi");
        piece((half * stage.lofi_heads) / stage.num_heads, "lofi");
      } else if (half) piece(half, "plain");
      piece(length - x, "ffn");
      y += step;
    }
    y += 6;
  });
  svg.setAttribute("viewBox", `0 0 ${width} ${y}`);
  return svg;
}

function describeStage(stage, i) {
  const parts = [`${stage.map_side} × ${stage.map_side}`, `${stage.embed_dim} ch`, `${stage.depth} block${stage.depth > 1 ? "s" : ""}`];
  if (stage.hifi_heads) parts.push(`${stage.hifi_heads} Hi-Fi + ${stage.lofi_heads} Lo-Fi, s=${stage.window_size}`);
  else if (stage.lofi_heads) parts.push(stage.window_size > 1 ? `${stage.lofi_heads} Lo-Fi, s=${stage.window_size}` : `${stage.num_heads} heads`);
  else if (stage.attention !== "none") parts.push(stage.attention);
  parts.push(`mlp ${figure(stage.mlp_ratio, 3)}`);
  return `${i + 1}: ${parts.join(", ")}`;
}

function showDetail() {
  const row = BY_ID.get(state.selected);
  if (!row) {
    get("detail").replaceChildren(element("p", { class: "note" }, "No network is selected."));
    return;
  }
  const several = STUDIES.length > 1 ? `${STUDIES[row.study].name}, ` : "";
  const anchor = row.anchor ? `, anchor ${row.anchor}` : "";
  const facts = [
    ["images/s", speedText(row)],
    [METRIC.heading, row.value === undefined ? "" : `${valueText(row)}${row.seeds > 1 ? `, ${row.seeds} seeds` : ""}`],
    ["P(front)", row.probability === undefined ? "" : percent(row.probability)],
    ["p50, p95", row.latency_ms_p50 === undefined ? "" : `${figure(row.latency_ms_p50, 3)}, ${figure(row.latency_ms_p95, 3) || "-"} ms per call`],
    ["memory", row.memory_mib === undefined ? "" : `${figure(row.memory_mib, 3)} MiB`],
    ["parameters", row.parameters ? `${figure(row.parameters / 1e6, 3)} M` : ""],
    ["multiply-adds", row.macs ? `${figure(row.macs / 1e9, 3)} G` : ""],
    ["trained on", row.images_seen ? `${row.images_seen.toLocaleString("en")} images` : ""],
    ["timing", row.verdict ?? ""],
    ["origin", row.origin ?? ""],
    ["reason", row.reason ?? ""],
    ["key", row.key],
  ].filter(([, text]) => text !== "");
  const children = [
    element("h3", {}, several + nameOf(row)),
    element("p", { class: "note" }, row.place + anchor),
    element("dl", {}, ...facts.flatMap(([term, text]) => [element("dt", {}, term), element("dd", {}, text)])),
  ];
  if (row.stages) {
    children.push(drawArchitecture(row.stages, row.patch_size));
    const key = (kind, text) => element("span", {}, drawnKey(kind), text);
    const kinds = [["ffn", "ConvFFN"]];
    if (row.stages.some((stage) => stage.hifi_heads)) kinds.unshift(["hifi", "Hi-Fi heads"]);
    if (row.stages.some((stage) => stage.lofi_heads)) kinds.unshift(["lofi", "Lo-Fi or global heads"]);
    if (row.stages.some((stage) => stage.attention !== "none" && stage.hifi_heads === undefined)) kinds.unshift(["plain", "other attention"]);
    children.push(element("div", { class: "key" }, ...kinds.map(([kind, text]) => key(kind, text))));
  }
  if (row.export) children.push(commandLine(row.export));
  get("detail").replaceChildren(...children);
}

function drawnKey(kind) {
  const svg = drawn("svg", { width: 14, height: 10, "aria-hidden": "true" });
  svg.append(drawn("rect", { width: 10, height: 10, class: kind }));
  return svg;
}

function commandLine(text) {
  const button = element("button", { type: "button", onclick: async () => {
    try { await navigator.clipboard.writeText(text); button.textContent = "Copied"; }
    catch { getSelection().selectAllChildren(code); button.textContent = "Selected"; }
  } }, "Copy");
  const code = element("code", {}, text);
  return element("div", { class: "command" }, code, button);
}

function select(id) {
  state.selected = id;
  show("front", "front", frontWithRing);
  showDetail();
  for (const row of get("table").querySelectorAll("tr[data-id]")) row.classList.toggle("selected", row.dataset.id === id);
}

/* The table. */

const COLUMNS = [
  ...(STUDIES.length > 1 ? [["study", (row) => STUDIES[row.study].name, (row) => row.study, true]] : []),
  ["trial", (row) => row.number ?? "", (row) => row.number ?? Infinity],
  ["place", (row) => row.place + (row.anchor ? " *" : ""), (row) => PLACES.indexOf(row.place), true],
  ["images/s", speedText, (row) => row.images_per_s ?? -1],
  [METRIC.heading, valueText, (row) => row.value ?? -Infinity],
  ["P(front)", (row) => (row.probability === undefined ? "" : percent(row.probability)), (row) => row.probability ?? -1],
  ["p50 ms", (row) => figure(row.latency_ms_p50, 3), (row) => row.latency_ms_p50 ?? -1],
  ["p95 ms", (row) => figure(row.latency_ms_p95, 3), (row) => row.latency_ms_p95 ?? -1],
  ["params M", (row) => figure((row.parameters ?? 0) / 1e6 || null, 3), (row) => row.parameters ?? -1],
  ["GMACs", (row) => figure((row.macs ?? 0) / 1e9 || null, 3), (row) => row.macs ?? -1],
  ["architecture", (row) => row.title, (row) => row.title, true],
];

const DEFAULT_ORDER = ["on the front", "tied with the front", "baseline"];

function sortedRows() {
  const rows = ROWS.filter(passes);
  const rank = (row) => { const i = DEFAULT_ORDER.indexOf(row.place); return i < 0 ? DEFAULT_ORDER.length : i; };
  if (state.sort === null) {
    return rows.sort((a, b) => rank(a) - rank(b) || (b.images_per_s ?? -1) - (a.images_per_s ?? -1));
  }
  const key = COLUMNS[state.sort][2];
  const compare = (a, b) => (typeof a === "string" ? a.localeCompare(b) : a - b);
  return rows.sort((a, b) => (state.descending ? -1 : 1) * compare(key(a), key(b)));
}

function showTable() {
  const rows = sortedRows();
  const head = element("tr", {}, ...COLUMNS.map(([title, , , isText], i) => element("th", {
    scope: "col", class: isText ? "text" : null,
    "aria-sort": state.sort === i ? (state.descending ? "descending" : "ascending") : null,
  }, element("button", { type: "button", onclick: () => {
    state.descending = state.sort === i ? !state.descending : true;
    state.sort = i;
    showTable();
    get("table").querySelectorAll("th button")[i].focus();  // the button is a new one
  } }, title + (state.sort === i ? (state.descending ? " ↓" : " ↑") : "")))));
  const shown = state.all ? rows : rows.slice(0, FIRST_ROWS);
  const body = shown.map((row) => element("tr", { "data-id": row.id, class: row.id === state.selected ? "selected" : null },
    ...COLUMNS.map(([title, text, , isText]) => element("td", { class: isText ? "text" : null },
      title === "trial" || (title === "architecture" && row.number === undefined)
        ? element("button", { type: "button", "aria-label": `Select ${nameOf(row)}`, onclick: () => select(row.id) }, String(text(row)))
        : String(text(row))))));
  get("table").replaceChildren(element("thead", {}, head), element("tbody", {}, ...body));
  get("more").hidden = rows.length <= FIRST_ROWS;
  get("more").textContent = state.all ? `Show the first ${FIRST_ROWS} only` : `Show all ${rows.length} networks`;
  get("filter-count").textContent = rows.length === ROWS.length ? `(all ${rows.length})` : `(${rows.length} of ${ROWS.length})`;
}

/* The page. */

function update() {
  show("front", "front", frontWithRing);
  show("parallel", `parallel-${get("study")?.value ?? 0}`, filtered);
  showDetail();
  showTable();
}

function showStudies() {
  show("hypervolume", `hypervolume-${document.querySelector("input[name=axis]:checked").value}`);
  const chosen = get("study")?.value ?? 0;
  for (const name of ["importances", "timeline"]) show(name, `${name}-${chosen}`);
  show("parallel", `parallel-${chosen}`, filtered);
}

function start() {
  const names = STUDIES.map((study) => study.name);
  get("title").textContent = names.join(", ");
  get("summaries").replaceChildren(...STUDIES.map((study, i) => element("p", { class: "study" },
    STUDIES.length > 1 ? element("span", { class: "swatch", style: `background:${COLOURS[i % COLOURS.length]}` }) : null,
    element("b", {}, STUDIES.length > 1 ? `${study.name}: ` : ""), `${study.summary}. ${study.facts.find(([name]) => name === "target")?.[1] ?? ""}`)));
  get("sentences").replaceChildren(...STUDIES.flatMap((study) => study.sentences.map((text) =>
    element("p", { class: "note" }, (STUDIES.length > 1 ? `${study.name}: ` : "") + text))));
  get("facts").replaceChildren(...STUDIES.flatMap((study) => [
    STUDIES.length > 1 ? element("h3", {}, study.name) : element("span"),
    element("dl", {}, ...[...study.facts, ...study.versions].flatMap(([term, text]) => [element("dt", {}, term), element("dd", {}, text)])),
  ]));
  if (STUDIES.length > 1) {
    get("study-choice").replaceChildren(element("label", {}, "Study ",
      element("select", { id: "study", onchange: showStudies }, ...names.map((name, i) => element("option", { value: i }, name)))));
  }
  get("front").setAttribute("aria-label", STUDIES.map((study) => `${study.name}: ${study.summary}`).join("; "));
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const setTheme = (isDark) => {
    document.documentElement.dataset.theme = isDark ? "dark" : "light";
    get("theme").textContent = isDark ? "Light" : "Dark";
  };
  setTheme(dark.matches);
  const redraw = () => { update(); showStudies(); };
  get("theme").addEventListener("click", () => { setTheme(document.documentElement.dataset.theme !== "dark"); redraw(); });
  dark.addEventListener("change", (event) => { setTheme(event.matches); redraw(); });
  get("more").addEventListener("click", () => { state.all = !state.all; showTable(); });
  get("reset").addEventListener("click", () => { state.places = new Set(PLACES); state.knobs.clear(); buildFilters(); update(); });
  for (const input of document.querySelectorAll("input[name=axis]")) input.addEventListener("change", showStudies);
  const first = sortedRows()[0];
  state.selected = first ? first.id : null;
  buildFilters();
  redraw();
  document.documentElement.dataset.ready = "true";
}

start();

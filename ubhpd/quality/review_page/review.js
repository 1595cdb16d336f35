"use strict";
// Shows heads, draws box, axes and landmarks over them, and sends decisions. Every answer of the server is the truth:
// what is shown of a decision is what it says is on disk.

const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
const ANGLES = ["yaw", "pitch", "roll"];
const WORDS = { keep: "kept", drop: "dropped" };
const token = document.querySelector("meta[name=ubhpd-token]").content;
const form = $("filters");

let setup = null;
let heads = [];
let total = 0;
let offset = 0;
let chosen = 0;
let latest = 0; // number of the last list asked for: an older answer is not shown
let sending = Promise.resolve(); // decisions are sent one after the other
const unsaved = new Set(); // heads whose last decision was not taken

// ---- talking to the server

async function ask(path, body) {
  const options = body === undefined ? {} : {
    method: "POST",
    headers: { "Content-Type": "application/json", "X-Ubhpd-Token": token },
    body: JSON.stringify(body),
  };
  let answer, content;
  try {
    answer = await fetch(path, { credentials: "same-origin", ...options });
    content = await answer.json();
  } catch {
    throw new Error("The server does not answer. Start ubhpd review again: what was decided is on disk.");
  }
  if (!answer.ok) throw new Error(content.error || `The server answered ${answer.status}.`);
  return content;
}

async function attempt(action) {
  let text = "";
  try {
    await action();
  } catch (problem) {
    text = problem.message;
  }
  // What could not be saved stays said until it is decided on again.
  if (unsaved.size) text += ` Not saved: ${[...unsaved].slice(0, 5).join(", ")}${unsaved.size > 5 ? " ..." : ""}. Decide on it again.`;
  $("error").textContent = text.trim();
  $("error").hidden = !text;
}

const filters = () => Object.fromEntries([...new FormData(form)].filter(([, value]) => value !== ""));

function load(place = 0, wanted = null) {
  return attempt(async () => {
    const number = ++latest;
    const query = new URLSearchParams({ ...filters(), offset: place, limit: setup.page_size });
    const answer = await ask(`/api/heads?${query}`);
    if (number !== latest) return;
    if (!answer.heads.length && place > 0) return void (await load(Math.max(0, answer.total - setup.page_size)));
    ({ heads, total, offset } = answer);
    chosen = wanted === "last" ? heads.length - 1 : Math.max(0, heads.findIndex((h) => h.sample_id === wanted));
    showCounts(answer.counts);
    showGrid();
  });
}

function decide(decision) {
  const head = heads[chosen];
  if (!head) return;
  const reason = $("reason").value.trim();
  const at = chosen;
  sending = sending.then(() => attempt(async () => {
    unsaved.add(head.sample_id);
    const answer = await ask("/api/decide", { sample_id: head.sample_id, decision, reason });
    unsaved.delete(head.sample_id);
    replace(answer, heads[at]?.sample_id === head.sample_id ? at : -1);
    say(`${WORDS[decision][0].toUpperCase()}${WORDS[decision].slice(1)}: ${head.sample_id}`);
  }));
  move(1);
}

function undo() {
  sending = sending.then(() => attempt(async () => {
    const answer = await ask("/api/undo", {});
    const at = heads.findIndex((h) => h.sample_id === answer.head.sample_id);
    replace(answer, at);
    if (at >= 0) choose(at);
    say(`Undone: ${answer.head.sample_id}`);
  }));
}

function replace(answer, at) {
  showCounts(answer.counts);
  if (at < 0) return;
  heads[at] = answer.head;
  $("grid").children[at].replaceWith(card(answer.head, at));
  mark();
  if (at === chosen) showDetail();
}

// ---- moving about

function choose(index, focus = true) {
  chosen = Math.min(Math.max(index, 0), heads.length - 1);
  mark();
  showDetail();
  if (focus) $("grid").focus({ preventScroll: true });
}

function move(by) {
  const target = chosen + by;
  if (target >= heads.length) return void (offset + heads.length < total || form.elements.decision.value ? page(1) : choose(target));
  if (target < 0) return void (offset > 0 ? page(-1) : choose(target));
  choose(target);
}

// With a filter on decisions, heads that were decided on leave the list, and those behind them move up.
const passes = (head) => {
  const wanted = form.elements.decision.value;
  return wanted === "" || (head.decision?.decision ?? "undecided") === wanted;
};

function page(by) {
  // Wait for what is on its way, so that the list is that of after it.
  sending = sending.then(() => {
    const left = heads.filter(passes).length;
    if (by > 0 && offset + heads.length >= total && left === heads.length) return undefined;
    const place = by > 0 ? offset + left : Math.max(0, offset - setup.page_size);
    return load(place, by > 0 ? null : "last");
  });
}

function columns() {
  const cards = [...$("grid").children];
  return Math.max(1, cards.filter((c) => c.offsetTop === cards[0].offsetTop).length);
}

// ---- showing

function element(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  node.append(...children);
  return node;
}

function drawn(tag, attributes) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

const shown = (angle, digits) => (angle === null ? "–" : `${angle.toFixed(digits).replace(/^-(0(\.0)?)$/, "$1").replace("-", "−")}°`);
const degrees = (head) => head.ypr_deg.map((a) => shown(a, 0)).join(" / ");

function say(text) {
  $("status").textContent = text;
  clearTimeout(say.timer);
  say.timer = setTimeout(() => ($("status").textContent = ""), 2500);
}

function showCounts(counts) {
  const decided = counts.keep + counts.drop;
  $("counts").textContent =
    `${counts.heads.toLocaleString("en")} heads: ${counts.keep.toLocaleString("en")} kept, ` +
    `${counts.drop.toLocaleString("en")} dropped, ${counts.undecided.toLocaleString("en")} undecided`;
  const share = counts.heads ? (100 * decided) / counts.heads : 0;
  $("progress").setAttribute("aria-valuenow", share.toFixed(1));
  $("progress").firstElementChild.style.width = `${share}%`;
}

function showGrid() {
  $("grid").replaceChildren(...heads.map(card));
  $("empty").hidden = heads.length > 0;
  $("position").textContent = heads.length
    ? `${(offset + 1).toLocaleString("en")} to ${(offset + heads.length).toLocaleString("en")} of ${total.toLocaleString("en")}`
    : "0 heads";
  $("previous").disabled = offset === 0;
  $("next").disabled = offset + heads.length >= total;
  mark();
  showDetail();
}

function mark() {
  [...$("grid").children].forEach((node, i) => node.setAttribute("aria-selected", i === chosen));
  const node = $("grid").children[chosen];
  if (node) {
    $("grid").setAttribute("aria-activedescendant", node.id);
    node.scrollIntoView({ block: "nearest" });
    remember();
  }
}

function card(head, index) {
  const caption = element("figcaption", {}, element("b", { title: head.sample_id }, `\u200e${head.sample_id}`));
  caption.append(element("span", { title: "yaw / pitch / roll" }, degrees(head)));
  const node = element("li", { class: "card", role: "option", id: `head-${index}` });
  node.append(element("figure", {}, view(head, "face"), caption));
  if (head.decision) {
    const word = head.decision.decision;
    node.classList.add(word);
    node.append(element("span", { class: `badge decision ${word}` }, word === "keep" ? "✓ keep" : "✗ drop"));
  }
  if (head.flags.length) {
    const names = head.flags.map((f) => f.flag).join(", ");
    node.append(element("span", { class: "badge flagged", title: names, "aria-label": names }, `⚑ ${head.flags.length}`));
  }
  node.addEventListener("click", () => choose(index));
  return node;
}

function view(head, which) {
  const whole = [0, 0, head.image_width ?? 1, head.image_height ?? 1];
  const [left, top, right, bottom] = (which !== "whole" && head.crop) || whole;
  const frame = (which !== "whole" && head.crop && head.window) || around(whole, head.bbox_xyxy);
  const svg = drawn("svg", {
    class: "view", viewBox: `${frame[0]} ${frame[1]} ${frame[2] - frame[0]} ${frame[3] - frame[1]}`, role: "img",
    "aria-label": `${head.sample_id}: yaw, pitch, roll ${degrees(head)}`,
  });
  const source = new URLSearchParams({ id: head.sample_id, v: setup.fingerprint });
  const image = drawn("image", {
    href: `/api/image/${which}?${source}`, x: left, y: top, width: right - left, height: bottom - top,
  });
  image.addEventListener("error", async () => {
    let text = "The image cannot be shown.";
    try { text = (await (await fetch(image.getAttribute("href"))).json()).error ?? text; } catch { /* the text stays */ }
    svg.replaceWith(element("p", { class: "broken" }, text));
  });
  svg.append(image);
  const unit = (frame[2] - frame[0]) / 100;
  if ($("show-box").checked && head.bbox_xyxy) svg.append(box(head));
  if ($("show-landmarks").checked && head.landmarks) svg.append(...dots(head, which === "face" ? 0.9 * unit : 0.6 * unit));
  if ($("show-axes").checked && head.rotation) svg.append(...axes(head, unit));
  return svg;
}

// The image, and what of a box lies outside it, as long as that is not another image's width away.
function around([left, top, right, bottom], box) {
  if (!box) return [left, top, right, bottom];
  const [width, height] = [right - left, bottom - top];
  return [
    Math.max(Math.min(left, box[0]), left - width), Math.max(Math.min(top, box[1]), top - height),
    Math.min(Math.max(right, box[2]), right + width), Math.min(Math.max(bottom, box[3]), bottom + height),
  ];
}

// A box or points of the photograph that a warped image was made from are not where this face is: drawn faintly.
const ofOther = (kind) => ((kind ?? "").endsWith("_of_source_photo") ? " other" : "");

function box(head) {
  const [left, top, right, bottom] = head.bbox_xyxy;
  return drawn("rect", { class: `box${ofOther(head.bbox_kind)}`, x: left, y: top, width: Math.max(0, right - left), height: Math.max(0, bottom - top) });
}

function dots({ landmarks: points, landmarks_kind: kind }, radius) {
  const found = [];
  for (let i = 0; i < points.length; i += 2) {
    if (points[i] === null || points[i + 1] === null) continue;
    found.push(drawn("circle", { class: `dot${ofOther(kind)}`, cx: points[i], cy: points[i + 1], r: radius }));
  }
  return found;
}

function axes(head, unit) {
  // Column j of the matrix is where axis j of the head points in frame C: x right, y up, z toward the viewer.
  const [left, top, right, bottom] = head.bbox_xyxy ?? [0, 0, head.image_width, head.image_height];
  const [x, y] = [(left + right) / 2, (top + bottom) / 2];
  const length = 0.6 * Math.max(right - left, bottom - top);
  const r = head.rotation;
  const tips = [0, 1, 2].map((j) => ({ name: "xyz"[j], x: x + length * r[j], y: y - length * r[3 + j], depth: r[6 + j] }));
  tips.sort((a, b) => a.depth - b.depth); // what points away is drawn first
  return tips.flatMap((tip) => {
    const line = { x1: x, y1: y, x2: tip.x, y2: tip.y };
    const label = drawn("text", { class: "tip", x: 0, y: 0 });
    label.textContent = tip.name;
    const off = Math.hypot(tip.x - x, tip.y - y) || 1;
    const beyond = Math.min(4 * unit, 0.2 * length) / off;
    const [lx, ly] = [tip.x + beyond * (tip.x - x), tip.y + beyond * (tip.y - y)];
    label.setAttribute("transform", `translate(${lx} ${ly}) scale(${Math.min(7 * unit, 0.4 * length)})`);
    return [drawn("line", { class: "axis rim", ...line }), drawn("line", { class: `axis ${tip.name}`, ...line }), label];
  });
}

function showDetail() {
  const head = heads[chosen];
  $("detail").hidden = !head;
  if (!head) return;
  if ($("large").dataset.shown !== drawing(head)) {
    const isSmall = head.crop && head.window[2] - head.window[0] < 0.6 * head.image_width;
    $("large").replaceChildren(view(head, isSmall ? "near" : "whole"));
    $("context").replaceChildren(...(isSmall ? [view(head, "whole")] : []));
    $("large").dataset.shown = drawing(head);
  }
  $("name").textContent = head.sample_id;
  const made = head.decision;
  $("verdict").className = made?.decision ?? "";
  $("verdict").textContent = made
    ? `${made.decision === "keep" ? "✓ Kept" : "✗ Dropped"} by ${made.who || "someone"}${made.reason ? `: ${made.reason}` : ""}`
    : "Undecided";
  $("flags").replaceChildren(...head.flags.map((f) => element("li", {}, element("b", {}, `⚑ ${f.flag} `), f.detail)));
  const facts = {
    "yaw, pitch, roll": head.ypr_deg.map((a) => shown(a, 1)).join(", "),
    dataset: head.dataset, person: head.subject_id, image: head.image_path,
    frame: head.frame_index, "size, pixels": head.image_width && `${head.image_width} × ${head.image_height}`,
    box: head.bbox_kind, landmarks: head.landmarks_kind, "in the pool": head.drop_reason && `${head.drop_reason}: ${head.drop_detail}`,
  };
  const known = Object.entries(facts).filter(([, v]) => v !== null && v !== undefined);
  $("facts").replaceChildren(...known.flatMap(([k, v]) => [element("dt", {}, k), element("dd", {}, String(v))]));
}

const drawing = (head) => [head.sample_id, ...["axes", "box", "landmarks"].map((n) => $(`show-${n}`).checked)].join();

// ---- the place is kept in the address, so that a reload comes back to it

function remember() {
  const place = new URLSearchParams({ ...filters(), offset, head: heads[chosen]?.sample_id ?? "" });
  history.replaceState(null, "", `#${place}`);
}

function recall() {
  const place = new URLSearchParams(location.hash.slice(1));
  for (const [name, value] of place) if (form.elements[name]) form.elements[name].value = value;
  return [Number(place.get("offset")) || 0, place.get("head")];
}

function option(value, text, heads) {
  const node = element("option", { value }, heads === undefined ? text : `${text} (${heads.toLocaleString("en")})`);
  if (heads === 0) node.disabled = true;
  return node;
}

function fillFilters({ datasets, bins, edges_deg: edges, flags, any_flag: any }) {
  form.elements.dataset.append(option("", "all"), ...Object.entries(datasets).map(([n, k]) => option(n, n, k)));
  form.elements.flag.append(option("", "all"), option("any", "any flag", any), option("none", "no flag"));
  form.elements.flag.append(...Object.entries(flags).map(([n, f]) => option(n, n.replaceAll("_", " "), f.heads)));
  for (const angle of ANGLES) {
    const { inside, outside } = bins[angle];
    form.elements[angle].append(option("", "all"));
    form.elements[angle].append(...inside.map((k, i) => option(i, `${edges[i]}° to ${edges[i + 1]}°`, k)));
    if (outside) form.elements[angle].append(option("outside", "beyond 90°", outside));
  }
}

function showMeaning() {
  $("flag-meaning").textContent = setup.choices.flags[form.elements.flag.value]?.meaning ?? "";
}

// ---- wiring

const keys = {
  k: () => decide("keep"), d: () => decide("drop"), u: undo,
  ArrowLeft: () => move(-1), ArrowRight: () => move(1),
  ArrowUp: () => chosen >= columns() && choose(chosen - columns()),
  ArrowDown: () => chosen + columns() < heads.length && choose(chosen + columns()),
  PageUp: () => offset > 0 && page(-1), PageDown: () => offset + heads.length < total && page(1),
  Home: () => choose(0), End: () => choose(heads.length - 1),
  a: () => $("show-axes").click(), b: () => $("show-box").click(), l: () => $("show-landmarks").click(),
  r: () => $("reason").focus(), "?": () => $("help").showModal(),
};

document.addEventListener("keydown", (event) => {
  const at = event.target;
  if (event.ctrlKey || event.metaKey || event.altKey || $("help").open) return;
  if (at === $("reason") && (event.key === "Enter" || event.key === "Escape")) return void $("grid").focus();
  if (at.matches("input:not([type=checkbox]), select, textarea")) return;
  if (event.repeat && "kdu".includes(event.key)) return; // a key held down decides once
  const action = keys[event.key];
  if (!action) return;
  event.preventDefault();
  action();
});

$("keep").addEventListener("click", () => decide("keep"));
$("drop").addEventListener("click", () => decide("drop"));
$("undo").addEventListener("click", undo);
$("previous").addEventListener("click", () => page(-1));
$("next").addEventListener("click", () => page(1));
$("help-open").addEventListener("click", () => $("help").showModal());
form.addEventListener("submit", (event) => event.preventDefault());
$("clear").addEventListener("click", () => {
  for (const field of form.querySelectorAll("select, [type=search]")) field.value = "";
  showMeaning();
  load();
});
let typing;
form.addEventListener("change", (event) => {
  if (event.target.type === "checkbox") return void showGrid();
  showMeaning();
  load();
});
form.elements.text.addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(() => load(), 250);
});

attempt(async () => {
  setup = await ask("/api/setup");
  fillFilters(setup.choices);
  showCounts(setup.counts);
  const [place, head] = recall();
  showMeaning();
  await load(place, head);
  $("grid").focus({ preventScroll: true });
});

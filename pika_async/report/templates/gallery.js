// The gallery of a batch: draws the cards from the block of data. Texts are only ever put in as text.
"use strict";

const SMALL = 100; // a batch of so few is drawn at once
const FULL = Math.max(12, Math.ceil(innerWidth * innerHeight / 60000)); // cards that fill a window
const EAGER = 200; // cards that have their video wherever they are
const CHUNK = 60; // cards that are drawn in one go of idle time
const IDLE_LIMIT = 2000; // cards beyond this are drawn when they are scrolled near
const LABELS = { unknown: "in doubt", timed_out: "timed out" };
const ORDER = ["succeeded", "failed", "rejected", "unknown", "timed_out", "canceled"];
const ADVICE = {
  failed: "pays again, with another seed", unknown: "asks about each in turn", rejected: "not charged; sends again once the cause is mended",
  timed_out: "follows the task again", succeeded: "downloads again", canceled: "sends again",
};
// Control characters, and marks that turn the direction of the text around them.
const UNSAFE = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]/g;

const data = JSON.parse(document.getElementById("data").textContent);
const { head } = data;
const FACETS = ["status", "provider", "effect", "model", "kind"];
const PLACES = new Map(data.fields.map((name, place) => [name, place]));
const at = (name) => PLACES.get(name);
const [KEY, USUAL, STATUS, PROVIDER, EFFECT, MODEL, KIND] = ["key", "usual", ...FACETS].map(at);

// A card whose values stand in a row: thousands are read in no time. What its key and prompt tell is not in the row.
class RowCard {
  constructor(row) {
    this.row = row; // what is counted and filtered is at hand, and the rest is read when it is drawn
    this.key = row[KEY];
    this.usual = row[USUAL];
    this.status = row[STATUS];
    this.provider = row[PROVIDER];
    this.effect = row[EFFECT] ?? undefined;
    this.model = row[MODEL] ?? undefined;
    this.kind = row[KIND];
  }

  get file() { return this.usual ? `./videos/${encodeURIComponent(this.key)}.mp4` : this.named("file"); }
  get poster() { return this.named("poster") ? `./posters/${encodeURIComponent(this.key)}.jpg` : undefined; }
  get command() { return this.start === undefined ? this.named("command") : `${this.start}'${this.prompt.replaceAll("'", `'"'"'`)}'`; }
  named(name) { return this.row[at(name)] ?? undefined; }
}
const others = data.fields.filter((name) => !(name in RowCard.prototype) && !["key", "usual", ...FACETS].includes(name));
for (const name of others) Object.defineProperty(RowCard.prototype, name, { get() { return this.named(name); } });
const FIRST = data.cards.length > SMALL ? FULL : SMALL; // cards that are drawn at once
const cards = data.cards.map((card) => (Array.isArray(card) ? new RowCard(card) : card));
const $ = (id) => document.getElementById(id);
const reduced = matchMedia("(prefers-reduced-motion: reduce)");
const label = (status) => LABELS[status] || status;
const clean = (text) => String(text).replace(UNSAFE, "\ufffd");
const hasVideo = (card) => Boolean(card.usual) || card.file !== undefined;
// As Intl.NumberFormat("en") has it, which takes 10 ms to begin.
const number = (value) => {
  const [whole, rest] = String(Math.round(value * 100) / 100).split(".");
  return whole.replace(/\B(?=(\d{3})+$)/g, ",") + (rest ? `.${rest}` : "");
};

function span(seconds) {
  if (seconds < 100) return `${number(seconds < 10 ? seconds : Math.round(seconds))} s`;
  const minutes = Math.floor(seconds / 60);
  return minutes < 60 ? `${minutes} min ${Math.round(seconds % 60)} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== undefined) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = make("textarea", { class: "offscreen" });
    area.value = text;
    (document.querySelector("dialog[open]") || document.body).append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    button.focus();
  }
  const words = button.textContent;
  if (button.classList.contains("done")) return;
  button.classList.add("done");
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = words; button.classList.remove("done"); }, 1500);
}

function copyButton(words, text, name) {
  const button = make("button", { type: "button", class: "copy", "aria-label": name }, words);
  button.addEventListener("click", () => copy(text, button));
  return button;
}

function commandLine(command, name) {
  return make("span", { class: "command" }, make("code", { dir: "ltr", title: clean(command) }, clean(command)), copyButton("Copy", command, name));
}

// --- head and problems --------------------------------------------------------------------------------------------

function counted(list, name) {
  const counts = new Map();
  for (const card of list) counts.set(card[name], (counts.get(card[name]) || 0) + 1);
  return counts;
}

function drawHead() {
  const parts = [...counted(cards, "status")].sort((a, b) => ORDER.indexOf(a[0]) - ORDER.indexOf(b[0])).map(([status, count]) => `${number(count)} ${label(status)}`);
  const files = cards.filter(hasVideo).length;
  if (files) parts.push(`${number(files)} on disk`);
  const points = cards.reduce((sum, card) => sum + (card.points || 0), 0);
  const cost = cards.reduce((sum, card) => sum + (card.cost || 0), 0);
  if (points) parts.push(`${number(points)} points`);
  if (cost) parts.push(`cost ${number(cost)}`);
  $("summary").textContent = parts.join(" · ") || "Nothing has finished yet.";
  const open = Object.entries(head.unfinished).map(([status, count]) => `${number(count)} ${label(status)}`);
  if (head.waiting) open.push(`${number(head.waiting)} ${head.running ? "under way or planned" : "planned"}`);
  const line = $("unfinished");
  line.hidden = !open.length;
  line.replaceChildren();
  if (!open.length) return;
  if (head.running && head.live) {
    line.append(`Running: ${open.join(", ")}.`);
  } else if (head.running) {
    const reload = make("button", { type: "button", class: "copy" }, "Reload");
    reload.addEventListener("click", () => location.reload());
    line.append(make("span", {}, `Running: ${open.join(", ")}. Written ${head.written.replace("T", " ").replace("Z", " UTC")}.`), reload);
  } else {
    line.append(make("span", {}, `Not finished: ${open.join(", ")}. To continue:`), commandLine(head.resume, "Copy the command to continue"));
  }
}

function drawProblems() {
  $("problems").hidden = !head.groups.length;
  if (!head.groups.length) return;
  const counts = new Map();
  for (const { status, count } of head.groups) counts.set(status, (counts.get(status) || 0) + count);
  $("problems-count").replaceChildren(...[...counts].map(([status, count]) => make("span", { class: "status", "data-status": status }, `${number(count)} ${label(status)}`)));
  const body = make("tbody");
  for (const group of head.groups) {
    const examples = make("span", { class: "keys" }, clean(group.keys.join(", ")));
    if (group.count > group.keys.length) examples.append(` and ${number(group.count - group.keys.length)} more`);
    body.append(make("tr", { "data-status": group.status, "data-group": `${group.status} ${group.reason}` },
      make("td", { class: "count" }, number(group.count)),
      make("th", { scope: "row" }, make("span", { class: "status", "data-status": group.status }, label(group.status))),
      make("td", { class: "why" }, make("span", { class: "reason", dir: "auto" }, clean(group.reason)), examples),
      make("td", { class: "way" }, ...(group.command ? [commandLine(group.command, `Copy the command for ${number(group.count)} ${label(group.status)}`),
        make("span", { class: "advice" }, ADVICE[group.status] || "")] : []))));
  }
  const names = ["Jobs", "Status", "Reason and examples", "What helps"];
  const line = make("tr", {}, ...names.map((name) => make("th", { scope: "col" }, name)));
  document.querySelector("#problems .table").replaceChildren(make("table", {}, make("thead", {}, line), body));
}

// --- filters ------------------------------------------------------------------------------------------------------

const chosen = Object.fromEntries(FACETS.map((facet) => [facet, new Set()]));
const texts = new WeakMap(); // made with the first search; a card stays as it came

function textOf(card) {
  if (!texts.has(card)) texts.set(card, `${card.prompt}\n${card.key}`.toLowerCase());
  return texts.get(card);
}

function drawFilters() {
  for (const [place, facet] of FACETS.entries()) {
    const counts = counted(cards, facet);
    counts.delete(undefined);
    let group = $("filters").querySelector(`[data-facet="${facet}"]`);
    if (!group && (!counts.size || (facet !== "status" && counts.size < 2))) continue;
    if (!group) {
      group = make("div", { role: "group", "aria-label": facet, class: "facet", "data-facet": facet }, make("span", { class: "name", "aria-hidden": "true" }, facet));
      const next = [...$("filters").children].find((one) => FACETS.indexOf(one.dataset.facet) > place);
      $("filters").insertBefore(group, next || null);
    }
    const known = new Map([...group.querySelectorAll(".chip")].map((chip) => [chip.dataset.value, chip]));
    for (const value of known.keys()) if (!counts.has(value)) counts.set(value, 0); // it may be pressed
    for (const [value, count] of [...counts].sort((a, b) => b[1] - a[1])) {
      const chip = known.get(String(value)) || group.appendChild(drawChip(facet, value));
      chip.querySelector(".n").textContent = number(count);
    }
  }
  $("controls").hidden = !cards.length;
}

function drawChip(facet, value) {
  const chip = make("button", { type: "button", "aria-pressed": "false", class: "chip", "data-value": value },
    make("bdi", {}, clean(facet === "status" ? label(value) : value)), " ", make("span", { class: "n" }));
  if (facet === "status") chip.dataset.status = value;
  chip.addEventListener("click", () => {
    const on = !chosen[facet].delete(value);
    if (on) chosen[facet].add(value);
    chip.setAttribute("aria-pressed", on);
    show();
  });
  return chip;
}

function drawSorts() {
  const sorts = { order: "order", settled: "time, newest first", took: "duration, longest first", cost: "cost, highest first" };
  for (const [value, words] of Object.entries(sorts)) $("sort").append(make("option", { value }, words));
  $("sort").addEventListener("change", show);
  $("search").addEventListener("input", show);
}

const price = (card) => card.cost ?? card.points ?? -1;
const COMPARE = {
  order: () => 0,
  settled: (a, b) => (b.settled || "").localeCompare(a.settled || ""),
  took: (a, b) => (b.took ?? -1) - (a.took ?? -1),
  cost: (a, b) => price(b) - price(a),
};

function matching() {
  const words = $("search").value.trim().toLowerCase();
  const facets = FACETS.filter((facet) => chosen[facet].size);
  const found = cards.filter((card) => facets.every((facet) => chosen[facet].has(card[facet])) && (!words || textOf(card).includes(words)));
  const sort = $("sort").value;
  if (sort !== "order") found.sort(COMPARE[sort]);
  const videos = [], others = [];
  for (const card of found) (hasVideo(card) ? videos : others).push(card);
  return videos.concat(others);
}

// --- the grid -----------------------------------------------------------------------------------------------------

const grid = document.querySelector("#videos .grid");
const list = document.querySelector("#others .list");
let shown = [], drawn = 0, round = 0;

function show() {
  shown = matching();
  drawn = 0;
  round += 1;
  nearby.disconnect();
  grid.replaceChildren();
  list.replaceChildren();
  $("shown").removeAttribute("aria-live");
  showCounts();
  draw(FIRST);
  const mine = round;
  later(() => { if (mine === round) grow(); });
  idle(round);
}

function showCounts() {
  const videos = shown.filter(hasVideo).length;
  $("videos").hidden = !videos;
  $("others").hidden = videos === shown.length;
  $("empty").hidden = shown.length > 0 || !cards.length; // the summary says that nothing has finished yet
  $("empty").textContent = "No job matches. Clear the search or a filter to see more.";
  $("shown").textContent = shown.length === cards.length ? `${number(cards.length)} shown` : `${number(shown.length)} of ${number(cards.length)} shown`;
}

function draw(count) {
  const end = Math.min(shown.length, drawn + count);
  const videos = document.createDocumentFragment(), others = document.createDocumentFragment();
  for (; drawn < end; drawn += 1) {
    const card = shown[drawn];
    (hasVideo(card) ? videos : others).append(hasVideo(card) ? drawCard(card, drawn) : drawLine(card, drawn));
  }
  grid.append(videos);
  list.append(others);
}

const later = window.requestIdleCallback || ((work) => setTimeout(() => work({ timeRemaining: () => 8 }), 16));

function idle(mine) {
  later(() => {
    if (mine !== round || drawn >= Math.min(shown.length, IDLE_LIMIT)) return;
    draw(CHUNK);
    idle(mine);
  });
}

// Grows while the end of the grid is near below, but not where a person has jumped past it.
let isGrowing = false;

function grow() {
  if (isGrowing || drawn >= shown.length) return;
  isGrowing = true;
  requestAnimationFrame(() => {
    isGrowing = false;
    const top = $("more").getBoundingClientRect().top;
    if (top < 0 || top > innerHeight + 1500) return;
    draw(CHUNK);
    grow();
  });
}

addEventListener("scroll", grow, { passive: true });
addEventListener("resize", grow, { passive: true });

// Posters and first frames are loaded only near the window, and later cards have a video only there: a page is slow to
// take thousands of videos away again.
const nearby = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    target.isNear = isIntersecting;
    if (isIntersecting) load(target);
    else unload(target);
  }
}, { rootMargin: "1000px" });

function load(article) {
  const { card } = article;
  attach(article);
  if (card.poster) article.shot.poster = card.poster;
  else article.shot.preload = "metadata";
}

function unload(article) {
  const { card, shot } = article;
  if (!shot) return;
  if (!card.poster && shot.preload === "metadata") {
    shot.preload = "none"; // a browser opens a limited number of videos
    shot.load();
  }
  if (article.place >= EAGER) shot.remove();
}

function attach(article) {
  if (!article.shot) {
    const shot = article.shot = media(article.card);
    shot.addEventListener("error", () => { if (shot.error && shot.preload !== "none") article.frame.classList.add("missing"); });
  }
  if (!article.shot.isConnected) article.frame.prepend(article.shot);
}

function media(card) {
  if (card.picture) return make("img", { src: card.file, alt: clean(card.prompt), loading: "lazy", decoding: "async" });
  const video = make("video", { src: card.file, preload: "none", "aria-label": clean(card.prompt), loop: "", playsinline: "" });
  video.muted = true;
  return video;
}

function facts(card) {
  const line = [];
  if (card.effect) line.push(["effect", card.effect]);
  if (card.ratio) line.push(["ratio", card.ratio]);
  if (card.seed !== undefined) line.push(["seed", `seed ${card.seed}`]);
  if (card.took !== undefined) line.push(["took", `took ${span(card.took)}`]);
  if (card.cost !== undefined) line.push(["cost", `cost ${number(card.cost)}`]);
  if (card.points !== undefined) line.push(["points", `${number(card.points)} points`]);
  return line.map(([name, text]) => make("span", { class: name }, clean(text)));
}

function frameOf(card, name) {
  return make("article", { class: drawn < EAGER ? name : `${name} far`, tabindex: "0", "data-key": card.key, "data-status": card.status, "aria-label": clean(card.prompt) });
}

function drawCard(card, place) {
  const article = frameOf(card, "card");
  const [width, height] = card.shape || [16, 9];
  article.style.setProperty("--ratio", Math.min(Math.max(width / height, 0.4), 2.6));
  const frame = make("div", { class: "frame" });
  if (card.seconds) frame.append(make("span", { class: "length" }, span(card.seconds)));
  article.append(frame, make("p", { class: "prompt", dir: "auto" }, clean(card.prompt)), make("p", { class: "facts" }, ...facts(card)));
  article.setAttribute("aria-posinset", place + 1);
  article.setAttribute("aria-setsize", shown.length);
  opens(article, place, card);
  if (card.picture) {
    frame.prepend(media(card));
    return article;
  }
  Object.assign(article, { card, frame, place });
  if (place < EAGER) attach(article);
  if (place < FIRST && card.poster) article.shot.poster = card.poster;
  nearby.observe(article);
  const play = () => { if (!reduced.matches) { attach(article); article.shot.play().catch(() => {}); } };
  const pause = () => { if (article.shot) article.shot.pause(); };
  article.addEventListener("pointerenter", (event) => { if (event.pointerType === "mouse") play(); });
  article.addEventListener("pointerleave", pause);
  article.addEventListener("focus", play);
  article.addEventListener("blur", pause);
  return article;
}

function drawLine(card, place) {
  const article = frameOf(card, "line-card");
  article.append(make("span", { class: "status", "data-status": card.status }, label(card.status)),
    make("p", { class: "prompt", dir: "auto" }, clean(card.prompt)),
    make("p", { class: "facts" }, make("span", { class: "reason", dir: "auto" }, clean(card.reason || "not downloaded")), make("span", { class: "key" }, clean(card.key))));
  article.setAttribute("aria-posinset", place + 1);
  article.setAttribute("aria-setsize", shown.length);
  opens(article, place, card);
  return article;
}

function opens(article, place, card) {
  article.place = place;
  article.source = card;
  article.addEventListener("click", () => openPlayer(article.place));
  article.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && event.target === article) { event.preventDefault(); openPlayer(article.place); }
  });
}

// --- the player ---------------------------------------------------------------------------------------------------

const player = $("player");
let current = 0;

function openPlayer(place) {
  current = place;
  fillPlayer();
  if (!player.open) player.showModal();
  player.focus();
}

function step(by) {
  if (!shown.length) return; // all have left the filter while the player is open
  current = (current + by + shown.length) % shown.length;
  fillPlayer();
}

function rows(card) {
  const found = [
    ["Status", label(card.status)], ["Reason", card.error], ["Key", card.key], ["Provider", card.provider], ["Task", card.task],
    ["Effect", card.effect], ["Model", card.model], ["Kind", card.kind], ["Ratio", card.ratio], ["Seed", card.seed],
    ["Size", hasVideo(card) && card.shape ? card.shape.join(" × ") : undefined], ["Length", card.seconds && span(card.seconds)],
    ["Took", card.took && span(card.took)], ["Submitted", card.submitted], ["Settled", card.settled], ["Polls", card.polls],
    ["Attempts", card.attempts], ["Points", card.points], ["Cost", card.cost],
  ];
  return found.filter(([, value]) => value !== undefined && value !== null)
    .flatMap(([name, value]) => [make("dt", {}, name), make("dd", { dir: "auto" }, clean(value))]);
}

function button(words, name, work, kind) {
  const made = make("button", { type: "button", class: kind, "aria-label": name }, words);
  made.addEventListener("click", work);
  return made;
}

function fillPlayer() {
  const card = shown[current];
  const stage = make("div", { class: "stage" });
  if (hasVideo(card)) {
    const shot = media(card);
    if (shot.tagName === "VIDEO") {
      shot.controls = true;
      shot.preload = "auto";
      if (card.poster) shot.poster = card.poster;
      if (!reduced.matches) shot.autoplay = true;
    }
    stage.append(shot);
  } else {
    stage.classList.add("none");
    stage.append(make("p", { dir: "auto" }, clean(card.reason || "not downloaded")));
  }
  const prompt = make("h2", { id: "player-prompt", dir: "auto" }, clean(card.prompt));
  const actions = make("div", { class: "actions" }, copyButton("Copy prompt", card.prompt), copyButton("Copy key", card.key));
  const { command } = card;
  if (command) actions.append(copyButton("Copy command", command));
  const detail = make("div", { class: "detail" }, prompt, actions);
  const aim = card.status === "succeeded" ? "make it again" : "try it again";
  if (command) detail.append(make("p", { class: "again" }, `To ${aim}:`, make("code", { dir: "ltr" }, clean(command))));
  detail.append(make("dl", {}, ...rows(card)));
  const bar = make("div", { class: "bar" }, make("span", { class: "place" }, `${number(current + 1)} of ${number(shown.length)}`),
    button("←", "Previous", () => step(-1), "step"), button("→", "Next", () => step(1), "step"), button("✕", "Close", () => player.close(), "step"));
  const focused = player.contains(document.activeElement) ? document.activeElement.getAttribute("aria-label") : null;
  player.replaceChildren(bar, stage, detail);
  const again = focused && [...bar.querySelectorAll("button")].find((one) => one.getAttribute("aria-label") === focused);
  if (player.open) (again || player).focus();
}

player.tabIndex = -1;
player.addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey) return;
  const by = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
  if (by) { event.preventDefault(); step(by); }
  if (event.key === " " && !event.target.closest("button")) {
    event.preventDefault();
    const video = player.querySelector("video");
    if (video) { if (video.paused) video.play().catch(() => {}); else video.pause(); }
  }
});
player.addEventListener("click", (event) => { if (event.target === player) player.close(); });
player.addEventListener("close", () => {
  player.replaceChildren();
  const key = shown[current] && shown[current].key;
  while (drawn <= current && drawn < shown.length) draw(CHUNK);
  const article = [...document.querySelectorAll("article")].find((one) => one.dataset.key === key);
  if (article) article.focus();
});

const problems = document.querySelector("#problems details");
problems.open = !matchMedia("(max-width: 48rem)").matches; // a phone shows videos first, below one line of problems
addEventListener("beforeprint", () => { for (const part of document.querySelectorAll("main details")) part.open = true; });
drawHead();
drawProblems();
drawFilters();
drawSorts();
show();

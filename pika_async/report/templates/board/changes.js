// The live board: the line of its state, and the changes that are drawn. Texts are only ever put in as text.
"use strict";

const PAUSE = 400; // milliseconds between two drawings, however many changes come
const GONE_AFTER = 3 * head.beat * 1000; // milliseconds without a sign of life after which the page is stale
const FIGURES_EVERY = 20000; // milliseconds between two readings of the timeline
const news = new Map();
let newHead = null, timer = 0, last = Date.now(), isBroken = false, isOver = false, isPressed = false, isEnded = false;
let figuresAt = Date.now(), figuresTimer = 0, groupsDrawn = JSON.stringify(head.groups);

const clock = (time) => new Date(time).toLocaleTimeString("en-GB");

function showState() {
  const isShared = Boolean(head.batch && head.batch.cluster);
  const isStale = isBroken || Date.now() - last > GONE_AFTER;
  const state = isOver || isEnded ? "over" : isStale ? "stale" : head.running ? "live" : "over";
  const words = isOver ? "The board has been stopped or its address has changed: open the address that the command prints."
    : isEnded ? `The command that served this page ended at ${clock(last)}. ${isShared ? "Run it again, and open its new address." : "The gallery in its folder has the same cards."}`
    : isStale ? `Stale: no news since ${clock(last)}. The page goes on by itself as soon as the board answers.`
    : head.trouble && isShared ? `The database does not answer; the page goes on by itself once it does. ${clean(head.trouble).replace(/^database: /, "")}`
    : head.trouble ? `The journal cannot be read: ${clean(head.trouble)}`
    : head.batch && head.batch.paused ? "Live, and paused: nothing more is sent; what is in flight is followed."
    : head.running ? "Live" : isShared ? "No worker is running, so nothing is sent or polled." : "No batch is running here.";
  const line = $("live");
  if (line.textContent !== words) line.textContent = words;
  line.dataset.paused = String(Boolean(state === "live" && head.batch && head.batch.paused));
  if (line.dataset.state !== state) line.dataset.state = document.documentElement.dataset.board = state;
  if (window.showControl) window.showControl(state);
}

function soon() {
  if (!timer) timer = setTimeout(merge, PAUSE);
}

function merge() {
  timer = 0;
  if (isPressed) return soon(); // a click needs the element on which it began
  if (newHead) {
    Object.assign(head, { trouble: undefined }, newHead);
    newHead = null;
    drawGroups();
  }
  if (takeNews()) {
    drawFilters();
    update();
  }
  drawHead();
  drawCluster();
  showState();
}

const encoded = (card) => JSON.stringify(card, (name, value) => (name === "text" ? undefined : value)); // without what the search adds

// Puts the news into `cards`, in the order of the batch, and returns whether there were any.
function takeNews() {
  const places = news.size ? new Map(cards.map((card, place) => [card.key, place])) : new Map();
  let isChanged = false, isGone = false;
  for (const [key, card] of news) {
    const place = places.get(key);
    if (card.gone && place === undefined) continue;
    if (place !== undefined && encoded(cards[place]) === encoded(card)) continue; // it may come twice
    isChanged = true;
    isGone ||= Boolean(card.gone);
    if (place === undefined) cards.push(card);
    else cards[place] = card;
  }
  news.clear();
  if (isGone) cards.splice(0, cards.length, ...cards.filter((card) => !card.gone));
  if (isChanged) cards.sort((a, b) => a.index - b.index || (a.key < b.key ? -1 : 1));
  return isChanged;
}

function drawGroups() {
  const groups = JSON.stringify(head.groups);
  if (groups === groupsDrawn) return;
  groupsDrawn = groups;
  const row = document.activeElement && document.activeElement.closest("#problems tr");
  drawProblems();
  if (row) [...document.querySelectorAll("#problems tr")].find((one) => one.dataset.group === row.dataset.group)?.querySelector("button")?.focus();
}

// Draws what has changed since `show`, and leaves every other card as it is: one may be playing, or have the focus.
function update() {
  const key = player.open && shown[current] ? shown[current].key : null;
  const focused = document.activeElement && document.activeElement.closest("article")?.dataset.key;
  const before = shown.length, kept = new Map();
  for (const article of [...grid.children, ...list.children]) kept.set(article.dataset.key, article);
  shown = matching();
  const pushed = Math.min(drawn + Math.max(shown.length - before, 0), IDLE_LIMIT); // what new ones push on stays drawn
  const count = Math.min(shown.length, Math.max(drawn, pushed, FIRST));
  const wanted = new Set(shown.slice(0, count));
  for (const [name, article] of kept) {
    if (wanted.has(article.source)) continue;
    kept.delete(name);
    nearby.unobserve(article);
    article.remove();
  }
  const ends = new Map([[grid, grid.firstElementChild], [list, list.firstElementChild]]);
  for (drawn = 0; drawn < count; drawn += 1) {
    const card = shown[drawn], place = hasVideo(card) ? grid : list;
    const article = kept.get(card.key) || (hasVideo(card) ? drawCard(card, drawn) : drawLine(card, drawn));
    placeAt(article, drawn);
    const next = ends.get(place);
    if (article === next) ends.set(place, next.nextElementSibling);
    else place.insertBefore(article, next);
  }
  if (focused && document.activeElement === document.body) articleOf(focused)?.focus();
  if (key !== null) followPlayer(key);
  $("shown").setAttribute("aria-live", "off"); // a screen reader need not say each count
  showCounts();
  grow();
  round += 1;
  idle(round);
}

function placeAt(article, place) {
  article.place = place;
  article.classList.toggle("far", place >= EAGER);
  if (place >= EAGER && article.shot && !article.isNear && !article.matches(":hover, :focus")) article.shot.remove();
  for (const [name, value] of [["aria-posinset", place + 1], ["aria-setsize", shown.length]]) {
    if (article.getAttribute(name) !== String(value)) article.setAttribute(name, value);
  }
}

const articleOf = (key) => [...grid.children, ...list.children].find((one) => one.dataset.key === key);

function followPlayer(key) {
  const place = shown.findIndex((card) => card.key === key);
  current = place < 0 ? Math.min(current, Math.max(shown.length - 1, 0)) : place;
  const words = player.querySelector(".place");
  if (words && place >= 0) words.textContent = `${number(current + 1)} of ${number(shown.length)}`;
}

addEventListener("blur", () => { isPressed = false; });
for (const name of ["pointerdown", "pointerup", "pointercancel"]) {
  addEventListener(name, () => { isPressed = name === "pointerdown"; }, { capture: true, passive: true });
}

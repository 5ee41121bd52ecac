// The live board: keeps the gallery up to date by server-sent events. Texts are only ever put in as text.
"use strict";

const PAUSE = 400; // milliseconds between two drawings, however many changes come
const GONE_AFTER = 3 * head.beat * 1000; // milliseconds without a sign of life after which the page is stale
const FIGURES_EVERY = 10000; // milliseconds between two readings of the timeline
const byKey = new Map(cards.map((card) => [card.key, card]));
const news = new Map();
let newHead = null, timer = 0, last = Date.now(), isBroken = false, isOver = false, figuresAt = Date.now();

function showState() {
  const late = Math.round((Date.now() - last) / 1000);
  const isStale = isBroken || Date.now() - last > GONE_AFTER;
  const state = isOver ? "over" : isStale ? "stale" : head.running ? "live" : "over";
  const words = isOver ? "The board has been stopped or its address has changed: open the address that the command prints."
    : isStale ? `Stale: no news for ${late} s. It shows again what happens as soon as the board answers.`
    : head.trouble ? `The journal cannot be read: ${clean(head.trouble)}`
    : head.running ? "Live" : "No batch is running here.";
  const line = $("live");
  if (line.textContent !== words) line.textContent = words;
  line.dataset.state = state;
  document.documentElement.dataset.board = state;
}

function merge() {
  timer = 0;
  let isChanged = false;
  for (const [key, card] of news) {
    if (card.gone ? !byKey.has(key) : false) continue;
    isChanged = true;
    if (card.gone) byKey.delete(key);
    else {
      card.text = `${card.prompt}\n${card.key}`.toLowerCase();
      byKey.set(key, card);
    }
  }
  news.clear();
  if (newHead) {
    Object.assign(head, { trouble: undefined }, newHead);
    newHead = null;
    drawHead();
    drawProblems();
  }
  if (isChanged) {
    cards.splice(0, cards.length, ...[...byKey.values()].sort((a, b) => a.index - b.index || (a.key < b.key ? -1 : 1)));
    drawFilters();
    update();
  }
  showState();
}

function soon() {
  if (!timer) timer = setTimeout(merge, PAUSE);
}

// The timeline is read as a document, which a strict policy allows; its nodes are then put in place of the old ones.
function readFigures() {
  if (document.hidden || Date.now() - figuresAt < FIGURES_EVERY) return;
  figuresAt = Date.now();
  const request = new XMLHttpRequest();
  request.open("GET", "./timeline");
  request.responseType = "document";
  request.addEventListener("load", () => {
    const fresh = request.status === 200 && request.response && request.response.getElementById("timeline");
    if (!fresh) return;
    const old = $("timeline");
    const isOpen = old && old.querySelector("details[open]");
    const node = document.adoptNode(fresh);
    if (isOpen && node.querySelector("details")) node.querySelector("details").open = true;
    if (old) old.replaceWith(node);
    else document.querySelector("main").append(node);
  });
  request.send();
}

function connect() {
  const source = new EventSource(`./events?after=${head.revision}&epoch=${head.epoch}&seen=${head.number}`);
  const alive = () => { last = Date.now(); isBroken = false; };
  source.addEventListener("hello", (event) => {
    alive();
    if (JSON.parse(event.data).epoch !== head.epoch) location.reload(); // another process counts anew
  });
  source.addEventListener("cards", (event) => {
    alive();
    for (const card of JSON.parse(event.data)) news.set(card.key, card);
    soon();
  });
  source.addEventListener("head", (event) => { alive(); newHead = JSON.parse(event.data); soon(); readFigures(); });
  source.addEventListener("beat", () => { alive(); showState(); });
  source.addEventListener("error", () => {
    isBroken = true;
    if (source.readyState === EventSource.CLOSED) isOver = true; // refused: the secret is another one now
    showState();
  });
}

setInterval(showState, 1000);
showState();
connect();

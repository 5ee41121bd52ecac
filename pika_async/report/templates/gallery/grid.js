// The grid of the videos and the list of the others: what fills the window first, the rest in idle time.

const SMALL = 100; // a batch of so few is drawn at once
const FULL = Math.max(12, Math.ceil(innerWidth * innerHeight / 60000)); // cards that fill a window
const CHUNK = 60; // cards that are drawn in one go of idle time
const IDLE_LIMIT = 2000; // cards beyond this are drawn when they are scrolled near
const FIRST = cards.length > SMALL ? FULL : SMALL; // cards that are drawn at once

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

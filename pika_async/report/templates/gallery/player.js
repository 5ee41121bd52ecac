// The large player: one card with everything that is known of it.

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

// One submission: its account, what came of it, and why.
const stepText = ([account, verdict, reason]) => `${account}: ${verdict.replaceAll("_", " ")}${reason && ` (${reason})`}`;

function rows(card) {
  const found = [
    ["Status", label(card.status)], ["Reason", card.error], ["Key", card.key], ["Provider", card.provider], ["Account", card.account], ["Task", card.task],
    ["Effect", card.effect], ["Model", card.model], ["Kind", card.kind], ["Ratio", card.ratio], ["Resolution", card.resolution], ["Seed", card.seed],
    ["Size", whereOf(card) === true && card.shape ? card.shape.join(" × ") : undefined], ["Length", card.seconds ? span(card.seconds) : card.duration && span(Number(card.duration))],
    ["Took", card.took && span(card.took)], ["Submitted", card.submitted && moment(card.submitted)], ["Settled", card.settled && moment(card.settled)], ["Polls", card.polls && number(card.polls)],
    ["Attempts", card.attempts], ["Points", card.points && number(card.points)], ["Cost", card.cost && money(card.cost)],
    ["Route", card.route && card.route.map(stepText).join(" → ")],
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
  if (whereOf(card) === true) {
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
    stage.append(hasVideo(card) ? awayFrom(card) : make("p", { dir: "auto" }, clean(card.reason || "not downloaded")));
  }
  const prompt = make("h2", { id: "player-prompt", dir: "auto" }, clean(card.prompt));
  const actions = make("div", { class: "actions" }, copyButton("Copy prompt", card.prompt), copyButton("Copy key", card.key));
  if (card.stored) actions.append(copyButton("Copy its place", card.stored));
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

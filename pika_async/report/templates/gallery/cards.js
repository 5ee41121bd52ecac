// One card of the grid, and one line of the list below it.

function facts(card) {
  const line = [];
  if (card.effect) line.push(["effect", card.effect]);
  if (card.ratio) line.push(["ratio", card.ratio]);
  if (card.seed !== undefined) line.push(["seed", `seed ${card.seed}`]);
  if (card.took !== undefined) line.push(["took", `took ${span(card.took)}`]);
  if (card.cost !== undefined) line.push(["cost", `cost ${money(card.cost)}`]);
  if (card.points !== undefined) line.push(["points", counted(card.points, "point")]);
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
  if (whereOf(card) !== true) {
    frame.append(awayFrom(card));
    return article;
  }
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

// A result that the page cannot show: where it is. A browser opens no s3:// address, and no file of another machine.
function awayFrom(card) {
  const place = make("span", { class: "place", dir: "ltr" }, /^https?:\/\//.test(card.stored)
    ? make("a", { href: card.stored, rel: "noreferrer noopener", target: "_blank" }, clean(card.stored)) : clean(card.stored));
  return make("div", { class: "away" }, make("span", {}, whereOf(card) === "store" ? "In the store" : "On another disk"), place);
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

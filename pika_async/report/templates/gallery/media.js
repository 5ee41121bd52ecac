// Videos and pictures, which are loaded only where they are near.

const EAGER = 200; // cards that have their video wherever they are
const reduced = matchMedia("(prefers-reduced-motion: reduce)");

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

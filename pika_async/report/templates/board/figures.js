// The timeline of the live board, which is read again from time to time.

function figuresSoon() {
  if (!figuresTimer) figuresTimer = setTimeout(readFigures, Math.max(figuresAt + FIGURES_EVERY - Date.now(), 0));
}

// The timeline is read as a document, which a strict policy allows; its nodes are then put in place of the old ones.
function readFigures() {
  figuresTimer = 0;
  if (document.hidden) {
    document.addEventListener("visibilitychange", figuresSoon, { once: true });
    return;
  }
  figuresAt = Date.now();
  const request = new XMLHttpRequest();
  request.open("GET", "./timeline");
  request.responseType = "document";
  request.addEventListener("load", () => {
    const fresh = request.status === 200 && request.response && request.response.getElementById("timeline");
    if (fresh) putFigures(document.adoptNode(fresh));
  });
  request.send();
}

function putFigures(fresh) {
  const old = $("timeline"), details = fresh.querySelector("details");
  if (details && old && old.querySelector("details[open]")) details.open = true;
  const isFocused = old && old.contains(document.activeElement);
  if (old) old.replaceWith(fresh);
  else {
    document.querySelector("main").append(fresh);
    $("summary").after(" ", make("a", { href: "#timeline" }, "Timeline"));
  }
  if (isFocused) fresh.querySelector("summary")?.focus();
}

// The connection of the live board: server-sent events, and how it comes back.

function connect(query) {
  const source = new EventSource(`./events?${query}`);
  const alive = () => { last = Date.now(); isBroken = false; };
  source.addEventListener("hello", (event) => {
    alive();
    isEnded = false;
    const { epoch } = JSON.parse(event.data);
    if (epoch === head.epoch) return;
    head.epoch = epoch; // another process, whose numbers are its own: ask it for all
    source.close();
    connect("after=0");
  });
  source.addEventListener("cards", (event) => {
    alive();
    for (const card of JSON.parse(event.data)) news.set(card.key, card);
    soon();
  });
  source.addEventListener("head", (event) => {
    alive();
    newHead = JSON.parse(event.data);
    if (newHead.revision !== head.revision) figuresSoon();
    soon();
  });
  source.addEventListener("beat", () => { alive(); showState(); });
  source.addEventListener("end", () => { alive(); isEnded = true; showState(); });
  source.addEventListener("error", () => {
    isBroken = true;
    showState();
    if (source.readyState === EventSource.CLOSED) connectAgain(); // the answer was another: a browser gives up then
  });
}

async function connectAgain() {
  const status = await fetch("./healthz").then((response) => response.status, () => 0);
  if (status === 403) isOver = true; // the secret is another one now
  else setTimeout(connect, 3000, `after=${head.revision}`);
  showState();
}

setInterval(showState, 1000);
showState();
drawCluster();
connect(`after=${head.revision}&epoch=${head.epoch}&seen=${head.number}`);

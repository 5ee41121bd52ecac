// The head of the page, and the table of the problems.

const ORDER = ["succeeded", "failed", "rejected", "unknown", "timed_out", "canceled"];
const UNFINISHED = ["running", "queued", "submitting", "planned"];
const PLACES_OF_RESULTS = [[true, "on disk"], ["store", "in the store"], ["elsewhere", "on other disks"]];
const ADVICE = {
  failed: "pays again, with another seed", unknown: "asks what has become of it", rejected: "not charged; sends again once the cause is mended",
  timed_out: "follows the task again", succeeded: "downloads again", canceled: "sends again",
};

// The number of cards of each value of each facet. Cards of thousands share few facets.
function tally() {
  const shared = new Map(), counts = Object.fromEntries(FACETS.map((facet) => [facet, new Map()]));
  for (const card of cards) shared.set(card.facets || card, (shared.get(card.facets || card) || 0) + 1);
  for (const [one, count] of shared) {
    for (const [place, facet] of FACETS.entries()) {
      const value = (Array.isArray(one) ? one[place] : one[facet]) ?? undefined;
      counts[facet].set(value, (counts[facet].get(value) || 0) + count);
    }
  }
  return counts;
}

const sumOf = (name) => (head.totals ? head.totals[name] : cards.reduce((sum, card) => sum + (card[name] || 0), 0));

const adviceFor = ({ status, count }) => (status === "unknown" && count > 1 ? "asks about each in turn" : ADVICE[status] || "");

function drawHead() {
  const parts = [...tally().status].sort((a, b) => ORDER.indexOf(a[0]) - ORDER.indexOf(b[0])).map(([status, count]) => `${number(count)} ${label(status)}`);
  const places = new Map();
  for (const card of cards) places.set(whereOf(card), (places.get(whereOf(card)) || 0) + 1);
  for (const [where, words] of PLACES_OF_RESULTS) if (places.has(where)) parts.push(`${number(places.get(where))} ${words}`);
  const points = sumOf("points"), cost = sumOf("cost");
  if (points) parts.push(counted(points, "point"));
  if (cost) parts.push(`cost ${money(cost)}`);
  $("summary").textContent = parts.join(" · ") || "Nothing has finished yet.";
  const unfinished = Object.entries(head.unfinished).sort((a, b) => UNFINISHED.indexOf(a[0]) - UNFINISHED.indexOf(b[0]));
  const open = unfinished.map(([status, count]) => `${number(count)} ${label(status)}`);
  const line = $("unfinished");
  line.hidden = !open.length;
  line.replaceChildren();
  if (!open.length) return;
  if (head.running && head.live) {
    line.append(`Still to come: ${open.join(", ")}.`);
  } else if (head.running) {
    const reload = make("button", { type: "button", class: "copy" }, "Reload");
    reload.addEventListener("click", () => location.reload());
    line.append(make("span", {}, `Still to come: ${open.join(", ")}. Written ${moment(head.written)}.`), reload);
  } else {
    line.append(make("span", {}, `Not finished: ${open.join(", ")}. To continue:`), commandLine(head.batch?.cluster?.start ?? head.resume, "Copy the command to continue"));
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
        make("span", { class: "advice" }, adviceFor(group))] : []))));
  }
  const names = ["Jobs", "Status", "Reason and examples", "What helps"];
  const line = make("tr", {}, ...names.map((name) => make("th", { scope: "col" }, name)));
  document.querySelector("#problems .table").replaceChildren(make("table", {}, make("thead", {}, line), body));
}

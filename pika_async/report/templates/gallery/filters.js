// Search, filters and sorting: which cards are shown, and in which order.

const chosen = Object.fromEntries(FACETS.map((facet) => [facet, new Set()]));
const texts = new WeakMap(); // made with the first search; a card stays as it came

function textOf(card) {
  if (!texts.has(card)) texts.set(card, `${card.prompt}\n${card.key}`.toLowerCase());
  return texts.get(card);
}

function drawFilters() {
  const all = tally();
  for (const [place, facet] of FACETS.entries()) {
    const counts = all[facet];
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

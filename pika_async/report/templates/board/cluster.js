// The workers and the accounts of a database that many processes share. Only where the head has them.

const limited = (value, most, text) => (most === null ? text(value) : `${text(value)} of ${text(most)}`);

function tableOf(name, titles, lines) {
  const line = make("tr", {}, ...titles.map((title) => make("th", { scope: "col" }, title)));
  const rows = lines.map(([first, ...others]) => make("tr", {}, make("th", { scope: "row" }, clean(first)), ...others.map((text, place) => make("td", { "data-label": titles[place + 1] }, clean(text)))));
  return make("div", { class: "table" }, make("table", { "aria-label": name }, make("thead", {}, line), make("tbody", {}, ...rows)));
}

function workersOf({ workers, more }) {
  if (!workers.length) return [make("p", {}, "No worker is running.")];
  const lines = workers.map((one) => [one.id, number(one.jobs), one.lease, one.version]);
  return [tableOf("Workers", ["Worker", "Jobs", "Lease", "Version"], lines), ...(more ? [make("p", {}, `and ${number(more)} more`)] : [])];
}

function accountsOf({ accounts }) {
  if (!accounts.length) return [make("p", {}, "No worker has named its accounts yet.")];
  const lines = accounts.map((one) => [
    one.name, limited(one.flying, one.room, number), limited(one.charges, one.most, number),
    one.spent || one.budget !== null ? limited(one.spent, one.budget, money) : "not known", one.stopped === null ? "sends" : `stopped: ${one.stopped}`,
  ]);
  return [tableOf("Accounts", ["Account", "In flight", "Charges", "Cost", "State"], lines)];
}

let clusterDrawn = "";
function drawCluster() {
  const cluster = head.batch && head.batch.cluster, facts = JSON.stringify(cluster);
  if (!cluster || facts === clusterDrawn) return;
  clusterDrawn = facts;
  let section = $("cluster");
  if (!section) {
    section = make("section", { id: "cluster", "aria-labelledby": "cluster-title" });
    $("problems").before(section);
  }
  section.replaceChildren(make("h2", { id: "cluster-title" }, "Workers and accounts"), ...workersOf(cluster), ...accountsOf(cluster));
}

// The data of the page: its head, and cards that are read only once they are needed.
"use strict";

const FACETS = ["status", "provider", "effect", "model", "kind"];
const SHELL_SAFE = /^[\w@%+=:,.\/-]+$/; // as Python's shlex has it

// The first line holds the head; then each card stands on a line of its own, thousands of which are not parsed at once.
const lines = document.getElementById("data").textContent.split("\n");
const data = JSON.parse(`${lines.shift()}]}`);
const { head } = data;
const PLACES = new Map(data.fields.map((name, place) => [name, place]));

// A card on a line: what is counted and filtered is at hand, and the line is read when another fact is asked for.
class LineCard {
  constructor(line, facets) {
    this.line = line;
    this.facets = facets; // one for all cards that are equal in them
    [this.status, this.provider, this.effect, this.model, this.kind, this.where] = facets.map((value) => value ?? undefined);
  }

  named(name) {
    if (this.line !== null) {
      this.row = JSON.parse(this.line.endsWith(",") ? this.line.slice(0, -1) : this.line);
      this.line = null;
    }
    return this.row[PLACES.get(name)] ?? undefined;
  }

  // What its key, its prompt and its other facts tell is not on the line.
  get file() { return this.named("usual") ? `./videos/${encodeURIComponent(this.key)}.mp4` : this.named("file"); }
  get poster() { return this.named("poster") ? `./posters/${encodeURIComponent(this.key)}.jpg` : undefined; }
  get command() {
    const start = this.named("start");
    return start === undefined ? this.named("command") : `${start === 1 ? usualStart(this) : start}${quoted(this.prompt)}`;
  }
}
for (const name of data.fields) {
  if (!(name in LineCard.prototype) && !FACETS.includes(name)) Object.defineProperty(LineCard.prototype, name, { get() { return this.named(name); } });
}

const quoted = (text) => (SHELL_SAFE.test(text) ? text : `'${text.replaceAll("'", `'"'"'`)}'`);

// The command that generates a card, up to its prompt; `usual_start` of page.py is the same.
function usualStart({ provider, effect, ratio, seed, model, duration, resolution }) {
  const options = Object.entries({ effect, "aspect-ratio": ratio, seed, model, duration, resolution }).filter(([, value]) => value !== undefined);
  return ["pika-async generate --provider", provider, ...options.map(([name, value]) => `--${name}=${value}`), "-- "].join(" ");
}

// True for a file that the page plays, "store" or "elsewhere" for a result in another place, false for none; `where_of` of page.py is the same.
const whereOf = (card) => card.where ?? (card.file !== undefined || (card.stored !== undefined && (card.stored.includes("://") ? "store" : "elsewhere")));
const hasVideo = (card) => whereOf(card) !== false;
const cards = data.codes ? data.codes.map((code, place) => new LineCard(lines[place], data.facets[code]))
  : JSON.parse(`[${lines.join("").slice(0, -2)}]`);
lines.length = 0;

// The control of the live board: pause, room, cancellation, doubts. Only where the page has its token.
"use strict";

const DOUBTS = 20; // doubts that are listed at once

function drawControl() {
  const reply = make("p", { id: "reply", role: "status" });
  const buttons = [];

  async function send(name, body) {
    reply.textContent = "";
    reply.dataset.state = "";
    for (const button of buttons) button.disabled = true;
    let words = "", isGood = false;
    try {
      const answer = await fetch(`./control/${name}`, {
        method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json", "X-Board-Token": head.control },
      });
      const facts = answer.status === 200 || answer.status === 409 ? await answer.json() : {};
      isGood = answer.status === 200;
      words = facts.done || facts.error || `The board has refused this (${answer.status}). Open the address that the command prints.`;
    } catch {
      words = "The board does not answer; nothing is known to have changed.";
    }
    for (const button of buttons) button.disabled = false;
    reply.textContent = clean(words);
    reply.dataset.state = isGood ? "good" : "bad";
    return isGood;
  }

  function push(words, act) {
    const button = make("button", { type: "button", class: "step" }, words);
    button.addEventListener("click", act);
    buttons.push(button);
    return button;
  }

  // A question in place of the button: the answer that changes nothing has the focus.
  function ask(place, question, yes, act) {
    const before = [...place.childNodes];
    const close = () => { place.replaceChildren(...before); const first = place.querySelector("button"); if (first) first.focus(); };
    const agree = make("button", { type: "button", class: "step grave" }, yes);
    const keep = make("button", { type: "button", class: "step" }, "Change nothing");
    agree.addEventListener("click", async () => { close(); await act(); });
    keep.addEventListener("click", close);
    place.replaceChildren(make("span", { role: "alert" }, question), agree, keep);
    keep.focus();
  }

  const toggle = push("Pause", async () => send(head.batch.paused ? "resume" : "pause", {}));
  const room = make("input", { type: "number", id: "room", min: "1", step: "1", inputmode: "numeric" });
  const setRoom = make("form", { class: "inline" }, make("label", { for: "room" }, "Most in flight"), room);
  const apply = make("button", { type: "submit", class: "step" }, "Set");
  buttons.push(apply);
  setRoom.append(apply);
  setRoom.noValidate = true; // the reply says what must hold
  setRoom.addEventListener("submit", (event) => {
    event.preventDefault();
    send("room", { jobs: room.value.trim() === "" ? null : Number(room.value) });
  });
  const cancel = make("span", { class: "inline" });
  cancel.append(push("Cancel what is planned", () => {
    const count = (head.unfinished && head.unfinished.planned) || 0;
    ask(cancel, `Cancel ${counted(count, "planned job")}? What was sent goes on.`, "Cancel them", () => send("cancel", {}));
  }));

  const doubts = make("details", { id: "doubts" });
  doubts.open = !narrow.matches; // on a phone one line that opens
  function doubt(card) {
    const place = make("span", { class: "inline" });
    const task = make("input", { "aria-label": `Task id of ${clean(card.key)}`, placeholder: "Task id", autocomplete: "off", spellcheck: "false" });
    place.append(
      push("Not charged", () => ask(place, "Send it again? If it was charged after all, it is paid for twice.", "Send it again",
        () => send("resolve", { key: card.key, charged: false }))),
      push("Abandon", () => ask(place, "Give it up? It may have been charged.", "Give it up", () => send("resolve", { key: card.key, abandon: true }))),
      task, push("Accepted as this task", () => send("resolve", { key: card.key, task_id: task.value })),
    );
    return make("li", {}, make("span", { class: "reason", dir: "auto" }, clean(card.prompt)), " ", make("code", {}, clean(card.key)), place);
  }
  let drawn = "";
  function drawDoubts() {
    const found = cards.filter((card) => card.status === "unknown");
    const keys = JSON.stringify(found.map((card) => card.key));
    if (keys === drawn) return;
    drawn = keys;
    const more = found.length - DOUBTS;
    doubts.replaceChildren(...(found.length ? [
      make("summary", {}, make("h3", {}, `In doubt: ${number(found.length)}. Look ${found.length === 1 ? "it" : "each"} up at the provider first.`)),
      make("ul", {}, ...found.slice(0, DOUBTS).map(doubt)), ...(more > 0 ? [make("p", {}, `and ${number(more)} more`)] : []),
    ] : []));
    doubts.hidden = !found.length;
  }

  const line = make("div", { class: "line" }, toggle, setRoom, cancel);
  const section = make("section", { id: "control", "aria-labelledby": "control-title" }, make("h2", { id: "control-title" }, "Control"), line, reply, doubts);
  document.querySelector("main").prepend(section);
  let shownRoom;

  return (state) => {
    const batch = head.batch || {};
    section.hidden = !batch.open || state === "over";
    section.inert = state === "stale"; // no click goes to a server that does not answer
    section.dataset.paused = String(Boolean(batch.paused));
    const words = batch.paused ? "Resume" : "Pause";
    if (toggle.textContent !== words) toggle.textContent = words;
    if (batch.room !== shownRoom && document.activeElement !== room) {
      shownRoom = batch.room;
      room.value = batch.room ?? "";
    }
    drawDoubts();
  };
}

if (head.control) {
  window.showControl = drawControl();
  showState();
}

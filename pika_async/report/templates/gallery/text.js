// Words and numbers as people read them.

const LABELS = { unknown: "in doubt", timed_out: "timed out" };
// Control characters, and marks that turn the direction of the text around them.
const UNSAFE = /[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f-\u009f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]/g;

const label = (status) => LABELS[status] || status;
const clean = (text) => String(text).replace(UNSAFE, "\ufffd");

// As Intl.NumberFormat("en") has it, which takes 10 ms to begin.
function number(value, digits = 2) {
  const [whole, rest] = String(Number(value.toFixed(digits))).split(".");
  return whole.replace(/\B(?=(\d{3})+$)/g, ",") + (rest ? `.${rest}` : "");
}

// Two decimals, or as many as there are up to six; `money_text` of money.py is the same.
function money(value) {
  const text = number(value, 6), decimals = (text.split(".")[1] || "").length;
  return decimals >= 2 ? text : `${text}${decimals ? "" : "."}${"0".repeat(2 - decimals)}`;
}

const moment = (time) => time.replace("T", " ").replace("Z", " UTC");

const counted = (count, one, many = `${one}s`) => `${number(count)} ${count === 1 ? one : many}`;

function span(seconds) {
  if (seconds < 100) return `${number(seconds < 10 ? seconds : Math.round(seconds))} s`;
  const minutes = Math.floor(seconds / 60);
  return minutes < 60 ? `${minutes} min ${Math.round(seconds % 60)} s` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
}

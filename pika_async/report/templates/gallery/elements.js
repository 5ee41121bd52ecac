// Elements, and buttons that copy a text. Texts are only ever put in as text.

const narrow = matchMedia("(max-width: 48rem)"); // as in gallery.css
const $ = (id) => document.getElementById(id);

function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== undefined) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

async function copy(text, button) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = make("textarea", { class: "offscreen" });
    area.value = text;
    (document.querySelector("dialog[open]") || document.body).append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    button.focus();
  }
  const words = button.textContent;
  if (button.classList.contains("done")) return;
  button.classList.add("done");
  button.textContent = "Copied";
  setTimeout(() => { button.textContent = words; button.classList.remove("done"); }, 1500);
}

function copyButton(words, text, name) {
  const button = make("button", { type: "button", class: "copy", "aria-label": name }, words);
  button.addEventListener("click", () => copy(text, button));
  return button;
}

function commandLine(command, name) {
  return make("span", { class: "command" }, make("code", { dir: "ltr", title: clean(command) }, clean(command)), copyButton("Copy", command, name));
}

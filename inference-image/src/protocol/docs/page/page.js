// Shows the served models. Everything from the server is inserted as text, never as markup.

import { lines } from "./lines.js";
import { images } from "./images.js";

const find = (selector, within = document) => within.querySelector(selector);
const base = new URL(".", document.baseURI).href;

/** The bearer token, where the server wants one. */
let token = "";
/** What is done with files that are dropped anywhere on the page. */
let dropped = null;

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

/** Asks the server. Paths are relative to the page, which may stand below a prefix. */
function ask(path, options = {}) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  return fetch(new URL(path, base), { ...options, headers });
}

/** The server's own words. */
async function problem(response) {
  const text = await response.text();
  try {
    return JSON.parse(text).error ?? text;
  } catch {
    return text || response.statusText;
  }
}

function complain(text) {
  const place = find("#problem");
  place.textContent = text;
  place.hidden = false;
}

async function load() {
  find("#problem").hidden = true;
  try {
    const response = await ask("ui/models.json");
    find("#token").hidden = response.status !== 401;
    if (response.status === 401) find("#token-text").focus();
    if (response.ok) show(await response.json());
    else complain(await problem(response));
  } catch (error) {
    complain(`No answer from the server (${error.message}).`);
  }
}

function show(server) {
  find("#server").replaceChildren(
    element("li", `modelservice-server ${server.serverVersion}`),
    element("li", `ONNX Runtime ${server.onnxRuntimeVersion}`),
    element("li", server.executionProvider),
  );
  const links = server.models.map((model) => {
    const link = element("a", model.name);
    link.href = `#${encodeURIComponent(model.name)}`;
    return link;
  });
  find("#models").replaceChildren(...links);
  find("#models").hidden = links.length < 2;
  const choose = () => {
    const name = decodeURIComponent(location.hash.slice(1));
    const index = Math.max(server.models.findIndex((model) => model.name === name), 0);
    links.forEach((link, place) => {
      if (place === index) link.setAttribute("aria-current", "page");
      else link.removeAttribute("aria-current");
    });
    card(server.models[index], server.executionProvider);
  };
  window.onhashchange = () => {
    choose();
    find("#name").focus();
  };
  choose();
}

function card(model, provider) {
  const article = find("#model");
  article.replaceChildren(find("#card").content.cloneNode(true));
  find("h2", article).textContent = model.name;
  find(".description", article).textContent = model.description ?? "";
  document.title = `${model.name} · Model server`;
  facts(find(".about > .facts", article), {
    Digest: model.digest,
    Producer: model.producer,
    Opset: model.opset,
    "Runs on": provider,
    Loaded: `in ${Math.round(model.loadSeconds * 1000)} ms, ${graph(model.graph)}`,
  });
  const metadata = find(".metadata", article);
  facts(find(".facts", metadata), model.metadata ?? {});
  metadata.hidden = Object.keys(model.metadata ?? {}).length === 0;
  find(".inputs", article).replaceChildren(...model.inputs.map((tensor) => row(tensor, "input")));
  find(".outputs", article).replaceChildren(...model.outputs.map((tensor) => row(tensor, "output")));
  article.classList.toggle("tensors", !model.classifies);
  find(".try", article).hidden = !model.classifies;
  dropped = model.classifies ? images(find(".try", article), model.name, ask, problem) : null;
  find(".calls", article).append(...lines(base, model, token !== "").map(code));
  article.hidden = false;
}

function facts(list, entries) {
  const known = Object.entries(entries).filter(([, value]) => value !== undefined && value !== "");
  list.replaceChildren(...known.flatMap(([name, value]) => [element("dt", name), element("dd", value)]));
}

function graph(source) {
  return { Optimised: "optimised at this start", Cached: "optimised before" }[source] ?? "from the file as it is";
}

function row(tensor, direction) {
  const line = element("tr");
  const name = element("th", tensor.name);
  name.scope = "row";
  name.prepend(element("small", direction));
  const shape = tensor.shape.map((size) => (size < 0 ? "any" : size)).join(" × ");
  line.append(name, element("td", tensor.datatype), element("td", shape || "one value"));
  return line;
}

function code({ title, text }) {
  const block = find("#lines").content.cloneNode(true);
  const button = find("button", block);
  find("h4", block).textContent = title;
  find("code", block).textContent = text;
  find("pre", block).setAttribute("aria-label", title);
  button.setAttribute("aria-label", `Copy: ${title}`);
  button.addEventListener("click", async () => {
    button.textContent = (await copy(text)) ? "Copied" : "Not copied";
    setTimeout(() => (button.textContent = "Copy"), 2000);
  });
  return block;
}

/** Without TLS and not on localhost, browsers have no clipboard but that of a selection. */
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = element("textarea", text);
    document.body.append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    return copied;
  }
}

find("#token").addEventListener("submit", (event) => {
  event.preventDefault();
  token = find("#token-text").value.trim();
  load();
});

// Otherwise a file that is dropped outside the drop zone would replace the page.
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  event.dataTransfer.dropEffect = dropped ? "copy" : "none";
  document.body.classList.toggle("dragging", dropped !== null);
});
document.addEventListener("dragleave", () => document.body.classList.remove("dragging"));
document.addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  dropped?.(event.dataTransfer.files);
});

load();

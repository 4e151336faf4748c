// Classifies images that are chosen or dropped, and shows the results.

const find = (selector, within = document) => within.querySelector(selector);

/** Sets up the drop zone in `section`; returns a function that classifies files. */
export function images(section, model, ask, problem) {
  const [status, results] = [find(".status", section), find(".results", section)];
  const picker = find("input", section);
  let stop = new AbortController();

  async function classify(files) {
    stop.abort();
    stop = new AbortController();
    const { signal } = stop;
    clear(results);
    if (files.length === 0) {
      status.textContent = "That was not a file: save the image, and drop the file.";
      return;
    }
    const said = [];
    for (const [index, file] of files.entries()) {
      status.textContent = `Classifying ${file.name} (${index + 1} of ${files.length}) …`;
      const result = figure(file);
      results.append(result);
      try {
        said.push(await one(file, result, signal));
      } catch (error) {
        if (signal.aborted) return;
        said.push(fail(file, result, `No answer from the server (${error.message})`));
      }
    }
    status.textContent = said.join(" ");
  }

  async function one(file, result, signal) {
    const started = performance.now();
    const path = `v1/models/${encodeURIComponent(model)}:classify`;
    const response = await ask(path, { method: "POST", body: file, signal });
    if (!response.ok) return fail(file, result, `${response.status}: ${await problem(response)}`);
    const { predictions } = await response.json();
    const took = performance.now() - started;
    find(".classes", result).replaceChildren(...predictions.map(prediction));
    find(".timing", result).replaceChildren(...timing(response.headers.get("Server-Timing"), took));
    return `${file.name}: ${predictions[0].label}, ${percent(predictions[0].probability)}.`;
  }

  picker.addEventListener("change", () => {
    // A copy, because the list is emptied with the picker, which must forget its file so that the same file can be
    // chosen again.
    const files = [...picker.files];
    picker.value = "";
    if (files.length > 0) classify(files);
  });
  return (files) => classify([...files]);
}

function clear(results) {
  for (const image of results.querySelectorAll("img")) URL.revokeObjectURL(image.src);
  results.replaceChildren();
}

function figure(file) {
  const result = find("#result").content.cloneNode(true).firstElementChild;
  const image = find("img", result);
  find("figcaption", result).textContent = file.name;
  image.alt = `The image ${file.name}`;
  image.addEventListener("error", () => (image.hidden = true));
  image.src = URL.createObjectURL(file);
  return result;
}

function fail(file, result, text) {
  const place = find(".error", result);
  place.textContent = text;
  place.hidden = false;
  return `${file.name}: ${text}.`;
}

const percent = (share) => `${(share * 100).toFixed(1)} %`;

function prediction({ label, probability }) {
  const item = document.createElement("li");
  const part = (className, text) => {
    const span = document.createElement("span");
    span.className = className;
    span.textContent = text;
    item.append(span);
    return span;
  };
  part("label", label);
  part("share", percent(probability));
  part("bar", "").style.setProperty("--share", `${probability * 100}%`);
  return item;
}

/** The server's own numbers, and how long it took as seen from here. */
function timing(header, took) {
  const parts = (header ?? "").split(",").flatMap((part) => {
    const found = /^\s*([\w-]+);dur=([\d.]+)/.exec(part);
    return found ? [`${found[1]} ${Number(found[2]).toFixed(1)} ms`] : [];
  });
  return [...parts, `with the network ${took.toFixed(1)} ms`].map((text) => {
    const item = document.createElement("li");
    item.textContent = text;
    return item;
  });
}

"use strict";
/* Files dropped anywhere on a page with a `.drop`, or chosen there, go to the page piece by piece and from it to the data server, one after the other. */
(() => {
  const area = () => document.querySelector(".drop");
  const waiting = [];
  let busy = false;

  function line(name) {
    const row = area().querySelector(".drop-list").appendChild(document.createElement("div"));
    row.className = "drop-line";
    const parts = ["span", "progress", "span", "button"].map((kind) => row.appendChild(document.createElement(kind)));
    const [title, bar, said, stop] = parts;
    title.textContent = name;
    bar.max = 1;
    bar.value = 0;
    bar.setAttribute("aria-label", `${name}: how much is sent`);
    stop.textContent = "Stop";
    stop.type = "button";
    return { bar, said, stop };
  }
  const problemOf = (request) => {
    try { return JSON.parse(request.responseText).detail; } catch { return request.status ? `the page answered ${request.status}` : "the connection was lost"; }
  };
  function send(file) {
    const under = area().dataset.under;
    const path = (under ? `${under}/` : "") + file.name;
    const { bar, said, stop } = line(file.name);
    const request = new XMLHttpRequest();
    const done = (text, bad) => {
      stop.remove();
      said.textContent = text;
      said.className = bad ? "tone-bad" : "tone-good";
    };
    return new Promise((resolve) => {
      request.upload.onprogress = (event) => {
        bar.value = event.total ? event.loaded / event.total : 0;
        said.textContent = `${Math.floor(100 * bar.value)} %`;
      };
      request.onload = () => {
        const good = request.status === 201;
        if (good) bar.value = 1;
        done(good ? "done" : problemOf(request), !good);
        if (good) emitEvent("uploaded", { name: file.name });
        resolve();
      };
      request.onerror = () => { done(problemOf(request), true); resolve(); };
      request.onabort = () => { done("stopped; nothing was kept", true); resolve(); };
      stop.onclick = () => request.abort();
      request.open("PUT", `/data/files/${path.split("/").map(encodeURIComponent).join("/")}`);
      request.setRequestHeader("content-type", "application/octet-stream");
      request.send(file);
    });
  }
  async function take(files) {
    waiting.push(...files);
    if (busy) return;
    busy = true;
    while (waiting.length) await send(waiting.shift());
    busy = false;
  }
  const carriesFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  document.addEventListener("dragover", (event) => {
    if (!area() || !carriesFiles(event)) return;
    event.preventDefault();
    area().classList.add("over");
  });
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) area()?.classList.remove("over"); });
  document.addEventListener("drop", (event) => {
    if (!area() || !carriesFiles(event)) return;
    event.preventDefault();
    area().classList.remove("over");
    take(event.dataTransfer.files);
  });
  document.addEventListener("click", (event) => {
    if (!(event.target instanceof Element && event.target.closest(".drop-choose"))) return;
    const chooser = Object.assign(document.createElement("input"), { type: "file", multiple: true });
    chooser.onchange = () => take(chooser.files);
    chooser.click();
  });
})();

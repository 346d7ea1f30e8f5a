"use strict";
// The token comes in the link's fragment, which browsers never send; it is kept for this tab only.
const fragment = new URLSearchParams(location.hash.slice(1)).get("token");
if (fragment) {
  sessionStorage.setItem("token", fragment);
  history.replaceState(null, "", location.pathname);
}
const token = sessionStorage.getItem("token");
const $ = (id) => document.getElementById(id);

function cell(row, text, small) {
  const td = row.insertCell();
  td.textContent = text ?? "";
  if (small) td.append(Object.assign(document.createElement("small"), { textContent: small }));
  return td;
}

function showJob(job) {
  const row = $("jobs").insertRow();
  const frames = job.frames;
  const done = frames.localised + frames.skipped + frames.failed;
  cell(row, job.name, `${job.owner} · ${job.id}`);
  cell(row, job.state.replaceAll("_", " "), job.error);
  const counts = cell(row, `${done} of ${frames.total}`, frames.failed ? `${frames.failed} failed` : "");
  counts.prepend(Object.assign(document.createElement("progress"), { max: frames.total || 1, value: done }));
  cell(row, job.localisations.toLocaleString());
  cell(row, job.rate_frames_per_s ? Math.round(job.rate_frames_per_s) : "");
  cell(row, job.eta_s ? `${Math.ceil(job.eta_s)} s` : "");
  cell(row, job.output ?? "");
}

function showWorker(worker) {
  const row = $("workers").insertRow();
  cell(row, worker.host, `process ${worker.pid} · ${worker.version}`);
  cell(row, worker.state, worker.excluded);
  cell(row, worker.job ?? "");
  cell(row, worker.frames.toLocaleString());
  cell(row, worker.rate_frames_per_s ? Math.round(worker.rate_frames_per_s) : "");
}

async function get(path) {
  const reply = await fetch(path, { headers: { authorization: `Bearer ${token}` }, cache: "no-store" });
  if (!reply.ok) throw new Error(reply.status === 401 ? "this link's token is not valid; open the link that clusterofone printed" : `the scheduler answered ${reply.status}`);
  return reply.json();
}

let lastSeen = null;
async function look() {
  try {
    const [identity, jobs, workers] = await Promise.all([get("/api/v1/identity"), get("/api/v1/jobs"), get("/api/v1/workers")]);
    $("cluster").textContent = identity.name;
    $("jobs").replaceChildren();
    jobs.jobs.forEach(showJob);
    $("no-jobs").hidden = jobs.jobs.length > 0;
    $("workers").replaceChildren();
    workers.forEach(showWorker);
    $("no-workers").hidden = workers.length > 0;
    lastSeen = new Date();
    $("state").textContent = `up to date, ${lastSeen.toLocaleTimeString()}`;
    $("state").className = "";
    document.body.classList.remove("stale");
  } catch (error) {
    const since = lastSeen ? ` What you see is from ${lastSeen.toLocaleTimeString()}.` : "";
    $("state").textContent = error instanceof TypeError ? `connection lost.${since}` : `${error.message}.${since}`;
    $("state").className = "bad";
    document.body.classList.toggle("stale", lastSeen !== null);
  }
  setTimeout(look, document.hidden ? 10000 : 2000);
}
look();

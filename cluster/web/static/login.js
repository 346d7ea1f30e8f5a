"use strict";
// The token comes in the link's fragment, which browsers send nowhere; it is posted once and wiped from the address.
const said = document.getElementById("said");
async function enter(token, quietly = false) {
  const before = said.textContent;
  said.className = "";
  said.textContent = "One moment …";
  try {
    const reply = await fetch("/login", { method: "POST", body: JSON.stringify({ token }) });
    if (reply.ok) {
      location.replace("/");
      return;
    }
    if (quietly) {
      said.textContent = before;
      return;
    }
    said.textContent = reply.status === 401
      ? "This token is not one of this cluster's. Open the link that clusterofone printed, or paste what “clusterofone token” prints."
      : (await reply.json()).detail;
  } catch {
    said.textContent = "The page's server does not answer. Is clusterofone still running?";
  }
  said.className = "bad";
}
document.getElementById("form").addEventListener("submit", (event) => {
  event.preventDefault();
  enter(document.getElementById("token").value.trim());
});
const token = new URLSearchParams(location.hash.slice(1)).get("token");
if (token !== null) {
  history.replaceState(null, "", location.pathname);
  enter(token);
} else {
  enter("", true); // a cluster that was started with --insecure asks for none
}

// Keeps what was entered, sealed by the server, in this tab until its user has signed in; then shows it again.
const KEY = "oidc-session.form " + new URL(".", import.meta.url);
const kept = document.getElementById("kept");
if (kept) {
  try {
    sessionStorage.setItem(KEY, kept.value);
    document.getElementById("whether").textContent = kept.dataset.text;
    document.getElementById("on").href = kept.dataset.href;
  } catch {}
}

async function show(seal) {
  const response = await fetch(new URL("form", import.meta.url), { method: "POST", body: new URLSearchParams({ seal }) });
  // Whoever is not signed in any more signs in once more.
  if (response.status === 401) return location.reload();
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  const main = page.querySelector("main");
  // A page of a proxy's.
  if (!main) throw new Error("no page of ours");
  document.title = page.title;
  document.querySelector("main").replaceWith(main);
  for (const form of document.forms)
    form.addEventListener("submit", () => setTimeout(() => form.querySelector("button").disabled = true));
}

const place = document.getElementById("fetch");
let seal = null;
try { seal = sessionStorage.getItem(KEY); } catch {}
if (place && seal) {
  place.hidden = true;
  await show(seal).catch(() => { place.hidden = false; setTimeout(() => location.reload(), 2000); });
}

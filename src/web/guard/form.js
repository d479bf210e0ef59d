// Keeps what was entered, sealed by the server, in this tab until its user has signed in; then shows it again.
const KEY = "oidc-session.form";
const kept = document.getElementById("kept");
if (kept) sessionStorage.setItem(KEY, kept.value);
const seal = sessionStorage.getItem(KEY);
if (document.getElementById("fetch") && seal) {
  const response = await fetch("/auth/form", { method: "POST", body: new URLSearchParams({ seal }) });
  // Whoever is not signed in any more signs in once more.
  if (!response.headers.get("content-type")?.startsWith("text/html")) location.reload();
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  document.title = page.title;
  document.querySelector("main").replaceWith(page.querySelector("main"));
}

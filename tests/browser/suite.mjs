// suite.mjs APP CONTROL, with ONLY=words of names: what a person sees of web_app, in Chromium. Times are short: T = 12 s, G = 3 s, warned 4 s before.
import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { chromium } from "playwright-core";
import axe from "axe-core";
import { runAll } from "./run.mjs";

const [app, control] = process.argv.slice(2);
const T = 12, G = 3, WARN = 4;
const here = dirname(fileURLToPath(import.meta.url));
const pictures = process.env.PICTURES ?? join(here, "../../target/browser");
mkdirSync(pictures, { recursive: true });
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: ["--no-sandbox", "--disable-dev-shm-usage"],
});

const tell = async (what, how = "now") => (await fetch(`${control}/${what}/${how}`, { method: "POST" })).text();
const pause = (seconds) => new Promise((go) => setTimeout(go, seconds * 1000));
const tests = [];
const test = (name, body) => tests.push({ name, body });

/** A browser with somebody at the desk. */
async function signedIn(options = {}) {
  const context = await browser.newContext({ viewport: { width: 1000, height: 700 }, ...options });
  context.setDefaultTimeout(8000);
  const page = await context.newPage();
  watch(page);
  await page.goto(`${app}/desk`);
  await signIn(page, options.user ?? "alice");
  await page.waitForURL(`${app}/desk`);
  return { context, page };
}

async function signIn(page, user) {
  await page.getByLabel("User").fill(user);
  await page.getByLabel("Password").fill(user);
  await page.getByRole("button", { name: "Sign in" }).click();
}

/** Notes what the page asks the server for, and what goes wrong in it. */
function watch(page) {
  page.asked = { GET: [], POST: [] };
  page.errors = [];
  page.on("request", (request) => {
    if (new URL(request.url()).pathname === "/auth/session") page.asked[request.method()]?.push(Date.now());
  });
  page.on("pageerror", (error) => page.errors.push(String(error)));
  page.on("console", (message) => { if (/Content.Security|Refused/.test(message.text())) page.errors.push(message.text()); });
}

const dialog = (page) => page.getByRole("alertdialog");
const warning = (page) => page.getByRole("alertdialog", { name: "Are you still there?" });
const ended = (page) => page.getByRole("alertdialog", { name: "You have been signed out" });
const picture = (page, name) => page.screenshot({ path: join(pictures, `${name}.png`) });

async function hasNoFindings(page, what) {
  // The page's own policy lets no script in; the tests' may.
  await page.evaluate(axe.source);
  const { violations } = await page.evaluate(() => axe.run(document));
  assert.deepEqual(violations.map((one) => `${one.id}: ${one.nodes.map((node) => node.html).join(" ")}`), [], what);
}

test("the script is small", async () => {
  const script = await (await fetch(`${app}/auth/session.js`)).text();
  const size = gzipSync(script, { level: 9 }).length;
  assert.ok(size <= 8 * 1024, `${size} bytes compressed`);
});

test("the warning comes in time, has the focus, and Enter stays", async () => {
  const { context, page } = await signedIn();
  await page.locator("textarea").focus();
  const idle = async () => (await page.evaluate(async () => (await fetch("/auth/session")).json())).idle_expires_in;
  const start = Date.now();
  const left = await idle();
  await warning(page).waitFor({ timeout: T * 1000 });
  const after = (Date.now() - start) / 1000;
  assert.ok(after > left - WARN - 0.5, `warned after ${after} s of ${left}`);
  const at = await idle();
  assert.ok(at <= WARN && at > WARN - 2.5, `warned at ${at} s`);
  assert.equal(await page.evaluate(() => document.querySelector("session-guard").shadowRoot.activeElement.textContent), "Stay signed in");
  assert.match(await page.title(), /^\(\d\) Are you still there\?/);
  assert.match(await warning(page).innerText(), /You will be signed out in \d seconds\./);
  await hasNoFindings(page, "the warning");
  await picture(page, "warning");
  await page.keyboard.press("Enter");
  await warning(page).waitFor({ state: "hidden" });
  assert.equal(await page.title(), "Desk");
  assert.equal(await page.evaluate(() => document.activeElement.tagName), "TEXTAREA");
  assert.deepEqual(page.errors, []);
  await context.close();
});

test("the warning stays away while somebody types, and typing asks at most every half G", async () => {
  const { context, page } = await signedIn();
  const start = Date.now();
  while (Date.now() - start < (T + 4) * 1000) {
    await page.locator("textarea").press("a");
    assert.equal(await dialog(page).isVisible(), false);
    await pause(0.3);
  }
  const posts = page.asked.POST.length;
  assert.ok(posts >= 4 && posts <= (T + 4) / (G / 2) + 1, `${posts} signals`);
  await page.locator("button:has-text('Save')").click();
  await page.locator("#notes li").waitFor();
  assert.ok((await page.locator("#notes li").innerText()).startsWith("aaaa"));
  await context.close();
});

test("without input it asks twice in G at most, signals nothing, and shows the end in time", async () => {
  const { context, page } = await signedIn();
  await pause(7);
  const gets = page.asked.GET;
  for (const first of gets.slice(1)) {
    const together = gets.filter((at) => at >= first && at < first + G * 1000).length;
    assert.ok(together <= 2, `${together} questions within G: ${gets.map((at) => at - gets[0])}`);
  }
  assert.equal(page.asked.POST.length, 0);
  await tell("end", "terminated");
  await ended(page).waitFor({ timeout: (G + 0.5) * 1000 });
  assert.match(await ended(page).innerText(), /Your session was ended by an administrator\./);
  assert.equal(await page.locator("main").isVisible(), false);
  assert.equal(await page.getByRole("heading", { name: "Desk" }).count(), 0, "nor by assistive technology");
  await hasNoFindings(page, "the end");
  await picture(page, "ended");
  await context.close();
});

for (const [reason, words] of [
  ["session_expiration", "after a time without activity"],
  ["user_logout", "signed out in another application"],
  ["silently", "Your session has ended."],
]) test(`the end says why: ${reason}`, async () => {
  const { context, page } = await signedIn();
  await page.evaluate(() => document.addEventListener("session-ended", (event) => { window.reason = event.detail.reason; }));
  await tell("end", reason);
  await ended(page).waitFor({ timeout: (G + 0.5) * 1000 });
  assert.match(await ended(page).innerText(), new RegExp(words));
  assert.ok(await page.evaluate(() => window.reason));
  await page.keyboard.press("Escape");
  await page.keyboard.press("Escape");
  await pause(0.2);
  assert.ok(await ended(page).isVisible(), "Escape does not close it");
  await context.close();
});

test("after the end the same user goes on in the old tab with what was typed", async () => {
  const { context, page } = await signedIn();
  await page.locator("textarea").fill("half a sentence");
  const fetched = page.evaluate(async () => {
    const { sessionFetch } = await import("/auth/session.js");
    await new Promise((go) => document.addEventListener("session-ended", go));
    return (await sessionFetch("/me")).json();
  });
  await tell("end", "session_expiration");
  await ended(page).waitFor({ timeout: (G + 0.5) * 1000 });
  const [login] = await Promise.all([context.waitForEvent("page"), page.getByRole("button", { name: "Sign in again" }).click()]);
  await signIn(login, "alice");
  await login.waitForURL(`${app}/desk`);
  assert.equal(await login.locator("#previous-end").getAttribute("data-reason"), "provider_session_expired");
  await ended(page).waitFor({ state: "hidden", timeout: 2000 });
  assert.equal(await page.locator("textarea").inputValue(), "half a sentence");
  assert.equal((await fetched).sub, "alice");
  await context.close();
});

test("after the end another user gets the page anew", async () => {
  const { context, page } = await signedIn();
  await page.locator("textarea").fill("alice's secret");
  const fetched = page.evaluate(async () => {
    const { sessionFetch } = await import("/auth/session.js");
    await new Promise((go) => document.addEventListener("session-ended", go));
    await sessionFetch("/me");
  }).catch(() => "nothing came");
  await tell("end", "terminated");
  await ended(page).waitFor({ timeout: (G + 0.5) * 1000 });
  const [login] = await Promise.all([context.waitForEvent("page"), page.getByRole("button", { name: "Sign in again" }).click()]);
  await signIn(login, "bob");
  await login.waitForURL(`${app}/desk`);
  await page.locator("#who:has-text('bob')").waitFor({ timeout: 3000 });
  assert.equal(await page.locator("textarea").inputValue(), "");
  assert.equal(await fetched, "nothing came");
  assert.equal(await login.locator("#previous-end").count(), 0, "what became of another's session is nobody's business");
  await context.close();
});

test("tabs agree: a stay in one closes the dialog in all, an end in one ends all", async () => {
  const { context, page } = await signedIn();
  const second = await context.newPage();
  watch(second);
  await second.goto(`${app}/desk`);
  const asked = () => page.asked.GET.length + second.asked.GET.length;
  const before = asked();
  await pause(6);
  assert.ok(asked() - before <= 2 * 6 / G + 1, `${asked() - before} questions of two tabs in 6 s`);
  await Promise.all([warning(page).waitFor({ timeout: T * 1000 }), warning(second).waitFor({ timeout: T * 1000 })]);
  await second.getByRole("button", { name: "Stay signed in" }).click();
  await warning(page).waitFor({ state: "hidden", timeout: 1000 });
  await tell("end", "user_logout");
  await Promise.all([ended(page).waitFor({ timeout: 4000 }), ended(second).waitFor({ timeout: 4000 })]);
  await context.close();
});

test("unconfirmed is no end: it says so, and continue finds out", async () => {
  const { context, page } = await signedIn();
  await page.getByRole("alertdialog", { name: "You may have been signed out" }).waitFor({ timeout: (T + 3) * 1000 });
  assert.equal(await page.locator("main").isVisible(), false);
  await hasNoFindings(page, "unconfirmed");
  await picture(page, "unconfirmed");
  await page.getByRole("button", { name: "Continue" }).click();
  await ended(page).waitFor({ timeout: 3000 });
  await context.close();
});

test("a server that is away ends nothing, and hides what may not be shown any more", async () => {
  const { context, page } = await signedIn();
  await context.setOffline(true);
  await page.getByRole("alertdialog", { name: "The server cannot be reached" }).waitFor({ timeout: (T + 3) * 1000 });
  assert.equal(await page.locator("main").isVisible(), false);
  await hasNoFindings(page, "unreachable");
  await picture(page, "unreachable");
  await context.setOffline(false);
  await page.getByRole("alertdialog", { name: "You may have been signed out" }).waitFor({ timeout: 4000 });
  await context.close();
});

test("sign out now, and Back shows nothing private", async () => {
  const { context, page } = await signedIn();
  await warning(page).waitFor({ timeout: T * 1000 });
  await page.getByRole("button", { name: "Sign out now" }).click();
  await page.waitForURL(`${app}/`);
  await page.goBack();
  await page.waitForTimeout(500);
  const visible = await page.locator("#who").isVisible().catch(() => false);
  assert.equal(visible, false);
  await context.close();
});

test("a sign-out in one tab is seen in another, and what scripts do is no activity", async () => {
  const { context, page } = await signedIn();
  const second = await context.newPage();
  watch(second);
  await second.goto(`${app}/desk`);
  await second.evaluate(() => {
    for (const kind of ["keydown", "pointerdown", "wheel"]) document.body.dispatchEvent(new Event(kind, { bubbles: true }));
  });
  await warning(page).waitFor({ timeout: T * 1000 });
  assert.equal(second.asked.POST.length, 0);
  await page.getByRole("button", { name: "Sign out now" }).click();
  await ended(second).waitFor({ timeout: 1500 });
  assert.match(await ended(second).innerText(), /You signed out\./);
  await context.close();
});

/** What assistive technology is told of a dialog, as Chromium's own tree has it. */
async function heard(context, page) {
  const protocol = await context.newCDPSession(page);
  const { nodes } = await protocol.send("Accessibility.getFullAXTree");
  const byId = new Map(nodes.map((node) => [node.nodeId, node]));
  const lines = [];
  const walk = (node, depth) => {
    const has = (name) => node.properties?.some((one) => one.name === name && one.value.value === true);
    const role = node.ignored ? "" : node.role.value;
    const isHeard = !["", "generic", "none", "InlineTextBox"].includes(role);
    if (isHeard) lines.push(`${"  ".repeat(depth)}${role}: ${node.name?.value ?? ""}${has("modal") ? " (modal)" : ""}${has("focused") ? " (focused)" : ""}`);
    for (const id of node.childIds ?? []) if (byId.has(id)) walk(byId.get(id), depth + (isHeard ? 1 : 0));
  };
  walk(nodes.find((node) => node.role?.value === "alertdialog"), 0);
  return lines.join("\n").replace(/\d+ seconds?/g, "N seconds");
}

test("a screen reader's view of the warning", async () => {
  const { context, page } = await signedIn();
  await warning(page).waitFor({ timeout: T * 1000 });
  assert.equal(await heard(context, page), [
    "alertdialog: Are you still there? (modal)",
    "  heading: Are you still there?",
    "    StaticText: Are you still there?",
    "  paragraph: ",
    "    StaticText: You will be signed out in N seconds.",
    "  button: Stay signed in (focused)",
    "    StaticText: Stay signed in",
    "  button: Sign out now",
    "    StaticText: Sign out now",
    "  status: ",
    "    StaticText: You will be signed out in N seconds.",
  ].join("\n"));
  await context.close();
});

test("a suspended tab asks when it goes on, and says what it has heard", async () => {
  const { context, page } = await signedIn();
  const protocol = await context.newCDPSession(page);
  await protocol.send("Page.setWebLifecycleState", { state: "frozen" });
  await tell("end", "terminated");
  await pause(G + 1);
  await protocol.send("Page.setWebLifecycleState", { state: "active" });
  await ended(page).waitFor({ timeout: 1500 });
  assert.match(await ended(page).innerText(), /administrator/);
  assert.equal(await page.locator("main").isVisible(), false);
  await context.close();
});

test("what comes back from the back/forward cache is covered until it is known whose it is", async () => {
  const { context, page } = await signedIn();
  await page.locator("textarea").fill("alice's");
  // Chromium keeps no page of this kind there; other browsers may.
  await page.evaluate(() => dispatchEvent(new PageTransitionEvent("pagehide", { persisted: true })));
  assert.equal(await page.locator("main").isVisible(), false);
  const other = await context.newPage();
  await tell("end", "terminated");
  await other.goto(`${app}/desk`);
  await signIn(other, "bob");
  await other.waitForURL(`${app}/desk`);
  // The other tab's news may have come first, and the page be on its way already.
  await page.evaluate(() => dispatchEvent(new PageTransitionEvent("pageshow", { persisted: true }))).catch((error) => {
    assert.match(String(error), /navigation/);
  });
  await page.locator("#who:has-text('bob')").waitFor({ timeout: 3000 });
  assert.equal(await page.locator("textarea").inputValue(), "");
  await context.close();
});

test("a clock that is set makes it ask, and say nothing", async () => {
  const { context, page } = await signedIn();
  await page.evaluate(() => {
    window.said = [];
    for (const name of ["session-warning", "session-ended", "session-continued"])
      document.addEventListener(name, () => window.said.push(name));
    const now = Date.now;
    Date.now = () => now() + 3_600_000;
  });
  const before = page.asked.GET.length;
  await pause(1.2);
  assert.ok(page.asked.GET.length > before, "it asks");
  assert.deepEqual(await page.evaluate(() => window.said), []);
  assert.equal(await dialog(page).isVisible(), false);
  assert.ok(await page.locator("main").isVisible());
  await context.close();
});

for (const [name, options, words] of [
  ["dark", { colorScheme: "dark" }, "Stay signed in"],
  ["narrow", { viewport: { width: 390, height: 500 } }, "Stay signed in"],
  ["ja", {}, "ログインを続ける"],
  ["de", { viewport: { width: 500, height: 350 } }, "Angemeldet bleiben"],
]) test(`the warning, ${name}`, async () => {
  const { context, page } = await signedIn(options);
  if (name.length === 2) await page.evaluate((lang) => { document.documentElement.lang = lang; }, name);
  await page.getByRole("button", { name: words }).waitFor({ timeout: T * 1000 });
  assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth));
  await hasNoFindings(page, name);
  await picture(page, `warning-${name}`);
  await context.close();
});

test("a form sent after the end arrives once, as the same user", async () => {
  const { context, page } = await signedIn();
  const text = "a long letter <b>with</b> \"all\" & more\nand a second line é";
  await page.locator("textarea").fill(text);
  await tell("end", "session_expiration");
  await page.evaluate(() => document.querySelector("session-guard").remove());
  await page.getByRole("button", { name: "Save" }).click();
  await page.getByRole("heading", { name: "You are signed out" }).waitFor();
  assert.match(await page.locator("main").innerText(), /kept for ten minutes/);
  await hasNoFindings(page, "a form after the end");
  await picture(page, "form-kept");
  await page.getByRole("link", { name: "Sign in" }).click();
  await signIn(page, "alice");
  await page.getByRole("button", { name: "Send again" }).waitFor();
  assert.match(await page.locator("main").innerText(), /signed in as alice/);
  assert.equal(await page.locator("dd").innerText(), text);
  await hasNoFindings(page, "send again");
  await picture(page, "form-send-again");
  await page.getByRole("button", { name: "Send again" }).click();
  await page.waitForURL(`${app}/desk`);
  assert.equal(await page.locator("#notes li").count(), 1);
  assert.equal(await page.locator("#notes li").textContent(), text);
  await page.reload();
  assert.equal(await page.locator("#notes li").count(), 1, "once, after a reload");
  await page.goBack();
  await page.getByRole("button", { name: "Send again" }).click();
  await page.getByRole("heading", { name: "Already sent" }).waitFor();
  await hasNoFindings(page, "already sent");
  await page.goto(`${app}/desk`);
  assert.equal(await page.locator("#notes li").count(), 1, "once, after Back");
  await context.close();
});

test("a form of somebody else is not sent", async () => {
  const { context, page } = await signedIn();
  await page.locator("textarea").fill("alice's");
  await tell("end", "terminated");
  await page.evaluate(() => document.querySelector("session-guard").remove());
  await page.getByRole("button", { name: "Save" }).click();
  await page.getByRole("link", { name: "Sign in" }).click();
  await signIn(page, "bob");
  await page.getByRole("heading", { name: "Somebody else is signed in" }).waitFor();
  assert.equal(await page.getByRole("button", { name: "Send again" }).count(), 0);
  assert.ok(!(await page.content()).includes("alice's"));
  await context.close();
});

test("a gateway's answer instead of what was kept is asked for again", async () => {
  const { context, page } = await signedIn();
  await page.locator("textarea").fill("a letter");
  await tell("end", "session_expiration");
  await page.evaluate(() => document.querySelector("session-guard").remove());
  await page.getByRole("button", { name: "Save" }).click();
  let asked = 0;
  await context.route("**/auth/form", (route) => route.request().method() === "POST" && asked++ === 0
    ? route.fulfill({ status: 502, contentType: "text/html", body: "<h1>Bad Gateway</h1>" }) : route.continue());
  await page.getByRole("link", { name: "Sign in" }).click();
  await signIn(page, "alice");
  await page.getByRole("button", { name: "Send again" }).waitFor({ timeout: 6000 });
  assert.equal(await page.locator("dd").innerText(), "a letter");
  await context.close();
});

// Of one provider no answer names the issuer; a cache may have kept somebody else's page.
for (const [name, attributes, loads] of [["names its issuer", 'iss="https://op.example"', 1], ["is somebody else's", 'sub="mallory" x-', 3]])
  test(`a page that ${name} is not loaded again and again`, async () => {
    const { context, page } = await signedIn();
    let loaded = 0;
    await context.route("**/desk", async (route) => {
      loaded++;
      const response = await route.fetch();
      const body = (await response.text()).replace(/<session-guard(.*?)sub=/, `<session-guard$1${attributes} sub=`);
      assert.ok(body.includes(attributes), "the page is changed");
      await route.fulfill({ response, body });
    });
    await page.goto(`${app}/desk`);
    await page.waitForTimeout(7000);
    assert.ok(loaded <= loads, `${loaded} times`);
    await context.close();
  });

for (const [name, path, status, options] of [
  ["bad-link", "/auth/login?return_to=//evil.example", 400, {}],
  ["not-found", "/auth/nothing", 404, { locale: "de-DE" }],
  ["method", "/auth/backchannel-logout", 405, { locale: "ja-JP" }],
  ["sign-out", "/auth/logout", 200, { locale: "fr-FR", colorScheme: "dark" }],
  ["failed", "/auth/callback?error=access_denied", 400, { locale: "zh-CN", viewport: { width: 390, height: 700 } }],
]) test(`the page ${name}`, async () => {
  const context = await browser.newContext({ viewport: { width: 1000, height: 700 }, ...options });
  const page = await context.newPage();
  const response = await page.goto(app + path);
  assert.equal(response.status(), status);
  assert.equal(await page.locator("main").count(), 1);
  assert.equal(await page.locator("h1").count(), 1);
  if (options.locale) assert.equal(await page.locator("html").getAttribute("lang"), options.locale.slice(0, 2));
  assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth));
  await hasNoFindings(page, name);
  await picture(page, `page-${name}`);
  await context.close();
});

test("503 tries again by itself and arrives", async () => {
  const { context, page } = await signedIn();
  await tell("token-endpoint", "down");
  await page.evaluate(() => document.querySelector("session-guard").remove());
  await pause(T + 0.5);
  const response = await page.goto(`${app}/desk`);
  assert.equal(response.status(), 503);
  await hasNoFindings(page, "unavailable");
  await picture(page, "page-unavailable");
  await tell("token-endpoint", "up");
  await page.waitForFunction(() => document.title !== "Please try again", null, { timeout: 10_000 });
  await context.close();
});

/** Says what its pages show, closes them, and lets the provider answer again. */
async function tidy(error) {
  for (const page of error ? browser.contexts().flatMap((context) => context.pages()) : []) {
    const text = await page.locator("body").innerText({ timeout: 500 }).catch(() => "");
    console.log(`  ${page.url().slice(0, 150)} | ${text.replace(/\s+/g, " ").slice(0, 300)} | ${page.errors ?? ""}`);
  }
  for (const context of browser.contexts()) await context.close().catch(() => {});
  await tell("token-endpoint", "up");
}

const failures = await runAll(tests, tidy);
await browser.close();
process.exit(failures ? 1 : 0);

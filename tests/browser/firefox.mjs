// firefox.mjs APP CONTROL: the main things that a person sees of web_app, in Firefox. Times as in suite.mjs.
import assert from "node:assert/strict";
import { mkdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import puppeteer from "puppeteer-core";
import { runAll } from "./run.mjs";

const [app, control] = process.argv.slice(2);
const T = 12, G = 3;
const pictures = process.env.PICTURES ?? join(dirname(fileURLToPath(import.meta.url)), "../../target/browser");
mkdirSync(pictures, { recursive: true });
const browser = await puppeteer.launch({
  browser: "firefox",
  executablePath: process.env.FIREFOX ?? "/usr/bin/firefox-esr",
  headless: true,
});
const tell = (what, how) => fetch(`${control}/${what}/${how}`, { method: "POST" });
const pause = (seconds) => new Promise((go) => setTimeout(go, seconds * 1000));
const tests = [];
const test = (name, body) => tests.push({ name, body });

async function signIn(page, user) {
  await page.waitForSelector("form button");
  for (const input of await page.$$("form input:not([type=hidden])")) await input.type(user);
  await press(page, "form button");
}

/** Presses what leads to another page. */
async function press(page, selector) {
  const element = await page.waitForSelector(selector);
  await Promise.all([page.waitForNavigation(), element.click()]);
}

/** A browser with alice at the desk. */
async function signedIn() {
  const context = await browser.createBrowserContext();
  const page = await context.newPage();
  page.setDefaultTimeout(8000);
  await page.goto(`${app}/desk`);
  await signIn(page, "alice");
  await page.waitForSelector("textarea");
  return { context, page };
}

/** Waits until the guard's dialog says this; gives its text. */
async function said(page, words, seconds) {
  const text = () => page.evaluate(() => document.querySelector("session-guard").shadowRoot.querySelector("dialog[open]")?.innerText ?? "");
  const until = Date.now() + seconds * 1000;
  for (;;) {
    const now = await text();
    if (now.includes(words)) return now;
    assert.ok(Date.now() < until, `not said within ${seconds} s: ${words}; but: ${now}`);
    await pause(0.1);
  }
}

const isOpen = (page) => page.evaluate(() => !!document.querySelector("session-guard").shadowRoot.querySelector("dialog[open]"));
const picture = (page, name) => page.screenshot({ path: join(pictures, `firefox-${name}.png`) });

test("the warning comes in time, has the focus, and Enter stays", async () => {
  const { context, page } = await signedIn();
  await said(page, "Are you still there?", T);
  const focused = await page.evaluate(() => document.querySelector("session-guard").shadowRoot.activeElement.textContent);
  assert.equal(focused, "Stay signed in");
  await picture(page, "warning");
  await page.keyboard.press("Enter");
  const until = Date.now() + 2000;
  while (await isOpen(page)) {
    assert.ok(Date.now() < until, "it stays open");
    await pause(0.1);
  }
  await context.close();
});

test("typing keeps the session", async () => {
  const { context, page } = await signedIn();
  await page.focus("textarea");
  const start = Date.now();
  while (Date.now() - start < (T + 3) * 1000) {
    await page.keyboard.type("a");
    assert.equal(await isOpen(page), false);
    await pause(0.3);
  }
  await context.close();
});

test("tabs agree on the end, which says why", async () => {
  const { context, page } = await signedIn();
  const second = await context.newPage();
  await second.goto(`${app}/desk`);
  await tell("end", "user_logout");
  await said(second, "You signed out in another application.", G + 1);
  await picture(second, "ended");
  await page.bringToFront();
  await said(page, "You signed out in another application.", 2);
  await context.close();
});

test("a form sent after the end arrives once, as the same user", async () => {
  const { context, page } = await signedIn();
  await page.type("textarea", "a long letter é");
  await tell("end", "session_expiration");
  await page.evaluate(() => document.querySelector("session-guard").remove());
  await press(page, "form[action='/desk'] button");
  await page.waitForFunction(() => document.querySelector("main").innerText.includes("kept for ten minutes"));
  await press(page, "a.first");
  await signIn(page, "alice");
  await page.waitForFunction(() => document.querySelector("main")?.innerText.includes("signed in as alice"));
  await picture(page, "send-again");
  await press(page, "form button");
  assert.deepEqual(await page.$$eval("#notes li", (notes) => notes.map((note) => note.textContent)), ["a long letter é"]);
  await context.close();
});

async function tidy() {
  for (const context of browser.browserContexts()) if (context !== browser.defaultBrowserContext()) await context.close().catch(() => {});
}

const failures = await runAll(tests, tidy, "Firefox: ");
await browser.close();
process.exit(failures ? 1 : 0);

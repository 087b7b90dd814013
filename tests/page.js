// Uses the page of a gateway in a browser: page.js PLAYWRIGHT_CORE CHROMIUM URL SCREENSHOTS services|models. Prints a line
// when a step is done; the other side answers with a line when it has done its part.
"use strict";
const [playwright, executablePath, url, screenshots, scenario] = process.argv.slice(2);
const { chromium } = require(playwright);
const assert = require("node:assert/strict");
const lines = require("node:readline").createInterface({ input: process.stdin })[Symbol.asyncIterator]();
const step = async (name) => { console.log(name); assert.equal((await lines.next()).done, false, "the test has ended"); };

async function main() {
  const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
  const context = await browser.newContext({ viewport: { width: 1100, height: 800 } });
  const page = await context.newPage();
  page.setDefaultTimeout(60000);
  const faults = [];
  // Everything that is told, for the next message may follow before anybody looks.
  const told = [];
  let heard = 0, wake = () => {};
  page.on("console", (message) => {
    if (message.type() === "error") faults.push(message.text());
    if (message.type() === "debug") { told.push(message.text()); wake(); }
  });
  await page.addInitScript(() => {
    const tell = (changes) => {
      const place = (change) => change.target.nodeType === Node.TEXT_NODE ? change.target.parentNode : change.target;
      if (changes.some((change) => place(change)?.getAttribute?.("role") === "status")) console.debug(document.querySelector("[role=status]").textContent);
    };
    new MutationObserver(tell).observe(document, { subtree: true, childList: true, characterData: true });
  });
  page.on("pageerror", (error) => faults.push(String(error)));
  await page.goto(url);
  const row = (name) => page.getByRole("list", { name: "Services" }).getByRole("listitem", { name, exact: true });
  const said = async (text) => {
    const late = setTimeout(() => { throw new Error(`"${text}" is not told, but ${JSON.stringify(told)}`); }, 60000);
    for (;;) {
      const at = told.findIndex((message, index) => index >= heard && message.includes(text));
      if (at >= 0) { heard = at + 1; break; }
      await new Promise((resolve) => { wake = resolve; });
    }
    clearTimeout(late);
  };
  const shot = (name) => page.screenshot({ path: `${screenshots}/${name}.png`, fullPage: true });
  await { services, models }[scenario]({ page, row, said, shot, faults });
  await browser.close();
}

async function services({ page, row, said, shot, faults }) {
  // List.
  await said("connected");
  assert.equal(await page.getByRole("heading", { level: 1 }).count(), 1);
  for (const name of ["ollama", "mlx", "llama"]) await row(name).getByText("stopped", { exact: true }).waitFor();
  await shot("list");

  // Start by keyboard: every control is reached with Tab.
  const start = row("ollama").getByRole("button", { name: "start", exact: true });
  await page.locator("body").press("Tab");
  for (let presses = 0; !(await start.evaluate((button) => button === document.activeElement)); presses++) {
    assert.ok(presses < 20, "Tab does not reach the button");
    await page.keyboard.press("Tab");
  }
  await page.keyboard.press("Enter");
  await said("ollama is ready");
  await row("ollama").getByText("ready", { exact: true }).waitFor();
  assert.ok(await start.isDisabled());

  // What another program does is seen.
  await step("started");
  await row("ollama").locator("[data-key=memory]").filter({ hasText: "B" }).waitFor();

  // Log, also followed.
  await row("ollama").getByRole("button", { name: "log" }).press("Enter");
  await page.getByRole("heading", { name: "Log of ollama" }).waitFor();
  await page.getByLabel("Log lines").filter({ hasText: "listening" }).waitFor();
  await step("log");
  await page.getByLabel("Log lines").filter({ hasText: "a line of the test" }).waitFor();
  await shot("log");
  await page.getByRole("button", { name: "close" }).press("Enter");
  assert.equal(await page.getByLabel("Log lines").isVisible(), false);
  assert.ok(await row("ollama").getByRole("button", { name: "log" }).evaluate((button) => button === document.activeElement));

  // Stop.
  await row("ollama").getByRole("button", { name: "stop" }).click();
  await said("ollama is stopped");
  await row("ollama").getByText("stopped", { exact: true }).waitFor();

  await row("ollama").locator("[data-key=memory]").filter({ hasText: /^-$/ }).waitFor();

  // A start that fails says why.
  await row("mlx").getByRole("button", { name: "start", exact: true }).click();
  await said("mlx: start failed");
  await row("mlx").getByText("last error:").waitFor();

  // A phone, light and dark.
  await page.setViewportSize({ width: 320, height: 700 });
  const wide = await page.evaluate(() => document.documentElement.scrollWidth);
  assert.ok(wide <= 320, `it is ${wide} wide`);
  await shot("phone");
  const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const light = await ground();
  await page.emulateMedia({ colorScheme: "dark" });
  assert.notEqual(await ground(), light);
  await shot("dark");
  assert.deepEqual(faults.filter((fault) => !fault.includes("502") && !fault.includes("503")), []);

  // A dead gateway, and one that comes back.
  await step("end");
  await said("the gateway does not answer");
  assert.ok((await page.locator("body").getAttribute("class")).includes("lost"));
  await shot("dead");
  await step("ended");
  await said("connected");
}

// A gateway with a token, in front of a server that it has not started.
async function models({ page, row, said, shot, faults }) {
  const key = page.getByLabel("The token of this gateway");
  const use = page.getByRole("button", { name: "use" });
  await said("the gateway needs its token");
  await key.fill("wrong");
  await use.click();
  await said("the token is wrong");
  await key.fill("secret");
  await use.click();
  await said("connected");
  assert.equal(await key.isVisible(), false);
  assert.ok(!page.url().includes("secret"));
  // It is known until the tab is closed, and only there.
  await page.reload();
  await said("connected");
  assert.deepEqual(await page.evaluate(() => [{ ...sessionStorage }, localStorage.length, document.cookie]), [{ token: "secret" }, 0, ""]);

  const ollama = row("ollama"), value = (key) => ollama.locator(`[data-key=${key}]`);
  await ollama.getByText("external", { exact: true }).waitFor();
  assert.ok(await ollama.getByRole("button", { name: "start", exact: true }).isDisabled());
  assert.ok(await ollama.getByRole("button", { name: "stop" }).isDisabled());
  await value("model").filter({ hasText: "tiny" }).waitFor();
  await ollama.getByLabel("model of ollama").selectOption("tiny");
  await ollama.getByRole("button", { name: "unload" }).click();
  await said("tiny is unloaded");
  await value("model").filter({ hasText: /^-$/ }).waitFor();
  await ollama.getByRole("button", { name: "load", exact: true }).click();
  await said("tiny is loaded");
  await value("model").filter({ hasText: "tiny" }).waitFor();

  // Requests of others.
  await step("ask");
  await value("flight").filter({ hasText: /^1$/ }).waitFor();
  await step("answer");
  await value("flight").filter({ hasText: /^0$/ }).waitFor();
  await value("speed").filter({ hasText: /^[0-9]+\.[0-9]$/ }).waitFor();
  await ollama.getByRole("img", { name: /^tokens per second of ollama: [0-9]/ }).waitFor();
  assert.match(await ollama.locator("[data-chart=speed] polyline").getAttribute("points"), /^([0-9.]+,[0-9.]+ ?)+$/);
  await step("fail");
  await ollama.getByText("last error: ollama closed the connection").waitFor();
  await shot("models");
  assert.deepEqual(faults.filter((fault) => !fault.includes("401")), []);
}
main().then(() => { console.log("done"); process.exit(0); }, (error) => { console.error(error); process.exit(1); });

// Opens the demo page in Chromium, at each address in turn, types texts, and prints what the page
// shows at first and after each, as JSON.
//   node open_page.mjs CHROMIUM ADDRESSES TEXTS

import { chromium } from "playwright-core";

const [program, ...lists] = process.argv.slice(2);
const [addresses, texts] = lists.map((list) => JSON.parse(list));
const quiet = ["--disable-gpu", "--disable-background-networking", "--disable-component-update"];
const browser = await chromium.launch({ executablePath: program, args: quiet });
const page = await browser.newPage();
page.setDefaultTimeout(60_000);
const servers = new Set();
page.on("request", (request) => servers.add(new URL(request.url()).origin));

/** What the page shows when it is done. */
async function shown() {
  await page.locator("#labels[aria-busy=false]").waitFor({ state: "attached" });
  return page.evaluate(() => ({
    labels: [...document.querySelectorAll("#labels li")].map((row) => ({
      label: row.querySelector("span").textContent,
      probability: row.querySelector("meter").value,
      text: row.querySelector("output").textContent,
      best: row.classList.contains("best"),
    })),
    status: document.querySelector("#status").textContent,
    error: document.querySelector("#error").textContent,
  }));
}

const found = [];
for (const address of addresses) {
  await page.goto(address);
  const steps = [await shown()];
  for (const text of texts) {
    await page.fill("#text", text);
    steps.push(await shown());
  }
  found.push(steps);
}
await browser.close();
console.log(JSON.stringify({ found, servers: [...servers] }));

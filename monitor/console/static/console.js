// Everything on the pages works without this script, except: live parts, dragging over a chart, keys, the slider's picture.
"use strict";

const root = document.documentElement;
const all = (query, from = document) => [...from.querySelectorAll(query)];
const one = (query, from = document) => from.querySelector(query);

// ---- live: the server names the topics that changed, and the page fetches its parts again

const waiting = new Set();
let timer = null, beat = null, stream = null;

function listen() {
  const sign = one("#live");
  stream?.close();
  if (!sign || document.hidden) return; // a browser has six connections to a host: pages that nobody sees need none
  const source = stream = new EventSource("/events?since=" + encodeURIComponent(root.dataset.events || ""));
  const show = (is_on) => {
    sign.classList.toggle("on", is_on);
    sign.classList.toggle("off", !is_on);
    sign.title = is_on ? "The page follows the database." : "The console does not answer. The page tries again.";
    one("span", sign).textContent = is_on ? "live" : "not live";
  };
  source.onopen = () => show(true);
  source.onerror = () => {
    show(false);
    if (source.readyState === EventSource.CLOSED) setTimeout(revive, 3000); // no stream came: a proxy's error, a logout
  };
  source.addEventListener("changed", (event) => {
    root.dataset.events = event.lastEventId;
    sign.classList.add("beat");
    clearTimeout(beat);
    beat = setTimeout(() => sign.classList.remove("beat"), 1000);
    const topics = JSON.parse(event.data);
    for (const part of all("[data-fragment]")) {
      if (topics.some((topic) => part.dataset.topics.split(" ").includes(topic))) waiting.add(part.id);
    }
    schedule();
  });
}

async function revive() {
  const answer = await fetch("/api/v1/me").catch(() => null);
  return answer?.status === 401 ? location.reload() : listen();
}

function schedule() {
  if (waiting.size && !timer && !document.hidden) timer = setTimeout(refresh, 250);
}

async function refresh() {
  const ids = [...waiting];
  waiting.clear();
  for (const id of ids) {
    const part = document.getElementById(id);
    if (!part) continue;
    if (is_busy(part)) {
      waiting.add(id);
      continue;
    }
    const url = new URL(location.href);
    url.searchParams.set("fragment", part.dataset.fragment);
    try {
      const answer = await fetch(url, { headers: { Accept: "text/html" } });
      if (answer.status === 401) return location.reload();
      if (answer.ok && !is_busy(part)) replace(part, await answer.text());
      part.classList.toggle("stale", !answer.ok);
      if (answer.status >= 500) waiting.add(id);
    } catch {
      part.classList.add("stale");
      waiting.add(id);
    }
  }
  timer = waiting.size ? setTimeout(() => { timer = null; schedule(); }, 2000) : null;
}

// A part in which somebody writes, or has opened a form, stays as it is.
function is_busy(part) {
  const inside = part.contains(document.activeElement) ? document.activeElement : null;
  const writes = inside && inside.matches("input, select, textarea");
  return Boolean(writes || one("[data-dragging]", part) || all("details.form[open]", part).length);
}

function replace(part, html) {
  const focused = part.contains(document.activeElement) ? document.activeElement : null;
  const place = focused ? all("a, button, summary", part).indexOf(focused) : -1;
  const key = focused && (focused.id || focused.getAttribute("href"));
  const opened = all("details[open]", part).map((each) => one("summary", each).textContent);
  const current = one(".current", part);
  part.innerHTML = html;
  for (const each of all("details", part)) if (opened.includes(one("summary", each).textContent)) each.open = true;
  if (current) one(`[data-alert="${current.dataset.alert}"]`, part)?.classList.add("current");
  if (focused) {
    const same = all("a, button, summary", part);
    (same.find((each) => key && (each.id || each.getAttribute("href")) === key) || same[place])?.focus();
  }
  announce(part);
  prepare(part);
}

// Readers of the screen hear of alerts only when their number changes.
function announce(part) {
  const text = one("[data-announce]", part)?.dataset.announce;
  const place = one("#announce");
  if (text && place && place.dataset.last !== text) {
    place.textContent = text;
    place.dataset.last = text;
  }
}

// ---- dragging over a chart or a lane: the stretch becomes the time of the page, or of the asset's page

function start_drag(event) {
  const chart = event.target.closest("[data-drag]");
  if (!chart || event.button !== 0 || event.target.closest("a")) return;
  const drawing = one("svg.drawing", chart);
  const area = drawing.getBoundingClientRect();
  const share = (x) => Math.min(1, Math.max(0, (x - area.left) / area.width));
  const begin = share(event.clientX);
  let end = begin;
  const box = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  box.setAttribute("class", "drag-box");
  box.setAttribute("height", "100%");
  drawing.append(box);
  chart.dataset.dragging = "1";
  const draw = (move) => {
    end = share(move.clientX);
    box.setAttribute("x", `${100 * Math.min(begin, end)}%`);
    box.setAttribute("width", `${100 * Math.abs(end - begin)}%`);
  };
  const stop = (is_kept) => {
    removeEventListener("pointermove", draw);
    removeEventListener("pointerup", finish);
    removeEventListener("pointercancel", cancel);
    removeEventListener("keydown", escape);
    delete chart.dataset.dragging;
    if (!is_kept) box.remove();
  };
  const cancel = () => stop(false);
  const escape = (key) => key.key === "Escape" && stop(false);
  const finish = () => {
    const [since, until] = [Number(chart.dataset.since), Number(chart.dataset.until)];
    let [from, to] = [Math.min(begin, end), Math.max(begin, end)];
    const is_click = (to - from) * area.width < 4;
    if (is_click && !chart.dataset.click) return stop(false);
    if (is_click) [from, to] = [Math.max(0, from - 0.02), Math.min(1, to + 0.02)];
    stop(true);
    const url = new URL(chart.dataset.drag, location.href);
    url.searchParams.set("from", iso(since + from * (until - since)));
    url.searchParams.set("to", iso(since + to * (until - since)));
    url.hash = "stretch";
    location.assign(url);
  };
  addEventListener("pointermove", draw);
  addEventListener("pointerup", finish);
  addEventListener("pointercancel", cancel);
  addEventListener("keydown", escape);
  event.preventDefault();
}

const iso = (us) => new Date(Math.round(us / 1000)).toISOString().slice(0, 19) + "Z";

// ---- the slider of the models' page: the table below holds every choice, the slider shows one of its rows

function slide() {
  const form = one("#slider");
  if (!form) return;
  const budget = Number(form.elements.budget_step.value);
  const confirm = form.elements.confirm.value;
  const row = all("#preview tbody tr").find((each) => each.dataset.confirm === confirm && +each.dataset.step === budget);
  if (!row) return;
  for (const place of all("[data-show]")) place.textContent = row.dataset[place.dataset.show];
  form.elements.budget_step.setAttribute("aria-valuetext", `${row.dataset.budget}: ${row.dataset.alerts} alerts`);
  for (const curve of all("[data-curve]")) {
    curve.hidden = curve.dataset.curve !== confirm;
    for (const dot of all("[data-choice]", curve)) {
      const is_chosen = Number(dot.dataset.choice) === budget;
      one("circle", dot).classList.toggle("chosen", is_chosen);
      one("circle", dot).setAttribute("r", is_chosen ? 6 : 4);
    }
  }
}

// ---- keys: j and k walk through alerts, Enter opens, a acknowledges, g goes to a screen

const screens = { n: "/", a: "/alerts", m: "/models", i: "/ingestion", s: "/shelves" };
let goes = 0;

function press(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select, textarea")) return;
  if (goes > Date.now() && screens[event.key]) return location.assign(screens[event.key]);
  goes = event.key === "g" ? Date.now() + 1500 : 0;
  const alerts = all("[data-alert]");
  const at = alerts.findIndex((each) => each.classList.contains("current"));
  if (event.key === "j" || event.key === "k") {
    const next = alerts[Math.min(alerts.length - 1, Math.max(0, at + (event.key === "j" ? 1 : -1)))];
    if (!next) return;
    alerts[at]?.classList.remove("current");
    next.classList.add("current");
    one("a", next)?.focus();
    next.scrollIntoView({ block: "nearest" });
  } else if (event.key === "a") {
    const form = one('form[data-act="acknowledge"]', alerts[at] || document);
    if (form && (alerts[at] || !alerts.length)) form.requestSubmit();
  } else if (event.key === "/") {
    one('input[type="search"]')?.focus();
  } else if (event.key === "?") {
    one("#help")?.togglePopover();
  } else {
    return;
  }
  event.preventDefault();
}

// ---- what this browser keeps: theme and time zone

function keep(name, value) {
  document.cookie = `${name}=${value}; path=/; max-age=31536000; samesite=strict`;
}

function click(event) {
  const button = event.target.closest("button[data-do]");
  if (!button) return;
  if (button.dataset.do === "theme") {
    const is_dark = root.classList.contains("dark") ||
      (!root.classList.contains("light") && matchMedia("(prefers-color-scheme: dark)").matches);
    root.className = is_dark ? "light" : "dark";
    keep("monitor_theme", root.className);
  } else if (button.dataset.do === "zone") {
    const here = Intl.DateTimeFormat().resolvedOptions().timeZone;
    keep("monitor_zone", root.dataset.zone === "UTC" ? here : "UTC");
    location.reload();
  } else if (button.dataset.do === "copy") {
    navigator.clipboard?.writeText(one(button.dataset.from).textContent.trim() + "\n");
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  }
}

function prepare(from) {
  for (const each of all("[data-needs-script]", from)) each.hidden = false;
  for (const each of all("[data-without-script]", from)) each.hidden = true;
}

prepare(document);
listen();
slide();
const listeners = { pointerdown: start_drag, keydown: press, input: slide, click };
for (const [name, act] of Object.entries(listeners)) addEventListener(name, act);
document.addEventListener("visibilitychange", () => { listen(); schedule(); });

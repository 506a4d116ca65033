// The page is made by the server. This script puts times into the browser's
// zone, sends the forms without leaving the page, and shows what happens.
(() => {
  "use strict";
  const steps = new Map(); // certificate name -> lines of the renewal under way
  const live = { stream: null, open: false, timer: 0 };
  const words = document.documentElement.lang;
  const lang = navigator.languages.find((l) => l.startsWith(words)) || words; // its dates as the reader writes them
  const style = new Intl.DateTimeFormat(lang, { dateStyle: "medium", timeStyle: "short" });

  function localise(root) {
    for (const t of root.querySelectorAll("time[datetime]")) {
      const at = new Date(t.dateTime);
      if (!isNaN(at)) t.textContent = style.format(at);
    }
    for (const button of root.querySelectorAll("[data-copy]")) button.hidden = false; // it needs this script
  }

  function say(text, bad) {
    const said = document.getElementById("said");
    said.textContent = text;
    said.classList.toggle("bad", bad);
    said.hidden = !text;
    if (bad) said.scrollIntoView({ block: "nearest" });
  }

  function cardOf(name) {
    return [...document.querySelectorAll("article.card")].find((c) => c.dataset.name === name);
  }

  function showSteps(name) {
    const card = cardOf(name), lines = steps.get(name);
    if (!card || !lines) return;
    const run = card.querySelector(".run");
    run.querySelector("p").hidden = !lines.going;
    run.querySelector("ol").replaceChildren(...lines.map((line) => {
      const li = document.createElement("li");
      li.textContent = line.text;
      li.classList.toggle("bad", line.bad);
      return li;
    }));
    run.hidden = lines.length === 0;
  }

  function note(event, kind) {
    if (!event.name || !event.text) return;
    if (kind === "started" || !steps.has(event.name)) steps.set(event.name, []);
    const lines = steps.get(event.name);
    lines.going = kind === "started" || kind === "progress";
    lines.push({ text: event.text, bad: kind === "renewal_failed" || kind === "deploy_failed" });
    if (lines.length > 30) lines.shift();
    showSteps(event.name);
  }

  async function refresh() {
    let fresh;
    try {
      const answer = await fetch("./", { headers: { Accept: "text/html" } });
      if (!answer.ok) return;
      fresh = new DOMParser().parseFromString(await answer.text(), "text/html").getElementById("main");
    } catch { return; } // the next one may arrive
    const old = document.getElementById("main");
    if (!fresh || !old) return;
    localise(fresh);
    for (const d of old.querySelectorAll("details[open]")) {
      const same = d.id && fresh.querySelector("#" + CSS.escape(d.id));
      if (same) same.open = true;
    }
    fresh.querySelector("#said").replaceWith(old.querySelector("#said"));
    const focus = document.activeElement && document.activeElement.id;
    old.replaceWith(document.adoptNode(fresh));
    for (const name of steps.keys()) showSteps(name);
    if (focus) document.getElementById(focus)?.focus({ preventScroll: true });
  }

  function soon() { // at most one look a second, however much happens
    if (!live.timer) live.timer = setTimeout(() => { live.timer = 0; refresh(); }, 400);
  }

  function follow() {
    const stream = live.stream = new EventSource("api/events");
    const on = (kind, act) => stream.addEventListener(kind, (e) => act(JSON.parse(e.data)));
    on("snapshot", () => { live.open = true; soon(); });
    for (const kind of ["started", "progress", "renewed", "renewal_failed", "deployed", "deploy_failed", "restart", "waiting", "refused"]) {
      on(kind, (event) => { note(event, kind); soon(); });
    }
    for (const kind of ["state", "checked", "message", "warning", "critical", "expired", "resolved"]) on(kind, soon);
    stream.onerror = () => {
      live.open = false;
      if (stream.readyState === EventSource.CLOSED) setTimeout(follow, 10000);
    };
  }

  document.addEventListener("submit", async (e) => {
    const form = e.target;
    e.preventDefault();
    const button = form.querySelector("button");
    button.disabled = true;
    try {
      const answer = await fetch(form.getAttribute("action"), {
        method: "POST", headers: { Accept: "application/json" }, body: new URLSearchParams(new FormData(form)),
      });
      const body = await answer.json().catch(() => ({}));
      if (answer.ok) say(form.dataset.said, false);
      else say(body.error || answer.statusText, true);
    } catch (err) {
      say(String(err.message || err), true);
    }
    button.disabled = false;
    soon();
  });

  // A page over plain http, as in Home Assistant's frame, has no clipboard of its
  // own; the old way is left, and one's own keys.
  async function copy(button) {
    const copied = () => {
      const was = button.textContent; // the button is where the reader looks
      button.textContent = button.dataset.copied;
      setTimeout(() => { button.textContent = was; }, 3000);
      say(button.dataset.copied, false);
    };
    let text;
    try {
      const answer = await fetch(button.dataset.copy, { headers: { Accept: "application/json" } });
      text = await answer.text();
      if (!answer.ok) {
        let said = answer.statusText;
        try { said = JSON.parse(text).error || said; } catch { /* no JSON */ }
        return say(said, true);
      }
    } catch (err) {
      return say(String(err.message || err), true);
    }
    try {
      await navigator.clipboard.writeText(text);
      return copied();
    } catch { /* there is none, or not for us */ }
    const dialog = document.createElement("dialog");
    const hint = document.createElement("p"), area = document.createElement("textarea"), close = document.createElement("button");
    hint.textContent = button.dataset.byHand;
    close.textContent = button.dataset.close;
    area.value = text;
    area.readOnly = true;
    dialog.append(hint, area, close);
    close.addEventListener("click", () => dialog.close());
    dialog.addEventListener("close", () => dialog.remove());
    document.body.append(dialog); // not in main, which is made anew
    dialog.showModal();
    area.focus();
    area.select();
    let done = false;
    try { done = document.execCommand("copy"); } catch { /* not allowed */ }
    if (!done) return;
    dialog.close();
    copied();
  }

  document.addEventListener("click", (e) => {
    const button = e.target.closest("button[data-copy]");
    if (button) copy(button);
  });

  // Some web views cut streams: look now and then without being told.
  setInterval(() => { if (!document.hidden && (!live.open || document.querySelector("[data-renewing]"))) refresh(); }, 5000);
  setInterval(() => { if (!document.hidden) refresh(); }, 60000);
  document.addEventListener("visibilitychange", () => { if (!document.hidden) refresh(); });
  window.addEventListener("pagehide", () => live.stream?.close());
  window.addEventListener("pageshow", (e) => { if (e.persisted) follow(); });

  localise(document);
  if (document.getElementById("main")) follow();
})();

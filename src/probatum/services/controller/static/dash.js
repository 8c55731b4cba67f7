"use strict";
// Keep the page as the ledger is: a stream says when something changed, the page is fetched again, and only parts that differ
// are put in place. The token, where one is used, lives in this tab and goes along as a header, so no other site can use it.
(function () {
  const KEY = "probatum-token";
  const byId = (id) => document.getElementById(id);
  const main = byId("main");
  const token = () => sessionStorage.getItem(KEY);
  const headers = (more) => (token() ? { ...more, authorization: "Bearer " + token() } : more);
  let busy = false, again = false, changed = Date.now();

  function show(state, text) {
    byId("link").dataset.state = state;
    byId("link-text").textContent = text;
  }

  // --- the page ---

  function keepOpen(from, to) {
    const open = [...from.querySelectorAll("details")].map((item) => item.open);
    [...to.querySelectorAll("details")].forEach((item, index) => index < open.length && (item.open = open[index]));
  }

  // What somebody types into is replaced only when what it is for has changed.
  function keeps(old, fresh) {
    if (old.dataset.key !== undefined) return old.dataset.key === fresh.dataset.key;
    return old.source === fresh.outerHTML || old.contains(document.activeElement) && document.activeElement.matches("input, select");
  }

  function swap(text) {
    const next = new DOMParser().parseFromString(text, "text/html").getElementById("main");
    if (!next) return;
    const parts = (root) => [...root.querySelectorAll("[data-part]")];
    const names = (root) => parts(root).map((part) => part.dataset.part).join(" ");
    if (names(main) !== names(next)) {
      const focus = document.activeElement, old = parts(main);
      parts(next).forEach((part) => {
        part.source = part.outerHTML;
        const same = old.find((item) => item.dataset.part === part.dataset.part && item.dataset.key !== undefined);
        if (same && same.dataset.key === part.dataset.key) part.replaceWith(same);
      });
      main.replaceChildren(...next.childNodes);
      if (focus.isConnected && focus !== document.body) focus.focus();
    } else {
      const fresh = parts(next);
      parts(main).forEach((old, index) => {
        const source = fresh[index].outerHTML;
        if (keeps(old, fresh[index])) return;
        keepOpen(old, fresh[index]);
        fresh[index].source = source;
        const focused = old.contains(document.activeElement) ? [...old.querySelectorAll("a, summary, [tabindex]")].indexOf(document.activeElement) : -1;
        old.replaceWith(fresh[index]);
        if (focused >= 0) [...fresh[index].querySelectorAll("a, summary, [tabindex]")][focused]?.focus();
      });
    }
    if (next.dataset.says !== main.dataset.says) byId("says").textContent = main.dataset.says = next.dataset.says;
    document.dispatchEvent(new Event("charts"));
  }

  async function refresh() {
    if (busy) return void (again = true);
    busy = true;
    try {
      const reply = await fetch(location.href, { headers: headers({}), cache: "no-store" });
      if (reply.headers.get("content-type").startsWith("text/html")) swap(await reply.text());
      changed = Date.now();
    } catch {
      show("off", "the controller does not answer");
    }
    busy = false;
    if (again) {
      again = false;
      setTimeout(refresh, 250);
    }
  }

  // --- the stream ---

  async function follow() {
    const reply = await fetch("/events", { headers: headers({}), cache: "no-store" });
    if (!reply.ok) throw new Error(reply.status === 401 ? "a token is needed" : "not live");
    const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    show("on", "live");
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const events = (rest + value).split("\n\n");
      rest = events.pop();
      for (const event of events) {
        if (!event.startsWith("data: ")) continue;
        const mark = JSON.parse(event.slice(6));
        if (mark.problem) show("bad", "the ledger cannot be read");
        else if (mark.controller) show("bad", "the controller has a problem");
        else show("on", "live, record " + mark.seq.toLocaleString("en"));
        refresh();
      }
    }
  }

  async function live() {
    for (let wait = 500; ; wait = Math.min(2 * wait, 8000)) {
      const began = Date.now();
      try {
        await follow();
      } catch (error) {
        show("off", error instanceof TypeError ? "the controller does not answer" : error.message);
      }
      if (Date.now() - began > 10000) wait = 500;
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
  }

  // --- token and acts ---

  async function who() {
    byId("token-said").textContent = "";
    if (!token()) return void (byId("token-name").textContent = "Use a token");
    const reply = await fetch("/session", { headers: headers({}) });
    const said = await reply.json();
    if (reply.ok) byId("token-name").textContent = said.name + ", may " + said.role;
    else {
      sessionStorage.removeItem(KEY);
      byId("token-name").textContent = "Use a token";
      byId("token-said").textContent = said.error;
    }
  }

  byId("token-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    const value = byId("token-value").value.trim();
    byId("token-value").value = "";
    if (!/^[\x21-\x7e]+$/.test(value)) return void (byId("token-said").textContent = "A token is printable characters without blanks.");
    sessionStorage.setItem(KEY, value);
    await who();
    byId("token").open = !token();
    refresh();
  });
  byId("token-forget").addEventListener("click", async () => {
    sessionStorage.removeItem(KEY);
    await who();
    byId("token").open = false;
    refresh();
  });

  document.addEventListener("submit", async (event) => {
    const form = event.target;
    if (!form.matches("form.act")) return;
    event.preventDefault();
    const act = event.submitter?.dataset.act || form.dataset.act, said = form.querySelector("output");
    const body = Object.fromEntries([...new FormData(form)].map(([name, value]) => [name, name === "hours" ? Number(value) : value]));
    if (form.dataset.rollout) body.rollout = form.dataset.rollout;
    if (form.dataset.model) body.model = form.dataset.model;
    if (!token()) {
      said.textContent = "Use a token first, above.";
      byId("token").open = true;
      return void byId("token-value").focus();
    }
    const buttons = [...form.querySelectorAll("button")];
    buttons.forEach((button) => (button.disabled = true));
    said.className = "";
    said.textContent = "…";
    try {
      const reply = await fetch("/actions/" + act, { method: "POST", headers: headers({ "content-type": "application/json" }), body: JSON.stringify(body) });
      const answer = await reply.json();
      said.className = reply.ok ? "good" : "bad";
      said.textContent = reply.ok ? "Done, as " + answer.by + "." : "Refused: " + answer.error;
      if (reply.ok) byId("says").textContent = act + " done";
    } catch {
      said.className = "bad";
      said.textContent = "The controller did not answer; look whether it was done.";
    }
    buttons.forEach((button) => (button.disabled = false));
    refresh();
  });

  main.querySelectorAll("[data-part]").forEach((part) => (part.source = part.outerHTML));
  setInterval(() => document.hidden || Date.now() - changed < (main.dataset.page === "shadow" ? 4000 : 20000) || refresh(), 2000);
  who();
  live();
})();

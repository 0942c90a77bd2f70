// The page of one order: opens it with its token, follows it live, shows its eSIMs. `$` and `money` are shop.js's.
// The order token never enters an address that is sent or logged: it lives in sessionStorage, or arrives in a fragment.
"use strict";

const WORDS = {
  pending: ["Waiting for your payment", "This page changes by itself as soon as the payment arrives."],
  paid: ["Payment received", "Your eSIM is on its way. This usually takes a few seconds."],
  processing: ["Getting your eSIM ready", "This usually takes a few seconds."],
  completed: ["Your eSIM is ready", "Scan the code with the phone you travel with."],
  failed: ["We could not deliver", "Your money is on its way back. We are sorry."],
  refunded: ["Your money is on its way back", "We could not deliver this order. We are sorry."],
  cancelled: ["This checkout was closed", "No payment arrived, so nothing was charged."],
  attention: ["Our team is looking at your order", "You do not have to do anything. We write to you."],
};
const NOT_PAID = ["Your payment did not go through", "Nothing was charged. You are welcome to order again."];
const UNIT_WORDS = {
  unpaid: "Waiting for your payment", preparing: "Being prepared…", delivered: "Ready to install", refunded: "Refunded",
  failed: "Could not be delivered; its price is on its way back", cancelled: "Cancelled", attention: "Our team is looking at it",
};
const WRONG = "This token does not open this order.";
const REACHED = { pending: 0, cancelled: 0, paid: 1, processing: 1, attention: 1, completed: 3, failed: 1, refunded: 1 };

function startOrder(page) {
  const id = page.dataset.order, pictures = new Set();
  let token = takeToken(id), last = 0, over = false;

  const ask = (path, headers = {}) =>
    fetch(`/v1/orders/${id}${path}`, { headers: { Authorization: `Bearer ${token}`, ...headers }, cache: "no-store" });

  $("unlock").addEventListener("submit", (event) => {
    event.preventDefault();
    token = $("token").value.trim();
    open();
  });
  if (token) open();
  else lock("");

  function lock(why) {
    page.dataset.status = "locked";
    $("headline").textContent = "Your order";
    $("unlock").hidden = false;
    $("unlock-error").textContent = why;
  }

  async function open() {
    if (!/^[!-~]+$/.test(token)) return lock(WRONG); // no header can carry it
    $("unlock").hidden = true;
    if (await refresh()) follow();
  }

  // Asks until there is an answer to act on. A refusal is one; a busy shop, its faults and a broken line are not.
  async function insist(path, read) {
    for (let seconds = 1; ; seconds = Math.min(seconds * 2, 30)) {
      let answer = null;
      try {
        answer = await ask(path);
        if (answer.ok) return await read(answer);
        if (answer.status !== 429 && answer.status < 500) return null;
      } catch { /* the line broke: ask again below */ }
      await pause(answer, seconds);
    }
  }

  async function refresh() {
    const order = await insist("", (answer) => answer.json());
    if (!order) { lock(WRONG); return false; }
    sessionStorage.setItem(`order:${id}`, token);
    draw(order);
    return true;
  }

  // EventSource cannot send the token as a header, so the stream is read by hand; it resumes after the last event. Where
  // there is no stream to be had, the order itself is asked for now and then.
  async function follow() {
    for (let seconds = 1; !over; seconds = Math.min(seconds * 2, 15)) {
      let answer = null;
      try {
        answer = await ask("/events", { "Last-Event-ID": String(last) });
        if (answer.ok) { seconds = 1; await readStream(answer.body); }
      } catch { /* the line broke: try again below */ }
      if (over) return;
      await pause(answer, seconds);
      if ((!answer || !answer.ok) && !await refresh()) return;
    }
  }

  async function readStream(body) {
    const reader = body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const parts = (rest + value).split("\n\n");
      rest = parts.pop();
      const fields = parts.map((part) => Object.fromEntries(part.split("\n").map((line) => line.split(/: (.*)/s).slice(0, 2))));
      for (const field of fields) if (field.id) last = Number(field.id);
      if (!fields.some((field) => field.event)) continue;
      const ended = fields.some((field) => field.event === "end");
      over = !await refresh() || ended;
      if (over) return;
    }
  }

  function draw(order) {
    last = Math.max(last, ...order.events.map((event) => event.id));
    const [headline, subline] = order.status === "failed" && !order.paid_at ? NOT_PAID : WORDS[order.status];
    page.dataset.status = order.status;
    $("display-id").textContent = `Order ${order.display_id} · ${money(order.amount_minor, order.currency)}`;
    $("headline").textContent = order.status === "completed" && order.esims.length > 1 ? "Your eSIMs are ready" : headline;
    $("subline").textContent = subline;
    document.title = `${headline} · NumnaRoad`;
    page.querySelectorAll(".progress li").forEach((step, index) => {
      step.classList.toggle("done", index < REACHED[order.status]);
      step.classList.toggle("now", index === REACHED[order.status] && ["pending", "paid", "processing"].includes(order.status));
    });
    order.esims.forEach((esim) => drawEsim(esim, order.esims.length));
    $("manual").hidden = !order.esims.some((esim) => esim.lpa);
    $("history").hidden = false;
    $("events").replaceChildren(...order.events.map((event) => {
      const item = document.createElement("li"), at = document.createElement("time");
      at.dateTime = event.at;
      at.textContent = new Date(event.at).toLocaleTimeString();
      item.append(event.message, at);
      return item;
    }));
  }

  function drawEsim(esim, count) {
    let card = $(`esim-${esim.n}`);
    if (!card) {
      card = $("esim-card").content.firstElementChild.cloneNode(true);
      card.id = `esim-${esim.n}`;
      card.querySelector("h2").textContent = count > 1 ? `${esim.n}. ${esim.name}` : esim.name;
      $("esims").append(card);
    }
    card.dataset.status = esim.status;
    card.querySelector(".state").textContent = UNIT_WORDS[esim.status];
    card.classList.toggle("ready", esim.status === "delivered");
    card.querySelector(".delivered").hidden = !esim.lpa;
    if (!esim.lpa || pictures.has(esim.n)) return;
    pictures.add(esim.n);
    card.querySelector(".install").href = esim.install_url;
    card.querySelector("dl").replaceChildren(
      ...code("SM-DP+ address", esim.smdp_address), ...code("Activation code", esim.activation_code),
      ...code("Confirmation code", esim.confirmation_code), ...code("Whole code", esim.lpa),
      ...code("APN", esim.apn), ...code("ICCID", esim.iccid),
    );
    picture(card.querySelector(".qr"), esim.n);
  }

  async function picture(image, n) {
    const drawn = await insist(`/esims/${n}/qr.svg`, (answer) => answer.blob());
    if (!drawn) { pictures.delete(n); return; }
    image.src = URL.createObjectURL(drawn);
    image.alt = `QR code of eSIM ${n}`;
  }
}

// As long as the answer asks for, within reason; else so many seconds.
function pause(answer, seconds) {
  const asked = Number(answer && answer.headers.get("Retry-After"));
  return new Promise((done) => setTimeout(done, 1000 * (asked > 0 ? Math.min(asked, 60) : seconds)));
}

function code(name, value) {
  if (!value) return [];
  const term = document.createElement("dt"), detail = document.createElement("dd"), text = document.createElement("code");
  const copy = document.createElement("button");
  term.textContent = name;
  text.textContent = value;
  copy.type = "button";
  copy.textContent = "Copy";
  copy.setAttribute("aria-label", `Copy ${name}`);
  copy.addEventListener("click", async () => {
    await navigator.clipboard.writeText(value);
    copy.textContent = "Copied";
    setTimeout(() => { copy.textContent = "Copy"; }, 1500);
  });
  detail.append(text, copy);
  return [term, detail];
}

function takeToken(id) {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) {
    sessionStorage.setItem(`order:${id}`, given);
    history.replaceState(null, "", location.pathname + location.search);
  }
  return given || sessionStorage.getItem(`order:${id}`);
}

startOrder($("order"));

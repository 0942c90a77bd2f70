// The shop's own script: find a destination, filter plans, check out, follow an order. No dependency, no build step.
// The order token never enters an address that is sent or logged: it lives in sessionStorage, or arrives in a fragment.
"use strict";

const $ = (id) => document.getElementById(id);
document.documentElement.classList.add("js");

function money(minor, currency) {
  const format = new Intl.NumberFormat("en", { style: "currency", currency });
  return format.format(minor / 10 ** format.resolvedOptions().maximumFractionDigits);
}

function randomKey() {
  if (crypto.randomUUID) return crypto.randomUUID(); // only where the page is served securely
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

// --- find a destination ---------------------------------------------------------------------------------------------

function startSearch() {
  const input = $("q"), list = $("places");
  const currency = new URLSearchParams(location.search).get("currency") || "USD";
  let places = null, loading = false, shown = [], active = -1;

  const fold = (text) => text.normalize("NFKD").replace(/\p{M}/gu, "").toLowerCase();
  const load = async () => {
    if (places || loading) return;
    loading = true;
    try {
      const answer = await fetch(`/v1/destinations?currency=${encodeURIComponent(currency)}`);
      if (answer.ok) places = (await answer.json()).destinations.map((place) => ({ ...place, folded: fold(place.name) }));
    } catch { /* no suggestions yet; the next key asks again */ } finally { loading = false; }
    if (document.activeElement === input && input.value) show();
  };
  const rank = (place, wanted) => {
    if (place.code.toLowerCase() === wanted || place.folded.startsWith(wanted)) return 0;
    if (place.folded.split(/[\s-]/).some((word) => word.startsWith(wanted))) return 1;
    return wanted.length > 2 && place.folded.includes(wanted) ? 2 : 9;
  };
  const show = () => {
    const wanted = fold(input.value.trim());
    shown = wanted ? (places || []).map((place) => [rank(place, wanted), place]).filter(([r]) => r < 9)
      .sort((a, b) => a[0] - b[0] || a[1].name.localeCompare(b[1].name)).slice(0, 8).map(([, place]) => place) : [];
    active = shown.length ? 0 : -1;
    draw();
  };
  const draw = () => {
    list.replaceChildren(...shown.map((place, index) => {
      const item = document.createElement("li"), from = document.createElement("small");
      item.id = `place-${index}`;
      item.setAttribute("role", "option");
      item.setAttribute("aria-selected", String(index === active));
      from.textContent = `from ${money(place.from_price.amount_minor, place.from_price.currency)}`;
      item.append(place.name, from);
      item.addEventListener("pointerdown", (event) => { event.preventDefault(); go(place); });
      return item;
    }));
    list.hidden = !shown.length;
    input.setAttribute("aria-expanded", String(!list.hidden));
    if (active >= 0) input.setAttribute("aria-activedescendant", `place-${active}`);
    else input.removeAttribute("aria-activedescendant");
  };
  const go = (place) => { location.href = `/?${new URLSearchParams({ destination: place.code, currency })}`; };
  const close = () => { shown = []; active = -1; draw(); };

  input.addEventListener("focus", load);
  input.addEventListener("input", () => { load(); show(); });
  input.addEventListener("blur", close);
  input.addEventListener("keydown", (event) => {
    if (event.key === "Escape") close();
    if (!shown.length) return;
    if (event.key === "Enter") { event.preventDefault(); go(shown[active]); }
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) { event.preventDefault(); active = (active + step + shown.length) % shown.length; draw(); }
  });
  if (document.activeElement === input) load();
}

// --- filter plans without leaving the page --------------------------------------------------------------------------

function startFilters() {
  const form = $("filters");
  let asked = 0;
  form.addEventListener("change", async () => {
    const mine = ++asked, address = `/?${new URLSearchParams(new FormData(form))}`;
    $("results").setAttribute("aria-busy", "true");
    try {
      const page = new DOMParser().parseFromString(await (await fetch(address)).text(), "text/html");
      if (mine !== asked) return;
      for (const id of ["count", "results"]) $(id).replaceChildren(...page.getElementById(id).childNodes);
      history.replaceState(null, "", address);
    } catch { form.submit(); } finally { $("results").removeAttribute("aria-busy"); }
  });
}

// --- check out --------------------------------------------------------------------------------------------------------

function startCheckout() {
  const dialog = $("checkout"), form = dialog.querySelector("form");
  let plan = null, sent = "", key = "";

  document.addEventListener("click", (event) => {
    const button = event.target.closest(".buy-button");
    if (!button) return;
    plan = { id: button.dataset.package, price: Number(button.dataset.price), currency: button.dataset.currency };
    $("what").textContent = button.dataset.label;
    clear();
    total();
    dialog.showModal();
    $("email").focus();
  });
  form.querySelector(".close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  $("quantity").addEventListener("input", total);

  function quantity() { return Number($("quantity").value); }
  function total() { $("total").textContent = money(plan.price * (quantity() || 0), plan.currency); }
  function clear() {
    for (const name of ["email", "quantity", "checkout"]) $(`${name}-error`).textContent = "";
    for (const name of ["email", "quantity"]) $(name).removeAttribute("aria-invalid");
  }
  function fault(name, message) {
    $(`${name}-error`).textContent = message;
    $(name).setAttribute("aria-invalid", "true");
    $(name).focus();
  }

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    clear();
    if (!$("email").value.trim() || !$("email").checkValidity()) return fault("email", "Enter your e-mail address.");
    if (!Number.isInteger(quantity()) || quantity() < 1 || quantity() > 30) return fault("quantity", "Choose 1 to 30.");
    const body = JSON.stringify({
      items: [{ package_id: plan.id, quantity: quantity(), expected_price_minor: plan.price }],
      email: $("email").value.trim(),
      currency: plan.currency,
      cancel_url: location.origin + location.pathname + location.search,
    });
    if (body !== sent) { sent = body; key = randomKey(); } // the same basket again is a retry, not another order
    $("pay").disabled = true;
    try { await order(body); } catch {
      $("checkout-error").textContent = "We could not be reached. Check your connection and try again.";
    } finally { $("pay").disabled = false; }
  });

  async function order(body) {
    const headers = { "Content-Type": "application/json", "Idempotency-Key": key };
    const answer = await fetch("/v1/checkout", { method: "POST", headers, body });
    const told = await answer.json();
    if (answer.ok) {
      sessionStorage.setItem(`order:${told.order_id}`, told.order_token);
      location.href = told.checkout_url;
      return;
    }
    if (kind === "checkout-expired" || kind === "payment-refused") sent = ""; // that order is closed: the next is another
    const kind = String(told.type).split("#problem-")[1];
    if (kind === "price-changed") {
      plan.price = told.items[0].price.amount_minor;
      total();
      $("checkout-error").textContent = `The price has changed to ${money(plan.price, plan.currency)}. Nothing was ordered yet.`;
    } else if (kind === "checkout-expired") {
      $("checkout-error").textContent = "That took too long. Nothing was charged; please continue again.";
    } else if (kind === "invalid-request") {
      const named = (told.errors[0] || {}).field || "";
      if (named === "email") fault("email", "This does not look like an e-mail address.");
      else if (named.endsWith("quantity")) fault("quantity", "Choose 1 to 30.");
      else $("checkout-error").textContent = told.detail;
    } else { $("checkout-error").textContent = told.detail; }
  }
}

// --- follow an order ----------------------------------------------------------------------------------------------------

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
const UNIT_WORDS = {
  unpaid: "Waiting for your payment", preparing: "Being prepared…", delivered: "Ready to install", refunded: "Refunded",
  failed: "Could not be delivered; its price is on its way back", cancelled: "Cancelled", attention: "Our team is looking at it",
};
const REACHED = { pending: 0, cancelled: 0, paid: 1, processing: 1, attention: 1, completed: 3, failed: 1, refunded: 1 };

function startOrder(page) {
  const id = page.dataset.order, pictures = new Map();
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
    const answer = await ask("");
    if (answer.status === 401 || answer.status === 404) return lock("This token does not open this order.");
    sessionStorage.setItem(`order:${id}`, token);
    $("unlock").hidden = true;
    if (answer.ok) await draw(await answer.json());
    follow();
  }

  async function refresh() {
    const answer = await ask("");
    if (answer.ok) await draw(await answer.json());
  }

  // EventSource cannot send the token as a header, so the stream is read by hand; it resumes after the last event.
  async function follow() {
    for (let pause = 1000; !over; pause = Math.min(pause * 2, 15000)) {
      try {
        const answer = await ask("/events", { "Last-Event-ID": String(last) });
        if (answer.status === 401 || answer.status === 404) return;
        if (answer.ok) { pause = 1000; await readStream(answer.body); }
      } catch { /* the line broke: try again below */ }
      if (!over) await new Promise((done) => setTimeout(done, pause));
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
      if (fields.some((field) => field.event === "end")) over = true;
      if (fields.some((field) => field.event)) await refresh();
    }
  }

  async function draw(order) {
    const [headline, subline] = WORDS[order.status];
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
    pictures.set(esim.n, true);
    card.querySelector(".install").href = esim.install_url;
    card.querySelector("dl").replaceChildren(
      ...code("SM-DP+ address", esim.smdp_address), ...code("Activation code", esim.activation_code),
      ...code("Confirmation code", esim.confirmation_code), ...code("Whole code", esim.lpa),
      ...code("APN", esim.apn), ...code("ICCID", esim.iccid),
    );
    picture(card.querySelector(".qr"), esim.n);
  }

  async function picture(image, n) {
    const answer = await ask(`/esims/${n}/qr.svg`);
    if (!answer.ok) { pictures.delete(n); return; }
    image.src = URL.createObjectURL(await answer.blob());
    image.alt = `QR code of eSIM ${n}`;
  }
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

if ($("q")) startSearch();
if ($("filters")) startFilters();
if ($("checkout")) startCheckout();
if ($("order")) startOrder($("order"));

// The shop's own script: find a destination, filter plans, check out. No dependency, no build step.
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
    const kind = String(told.type).split("#problem-")[1];
    if (kind === "checkout-expired" || kind === "payment-refused") sent = ""; // that order is closed: the next is another
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

if ($("q")) startSearch();
if ($("filters")) startFilters();
if ($("checkout")) startCheckout();

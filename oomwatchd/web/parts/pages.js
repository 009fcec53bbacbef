// Renews the page while it is looked at; without it the page renews itself as a whole.
"use strict";
const SECONDS = 10;
const renewed = document.getElementById("renewed");

function links(part) {
  return new Set(Array.from(part.querySelectorAll("tbody a"), (a) => a.getAttribute("href")));
}

async function renew() {
  const part = document.querySelector("[data-live]");
  if (!part || document.hidden) return;
  let fresh;
  try {
    const answer = await fetch(location.href, { cache: "no-store", signal: AbortSignal.timeout(8000) });
    if (!answer.ok) throw new Error(answer.statusText);
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    fresh = page.querySelector("[data-live]");
    document.title = page.title;
    const heading = page.querySelector("h1");
    if (heading) document.querySelector("h1").textContent = heading.textContent;
  } catch {
    renewed.textContent = "· not renewed: no answer";
    return;
  }
  if (!fresh || fresh.innerHTML === part.innerHTML) {
    renewed.textContent = "";
    return;
  }
  const known = links(part);
  const news = [...links(fresh)].filter((link) => !known.has(link)).length;
  const focused = part.contains(document.activeElement) && document.activeElement.getAttribute("href");
  part.replaceChildren(...fresh.childNodes);
  if (focused) part.querySelector(`a[href="${CSS.escape(focused)}"]`)?.focus();
  renewed.textContent = news ? `· new events: ${news}` : "";
}

setInterval(renew, SECONDS * 1000);
document.addEventListener("visibilitychange", renew);

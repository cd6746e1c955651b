// Fetches the parts that the page does not need immediately, and handles links that leave the frame inside Airflow.
"use strict";

// Airflow's own choice of light or dark, which may differ from that of the system.
function followTheme() {
  if (window.parent === window) return;
  const airflow = window.parent.document.documentElement;
  const apply = () => {
    document.documentElement.style.colorScheme = window.parent.getComputedStyle(airflow).colorScheme;
  };
  apply();
  new MutationObserver(apply).observe(airflow, { attributes: true });
}

async function fetchInto(place, address, part) {
  try {
    const answer = await fetch(address, { credentials: "same-origin" });
    if (!answer.ok) throw new Error(`${answer.status} ${answer.statusText}`);
    const text = await answer.text();
    // Everything in it was escaped by the server, and the content policy lets no script in it run.
    const content = part ? new DOMParser().parseFromString(text, "text/html").querySelector(part).outerHTML : text;
    place.innerHTML = content;
  } catch (error) {
    place.textContent = `This part could not be loaded (${error.message}). Reload the page, or check the log of Airflow's API server.`;
  }
}

document.addEventListener("click", (event) => {
  const link = event.target.closest("a");
  if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
  const panel = document.getElementById("day");
  if (link.dataset.day !== undefined && panel) {
    event.preventDefault();
    // The panel is below the calendar, and its links are relative to the page of the day.
    fetchInto(panel, link.href, "[data-fragment]").then(() => {
      for (const inner of panel.querySelectorAll("a")) inner.href = new URL(inner.getAttribute("href"), link.href);
      panel.scrollIntoView({ block: "nearest" });
    });
  } else if (link.target === "_top" && window.top !== window) {
    // Airflow's frame lets no link inside it change the window; a link of the window itself may.
    event.preventDefault();
    const outer = window.top.document.createElement("a");
    outer.href = link.href;
    outer.click();
  }
});

document.addEventListener("change", (event) => {
  const form = event.target.closest("form[data-choose]");
  if (form) {
    const query = new URLSearchParams(new FormData(form));
    fetchInto(form.closest("[data-part]"), `${form.dataset.choose}?${query}`);
    return;
  }
  const address = event.target.dataset.choose;
  if (address) fetchInto(event.target.closest("[data-part]"), address + encodeURIComponent(event.target.value));
});

document.addEventListener("submit", (event) => event.preventDefault());

followTheme();
for (const place of document.querySelectorAll("[data-part]")) fetchInto(place, place.dataset.part);

// Reads the page again when the instance says that something has changed; without it the page is complete too.
"use strict";
const source = new EventSource("/live");
let reading = false;
source.addEventListener("change", async () => {
  if (reading) return;
  reading = true;
  try {
    const answer = await fetch(location.href);
    if (!answer.ok) return;
    const page = new DOMParser().parseFromString(await answer.text(), "text/html");
    const fresh = page.getElementById("live");
    const shown = document.getElementById("live");
    if (fresh && shown) shown.replaceWith(fresh);
  } finally {
    reading = false;
  }
});

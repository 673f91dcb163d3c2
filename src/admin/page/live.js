// Reads the page again when the instance says that something has changed; without it the page is complete too.
"use strict";
const source = new EventSource("/live");
let reading = false;
let changed = false;

// What somebody is using stays as it is: its focus, its selection, what is open and where it was scrolled to.
function inUse(section) {
  const selection = getSelection();
  return section.contains(document.activeElement) || (!selection.isCollapsed && selection.containsNode(section, true));
}

function replaceSections(fresh) {
  for (const section of fresh.querySelectorAll("#live > section")) {
    const title = section.getAttribute("aria-labelledby");
    const shown = document.querySelector(`#live > section[aria-labelledby="${title}"]`);
    if (!shown) {
      document.getElementById("live").append(section);
    } else if (shown.outerHTML !== section.outerHTML && !inUse(shown)) {
      for (const details of shown.querySelectorAll("details[open]")) {
        section.querySelector("details")?.setAttribute("open", details.getAttribute("open"));
      }
      shown.replaceWith(section);
    }
  }
}

async function read() {
  changed = true;
  if (reading) return;
  reading = true;
  try {
    while (changed) {
      changed = false;
      const answer = await fetch(location.href);
      if (!answer.ok) return;
      replaceSections(new DOMParser().parseFromString(await answer.text(), "text/html"));
    }
  } finally {
    reading = false;
  }
}

source.addEventListener("change", read);

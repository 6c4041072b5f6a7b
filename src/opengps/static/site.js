// Everything here is a convenience: each page works without it.
"use strict";

const FIRST_LOOK_MS = 300;
const LOOK_AGAIN_MS = 1000;
const LOOK_AGAIN_AT_MOST_MS = 8000;
let pause = FIRST_LOOK_MS;

// A running prediction: fetch the same page and take over what has changed.
async function follow() {
  const live = document.getElementById("live");
  if (live?.dataset.live !== "yes") return;
  if (document.hidden) {
    setTimeout(follow, LOOK_AGAIN_MS);
    return;
  }
  // Where nothing changes, as in a long queue, it asks less and less often.
  pause = Math.min(pause * 1.3, LOOK_AGAIN_AT_MOST_MS);
  try {
    const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
    if (answer.ok) {
      const page = new DOMParser().parseFromString(await answer.text(), "text/html");
      const fresh = page.getElementById("live");
      const busy = live.contains(document.activeElement) && document.activeElement.matches("input, select");
      if (fresh && !busy && fresh.innerHTML !== live.innerHTML) {
        pause = LOOK_AGAIN_MS;
        document.title = page.title;
        const place = [...live.querySelectorAll("a, button")].indexOf(document.activeElement);
        live.replaceWith(fresh);
        if (place >= 0) fresh.querySelectorAll("a, button")[place]?.focus({ preventScroll: true });
      }
    } else if (answer.status === 404) {
      location.reload();
      return;
    }
  } catch {
    // The server may be starting anew; the next look will tell.
  }
  setTimeout(follow, pause);
}

function sliders(viewer) {
  const panel = viewer.querySelector(".sliders");
  const inputs = [...panel.querySelectorAll("input[data-set]")];
  const show = (input) => {
    viewer.style.setProperty(input.dataset.set, input.value);
    input.nextElementSibling.value = Number(input.value).toFixed(2);
  };
  for (const input of inputs) input.addEventListener("input", () => show(input));
  panel.querySelector("[data-reset]").addEventListener("click", () => {
    for (const input of inputs) {
      input.value = input.defaultValue;
      show(input);
    }
  });
  inputs.forEach(show);
  panel.hidden = false;
}

function copier(button) {
  if (!navigator.clipboard) return;
  button.hidden = false;
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(button.closest("figure").querySelector("code").textContent);
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  });
}

// The default nuclei are shown at the size and scale of the model that is chosen.
function previews(form) {
  let shown = form.querySelector("input[data-crop]:checked")?.dataset.crop;
  form.addEventListener("change", ({ target }) => {
    if (!target.dataset.crop || target.dataset.crop === shown) return;
    shown = target.dataset.crop;
    for (const image of form.querySelectorAll("img[data-nucleus]")) {
      image.src = `${image.src.split("?")[0]}?model=${encodeURIComponent(target.value)}`;
    }
  });
}

document.querySelectorAll("[data-viewer]").forEach(sliders);
document.querySelectorAll("[data-copy]").forEach(copier);
document.querySelectorAll("form:has([data-nucleus])").forEach(previews);
document.querySelector("[data-focus]")?.focus();
// Nothing is sent twice by a second click.
document.addEventListener("submit", (event) => {
  const button = event.target.querySelector("button.primary");
  if (event.target.method === "post" && button) setTimeout(() => { button.disabled = true; });
});
addEventListener("pageshow", () => document.querySelectorAll("button.primary").forEach((b) => { b.disabled = false; }));
setTimeout(follow, FIRST_LOOK_MS);

// Comfort on top of a page that works without it: keys, a lightbox, adding, deleting, searching by picture.
"use strict";
(() => {
  const $ = (selector, from = document) => from.querySelector(selector);
  const $$ = (selector, from = document) => [...from.querySelectorAll(selector)];
  const root = document.documentElement, status = $("#status"), changes = "changes" in document.body.dataset;
  const token = $("meta[name=genret-token]").content;
  root.classList.add("js");

  // ---------------------------------------------------------------- saying what happens
  let hiding;
  function say(text, action, seconds = 8) {
    clearTimeout(hiding);
    status.replaceChildren(text);
    if (action) status.append(action);
    if (seconds) hiding = setTimeout(() => status.replaceChildren(), 1000 * seconds);
  }
  function button(text, onclick) {
    const made = document.createElement("button");
    made.type = "button"; made.textContent = text; made.onclick = onclick;
    return made;
  }
  async function ask(url, options = {}) {
    const answer = await fetch(url, { ...options, headers: { ...options.headers, "X-Genret-Token": token } });
    if (answer.ok) return answer;
    let message = `the server answered ${answer.status}`;
    const text = await answer.text();
    try { message = JSON.parse(text).error.message; }
    catch { message = $(".problem", new DOMParser().parseFromString(text, "text/html"))?.textContent ?? message; }
    throw new Error(message);
  }
  const failed = (error) => say(`That did not work: ${error.message}`, null, 15);

  // ---------------------------------------------------------------- lightbox
  const dialog = document.createElement("dialog"), inner = document.createElement("div"), bar = document.createElement("div");
  dialog.setAttribute("aria-label", "Picture"); bar.className = "bar";
  const previous = button("←", () => step(-1)), next = button("→", () => step(1)), close = button("✕", () => dialog.close());
  previous.setAttribute("aria-label", "Previous picture"); next.setAttribute("aria-label", "Next picture");
  close.setAttribute("aria-label", "Close");
  bar.append(previous, next, close); dialog.append(bar, inner); document.body.append(dialog);
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
  let shown = null, opener = null;
  dialog.addEventListener("close", () => {
    // the browser gives the focus back to where it was; the picture seen last is better, unless a key has moved it already
    if ([opener, document.body, null].includes(document.activeElement)) shown?.focus();
    inner.replaceChildren();
  });
  const links = () => $$("main a[data-id]");
  async function open(link) {
    try {
      const url = new URL(link.href);
      url.searchParams.set("part", "1");
      inner.innerHTML = await (await ask(url)).text(); // the server escapes all values; scripts in it do not run
    } catch (error) { failed(error); return; }
    shown = link;
    const picture = $(".picture img", inner);
    picture?.addEventListener("error", () => { if (picture.src !== picture.dataset.fallback) picture.src = picture.dataset.fallback; }, { once: true });
    previous.disabled = links().indexOf(link) <= 0;
    next.disabled = links().indexOf(link) >= links().length - 1;
    if (!dialog.open) { opener = document.activeElement; dialog.showModal(); }
  }
  function step(by) {
    const all = links(), to = all[all.indexOf(shown) + by];
    if (to) open(to);
  }
  document.addEventListener("click", (event) => {
    const link = event.target.closest?.("a[data-id]");
    if (link && !event.ctrlKey && !event.metaKey && !event.shiftKey && event.button === 0) { event.preventDefault(); open(link); }
    const remove = event.target.closest?.("[data-delete]");
    if (remove) forget(remove.dataset.delete);
  });

  // ---------------------------------------------------------------- keys
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const typing = event.target.matches?.("input, select, textarea");
    if (event.key === "/" && !typing && !dialog.open) { event.preventDefault(); $("#q")?.select(); $("#q")?.focus(); return; }
    if (event.key === "Escape" && typing) { event.target.blur(); return; }
    const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!by) return;
    if (dialog.open) { if (by[0]) { event.preventDefault(); step(by[0]); } return; }
    const cards = $$("#grid a");
    if (!cards.length || (typing && !(event.key === "ArrowDown" && event.target.id === "q"))) return;
    const at = cards.indexOf(document.activeElement);
    const wide = cards.filter((card) => card.offsetTop === cards[0].offsetTop).length;
    const to = at < 0 ? 0 : at + by[0] + wide * by[1];
    if (cards[to]) { event.preventDefault(); cards[to].focus(); }
    else if (at >= 0 && to < 0 && by[1]) { event.preventDefault(); $("#q")?.focus(); }
  });

  // ---------------------------------------------------------------- deleting
  async function forget(id) {
    try {
      const { undo } = await (await ask(`/v1/images/${id}`, { method: "DELETE" })).json();
      const card = $(`#grid a[data-id="${id}"]`)?.closest("li"), place = card && $$("#grid > li").indexOf(card);
      if (dialog.open) dialog.close();
      card?.remove();
      count(-1);
      $$("#grid a")[Math.min(place ?? 0, $$("#grid a").length - 1)]?.focus();
      say("Deleted from the index; the file stays.", button("Undo", async () => {
        try {
          const back = await (await ask("/v1/images/restore", {
            method: "POST", body: JSON.stringify({ undo }), headers: { "Content-Type": "application/json" },
          })).json();
          if (card) {
            const link = $("a", card);
            link.href = link.href.replace(`/image/${id}`, `/image/${back.id}`);
            link.dataset.id = back.id;
            $$("img", card).forEach((image) => { image.src = image.src.replace(`/images/${id}/`, `/images/${back.id}/`); });
            $("#grid").insertBefore(card, $$("#grid > li")[place] ?? null);
            link.focus();
          }
          count(1);
          say("It is back.");
        } catch (error) { failed(error); }
      }), 600);
    } catch (error) { failed(error); }
  }
  function count(by) { const found = $("#found"); if (found?.dataset.total) found.dataset.total = Number(found.dataset.total) + by; }

  // ---------------------------------------------------------------- adding
  async function walk(entry, into) {
    if (entry.isFile) into.push(await new Promise((good, bad) => entry.file(good, bad)));
    else if (entry.isDirectory) {
      const reader = entry.createReader();
      for (;;) { // folders come a hundred entries at a time
        const some = await new Promise((good, bad) => reader.readEntries(good, bad));
        if (!some.length) break;
        for (const one of some) await walk(one, into);
      }
    }
  }
  const PORTION = 50, PORTION_BYTES = 64 * 2 ** 20;
  function portions(files) {
    const made = []; let bytes = Infinity;
    for (const file of files) {
      if (bytes + file.size > PORTION_BYTES || made.at(-1).length >= PORTION) { made.push([]); bytes = 0; }
      made.at(-1).push(file); bytes += file.size;
    }
    return made;
  }
  async function add(files) {
    if (!files.length) { say("There is no picture among these."); return; }
    const bar = document.createElement("progress"); bar.max = files.length; bar.value = 0;
    bar.setAttribute("aria-label", "Pictures added");
    say(`Adding ${files.length} ${files.length === 1 ? "picture" : "pictures"} `, bar, 0);
    let added = 0, there = 0, done = 0; const skipped = [];
    try {
      for (const some of portions(files)) {
        const form = new FormData();
        for (const file of some) form.append("files", file, file.name);
        const reader = (await ask("/v1/index", { method: "POST", body: form })).body.pipeThrough(new TextDecoderStream()).getReader();
        for (let rest = ""; ;) {
          const { done: over, value } = await reader.read();
          if (over) break;
          const lines = (rest + value).split("\n"); rest = lines.pop();
          for (const event of lines.filter(Boolean).map(JSON.parse)) {
            if (event.event === "progress") bar.value = done + event.done;
            if (event.event === "error") throw new Error(event.message);
            if (event.event === "done") { added += event.added + event.updated; there += event.unchanged + event.moved; skipped.push(...event.skipped); }
          }
        }
        bar.value = done += some.length;
      }
    } catch (error) { failed(error); return; }
    const said = [`${added} added`];
    if (there) said.push(`${there} there already`);
    if (skipped.length) said.push(`${skipped.length} skipped (${skipped[0].reason})`);
    const show = document.createElement("a"); show.href = "/"; show.textContent = "Show";
    say(`${said.join(", ")}. `, added ? show : null, 60);
    watch.pause();
  }

  // ---------------------------------------------------------------- searching by picture
  async function like(file) {
    say("Searching …", null, 0);
    try {
      const form = new FormData();
      form.append("image", file, file.name || "picture");
      form.append("where", $("#where")?.value ?? "");
      const text = await (await ask("/picture", { method: "POST", body: form })).text();
      const found = $("#found", new DOMParser().parseFromString(text, "text/html"));
      $("#main").replaceChildren(found);
      say(""); $("#q").value = "";
      bind(found);
      $("#grid a")?.focus();
    } catch (error) { failed(error); }
  }

  // ---------------------------------------------------------------- dropping and pasting
  let depth = 0;
  const carries = (event) => event.dataTransfer?.types.includes("Files");
  document.addEventListener("dragenter", (event) => { if (carries(event)) { depth++; root.classList.add("dropping"); event.preventDefault(); } });
  document.addEventListener("dragover", (event) => { if (carries(event)) event.preventDefault(); });
  document.addEventListener("dragleave", () => { if (--depth <= 0) { depth = 0; root.classList.remove("dropping"); } });
  document.addEventListener("drop", async (event) => {
    if (!carries(event)) return;
    event.preventDefault();
    depth = 0; root.classList.remove("dropping");
    const onBox = event.target.closest?.(".search");
    const entries = [...event.dataTransfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
    const files = entries.length ? [] : [...event.dataTransfer.files];
    try { for (const entry of entries) await walk(entry, files); } catch (error) { failed(error); return; }
    const pictures = files.filter((file) => !file.name.startsWith("."));
    if (onBox && pictures[0]) like(pictures[0]);
    else if (changes) add(pictures);
    else if (pictures[0]) like(pictures[0]);
  });
  document.addEventListener("paste", (event) => {
    const file = [...(event.clipboardData?.files ?? [])].find((one) => one.type.startsWith("image/"));
    if (file) { event.preventDefault(); like(file); }
  });
  function bind(from) {
    $("#by-picture", from)?.addEventListener("change", (event) => { if (event.target.files[0]) like(event.target.files[0]); });
    $("#add", from)?.addEventListener("change", (event) => add([...event.target.files]));
  }
  bind(document);

  // ---------------------------------------------------------------- what others add, and a model that is loading
  const watch = {
    timer: 0,
    pause() { clearInterval(this.timer); },
    start() {
      const found = $("#found"), where = $("#where")?.value ?? "";
      if (!found?.dataset.total || where || new URLSearchParams(location.search).get("q")) return;
      this.timer = setInterval(async () => {
        if (document.hidden || dialog.open || !found.isConnected) return;
        try {
          const { total } = await (await ask("/v1/images?limit=1")).json();
          if (total === Number(found.dataset.total)) return;
          const show = document.createElement("a"); show.href = location.href; show.textContent = "Show";
          say("The pictures have changed. ", show, 0);
          this.pause();
        } catch { /* the server is away: the next turn asks again */ }
      }, 5000);
    },
  };
  watch.start();
  if ($("#loading")) setTimeout(() => location.reload(), 1500);
})();

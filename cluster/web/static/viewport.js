"use strict";
/* Zoom, pan and rectangles for pictures. A `.viewport` holds one `.stage`.
   data-zoom="here": the stage is scaled in the browser. data-zoom="server": the server draws what is asked for by events.
   With the class `drawing` a drag draws a rectangle instead of moving; it is sent as fractions of the stage. */
document.documentElement.lang = "en";
/* NiceGUI's pictures cannot be given a text of their own: they take that of their window. */
new MutationObserver(() => {
  for (const picture of document.querySelectorAll(".viewport img:not([alt])")) picture.alt = picture.closest(".viewport").getAttribute("aria-label");
}).observe(document.documentElement, { childList: true, subtree: true });
(() => {
  const looks = new WeakMap();
  const lookOf = (port) => looks.get(port) ?? looks.set(port, { scale: 1, x: 0, y: 0 }).get(port);
  const stageOf = (port) => port.querySelector(".stage");
  const portOf = (event) => (event.target instanceof Element ? event.target.closest(".viewport") : null);

  function apply(port) {
    const { scale, x, y } = lookOf(port);
    stageOf(port).style.transform = scale === 1 ? "" : `translate(${x}px, ${y}px) scale(${scale})`;
  }
  function fraction(port, event) {
    const box = stageOf(port).getBoundingClientRect();
    return { x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height };
  }
  function zoom(port, factor, at) {
    if (port.dataset.zoom === "server") {
      emitEvent("picture_zoom", { ...at, factor });
      return;
    }
    const look = lookOf(port);
    const stage = stageOf(port);
    const scale = Math.min(64, Math.max(1, look.scale * factor));
    const px = at.x * stage.offsetWidth, py = at.y * stage.offsetHeight;
    look.x += px * (look.scale - scale);
    look.y += py * (look.scale - scale);
    look.scale = scale;
    if (scale === 1) look.x = look.y = 0;
    apply(port);
  }
  document.addEventListener("wheel", (event) => {
    const port = portOf(event);
    if (!port || !stageOf(port)) return;
    event.preventDefault();
    zoom(port, Math.exp(-Math.sign(event.deltaY) * 0.35), fraction(port, event));
  }, { passive: false });

  /* The server is told how many pixels of the screen its picture has. */
  const sized = new WeakSet();
  let telling = 0;
  const sizes = new ResizeObserver((entries) => {
    const { width, height } = entries[entries.length - 1].contentRect;
    clearTimeout(telling);
    if (width && height) telling = setTimeout(() => emitEvent("picture_window", { width: width * devicePixelRatio, height: height * devicePixelRatio }), 150);
  });
  const watch = () => {
    for (const port of document.querySelectorAll(".viewport[data-zoom=server]")) {
      if (sized.has(port)) continue;
      sized.add(port);
      sizes.observe(port);
    }
  };
  new MutationObserver(watch).observe(document.documentElement, { childList: true, subtree: true });

  /* Two fingers zoom about the point between them; the server draws once they are lifted. */
  const fingers = new Map();
  let pinch = null;
  const spread = () => {
    const [one, other] = fingers.values();
    return { clientX: (one.clientX + other.clientX) / 2, clientY: (one.clientY + other.clientY) / 2, width: Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY) };
  };
  document.addEventListener("pointerdown", (event) => {
    const port = portOf(event);
    if (event.pointerType !== "touch" || !port || !stageOf(port)) return;
    fingers.set(event.pointerId, event);
    if (fingers.size !== 2) return;
    drag?.rubber?.remove();
    drag = null;
    const { width, ...middle } = spread();
    pinch = { port, width, at: fraction(port, middle), factor: 1 };
  });
  document.addEventListener("pointermove", (event) => {
    if (!fingers.has(event.pointerId)) return;
    fingers.set(event.pointerId, event);
    if (!pinch || fingers.size !== 2) return;
    const factor = spread().width / pinch.width;
    if (pinch.port.dataset.zoom === "server") stageOf(pinch.port).style.transform = `translate(${(1 - factor) * pinch.at.x * 100}%, ${(1 - factor) * pinch.at.y * 100}%) scale(${factor})`;
    else zoom(pinch.port, factor / pinch.factor, pinch.at);
    pinch.factor = factor;
  });
  const lift = (event) => {
    fingers.delete(event.pointerId);
    if (!pinch || fingers.size >= 2) return;
    const { port, at, factor } = pinch;
    pinch = null;
    if (port.dataset.zoom !== "server") return;
    stageOf(port).style.transform = "";
    if (Math.abs(factor - 1) > 0.02) zoom(port, factor, at);
  };
  document.addEventListener("pointerup", lift);
  document.addEventListener("pointercancel", lift);

  let drag = null;
  document.addEventListener("pointerdown", (event) => {
    const port = portOf(event);
    if (!port || !stageOf(port) || event.button !== 0 || fingers.size > 1) return;
    const from = fraction(port, event);
    drag = { port, from, startX: event.clientX, startY: event.clientY, ...lookOf(port), drawing: port.classList.contains("drawing"), rubber: null };
    event.preventDefault();
    port.focus({ preventScroll: true });
  });
  document.addEventListener("pointermove", (event) => {
    if (!drag) return;
    if (drag.drawing) {
      if (!drag.rubber) drag.rubber = stageOf(drag.port).appendChild(Object.assign(document.createElement("div"), { className: "rubber" }));
      const to = fraction(drag.port, event);
      const percent = (value) => `${100 * Math.min(1, Math.max(0, value))}%`;
      Object.assign(drag.rubber.style, {
        left: percent(Math.min(drag.from.x, to.x)), top: percent(Math.min(drag.from.y, to.y)),
        right: percent(1 - Math.max(drag.from.x, to.x)), bottom: percent(1 - Math.max(drag.from.y, to.y)),
      });
    } else if (drag.port.dataset.zoom === "server") {
      stageOf(drag.port).style.transform = `translate(${event.clientX - drag.startX}px, ${event.clientY - drag.startY}px)`;
    } else if (drag.scale > 1) {
      Object.assign(lookOf(drag.port), { x: drag.x + event.clientX - drag.startX, y: drag.y + event.clientY - drag.startY });
      apply(drag.port);
    }
  });
  document.addEventListener("pointerup", (event) => {
    if (!drag) return;
    const { port, from, drawing, rubber } = drag;
    drag = null;
    rubber?.remove();
    const to = fraction(port, event);
    const moved = Math.abs(to.x - from.x) > 0.005 || Math.abs(to.y - from.y) > 0.005;
    if (drawing && moved) {
      emitEvent("rectangle_drawn", { x0: from.x, y0: from.y, x1: to.x, y1: to.y });
    } else if (port.dataset.zoom === "server") {
      const box = stageOf(port).getBoundingClientRect();
      const shift = new DOMMatrix(getComputedStyle(stageOf(port)).transform);
      stageOf(port).style.transform = "";
      if (shift.e || shift.f) emitEvent("picture_move", { dx: -shift.e / box.width, dy: -shift.f / box.height });
    }
  });
  /* A `.brush` is a histogram: a drag over it chooses a range, a click takes the choice away; sent as fractions of its width. */
  let brush = null;
  const acrossOf = (element, event) => {
    const box = element.getBoundingClientRect();
    return Math.min(1, Math.max(0, (event.clientX - box.left) / box.width));
  };
  document.addEventListener("pointerdown", (event) => {
    const element = event.target instanceof Element ? event.target.closest(".brush") : null;
    if (!element || event.button !== 0) return;
    event.preventDefault();
    brush = { element, name: element.dataset.brush, from: acrossOf(element, event), rubber: Object.assign(document.createElement("div"), { className: "rubber" }) };
    element.appendChild(brush.rubber);
  });
  document.addEventListener("pointermove", (event) => {
    if (!brush) return;
    const to = acrossOf(brush.element, event);
    Object.assign(brush.rubber.style, { left: `${100 * Math.min(brush.from, to)}%`, right: `${100 * (1 - Math.max(brush.from, to))}%` });
  });
  document.addEventListener("pointerup", (event) => {
    if (!brush) return;
    const { element, name, from, rubber } = brush;
    brush = null;
    rubber.remove();
    emitEvent("brushed", { name, from, to: acrossOf(element, event) });
  });
  document.addEventListener("dblclick", (event) => {
    const port = portOf(event);
    if (!port || !stageOf(port)) return;
    if (port.dataset.zoom === "server") emitEvent("picture_whole", {});
    else { looks.delete(port); apply(port); }
  });
  const FRAME_KEYS = new Set(["ArrowLeft", "ArrowRight", "PageUp", "PageDown", "Home", "End", " "]);
  document.addEventListener("keydown", (event) => {
    const focused = document.activeElement ?? document.body;
    if (FRAME_KEYS.has(event.key) && (focused === document.body || focused.closest(".viewport[data-zoom=here]")) && document.querySelector(".viewport[data-zoom=here]")) {
      event.preventDefault(); // sliders, fields and buttons keep their own keys
      emitEvent("frame_key", { key: event.key });
      return;
    }
    const port = focused.closest(".viewport");
    if (!port || !stageOf(port)) return;
    const factor = { "+": 1.4, "=": 1.4, "-": 1 / 1.4 }[event.key];
    if (factor) { event.preventDefault(); zoom(port, factor, { x: 0.5, y: 0.5 }); }
  });
})();

// Builds elements. Text is only ever text: nothing on this page parses HTML.

const SVG = "http://www.w3.org/2000/svg";

/** An element; `props` are listeners (on…), properties that are booleans, and attributes. */
export function el(tag, props, ...children) {
  const drawn = tag.startsWith("svg:");
  const node = drawn
    ? document.createElementNS(SVG, tag.slice(4))
    : document.createElement(tag);
  for (const [name, value] of Object.entries(props ?? {})) set(node, name, value);
  append(node, children);
  return node;
}

function set(node, name, value) {
  if (value === null || value === undefined) return;
  if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
  else if (name === "value") node.value = value;
  else if (name === "dataset") Object.assign(node.dataset, value);
  else if (typeof value === "boolean") setFlag(node, name, value);
  else node.setAttribute(name, String(value));
}

function setFlag(node, name, value) {
  if (name in node) node[name] = value;
  else if (value) node.setAttribute(name, "");
}

/** Append nodes, texts, numbers and lists of them; what is missing is left out. */
function append(node, children) {
  for (const child of children) {
    if (child === null || child === undefined || child === false) continue;
    if (Array.isArray(child)) append(node, child);
    else node.append(child instanceof Node ? child : String(child));
  }
}

/** Replace all that is in `node`. */
export function fill(node, ...children) {
  node.replaceChildren();
  append(node, children);
  return node;
}

/** A button that shows an icon and says its name to who cannot see it. */
export function iconButton(name, label, onclick, props) {
  const { class: kind = "", ...rest } = props ?? {};
  return el(
    "button",
    { type: "button", class: `icon-btn ${kind}`, title: label, "aria-label": label, onclick, ...rest },
    icon(name),
  );
}

// Strokes on a field of 24 by 24.
const STROKES = {
  plus: "M12 5v14M5 12h14",
  search: "M10.5 17a6.5 6.5 0 1 0 0-13 6.5 6.5 0 0 0 0 13zM15.5 15.5 20 20",
  menu: "M4 7h16M4 12h16M4 17h10",
  send: "M12 19V5M6 11l6-6 6 6",
  stop: "M7 7h10v10H7z",
  copy: "M9 9h10v11H9zM6 15H5V4h10v2",
  check: "M5 12.5 10 17 19 7",
  edit: "M4 20h4L19 9l-4-4L4 16zM13 7l4 4",
  refresh: "M19 12a7 7 0 1 1-2-5M19 4v4h-4",
  branch: "M7 4v16M7 15c0-5 10-2 10-8M14.5 7 17 4.5 19.5 7",
  left: "M14 6l-6 6 6 6",
  right: "M10 6l6 6-6 6",
  down: "M6 10l6 6 6-6",
  bottom: "M12 5v14M6 13l6 6 6-6",
  more: "M6 12h.01M12 12h.01M18 12h.01",
  sliders: "M4 8h9M17 8h3M4 16h3M11 16h9M15 6v4M9 14v4",
  agent: "M6 9h12v9H6zM12 9V5M9 13h.01M15 13h.01M3 13v2M21 13v2",
  download: "M12 4v11M7 11l5 5 5-5M5 20h14",
  upload: "M12 16V5M7 9l5-5 5 5M5 20h14",
  trash: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13",
  theme: "M12 4a8 8 0 1 0 0 16zM12 4a8 8 0 0 1 0 16",
  globe: "M12 4a8 8 0 1 0 0 16 8 8 0 0 0 0-16zM4 12h16M12 4c-5 5-5 11 0 16 5-5 5-11 0-16",
  close: "M6 6l12 12M18 6 6 18",
  help: "M12 20a8 8 0 1 0 0-16 8 8 0 0 0 0 16zM9.8 10a2.2 2.2 0 1 1 3.2 2c-.7.4-1 .8-1 1.5M12 16.5h.01",
  gauge: "M5 18a8.5 8.5 0 1 1 14 0M12 14l4-5",
  spark: "M12 4l1.8 5.2L19 11l-5.2 1.8L12 18l-1.8-5.200L5 11l5.2-1.8z",
  tool: "M14 6a4 4 0 0 1 5 5l-2 .5L15 9.5 14.5 8zM14.5 9.5 5 19",
  leave: "M10 5H5v14h5M14 8l4 4-4 4M9 12h9",
  warning: "M12 4 3 19h18zM12 10v4M12 16.5h.01",
};

export function icon(name) {
  return el(
    "svg:svg",
    { viewBox: "0 0 24 24", class: name === "more" ? "icon dots" : "icon", "aria-hidden": "true", focusable: "false" },
    el("svg:path", { d: STROKES[name] }),
  );
}

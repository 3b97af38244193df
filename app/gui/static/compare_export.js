// A comparison as files: its table as CSV, its pictures as one PNG.

import { make } from "./api.js";

/** Let the browser save a blob under a name. */
export function save(blob, name) {
  const url = URL.createObjectURL(blob);
  make("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

/** Rows of cells as CSV; a cell that a spreadsheet would take for a formula is kept as text. */
export function csv(rows) {
  const cell = (value) => {
    const text = String(value ?? "");
    const plain = /^[=+\-@\t]/.test(text) && Number.isNaN(Number(text)) ? `'${text}` : text;
    return /[",\n\r]/.test(plain) ? `"${plain.replaceAll('"', '""')}"` : plain;
  };
  return `${rows.map((row) => row.map(cell).join(",")).join("\n")}\n`;
}

/** Loaded pictures beside each other with their titles above, as a canvas; the longest side of each at most 1024. */
export function figure(pictures) {
  const [first] = pictures;
  const scale = Math.min(1, 1024 / Math.max(first.width, first.height)) * Math.max(1, Math.floor(256 / first.width));
  const [width, height, gap, band] = [Math.round(first.width * scale), Math.round(first.height * scale), 8, 30];
  const canvas = make("canvas", { width: pictures.length * (width + gap) + gap, height: height + band + gap });
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingEnabled = scale < 1;
  context.imageSmoothingQuality = "high";
  context.font = "15px system-ui, sans-serif";
  context.textBaseline = "middle";
  for (const [k, picture] of pictures.entries()) {
    const left = gap + k * (width + gap);
    context.fillStyle = "#111";
    context.fillText(fitting(context, picture.title, width), left, band / 2 + 2);
    context.drawImage(picture.bitmap, left, band, width, height);
  }
  return canvas;
}

function fitting(context, text, width) {
  let shown = text;
  while (shown.length > 1 && context.measureText(shown).width > width) shown = `${shown.slice(0, -2)}…`;
  return shown;
}

// The small picture of a blur kernel.

/** Draw what `advise` sends: {width, height, side, bytes in base64}; nothing for null. */
export function drawKernel(canvas, caption, kernel) {
  if (!kernel) return clear(canvas, caption, "");
  const bytes = Uint8Array.from(atob(kernel.bytes), (c) => c.charCodeAt(0));
  const pixels = new ImageData(kernel.width, kernel.height);
  bytes.forEach((value, k) => pixels.data.set([value, value, value, 255], 4 * k));
  canvas.width = kernel.width;
  canvas.height = kernel.height;
  canvas.getContext("2d").putImageData(pixels, 0, 0);
  const said = `How a point is spread, ${kernel.side} px wide.`;
  canvas.setAttribute("aria-label", said);
  caption.textContent = said;
}

/** Draw a picture that the person chose as the kernel. */
export async function drawKernelFile(canvas, caption, file) {
  if (!file) return clear(canvas, caption, "White is strong.");
  try {
    const bitmap = await createImageBitmap(file);
    canvas.width = Math.min(96, bitmap.width);
    canvas.height = Math.max(1, Math.round((canvas.width * bitmap.height) / bitmap.width));
    canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
    canvas.setAttribute("aria-label", `The kernel in ${file.name}`);
    caption.textContent = `${bitmap.width} × ${bitmap.height} px.`;
  } catch {
    clear(canvas, caption, "No preview of this file.");
  }
}

function clear(canvas, caption, text) {
  canvas.width = canvas.height = 96;
  canvas.setAttribute("aria-label", "The blur kernel");
  caption.textContent = text;
}

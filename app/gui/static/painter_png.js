// Masks as PNG files of one bit a pixel, exact at the full size of the picture. White is measured, black is missing.

const CRC = new Uint32Array(256).map((_, n) => {
  for (let k = 0; k < 8; k++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});

/**
 * The PNG of a mask (1 is missing) as a Blob. Browsers have an encoder for canvases only, which have a largest size
 * and four bytes a pixel.
 *
 * Source: PNG, third edition (W3C 2025), sections 5, 7 and 11.
 */
export async function encodeMask(data, width, height) {
  const rowBytes = Math.ceil(width / 8);
  const rows = new Uint8Array((rowBytes + 1) * height); // each begins with its filter: none
  for (let y = 0, i = 0; y < height; y++) {
    const start = y * (rowBytes + 1) + 1;
    for (let x = 0; x < width; x++, i++) if (!data[i]) rows[start + (x >> 3)] |= 128 >> (x & 7);
  }
  const stream = new Blob([rows]).stream().pipeThrough(new CompressionStream("deflate"));
  const packed = new Uint8Array(await new Response(stream).arrayBuffer());
  const header = new Uint8Array(13);
  new DataView(header.buffer).setUint32(0, width);
  new DataView(header.buffer).setUint32(4, height);
  header[8] = 1; // bits; the rest is 0: grey, deflate, filters, not interlaced
  const signature = new Uint8Array([137, 80, 78, 71, 13, 10, 26, 10]);
  return new Blob([signature, chunk("IHDR", header), chunk("IDAT", packed), chunk("IEND", new Uint8Array())], {
    type: "image/png",
  });
}

function chunk(name, body) {
  const bytes = new Uint8Array(body.length + 12);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, body.length);
  for (let k = 0; k < 4; k++) bytes[4 + k] = name.charCodeAt(k);
  bytes.set(body, 8);
  let crc = 0xffffffff;
  for (let k = 4; k < body.length + 8; k++) crc = CRC[(crc ^ bytes[k]) & 255] ^ (crc >>> 8);
  view.setUint32(body.length + 8, ~crc);
  return bytes;
}

/**
 * The mask in a picture file, or at an address: `{data, width, height}`, 1 where it is darker than mid-grey.
 * An Error has a sentence for people.
 */
export async function decodeMask(source, name) {
  const asStored = { imageOrientation: "none", premultiplyAlpha: "none", colorSpaceConversion: "none" };
  let picture;
  try {
    picture = await createImageBitmap(typeof source === "string" ? await loaded(source) : source, asStored);
  } catch {
    throw new Error(`"${name}" is not an image I can read. Use a PNG, JPEG, BMP or WebP of black and white.`);
  }
  const { width, height } = picture;
  if (width * height > 100e6) throw new Error(`Mask is ${width} × ${height}, which is too large to load here.`);
  const data = new Uint8Array(width * height);
  const strip = Math.max(1, Math.min(height, Math.floor((1 << 20) / width)));
  const canvas = new OffscreenCanvas(width, strip);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  for (let top = 0; top < height; top += strip) {
    const rows = Math.min(strip, height - top);
    context.clearRect(0, 0, width, strip);
    context.drawImage(picture, 0, top, width, rows, 0, 0, width, rows);
    const pixels = context.getImageData(0, 0, width, rows).data;
    for (let i = 0, at = top * width; i < pixels.length; i += 4, at++) {
      data[at] = pixels[i] + pixels[i + 1] + pixels[i + 2] > 382 ? 0 : 1;
    }
  }
  picture.close();
  return { data, width, height };
}

/** A loaded image element. (Scripts may not fetch data URLs under our policy, images may.) */
export async function loaded(url) {
  const image = new Image();
  image.src = url;
  await image.decode();
  return image;
}

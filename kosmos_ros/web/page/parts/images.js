// Copyright 2026 Kosmos ROS maintainers
// SPDX-License-Identifier: Apache-2.0
//
// Pictures of described frames: fetched once, the newest kept; and small ones with their boxes.

const KEPT = 64; // pictures

const kept = new Map(); // address -> promise of an image

// Resolves to the picture of a look, or to null if the server no longer has it. The look then has no
// picture, so that nobody asks for it again. `width`: of a smaller picture.
export function load(look, width) {
  const address = width ? small(look, width) : look.picture;
  const found = kept.get(address) ?? fetched(look, address);
  kept.delete(address); // the order of the map is that of use
  kept.set(address, found);
  if (kept.size > KEPT) kept.delete(kept.keys().next().value);
  return found;
}

async function fetched(look, address) {
  const image = new Image();
  image.src = address;
  try {
    await image.decode();
    return image;
  } catch {
    kept.delete(address);
    lose(look, address);
    return null;
  }
}

// The server no longer has the picture at an address, which may be that of a look.
export function lose(look, address) {
  if (look.picture && address.startsWith(look.picture)) look.picture = null;
}

export const small = (look, width = 160) => (look.picture ? `${look.picture}?width=${width}` : null);

// Draws a frame with its boxes into a canvas that is as large as it is shown. The frame fills it.
export async function thumbnail(canvas, look, marks, width = 160) {
  const address = small(look, width);
  canvas.wanted = address;
  const image = address && (await load(look, width));
  if (!image || canvas.wanted !== address) return;
  const d = Math.max(devicePixelRatio, 1);
  const across = Math.round(canvas.clientWidth * d), down = Math.round(canvas.clientHeight * d);
  if (!across || !down) return;
  if (canvas.width !== across || canvas.height !== down) [canvas.width, canvas.height] = [across, down];
  const frame = { width: look.width || image.naturalWidth, height: look.height || image.naturalHeight };
  const scale = Math.max(across / frame.width, down / frame.height);
  const left = (across - frame.width * scale) / 2, top = (down - frame.height * scale) / 2;
  const context = canvas.getContext("2d", { alpha: false });
  context.imageSmoothingQuality = "high";
  context.drawImage(image, left, top, frame.width * scale, frame.height * scale);
  const style = getComputedStyle(canvas);
  context.lineWidth = Math.max(1, Math.round(1.25 * d));
  for (const { box, colour } of marks) {
    context.strokeStyle = style.getPropertyValue(`--box${colour}`);
    context.strokeRect(left + box[0] * scale, top + box[1] * scale, (box[2] - box[0]) * scale, (box[3] - box[1]) * scale);
  }
}

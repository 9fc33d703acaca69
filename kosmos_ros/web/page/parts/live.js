// Copyright 2026 Kosmos ROS maintainers
// SPDX-License-Identifier: Apache-2.0
//
// Live video: images of the camera between two looks. Off by default, because each image costs the
// robot work. The boxes belong to the described frame, so they are hidden while the image differs.

const PAUSE = 60; // ms until the next request, if there is no newer image
const LONG = 1000; // ms until the next request, if the page is hidden or the server refuses
const GRID = [32, 24]; // cells in which two images are compared
const SAME = 20; // largest difference of a cell's brightness (of 255) between equal images

const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

export class Live {
  // `described` returns the picture of the described frame, or null. `show` takes
  // {bitmap, differs}, or null when the video ends.
  constructor(described, show) {
    Object.assign(this, { described, show });
    this.camera = null; // name of the camera whose video runs
    this.grey = { frame: null, cells: null };
  }

  // Plays the video of a camera, or ends it: null.
  play(camera) {
    if (camera === this.camera) return;
    this.camera = camera;
    this.stop?.abort();
    this.show(null);
    if (camera === null) return;
    this.stop = new AbortController();
    this.#run(camera, this.stop.signal);
  }

  async #run(camera, signal) {
    let after = "";
    while (!signal.aborted) {
      const image = document.hidden ? null : await newer(camera, after, signal);
      if (signal.aborted) {
        image?.bitmap?.close();
        return;
      }
      if (image?.bitmap) {
        after = image.number;
        this.show({ bitmap: image.bitmap, differs: this.#differs(image.bitmap) });
        await new Promise(requestAnimationFrame);
      } else await wait(image ? PAUSE : LONG);
    }
  }

  #differs(bitmap) {
    const frame = this.described();
    if (!frame) return true;
    if (this.grey.frame !== frame) this.grey = { frame, cells: cells(frame) };
    const now = cells(bitmap);
    return this.grey.cells.some((cell, i) => Math.abs(cell - now[i]) > SAME);
  }
}

// The newest image of a camera; an empty object if its number is `after`; null: none.
async function newer(camera, after, signal) {
  const address = `/live/${encodeURIComponent(camera) || "_"}.jpg${after && `?after=${after}`}`;
  try {
    const response = await fetch(address, { signal });
    if (response.status === 204) return {};
    if (!response.ok) return null;
    return { bitmap: await createImageBitmap(await response.blob()), number: response.headers.get("X-Number") ?? "" };
  } catch {
    return null; // no connection, or no image that this browser can read
  }
}

const small = document.createElement("canvas");
[small.width, small.height] = GRID;
const context = small.getContext("2d", { willReadFrequently: true });

// The brightness of an image's cells, 0 to 255.
function cells(image) {
  context.imageSmoothingQuality = "high";
  context.drawImage(image, 0, 0, ...GRID);
  const { data } = context.getImageData(0, 0, ...GRID);
  return Array.from({ length: GRID[0] * GRID[1] }, (_, i) => (data[4 * i] + data[4 * i + 1] + data[4 * i + 2]) / 3);
}

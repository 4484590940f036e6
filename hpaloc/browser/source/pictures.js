// Pictures of cells and fields: grey planes decoded once, composed into colours as often as a slider moves.

import { bytes, load } from './deliver.js'

// Decoded sheets in memory, 1.8 MB each.
const KEPT_SHEETS = 120
const KEPT_FIELDS = 4

const CHANNELS = [
  { key: 'red', name: 'Microtubules' },
  { key: 'green', name: 'Protein' },
  { key: 'blue', name: 'Nucleus' },
  { key: 'yellow', name: 'Endoplasmic reticulum' },
]

/** The channels that a collection has, with their number `i` among all. */
export const channelsOf = (table) =>
  CHANNELS.map((channel, i) => ({ ...channel, i })).filter(({ key }) => !table.lacks?.includes(key))

// Magenta and green are told apart with any colour vision; red and green are not.
export const PALETTES = {
  safe: { name: 'Magenta and green', colours: [[255, 40, 255], [60, 255, 60], [70, 120, 255], [255, 190, 60]] },
  hpa: { name: 'Red, green, blue, yellow', colours: [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0]] },
}

async function grey(base64) {
  const bitmap = await createImageBitmap(new Blob([bytes(base64)], { type: 'image/jpeg' }))
  const canvas = document.createElement('canvas')
  canvas.width = bitmap.width
  canvas.height = bitmap.height
  const context = canvas.getContext('2d', { willReadFrequently: true })
  context.drawImage(bitmap, 0, 0)
  bitmap.close()
  const pixels = context.getImageData(0, 0, canvas.width, canvas.height).data
  const plane = new Uint8Array(pixels.length / 4)
  for (let i = 0; i < plane.length; i++) plane[i] = pixels[4 * i]
  return { plane, width: canvas.width, height: canvas.height }
}

/** A map of promises that forgets what was used longest ago. */
class Recent {
  constructor(most, make) {
    this.most = most
    this.make = make
    this.kept = new Map()
  }
  get(key) {
    let value = this.kept.get(key)
    if (value) this.kept.delete(key)
    else {
      value = { ready: null, promise: null }
      value.promise = this.make(key).then(
        (made) => (value.ready = made),
        (error) => {
          this.kept.delete(key)
          throw error
        },
      )
    }
    this.kept.set(key, value)
    if (this.kept.size > this.most) this.kept.delete(this.kept.keys().next().value)
    return value
  }
}

const name = (number) => String(number).padStart(5, '0')

const sheets = new Recent(KEPT_SHEETS, async (path) => grey((await load(path)).image))
const fields = new Recent(KEPT_FIELDS, async (path) => {
  const page = await load(path)
  const { plane } = await grey(page.image)
  const size = page.width * page.height
  return {
    width: page.width,
    height: page.height,
    cells: page.cells,
    outlines: page.outlines,
    planes: [0, 1, 2, 3].map((i) => plane.subarray(i * size, (i + 1) * size)),
  }
})

/** Return {ready, promise} of the planes of one cell: (plane, y, x) lie `sheet`-wise, see `spritePlanes`. */
export const sheetOf = (table, cell) =>
  sheets.get(`${table.name}/${table.shards[table.shard[cell]]}/sprites/${name(table.sheet[cell])}.js`)

export const fieldOf = (table, field) =>
  fields.get(`${table.name}/${table.shards[table.fieldShard[field]]}/fields/${name(table.fields.picture[field])}.js`)

/** Cut the planes of one cell out of its decoded sheet. */
export function spritePlanes({ plane, width }, place, { columns, rows, size, planes }) {
  const top = Math.floor(place / columns) * size
  const left = (place % columns) * size
  return planes.map((_, i) => {
    const cut = new Uint8Array(size * size)
    for (let y = 0; y < size; y++) {
      const start = (i * rows * size + top + y) * width + left
      cut.set(plane.subarray(start, start + size), y * size)
    }
    return cut
  })
}

/** Add up the colours that are on, each times its brightness, into ImageData. */
export function compose(planes, width, height, look) {
  const image = new ImageData(width, height)
  const out = image.data
  const on = []
  look.channels.forEach((channel, i) => {
    if (!channel.on) return
    const lut = PALETTES[look.palette].colours[i].map((part) => {
      const values = new Float32Array(256)
      for (let v = 0; v < 256; v++) values[v] = Math.min(255, v * channel.gain) * (part / 255)
      return values
    })
    on.push({ plane: planes[i], lut })
  })
  for (let i = 0, o = 0; i < width * height; i++, o += 4) {
    let r = 0
    let g = 0
    let b = 0
    for (let c = 0; c < on.length; c++) {
      const v = on[c].plane[i]
      const lut = on[c].lut
      r += lut[0][v]
      g += lut[1][v]
      b += lut[2][v]
    }
    out[o] = r
    out[o + 1] = g
    out[o + 2] = b
    out[o + 3] = 255
  }
  return image
}

/** Lay the activation map over a picture: dark violet where a place says nothing for the class, yellow where it says most. */
export function lightUp(image, activation) {
  const out = image.data
  for (let i = 0; i < activation.length; i++) {
    const value = activation[i] / 255
    // Inferno's middle: dark violet to orange to pale yellow, readable with any colour vision.
    const heat = [255 * Math.min(1, 1.6 * value), 255 * Math.max(0, 1.5 * value - 0.45), 255 * (value < 0.5 ? 0.45 * value : 0.1)]
    for (let c = 0; c < 3; c++) out[4 * i + c] = 0.45 * out[4 * i + c] + 0.55 * heat[c]
  }
  return image
}

/** Draw the edge of the cell's own mask in white. */
export function edge(image, mask, size) {
  const out = image.data
  for (let y = 1; y < size - 1; y++)
    for (let x = 1; x < size - 1; x++) {
      const i = y * size + x
      if (mask[i] > 127 && (mask[i - 1] <= 127 || mask[i + 1] <= 127 || mask[i - size] <= 127 || mask[i + size] <= 127)) {
        for (let c = 0; c < 3; c++) out[4 * i + c] = 0.25 * out[4 * i + c] + 190
      }
    }
  return image
}

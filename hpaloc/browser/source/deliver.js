// Data come as scripts, since a page opened from disk may not read other files: each calls hpaloc.deliver(text).

const waiting = new Map()

window.hpaloc = {
  deliver(text) {
    const key = document.currentScript.dataset.key
    waiting.get(key)?.(text)
  },
}

/** Run the script at `path` and return the JSON that it delivers. */
export function load(path) {
  return new Promise((resolve, reject) => {
    const script = document.createElement('script')
    let text = null
    waiting.set(path, (delivered) => (text = delivered))
    const end = () => {
      waiting.delete(path)
      script.remove()
      if (text === null) reject(new Error(`${path} cannot be read`))
      else resolve(JSON.parse(text))
    }
    script.dataset.key = path
    script.onload = script.onerror = end
    script.src = path
    document.head.append(script)
  })
}

export function bytes(base64) {
  const text = atob(base64)
  const array = new Uint8Array(text.length)
  for (let i = 0; i < text.length; i++) array[i] = text.charCodeAt(i)
  return array
}

const TYPES = {
  uint8: Uint8Array,
  uint16: Uint16Array,
  int16: Int16Array,
  uint32: Uint32Array,
  int32: Int32Array,
  float32: Float32Array,
}

export const unpack = ({ type, data }) => new TYPES[type](bytes(data).buffer)

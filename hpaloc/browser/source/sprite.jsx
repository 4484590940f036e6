import { useEffect, useRef } from 'preact/hooks'
import { compose, edge, lightUp, sheetOf, spritePlanes } from './pictures.js'

const GREY = { palette: 'hpa' }

/** The small picture of one cell; `only` shows one of its colours alone, in grey. */
export function Sprite({ about, table, cell, look, side, only = null, activation = look.activation }) {
  const canvas = useRef(null)
  const drawn = useRef(0)
  useEffect(() => {
    const turn = ++drawn.current
    const { size } = about.sheet
    const draw = (sheet) => {
      if (turn !== drawn.current || !canvas.current) return
      const planes = spritePlanes(sheet, table.place[cell], about.sheet)
      const [mask, map] = planes.slice(4)
      let image
      if (only === null) image = compose(planes, size, size, look)
      else {
        const one = planes[only]
        const channels = [0, 1, 2].map(() => ({ on: true, gain: look.channels[only].gain }))
        image = compose([one, one, one], size, size, { ...GREY, channels })
      }
      if (activation && only === null) lightUp(image, map)
      if (look.outlines) edge(image, mask, size)
      canvas.current.getContext('2d').putImageData(image, 0, 0)
      canvas.current.dataset.drawn = cell
    }
    const sheet = sheetOf(table, cell)
    if (sheet.ready) draw(sheet.ready)
    else sheet.promise.then(draw, () => canvas.current?.classList.add('lost'))
  }, [table, cell, look, only, activation])
  return <canvas ref={canvas} width={about.sheet.size} height={about.sheet.size} style={{ width: `${side}px`, height: `${side}px` }} aria-hidden="true" />
}

import { useEffect, useLayoutEffect, useMemo, useRef, useState } from 'preact/hooks'
import { select } from 'd3-selection'
import { zoom as d3zoom, zoomIdentity } from 'd3-zoom'
import { compose, fieldOf } from './pictures.js'
import { describe } from './gallery.jsx'

/** A round length in µm that takes about a fifth of `width` pixels. */
function scaleBar(width, micrometresPerPixel) {
  const target = (width / 5) * micrometresPerPixel
  const power = 10 ** Math.floor(Math.log10(target))
  const length = [5, 2, 1].find((step) => step * power <= target) * power
  return { length, pixels: length / micrometresPerPixel }
}

/** One field with the outlines of its cells. */
export function FieldView({ about, table, field, setField, look, picked, open, onOpen, onToggle }) {
  const canvas = useRef(null)
  const zoomer = useRef(null)
  const [size, setSize] = useState({ width: 800, height: 600 })
  const [view, setView] = useState(zoomIdentity)
  const [page, setPage] = useState(null)
  const [problem, setProblem] = useState(null)
  const [over, setOver] = useState(null)
  const { fields } = table

  useEffect(() => {
    let current = true
    setProblem(null)
    setOver(null)
    const found = fieldOf(table, field)
    if (found.ready) setPage(found.ready)
    else {
      setPage(null)
      found.promise.then(
        (ready) => current && setPage(ready),
        (error) => current && setProblem(error.message),
      )
    }
    return () => (current = false)
  }, [table, field])

  useLayoutEffect(() => {
    const seen = new ResizeObserver(([entry]) => {
      const { width, height } = entry.contentRect
      if (width && height) setSize({ width: Math.floor(width), height: Math.floor(height) })
    })
    seen.observe(canvas.current.parentElement)
    zoomer.current = d3zoom()
      .scaleExtent([1, 24])
      .on('zoom', (event) => setView(event.transform))
    return () => seen.disconnect()
  }, [])
  useEffect(() => {
    zoomer.current.extent([[0, 0], [size.width, size.height]]).translateExtent([[0, 0], [size.width, size.height]])
    select(canvas.current).call(zoomer.current).on('dblclick.zoom', null)
  }, [size])
  useEffect(() => {
    select(canvas.current).call(zoomer.current.transform, zoomIdentity)
  }, [field])

  const picture = useMemo(() => {
    if (!page) return null
    const element = document.createElement('canvas')
    element.width = page.width
    element.height = page.height
    element.getContext('2d').putImageData(compose(page.planes, page.width, page.height, look), 0, 0)
    return element
  }, [page, look.channels, look.palette])

  const cellOf = useMemo(() => new Map(table.cellsOfField[field].map((cell) => [table.cell[cell], cell])), [table, field])
  const paths = useMemo(() => {
    if (!page) return []
    return page.cells.flatMap((id, k) => {
      const cell = cellOf.get(id)
      const points = page.outlines[k]
      if (cell === undefined || points.length < 6) return []
      const path = new Path2D()
      for (let i = 0; i < points.length; i += 2) path[i ? 'lineTo' : 'moveTo'](points[i] / 10, points[i + 1] / 10)
      path.closePath()
      return [{ cell, path, left: Math.min(...points.filter((_, i) => i % 2 === 0)) / 10, top: Math.min(...points.filter((_, i) => i % 2)) / 10 }]
    })
  }, [page, cellOf])

  const fit = page ? Math.min(size.width / page.width, size.height / page.height) : 1
  const offset = page ? [(size.width - page.width * fit) / 2, (size.height - page.height * fit) / 2] : [0, 0]

  useEffect(() => {
    const ratio = window.devicePixelRatio || 1
    const element = canvas.current
    element.width = size.width * ratio
    element.height = size.height * ratio
    const context = element.getContext('2d')
    context.scale(ratio, ratio)
    if (!picture) return
    context.translate(view.x, view.y)
    context.scale(view.k, view.k)
    context.translate(...offset)
    context.scale(fit, fit)
    const zoomed = fit * view.k
    context.imageSmoothingEnabled = zoomed < 3
    context.imageSmoothingQuality = 'high'
    context.drawImage(picture, 0, 0)
    if (look.outlines) {
      for (const { cell, path } of paths) {
        const strong = cell === open || picked.has(cell)
        context.lineWidth = (strong ? 3 : 1.4) / zoomed
        // A dark line beneath keeps the outline readable on bright structures.
        context.strokeStyle = 'rgba(0, 0, 0, 0.6)'
        context.lineWidth *= 2
        context.stroke(path)
        context.lineWidth /= 2
        context.strokeStyle = cell === open ? '#fff' : picked.has(cell) ? '#ffb000' : cell === over ? '#fff' : about.locations[table.likeliest[cell]].colour
        if (table.agrees[cell] === 0 && !strong) context.setLineDash([7 / zoomed, 4 / zoomed])
        context.stroke(path)
        context.setLineDash([])
      }
    }
    // The scale bar stays in its corner.
    context.setTransform(ratio, 0, 0, ratio, 0, 0)
    const { length, pixels } = scaleBar(size.width, (fields.pixel_size[field] * fields.width[field]) / page.width / zoomed)
    context.fillStyle = 'rgba(0, 0, 0, 0.55)'
    context.fillRect(size.width - pixels - 32, size.height - 46, pixels + 24, 36)
    context.fillStyle = '#fff'
    context.fillRect(size.width - pixels - 20, size.height - 22, pixels, 4)
    context.font = '13px system-ui, sans-serif'
    context.textAlign = 'center'
    context.fillText(`${length} µm`, size.width - 20 - pixels / 2, size.height - 29)
    element.dataset.drawn = field
  }, [picture, paths, view, size, look.outlines, picked, open, over])

  const hit = (event) => {
    if (!page) return null
    const box = canvas.current.getBoundingClientRect()
    const x = (view.invertX(event.clientX - box.left) - offset[0]) / fit
    const y = (view.invertY(event.clientY - box.top) - offset[1]) / fit
    const context = canvas.current.getContext('2d')
    context.save()
    context.resetTransform()
    const found = paths.find(({ path }) => context.isPointInPath(path, x, y))
    context.restore()
    return found ? found.cell : null
  }
  const press = (event) => {
    const to = select(canvas.current)
    const steps = { ArrowLeft: [60, 0], ArrowRight: [-60, 0], ArrowUp: [0, 60], ArrowDown: [0, -60] }
    const of = table.cellsOfField[field]
    if (event.key === '+' || event.key === '=') to.call(zoomer.current.scaleBy, 1.5)
    else if (event.key === '-') to.call(zoomer.current.scaleBy, 1 / 1.5)
    else if (event.key === '0') to.call(zoomer.current.transform, zoomIdentity)
    else if (event.key in steps) to.call(zoomer.current.translateBy, steps[event.key][0] / view.k, steps[event.key][1] / view.k)
    else if (event.key === 'n' || event.key === 'p') {
      const at = of.indexOf(open)
      // From a cell of another field one comes to the first or to the last.
      onOpen(of[event.key === 'n' ? (at + 1) % of.length : (at > 0 ? at : of.length) - 1])
    } else if (event.key === ' ' && open !== null) onToggle(open)
    else if (event.key === '[') setField(Math.max(0, field - 1))
    else if (event.key === ']') setField(Math.min(fields.id.length - 1, field + 1))
    else return
    event.preventDefault()
    event.stopPropagation()
  }
  return (
    <div class="field">
      <div class="bar">
        <button type="button" id="previous-field" aria-label="Previous field" disabled={field === 0} onClick={() => setField(field - 1)}>
          ‹
        </button>
        <select id="field" aria-label="Field" value={field} onChange={(event) => setField(+event.target.value)}>
          {fields.id.map((id, i) => (
            <option key={i} value={i}>
              {id}
            </option>
          ))}
        </select>
        <button
          type="button"
          id="next-field"
          aria-label="Next field"
          disabled={field === fields.id.length - 1}
          onClick={() => setField(field + 1)}
        >
          ›
        </button>
        <span class="quiet">
          {[fields.antibody[field], fields.cell_line[field], `${table.cellsOfField[field].length} cells`]
            .filter(Boolean)
            .join(' · ')}
        </span>
        <span class="zoom">
          <button type="button" id="zoom-out" aria-label="Zoom out" onClick={() => select(canvas.current).call(zoomer.current.scaleBy, 1 / 1.5)}>
            −
          </button>
          <b id="zoom">{Math.round(100 * view.k)} %</b>
          <button type="button" id="zoom-in" aria-label="Zoom in" onClick={() => select(canvas.current).call(zoomer.current.scaleBy, 1.5)}>
            +
          </button>
          <button type="button" onClick={() => select(canvas.current).call(zoomer.current.transform, zoomIdentity)}>
            Fit
          </button>
        </span>
      </div>
      <div class="canvas">
        {problem && (
          <p class="waiting" role="alert">
            {problem}
          </p>
        )}
        <canvas
          ref={canvas}
          id="field-canvas"
          tabIndex={0}
          role="img"
          aria-label={`Field ${fields.id[field]} with ${table.cellsOfField[field].length} cells; n and p go through its cells, arrows move, plus and minus zoom`}
          onKeyDown={press}
          onPointerMove={(event) => setOver(hit(event))}
          onPointerLeave={() => setOver(null)}
          onClick={(event) => {
            const cell = hit(event)
            if (cell === null) return
            onOpen(cell)
            if (event.ctrlKey || event.metaKey || event.shiftKey) onToggle(cell)
          }}
        />
        {over !== null && <p class="over">{describe(about, table, over)}</p>}
      </div>
    </div>
  )
}

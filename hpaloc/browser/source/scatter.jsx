import { useEffect, useLayoutEffect, useMemo, useRef, useState } from 'preact/hooks'
import { polygonContains } from 'd3-polygon'
import { quadtree } from 'd3-quadtree'
import { select } from 'd3-selection'
import { zoom as d3zoom, zoomIdentity } from 'd3-zoom'
import { describe } from './gallery.jsx'

const HEIGHT = 264
const MARGIN = 14

// Cividis, from few to many: the same to every colour vision.
const CIVIDIS = [[0, 34, 78], [53, 69, 108], [102, 105, 112], [148, 142, 119], [200, 184, 102], [254, 232, 56]]
const cividis = (t) => {
  const at = Math.min(0.9999, Math.max(0, t)) * (CIVIDIS.length - 1)
  const [a, b] = [CIVIDIS[Math.floor(at)], CIVIDIS[Math.floor(at) + 1]]
  return `rgb(${a.map((part, i) => Math.round(part + (at % 1) * (b[i] - part)))})`
}

const BY = { location: 'location', confidence: 'confidence', agreement: 'agreement', truth: 'truth' }
const STEPS = 16
// Orange and blue of Okabe and Ito, told apart with any colour vision.
const AGREEMENT_COLOURS = ['#E69F00', '#56B4E9', '#777']

function colouring(about, table, by) {
  if (by === 'confidence')
    return { of: (i) => Math.min(STEPS - 1, Math.floor(table.confidence[i] * STEPS)), colours: Array.from({ length: STEPS }, (_, s) => cividis((s + 0.5) / STEPS)) }
  if (by === 'agreement') return { of: (i) => table.agrees[i], colours: AGREEMENT_COLOURS }
  const colours = [...about.locations.map((location) => location.colour), '#777']
  if (by === 'truth')
    return { of: (i) => (table.truthBits[i] ? 31 - Math.clz32(table.truthBits[i] & -table.truthBits[i]) : colours.length - 1), colours }
  return { of: (i) => table.likeliest[i], colours }
}

/** What the colours mean, where the list of locations does not say it. */
function Legend({ by, table }) {
  if (by === 'confidence')
    return (
      <>
        confidence 0 % <i class="scale" style={{ background: `linear-gradient(to right, ${[0, 0.2, 0.4, 0.6, 0.8, 1].map(cividis)})` }} /> 100 %
      </>
    )
  if (by === 'agreement')
    return [...new Set(table.agrees)]
      .sort()
      .map((kind) => (
        <span key={kind}>
          <i class="swatch" style={{ background: AGREEMENT_COLOURS[kind] }} /> {['differs from the truth', 'agrees', 'no truth'][kind]}{' '}
        </span>
      ))
  return 'colours as in the list of locations'
}

/** The 2-D map of the embeddings; what passes the filters is in colour, a lasso selects. */
export function Scatter({ about, table, passing, picked, open, onOpen, onPick }) {
  const canvas = useRef(null)
  const zoomer = useRef(null)
  const [width, setWidth] = useState(420)
  const [by, setBy] = useState('location')
  const [lasso, setLasso] = useState(false)
  const [loop, setLoop] = useState([])
  const [view, setView] = useState(zoomIdentity)
  const [over, setOver] = useState(null)

  const scale = (Math.min(width, HEIGHT) - 2 * MARGIN) / 2
  const xOf = (i) => view.applyX(width / 2 + table.map[2 * i] * scale * (width / Math.min(width, HEIGHT)) * 0.98)
  const yOf = (i) => view.applyY(HEIGHT / 2 + table.map[2 * i + 1] * scale)

  useLayoutEffect(() => {
    const seen = new ResizeObserver(([entry]) => setWidth(Math.max(200, Math.floor(entry.contentRect.width))))
    seen.observe(canvas.current.parentElement)
    zoomer.current = d3zoom()
      .scaleExtent([1, 60])
      .on('zoom', (event) => setView(event.transform))
    return () => seen.disconnect()
  }, [])
  useEffect(() => {
    zoomer.current
      .extent([[0, 0], [width, HEIGHT]])
      .translateExtent([[0, 0], [width, HEIGHT]])
      // With the lasso, dragging draws and only the wheel zooms.
      .filter((event) => (lasso || event.shiftKey ? event.type === 'wheel' : !event.button))
    select(canvas.current).call(zoomer.current).on('dblclick.zoom', null)
  }, [width, lasso])
  useEffect(() => {
    select(canvas.current).call(zoomer.current.transform, zoomIdentity)
  }, [table])

  const tree = useMemo(
    () =>
      quadtree()
        .x((i) => table.map[2 * i])
        .y((i) => table.map[2 * i + 1])
        .addAll(Array.from(passing)),
    [table, passing],
  )

  useEffect(() => {
    const start = performance.now()
    const ratio = window.devicePixelRatio || 1
    const element = canvas.current
    element.width = width * ratio
    element.height = HEIGHT * ratio
    const context = element.getContext('2d')
    context.scale(ratio, ratio)
    context.clearRect(0, 0, width, HEIGHT)
    const dot = Math.max(1.5, Math.min(6, (90 / Math.sqrt(table.n)) * Math.sqrt(view.k)))
    const half = dot / 2
    const inSight = (x, y) => x > -dot && y > -dot && x < width + dot && y < HEIGHT + dot
    if (passing.length < table.n) {
      context.fillStyle = '#343a42'
      for (let i = 0; i < table.n; i++) {
        const [x, y] = [xOf(i), yOf(i)]
        if (inSight(x, y)) context.fillRect(x - half, y - half, dot, dot)
      }
    }
    const { of, colours } = colouring(about, table, by)
    // One colour after the other: a change of colour costs more than a point.
    const groups = colours.map(() => [])
    for (const i of passing) groups[of(i)].push(i)
    groups.forEach((cells, c) => {
      context.fillStyle = colours[c]
      for (const i of cells) {
        const [x, y] = [xOf(i), yOf(i)]
        if (inSight(x, y)) context.fillRect(x - half, y - half, dot, dot)
      }
    })
    context.lineWidth = 1.5
    context.strokeStyle = '#ffb000'
    for (const i of picked.keys()) {
      context.beginPath()
      context.arc(xOf(i), yOf(i), half + 2, 0, 7)
      context.stroke()
    }
    if (open !== null) {
      context.strokeStyle = '#fff'
      context.lineWidth = 2
      context.beginPath()
      context.arc(xOf(open), yOf(open), half + 5, 0, 7)
      context.stroke()
    }
    if (loop.length > 1) {
      context.strokeStyle = '#fff'
      context.setLineDash([4, 3])
      context.beginPath()
      loop.forEach(([x, y], i) => (i ? context.lineTo(x, y) : context.moveTo(x, y)))
      context.closePath()
      context.stroke()
    }
    performance.measure('map', { start, end: performance.now() })
  }, [table, passing, picked, open, view, width, by, loop])

  const place = (event) => {
    const box = canvas.current.getBoundingClientRect()
    return [event.clientX - box.left, event.clientY - box.top]
  }
  const find = ([x, y], reach = 8) => {
    const along = scale * (width / Math.min(width, HEIGHT)) * 0.98
    const found = tree.find((view.invertX(x) - width / 2) / along, (view.invertY(y) - HEIGHT / 2) / scale)
    return found !== undefined && Math.hypot(xOf(found) - x, yOf(found) - y) <= reach ? found : null
  }
  const drawing = useRef(null)
  const down = (event) => {
    if (!(lasso || event.shiftKey) || event.button) return
    drawing.current = [place(event)]
    canvas.current.setPointerCapture(event.pointerId)
  }
  const move = (event) => {
    if (drawing.current) {
      drawing.current = [...drawing.current, place(event)]
      setLoop(drawing.current)
    } else setOver(find(place(event)))
  }
  const up = () => {
    const drawn = drawing.current
    drawing.current = null
    setLoop([])
    if (drawn?.length > 2) onPick(Array.from(passing).filter((i) => polygonContains(drawn, [xOf(i), yOf(i)])))
  }
  const press = (event) => {
    const to = select(canvas.current)
    const steps = { ArrowLeft: [40, 0], ArrowRight: [-40, 0], ArrowUp: [0, 40], ArrowDown: [0, -40] }
    if (event.key === '+' || event.key === '=') to.call(zoomer.current.scaleBy, 1.5)
    else if (event.key === '-') to.call(zoomer.current.scaleBy, 1 / 1.5)
    else if (event.key === '0') to.call(zoomer.current.transform, zoomIdentity)
    else if (event.key in steps) to.call(zoomer.current.translateBy, steps[event.key][0] / view.k, steps[event.key][1] / view.k)
    else return
    event.preventDefault()
  }

  return (
    <section class="map" aria-label="Map of the embeddings">
      <div class="bar">
        <h2>
          Map <span>({table.map_is} of the embeddings)</span>
        </h2>
        <label>
          Colour by{' '}
          <select id="colour-by" value={by} onChange={(event) => setBy(event.target.value)}>
            {Object.entries(BY)
              .filter(([key]) => table.truth_is !== 'none' || !['agreement', 'truth'].includes(key))
              .map(([key, text]) => (
                <option key={key} value={key}>
                  {text}
                </option>
              ))}
          </select>
        </label>
        <button type="button" id="lasso" aria-pressed={lasso} onClick={() => setLasso(!lasso)}>
          Lasso
        </button>
      </div>
      <div class="canvas">
        <canvas
          ref={canvas}
          id="map"
          tabIndex={0}
          role="img"
          aria-label={`${passing.length} cells; arrows move, plus and minus zoom, 0 shows all`}
          style={{ width: '100%', height: `${HEIGHT}px`, cursor: lasso ? 'crosshair' : 'grab' }}
          onPointerDown={down}
          onPointerMove={move}
          onPointerUp={up}
          onPointerLeave={() => setOver(null)}
          onKeyDown={press}
          onClick={(event) => {
            const found = !lasso && !event.shiftKey && find(place(event))
            if (found !== null && found !== false) onOpen(found)
          }}
        />
        <p class="over">{over === null ? <Legend by={by} table={table} /> : describe(about, table, over)}</p>
      </div>
    </section>
  )
}

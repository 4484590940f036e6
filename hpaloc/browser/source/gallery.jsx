import { useEffect, useLayoutEffect, useMemo, useRef, useState } from 'preact/hooks'
import { Sprite } from './sprite.jsx'

const CAPTION = 30
const GAP = 8
// Rows beyond the edge that are drawn already, for a smooth scroll.
const AHEAD = 1

/** What a person is told of a cell in one line. */
export function describe(about, table, cell) {
  const location = about.locations[table.likeliest[cell]].name
  const truth = { 0: ', not as the truth says', 1: ', as the truth says', 2: '' }[table.agrees[cell]]
  const called = table.label_sets[table.called[cell]].map((label) => about.locations[label].name)
  const call = called.length === 1 && called[0] === location ? '' : `, called ${called.join(' and ') || 'nothing'}`
  return `${location}, ${Math.round(100 * table.confidence[cell])} %${call}${truth}; field ${table.fields.id[table.field[cell]]}, cell ${table.cell[cell]}`
}

/** The cells that pass the filters; only those in sight are in the document. */
export function Gallery({ about, table, order, look, picked, open, onOpen, onToggle, onReset }) {
  const box = useRef(null)
  const [size, setSize] = useState({ width: 800, height: 600 })
  const [top, setTop] = useState(0)
  const cellWidth = look.thumb + GAP
  const cellHeight = look.thumb + CAPTION + GAP
  const across = Math.max(1, Math.floor((size.width - GAP) / cellWidth))
  const rows = Math.ceil(order.length / across)
  const at = useMemo(() => {
    const places = new Int32Array(table.n).fill(-1)
    order.forEach((cell, i) => (places[cell] = i))
    return places
  }, [order])

  useLayoutEffect(() => {
    const seen = new ResizeObserver(() => setSize({ width: box.current.clientWidth, height: box.current.clientHeight }))
    seen.observe(box.current)
    return () => seen.disconnect()
  }, [])
  useEffect(() => {
    box.current.scrollTop = 0
    setTop(0)
  }, [order])

  const first = Math.max(0, Math.floor(top / cellHeight) - AHEAD)
  const last = Math.min(rows, Math.ceil((top + size.height) / cellHeight) + AHEAD)
  const visible = Array.from(order.subarray(first * across, last * across))

  const reveal = (place) => {
    const row = Math.floor(place / across) * cellHeight
    const { scrollTop, clientHeight } = box.current
    if (row < scrollTop) box.current.scrollTop = row
    else if (row + cellHeight > scrollTop + clientHeight) box.current.scrollTop = row + cellHeight - clientHeight
  }
  useEffect(() => {
    if (open !== null && at[open] >= 0) reveal(at[open])
  }, [open])

  const press = (event) => {
    const page = across * Math.max(1, Math.floor(size.height / cellHeight))
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -across, ArrowDown: across, PageUp: -page, PageDown: page }
    const here = open === null ? -1 : at[open]
    if (event.key === ' ' && here >= 0) onToggle(open)
    else if (event.key === 'Enter' && here >= 0) onOpen(open, 'field')
    else if (event.key === 'Home') onOpen(order[0])
    else if (event.key === 'End') onOpen(order[order.length - 1])
    else if (event.key in steps) onOpen(order[Math.max(0, Math.min(order.length - 1, here < 0 ? 0 : here + steps[event.key]))])
    else return
    event.preventDefault()
  }

  return (
    <div
      ref={box}
      id="gallery"
      class="gallery"
      role="listbox"
      aria-multiselectable="true"
      aria-label="Cells"
      aria-activedescendant={open !== null && at[open] >= 0 ? `cell-${open}` : undefined}
      tabIndex={0}
      onScroll={(event) => setTop(event.target.scrollTop)}
      onKeyDown={order.length ? press : undefined}
    >
      {order.length === 0 && (
        <p class="waiting">
          No cell passes these filters.{' '}
          <button type="button" id="reset-here" onClick={onReset}>
            Show all cells
          </button>
        </p>
      )}
      <div class="spacer" style={{ height: `${rows * cellHeight + GAP}px` }}>
        {visible.map((cell, i) => {
          const place = first * across + i
          const wrong = table.agrees[cell] === 0
          return (
            <div
              key={cell}
              id={`cell-${cell}`}
              data-cell={cell}
              role="option"
              aria-selected={picked.has(cell)}
              aria-label={describe(about, table, cell)}
              title={describe(about, table, cell)}
              class={`card${picked.has(cell) ? ' picked' : ''}${cell === open ? ' open' : ''}`}
              style={{
                width: `${look.thumb}px`,
                left: `${GAP + (place % across) * cellWidth}px`,
                top: `${GAP + Math.floor(place / across) * cellHeight}px`,
              }}
              onClick={(event) => {
                onOpen(cell)
                if (event.ctrlKey || event.metaKey || event.shiftKey) onToggle(cell)
              }}
              onDblClick={() => onOpen(cell, 'field')}
            >
              <Sprite about={about} table={table} cell={cell} look={look} side={look.thumb} />
              <button
                type="button"
                class="pick"
                tabIndex={-1}
                aria-label="Select"
                onClick={(event) => {
                  event.stopPropagation()
                  onToggle(cell)
                }}
              >
                {picked.has(cell) ? '✓' : '+'}
              </button>
              <p style={{ borderColor: about.locations[table.likeliest[cell]].colour }}>
                <span class={table.calledBits[cell] & (1 << table.likeliest[cell]) ? '' : 'unsure'}>
                  {about.locations[table.likeliest[cell]].short}
                </span>
                <b>
                  {wrong && <abbr title="not as the truth says">≠&thinsp;</abbr>}
                  {Math.round(100 * table.confidence[cell])}
                </b>
              </p>
            </div>
          )
        })}
      </div>
    </div>
  )
}

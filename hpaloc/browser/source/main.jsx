import { render } from 'preact'
import { useCallback, useEffect, useMemo, useState } from 'preact/hooks'
import { load } from './deliver.js'
import { exported, filtered, loadTable, NO_FILTER, sorted, SORTS } from './table.js'
import { Controls } from './controls.jsx'
import { Gallery } from './gallery.jsx'
import { FieldView } from './field.jsx'
import { Scatter } from './scatter.jsx'
import { CellPanel } from './cell.jsx'
import { Help } from './help.jsx'

const FIRST_LOOK = {
  palette: 'safe',
  channels: [true, true, true, false].map((on) => ({ on, gain: 1 })),
  outlines: true,
  activation: false,
  thumb: 96,
}

const NONE = new Map()

/** What of the collection this page does not show. */
function leftOut({ fields, cells, rejected }) {
  const parts = []
  if (fields) parts.push(`${fields.toLocaleString('en')} more fields with ${cells.toLocaleString('en')} cells are not in this browser`)
  if (rejected) parts.push(`${rejected.toLocaleString('en')} fields were rejected`)
  return parts.length ? ` (${parts.join('; ')})` : ''
}

/** Time a step, so that a test or a person can see what took long. */
function timed(name, work) {
  const start = performance.now()
  const result = work()
  performance.measure(name, { start, end: performance.now() })
  return result
}

function save(name, text) {
  const link = document.createElement('a')
  link.href = URL.createObjectURL(new Blob([text], { type: 'text/csv' }))
  link.download = name
  link.click()
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000)
}

function App({ about }) {
  const [name, setName] = useState(about.collections[0].name)
  const [table, setTable] = useState(null)
  const [problem, setProblem] = useState(null)
  const [filter, setFilter] = useState(NO_FILTER)
  const [sort, setSort] = useState('location')
  const [likeTo, setLikeTo] = useState(null)
  const [pickedOf, setPickedOf] = useState(new Map())
  const [label, setLabel] = useState('')
  const [open, setOpen] = useState(null)
  const [view, setView] = useState('gallery')
  const [field, setField] = useState(0)
  const [look, setLook] = useState(FIRST_LOOK)
  const [help, setHelp] = useState(false)
  // Each collection keeps its selection while another is looked at.
  const picked = (table && pickedOf.get(table.name)) ?? NONE
  const setPicked = useCallback(
    (change) => setPickedOf((before) => new Map(before).set(table.name, change(before.get(table.name) ?? NONE))),
    [table],
  )

  useEffect(() => {
    let current = true
    setTable(null)
    setProblem(null)
    loadTable(name).then(
      (loaded) => {
        if (!current) return
        setFilter(NO_FILTER)
        setLikeTo(null)
        setField(0)
        setView('gallery')
        setTable(loaded)
        setOpen(loaded.n ? 0 : null)
      },
      (error) => current && setProblem(error.message),
    )
    return () => (current = false)
  }, [name])

  const usesPicked = filter.picked === 'picked' ? picked : null
  const passing = useMemo(() => table && timed('filter', () => filtered(table, filter, picked)), [table, filter, usesPicked])
  const order = useMemo(
    () => table && timed('sort', () => sorted(table, passing, sort, likeTo)),
    [table, passing, sort, sort === 'similar' ? likeTo : null],
  )

  const toggle = useCallback(
    (cell) =>
      setPicked((before) => {
        const after = new Map(before)
        if (after.has(cell)) after.delete(cell)
        else after.set(cell, label)
        return after
      }),
    [label, setPicked],
  )
  const pickAll = useCallback(
    (cells) => setPicked((before) => new Map([...before, ...Array.from(cells, (cell) => [cell, label])])),
    [label, setPicked],
  )
  const show = useCallback(
    (cell, where) => {
      setOpen(cell)
      if (where === 'field') setView('field')
      setField(table.field[cell])
    },
    [table],
  )
  const changeLook = (part) => setLook((before) => ({ ...before, ...part }))

  useEffect(() => {
    const press = (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return
      const typing = event.target.closest('input:not([type=range]):not([type=checkbox]):not([type=radio]), select, textarea')
      // The open help is a dialog: it closes itself, and what lies behind it stays as it is.
      if (typing || event.target.closest('dialog')) return
      const actions = {
        1: () => flip(0),
        2: () => flip(1),
        3: () => flip(2),
        4: () => flip(3),
        o: () => setLook((before) => ({ ...before, outlines: !before.outlines })),
        v: () => setLook((before) => ({ ...before, activation: !before.activation })),
        c: () => setLook((before) => ({ ...before, palette: before.palette === 'safe' ? 'hpa' : 'safe' })),
        g: () => setView('gallery'),
        f: () => setView('field'),
        '/': () => document.getElementById('filter-field').focus(),
        '?': () => setHelp(true),
      }
      const flip = (which) =>
        setLook((before) => ({
          ...before,
          channels: before.channels.map((channel, i) => (i === which ? { ...channel, on: !channel.on } : channel)),
        }))
      const action = actions[event.key]
      if (action) {
        event.preventDefault()
        action()
      }
    }
    window.addEventListener('keydown', press)
    return () => window.removeEventListener('keydown', press)
  }, [])

  const labels = [...new Set(picked.values())]
  // Without a cell there is no field to show.
  const looking = table?.fields.id.length ? view : 'gallery'
  return (
    <div class="app">
      <header>
        <h1>
          hpaloc <span>cell browser</span>
        </h1>
        <label>
          Collection{' '}
          <select id="collection" value={name} onChange={(event) => setName(event.target.value)}>
            {about.collections.map((one) => (
              <option key={one.name} value={one.name}>
                {one.name} ({one.n.toLocaleString('en')} cells)
              </option>
            ))}
          </select>
        </label>
        <div class="tray" role="group" aria-label="Selection">
          <strong id="picked-count">{picked.size.toLocaleString('en')} selected</strong>
          <label>
            as{' '}
            <input
              id="label"
              list="location-names"
              placeholder="as predicted"
              value={label}
              maxLength={80}
              onInput={(event) => setLabel(event.target.value)}
            />
          </label>
          <datalist id="location-names">
            {about.locations.map((location) => (
              <option key={location.name} value={location.name} />
            ))}
          </datalist>
          <button
            type="button"
            disabled={!picked.size}
            title="Give the label to every selected cell; cells selected from now on get it too"
            onClick={() => setPicked((before) => new Map([...before.keys()].map((cell) => [cell, label])))}
          >
            Label all
          </button>
          <button
            type="button"
            id="export"
            class="primary"
            disabled={!picked.size}
            onClick={() => save(`${table.name}-cells.csv`, exported(table, picked, about.locations))}
          >
            Export CSV
          </button>
          <button type="button" id="clear" disabled={!picked.size} onClick={() => setPicked(() => NONE)}>
            Clear
          </button>
          {labels.length > 1 && <span class="quiet">{labels.length} labels</span>}
        </div>
        <button type="button" class="help" aria-label="Keys and help" onClick={() => setHelp(true)}>
          ?
        </button>
      </header>
      {problem && (
        <p class="waiting" role="alert">
          {problem}. Keep the whole folder of the browser together.
        </p>
      )}
      {!problem && !table && <p class="waiting">Reading {name}…</p>}
      {table && (
        <main>
          <Controls
            about={about}
            table={table}
            filter={filter}
            setFilter={setFilter}
            look={look}
            changeLook={changeLook}
            shown={passing.length}
          />
          <section class="middle">
            <div class="bar">
              <div role="tablist" aria-label="View" class="tabs">
                {['gallery', 'field'].map((one) => (
                  <button
                    type="button"
                    role="tab"
                    key={one}
                    id={`tab-${one}`}
                    aria-selected={looking === one}
                    disabled={one === 'field' && !table.fields.id.length}
                    onClick={() => setView(one)}
                  >
                    {one === 'gallery' ? 'Cells' : 'Field'}
                  </button>
                ))}
              </div>
              <p id="shown" aria-live="polite">
                <strong>{passing.length.toLocaleString('en')}</strong> of {table.n.toLocaleString('en')} cells
                <span class="quiet">{leftOut(table.left_out)}</span>
              </p>
              {looking === 'gallery' && (
                <>
                  <Sort sort={sort} setSort={(value) => (setLikeTo(open), setSort(value))} table={table} />
                  <button type="button" id="pick-all" disabled={!order.length} onClick={() => pickAll(order)}>
                    Select these
                  </button>
                </>
              )}
            </div>
            {looking === 'gallery' ? (
              <Gallery
                about={about}
                table={table}
                order={order}
                look={look}
                picked={picked}
                open={open}
                onOpen={show}
                onToggle={toggle}
                onReset={() => setFilter(NO_FILTER)}
              />
            ) : (
              <FieldView
                about={about}
                table={table}
                field={field}
                setField={setField}
                look={look}
                picked={picked}
                open={open}
                onOpen={show}
                onToggle={toggle}
              />
            )}
          </section>
          <aside>
            <Scatter about={about} table={table} passing={passing} picked={picked} open={open} onOpen={show} onPick={pickAll} />
            {open !== null && (
              <CellPanel
                about={about}
                table={table}
                cell={open}
                look={look}
                picked={picked}
                onOpen={show}
                onToggle={toggle}
                onSimilar={() => {
                  setLikeTo(open)
                  setSort('similar')
                  setView('gallery')
                }}
              />
            )}
          </aside>
        </main>
      )}
      {help && <Help onClose={() => setHelp(false)} table={table} />}
    </div>
  )
}

function Sort({ sort, setSort, table }) {
  return (
    <label>
      Sort by{' '}
      <select id="sort" value={sort} onChange={(event) => setSort(event.target.value)}>
        {Object.entries(SORTS)
          .filter(([key]) => table.truth_is !== 'none' || !['truth', 'doubt'].includes(key))
          .map(([key, text]) => (
            <option key={key} value={key}>
              {text}
            </option>
          ))}
      </select>
    </label>
  )
}

/** Lighten a colour until it can be read on black. */
function onBlack(hex) {
  let parts = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16))
  while (0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2] < 95) parts = parts.map((part) => part + 0.1 * (255 - part))
  return `rgb(${parts.map(Math.round)})`
}

load('about.js').then(
  (about) => {
    for (const location of about.locations) location.colour = onBlack(location.colour)
    const root = document.getElementById('app')
    root.replaceChildren()
    render(<App about={about} />, root)
  },
  (error) => {
    document.querySelector('#app .waiting').textContent = `${error.message}. Keep the whole folder of the browser together.`
  },
)

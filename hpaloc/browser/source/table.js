// The table of one collection's cells, and what is asked of it: filters, orders, exports.

import { load, unpack } from './deliver.js'

export async function loadTable(name) {
  const page = await load(`${name}/table.js`)
  const table = { ...page }
  for (const [key, packed] of Object.entries(page.cells)) table[key] = unpack(packed)
  const n = page.n
  const classes = n ? table.p.length / n : 19
  table.classes = classes
  table.confidence = new Float32Array(n)
  // 1 agrees, 0 differs, 2 nothing to compare with.
  table.agrees = new Uint8Array(n)
  // How much surer of a wrong location than of the true ones: what to look at first.
  table.doubt = new Float32Array(n)
  const masks = page.label_sets.map((set) => set.reduce((bits, label) => bits | (1 << label), 0))
  table.calledBits = Uint32Array.from(table.called, (set) => masks[set])
  table.truthBits = Uint32Array.from(table.truth, (set) => (set < 0 ? 0 : masks[set]))
  for (let i = 0; i < n; i++) {
    // Told by the table: the probabilities here are rounded, and two of them may have become one.
    const best = table.likeliest[i]
    let truest = 0
    for (let c = 0; c < classes; c++) if (table.truthBits[i] & (1 << c)) truest = Math.max(truest, table.p[i * classes + c])
    table.confidence[i] = table.p[i * classes + best] / 255
    table.agrees[i] = table.truthBits[i] ? (table.truthBits[i] >> best) & 1 : 2
    table.doubt[i] = table.agrees[i] === 0 ? table.confidence[i] - truest / 255 : -1
  }
  // The location that most cells of a field are called; a cell of another one stands out in its field.
  const votes = new Uint32Array(page.fields.id.length * classes)
  for (let i = 0; i < n; i++) votes[table.field[i] * classes + table.likeliest[i]]++
  table.fieldLocation = page.fields.id.map((_, f) => {
    let best = 0
    for (let c = 1; c < classes; c++) if (votes[f * classes + c] > votes[f * classes + best]) best = c
    return best
  })
  table.fieldShard = new Uint16Array(page.fields.id.length)
  table.cellsOfField = page.fields.id.map(() => [])
  for (let i = 0; i < n; i++) {
    table.fieldShard[table.field[i]] = table.shard[i]
    table.cellsOfField[table.field[i]].push(i)
  }
  table.antibodies = [...new Set(page.fields.antibody)].filter(Boolean).sort()
  return table
}

export const NO_FILTER = {
  locations: 0,
  truth: 0,
  agreement: 'all',
  low: 0,
  high: 1,
  field: '',
  antibody: '',
  picked: 'all',
}

export const AGREEMENTS = {
  all: 'All cells',
  agrees: 'As the truth says',
  differs: 'Not as the truth says',
  stands_out: 'Not as most of its field',
}

const matches = (values, text) => {
  const wanted = text.trim().toLowerCase()
  if (!wanted) return null
  return Uint8Array.from(values, (value) => (value.toLowerCase().includes(wanted) ? 1 : 0))
}

/** Return the indices of the cells that pass, in the order of the table. */
export function filtered(table, filter, picked) {
  const ofField = matches(table.fields.id, filter.field)
  const ofAntibody = matches(table.fields.antibody, filter.antibody)
  const found = new Uint32Array(table.n)
  let n = 0
  for (let i = 0; i < table.n; i++) {
    if (filter.locations && !(table.calledBits[i] & filter.locations)) continue
    if (filter.truth && !(table.truthBits[i] & filter.truth)) continue
    if (table.confidence[i] < filter.low || table.confidence[i] > filter.high) continue
    if (filter.agreement === 'agrees' && table.agrees[i] !== 1) continue
    if (filter.agreement === 'differs' && table.agrees[i] !== 0) continue
    if (filter.agreement === 'stands_out' && table.likeliest[i] === table.fieldLocation[table.field[i]]) continue
    if (ofField && !ofField[table.field[i]]) continue
    if (ofAntibody && !ofAntibody[table.field[i]]) continue
    if (filter.picked === 'picked' && !picked.has(i)) continue
    found[n++] = i
  }
  return found.slice(0, n)
}

const rank = (texts) => {
  const order = texts.map((_, i) => i).sort((a, b) => (texts[a] < texts[b] ? -1 : texts[a] > texts[b] ? 1 : a - b))
  const ranks = new Float64Array(texts.length)
  order.forEach((which, i) => (ranks[which] = i && texts[which] === texts[order[i - 1]] ? ranks[order[i - 1]] : i))
  return ranks
}

export const SORTS = {
  location: 'Location',
  surest: 'Confidence, highest first',
  least_sure: 'Confidence, lowest first',
  truth: 'Truth',
  doubt: 'Disagreement, strongest first',
  field: 'Field',
  antibody: 'Antibody',
  area: 'Area, largest first',
  similar: 'Likeness to the open cell',
}

/** Return the key by which cells are put in order, smaller first. */
function keys(table, sort, open) {
  switch (sort) {
    case 'surest':
      return (i) => -table.confidence[i]
    case 'least_sure':
      return (i) => table.confidence[i]
    case 'truth':
      return (i) => (table.truthBits[i] ? 31 - Math.clz32(table.truthBits[i] & -table.truthBits[i]) : 99) + 0.9 * (1 - table.confidence[i])
    case 'doubt':
      return (i) => -table.doubt[i]
    case 'field': {
      const ranks = rank(table.fields.id)
      return (i) => ranks[table.field[i]] * 1e6 + table.cell[i]
    }
    case 'antibody': {
      const ranks = rank(table.fields.antibody)
      return (i) => ranks[table.field[i]] * 1e7 + table.field[i]
    }
    case 'area':
      return (i) => -table.area[i]
    case 'similar': {
      if (open === null) return (i) => i
      const near = new Map([[open, -2]])
      const { neighbours } = table
      const k = neighbours.length / table.n
      for (let j = 0; j < k; j++) near.set(neighbours[open * k + j], j / k - 1)
      const [x, y] = [table.map[2 * open], table.map[2 * open + 1]]
      return (i) => near.get(i) ?? Math.hypot(table.map[2 * i] - x, table.map[2 * i + 1] - y)
    }
    default:
      return (i) => table.likeliest[i] + 0.9 * (1 - table.confidence[i])
  }
}

export function sorted(table, cells, sort, open) {
  const key = keys(table, sort, open)
  const of = new Float64Array(table.n)
  for (const i of cells) of[i] = key(i)
  return cells.slice().sort((a, b) => of[a] - of[b] || a - b)
}

const quoted = (text) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text)

/** Write the picked cells as CSV with the columns field, cell, label; a cell without a label has its likeliest location. */
export function exported(table, picked, locations) {
  const cells = [...picked.keys()].sort((a, b) => a - b)
  const rows = cells.map((i) => [table.fields.id[table.field[i]], String(table.cell[i]), picked.get(i).trim() || locations[table.likeliest[i]].name].map(quoted).join(','))
  return ['field,cell,label', ...rows].join('\n') + '\n'
}

import { Sprite } from './sprite.jsx'
import { channelsOf } from './pictures.js'
import { describe } from './gallery.jsx'

const names = (about, set) => set.map((label) => about.locations[label].short).join(', ') || 'none'

/** Everything known of the open cell. */
export function CellPanel({ about, table, cell, look, picked, onOpen, onToggle, onSimilar }) {
  const field = table.field[cell]
  const { fields, classes } = table
  const called = table.label_sets[table.called[cell]]
  const truth = table.truth[cell] < 0 ? null : table.label_sets[table.truth[cell]]
  const ranked = about.locations
    .map((location, c) => ({ location, c, p: table.p[cell * classes + c] / 255 }))
    .sort((a, b) => b.p - a.p || (b.c === table.likeliest[cell]) - (a.c === table.likeliest[cell]) || a.c - b.c)
  const k = table.neighbours.length / table.n
  const near = Array.from(table.neighbours.subarray(cell * k, cell * k + k)).filter((other) => other >= 0)
  return (
    <section class="cell" aria-label="The open cell" id="open-cell">
      <h2>
        Cell {table.cell[cell]} <span>of {fields.id[field]}</span>
      </h2>
      <p class="facts">
        {[fields.antibody[field], fields.cell_line[field], table.area[cell] > 0 && `${Math.round(table.area[cell])} µm²`]
          .filter(Boolean)
          .join(' · ')}
      </p>
      <div class="pictures">
        <Sprite about={about} table={table} cell={cell} look={look} side={128} activation={false} />
        <div class="colours">
          {channelsOf(table).map(({ i, ...channel }) => (
            <figure key={channel.key}>
              <Sprite about={about} table={table} cell={cell} look={look} side={62} only={i} />
              <figcaption>{channel.name === 'Endoplasmic reticulum' ? 'ER' : channel.name}</figcaption>
            </figure>
          ))}
        </div>
        <figure>
          <Sprite about={about} table={table} cell={cell} look={look} side={128} activation={true} />
          <figcaption>What speaks for {about.locations[table.likeliest[cell]].short}</figcaption>
        </figure>
      </div>
      <div class="buttons">
        <button type="button" id="pick-open" aria-pressed={picked.has(cell)} onClick={() => onToggle(cell)}>
          {picked.has(cell) ? 'Selected' : 'Select'}
        </button>
        <button type="button" id="show-field" onClick={() => onOpen(cell, 'field')}>
          Show in its field
        </button>
        <button type="button" onClick={onSimilar}>
          Cells like this
        </button>
      </div>
      <dl>
        <dt>Called</dt>
        <dd id="open-called">{names(about, called)}</dd>
        {truth && (
          <>
            <dt>{table.truth_is === 'fields' ? 'Field label' : 'Truth'}</dt>
            <dd id="open-truth">{names(about, truth)}</dd>
          </>
        )}
        <dt>Field called</dt>
        <dd>{names(about, fields.called[field] ? fields.called[field].split('|').map(Number) : [])}</dd>
      </dl>
      <ol class="probabilities" aria-label="Probability of each location">
        {ranked.slice(0, 7).map(({ location, c, p }) => (
          <li key={c} class={called.includes(c) ? 'called' : ''}>
            <span>
              {location.short}
              {truth?.includes(c) && <abbr title="true location"> ◆</abbr>}
            </span>
            <i>
              <b style={{ width: `${100 * p}%`, background: location.colour }} />
            </i>
            <em>{p.toFixed(2)}</em>
          </li>
        ))}
      </ol>
      <h3>Nearest in the network's eyes</h3>
      <div class="near">
        {near.map((other) => (
          <button type="button" key={other} title={describe(about, table, other)} aria-label={describe(about, table, other)} onClick={() => onOpen(other)}>
            <Sprite about={about} table={table} cell={other} look={look} side={48} />
            <i style={{ background: about.locations[table.likeliest[other]].colour }} />
          </button>
        ))}
      </div>
    </section>
  )
}

import { AGREEMENTS, NO_FILTER } from './table.js'
import { channelsOf, PALETTES } from './pictures.js'
import { useMemo } from 'preact/hooks'

const percent = (value) => `${Math.round(100 * value)} %`

function Locations({ about, table, filter, setFilter }) {
  const counts = useMemo(() => {
    const found = new Uint32Array(about.locations.length)
    for (let i = 0; i < table.n; i++)
      for (let c = 0; c < found.length; c++) if (table.calledBits[i] & (1 << c)) found[c]++
    return found
  }, [table])
  const most = Math.max(1, ...counts)
  return (
    <fieldset>
      <legend>Predicted location</legend>
      <ul class="locations">
        {about.locations.map((location, c) => (
          <li key={location.name}>
            <label class={counts[c] ? '' : 'none'} title={location.name}>
              <input
                type="checkbox"
                name="location"
                value={c}
                checked={Boolean(filter.locations & (1 << c))}
                onChange={() => setFilter({ ...filter, locations: filter.locations ^ (1 << c) })}
              />
              <i class="swatch" style={{ background: location.colour }} />
              <span>{location.short}</span>
              <b>{counts[c].toLocaleString('en')}</b>
              <em style={{ width: `${(100 * counts[c]) / most}%` }} />
            </label>
          </li>
        ))}
      </ul>
    </fieldset>
  )
}

function Range({ id, label, low, high, onChange }) {
  return (
    <div class="range">
      <span>
        {label} <b>{percent(low)}</b> to <b>{percent(high)}</b>
      </span>
      <input
        id={`${id}-low`}
        type="range"
        min="0"
        max="1"
        step="0.01"
        value={low}
        aria-label={`${label}, lowest`}
        aria-valuetext={percent(low)}
        onInput={(event) => onChange(Math.min(+event.target.value, high), high)}
      />
      <input
        id={`${id}-high`}
        type="range"
        min="0"
        max="1"
        step="0.01"
        value={high}
        aria-label={`${label}, highest`}
        aria-valuetext={percent(high)}
        onInput={(event) => onChange(low, Math.max(+event.target.value, low))}
      />
    </div>
  )
}

export function Controls({ about, table, filter, setFilter, look, changeLook }) {
  const change = (part) => setFilter({ ...filter, ...part })
  const hasTruth = table.truth_is !== 'none'
  const setChannel = (which, part) =>
    changeLook({ channels: look.channels.map((channel, i) => (i === which ? { ...channel, ...part } : channel)) })
  return (
    <nav aria-label="Filters and colours">
      <fieldset class="channels">
        <legend>Colours</legend>
        {channelsOf(table).map(({ i, ...channel }) => (
          <div key={channel.key} class="channel">
            <label>
              <input
                type="checkbox"
                id={`channel-${channel.key}`}
                checked={look.channels[i].on}
                onChange={() => setChannel(i, { on: !look.channels[i].on })}
              />
              <i class="swatch" style={{ background: `rgb(${PALETTES[look.palette].colours[i]})` }} />
              {channel.name}
            </label>
            <input
              type="range"
              id={`gain-${channel.key}`}
              min="0"
              max="4"
              step="0.1"
              value={look.channels[i].gain}
              aria-label={`Brightness of ${channel.name}`}
              aria-valuetext={`${look.channels[i].gain} times`}
              onInput={(event) => setChannel(i, { gain: +event.target.value })}
              onDblClick={() => setChannel(i, { gain: 1 })}
            />
          </div>
        ))}
        <select
          id="palette"
          aria-label="Palette"
          value={look.palette}
          onChange={(event) => changeLook({ palette: event.target.value })}
        >
          {Object.entries(PALETTES).map(([key, palette]) => (
            <option key={key} value={key}>
              {palette.name}
            </option>
          ))}
        </select>
        <label>
          <input type="checkbox" id="outlines" checked={look.outlines} onChange={() => changeLook({ outlines: !look.outlines })} />
          Outlines
        </label>
        <label>
          <input
            type="checkbox"
            id="activation"
            checked={look.activation}
            onChange={() => changeLook({ activation: !look.activation })}
          />
          Activation maps
        </label>
        <label class="size">
          Size
          <input
            type="range"
            id="thumb"
            min="48"
            max="192"
            step="8"
            value={look.thumb}
            aria-label="Size of the cells"
            onInput={(event) => changeLook({ thumb: +event.target.value })}
          />
        </label>
      </fieldset>
      <div class="filters">
        <div class="title">
          <h2>Filters</h2>
          <button type="button" id="reset" disabled={filter === NO_FILTER} onClick={() => setFilter(NO_FILTER)}>
            Reset
          </button>
        </div>
        <label>
          Field
          <input id="filter-field" list="fields" value={filter.field} onInput={(event) => change({ field: event.target.value })} />
          <datalist id="fields">
            {table.fields.id.slice(0, 500).map((id) => (
              <option key={id} value={id} />
            ))}
          </datalist>
        </label>
        {table.antibodies.length > 0 && (
          <label>
            Antibody
            <input
              id="filter-antibody"
              list="antibodies"
              value={filter.antibody}
              onInput={(event) => change({ antibody: event.target.value })}
            />
            <datalist id="antibodies">
              {table.antibodies.slice(0, 500).map((antibody) => (
                <option key={antibody} value={antibody} />
              ))}
            </datalist>
          </label>
        )}
        <Range
          id="confidence"
          label="Confidence"
          low={filter.low}
          high={filter.high}
          onChange={(low, high) => change({ low, high })}
        />
        {hasTruth && (
          <label>
            Truth{table.truth_is === 'fields' ? ' (labels of the field)' : ''}
            <select id="truth" value={filter.truth} onChange={(event) => change({ truth: +event.target.value })}>
              <option value="0">Any</option>
              {about.locations.map((location, c) => (
                <option key={location.name} value={1 << c}>
                  {location.name}
                </option>
              ))}
            </select>
          </label>
        )}
        <label>
          Agreement
          <select id="agreement" value={filter.agreement} onChange={(event) => change({ agreement: event.target.value })}>
            {Object.entries(AGREEMENTS)
              .filter(([key]) => hasTruth || !['agrees', 'differs'].includes(key))
              .map(([key, text]) => (
                <option key={key} value={key}>
                  {text}
                </option>
              ))}
          </select>
        </label>
        <label>
          <input
            type="checkbox"
            id="only-picked"
            checked={filter.picked === 'picked'}
            onChange={() => change({ picked: filter.picked === 'picked' ? 'all' : 'picked' })}
          />
          Selected cells only
        </label>
        <Locations about={about} table={table} filter={filter} setFilter={setFilter} />
      </div>
    </nav>
  )
}

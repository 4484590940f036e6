import { useLayoutEffect, useRef } from 'preact/hooks'

const KEYS = [
  ['Arrows, Page Up and Down, Home, End', 'go through the cells'],
  ['Space', 'select the open cell'],
  ['Enter', 'show the open cell in its field'],
  ['Click with Shift or Ctrl', 'open and select a cell'],
  ['1 2 3 4', 'microtubules, protein, nucleus, endoplasmic reticulum on or off'],
  ['O V C', 'outlines, activation maps, palette'],
  ['G F', 'cells, field'],
  ['N P [ ]', 'in the field: next and previous cell, previous and next field'],
  ['+ − 0', 'in field and map: zoom in, zoom out, show all'],
  ['Shift and drag', 'in the map: select with a lasso'],
  ['/', 'filter by field'],
]

export function Help({ onClose, table }) {
  const dialog = useRef(null)
  // Before the next key: one pressed between the element and its opening would go to the page behind it.
  useLayoutEffect(() => dialog.current.showModal(), [])
  return (
    <dialog ref={dialog} onClose={onClose} aria-label="Help">
      <h2>Keys</h2>
      <table>
        <tbody>
          {KEYS.map(([keys, what]) => (
            <tr key={keys}>
              <th scope="row">{keys}</th>
              <td>{what}</td>
            </tr>
          ))}
        </tbody>
      </table>
      <h2>What is shown</h2>
      <p>
        A caption names a cell's likeliest location and its probability, the confidence; it is in italics where the location
        stays below its threshold, so that the cell is called something else. The filter by location looks at the call. A cell agrees with the truth where that location is
        among its true ones
        {table?.truth_is === 'fields' ? '; truth here is the labels of its field, which not every cell of it need carry' : ''}. A
        cell stands out where its likeliest location is not the one that most cells of its field have. Outlines are dashed
        where a cell does not agree. Brightness 1 shows each colour from the background to the white of its field.
      </p>
      <p>
        An activation map shows which places of the tile speak for the likeliest location. The map lays cells out by their
        embeddings: near is alike, far means little.
      </p>
      <p>
        Give the selection a label (without one, cells keep their likeliest location) and export it: the CSV has the columns
        field, cell, label, as the target few_shot takes it. The parts of this page and
        their licences are listed in LICENCES.txt beside it.
      </p>
      <button type="button" autofocus onClick={() => dialog.current.close()}>
        Close
      </button>
    </dialog>
  )
}

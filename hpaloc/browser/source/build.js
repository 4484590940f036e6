// Bundle the program into ../app/browser.js, with the licences of every part that went in.
import { createHash } from 'node:crypto'
import { readFileSync, readdirSync, writeFileSync } from 'node:fs'
import { build } from 'esbuild'

const sources = readdirSync('.')
  .filter((name) => /\.jsx?$/.test(name) || name === 'package-lock.json')
  .sort()
const digest = createHash('sha256')
for (const name of sources) digest.update(`${name}\0`).update(readFileSync(name))

const result = await build({
  entryPoints: ['main.jsx'],
  bundle: true,
  minify: true,
  format: 'iife',
  target: 'es2021',
  jsx: 'automatic',
  jsxImportSource: 'preact',
  legalComments: 'none',
  // A test holds the bundle to the sources by this digest.
  banner: { js: `/* sources ${digest.digest('hex')}; licences of its parts: LICENCES.txt */` },
  outfile: '../app/browser.js',
  metafile: true,
})

const parts = new Set()
for (const path of Object.keys(result.metafile.inputs)) {
  const found = path.match(/node_modules\/((?:@[^/]+\/)?[^/]+)\//)
  if (found) parts.add(found[1])
}
const licences = [...parts].sort().map((name) => {
  const about = JSON.parse(readFileSync(`node_modules/${name}/package.json`, 'utf8'))
  const file = readdirSync(`node_modules/${name}`).find((entry) => /^licen[cs]e/i.test(entry))
  return `${name} ${about.version} (${about.license})\n\n${readFileSync(`node_modules/${name}/${file}`, 'utf8').trim()}\n`
})
writeFileSync(
  '../app/LICENCES.txt',
  `The cell browser is part of hpaloc (BSD-3-Clause). browser.js also holds these parts:\n\n${licences.join('\n' + '-'.repeat(80) + '\n\n')}`,
)

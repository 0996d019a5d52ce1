// ioredis against a server: `ioredis.mjs HOST PORT MODULES`. Ends with 1 at the first claim that is not
// so.

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';

const [host, port, modules] = process.argv.slice(2);
const require = createRequire(`${modules}/`);
const Redis = require('ioredis');
const { version } = require('ioredis/package.json');

const claim = (name) => console.log(`ioredis ${version}: ${name}`);
const options = { host, port: Number(port), retryStrategy: null, connectionName: 'io' };
const redis = new Redis(options);
redis.on('error', (error) => {
  throw error;
});

claim('it is ready when the server says so');
await new Promise((resolve) => redis.once('ready', resolve));
assert.equal(await redis.flushall(), 'OK');

claim('values come back as they were');
assert.equal(await redis.set('key', 'two words'), 'OK');
assert.equal(await redis.get('key'), 'two words');
assert.equal(await redis.get('missing'), null);
assert.equal(await redis.set('key', 'x', 'EX', 100, 'NX'), null);
const bytes = Buffer.from(Array.from({ length: 256 }, (_, i) => i));
await redis.set('bytes', bytes);
assert.deepEqual(await redis.getBuffer('bytes'), bytes);
assert.equal(await redis.mset(new Map([['a', 1], ['b', 2]])), 'OK');
assert.deepEqual(await redis.mget('a', 'b', 'c'), ['1', '2', null]);
assert.equal(await redis.incrbyfloat('f', 0.5), '0.5');
await assert.rejects(redis.incr('key'), /not an integer/);

claim('keys expire');
await redis.set('short', '1', 'PX', 100);
assert.equal(await redis.expire('a', 100), 1);
assert.ok((await redis.pttl('a')) > 90_000);
await new Promise((resolve) => setTimeout(resolve, 200));
assert.equal(await redis.exists('short'), 0);

claim('pipelines answer in order');
const pipeline = redis.pipeline();
for (let i = 0; i < 10_000; i += 1) {
  pipeline.set(`p${i}`, i).get(`p${i}`);
}
const answers = await pipeline.exec();
assert.equal(answers.length, 20_000);
answers.forEach(([error, answer], i) => {
  assert.equal(error, null);
  assert.equal(answer, i % 2 ? `${(i - 1) / 2}` : 'OK');
});

claim('a stream of keys has all of them');
const found = new Set();
for await (const keys of redis.scanStream({ match: 'p*', count: 500 })) {
  keys.forEach((key) => found.add(key));
}
assert.equal(found.size, 10_000);

claim('transactions are one change or none');
assert.deepEqual(await redis.multi().set('t', 1).incr('t').exec(), [
  [null, 'OK'],
  [null, 2],
]);
await redis.watch('t');
const other = redis.duplicate();
await other.set('t', 9);
other.disconnect();
assert.equal(await redis.multi().set('t', 3).exec(), null);
assert.equal(await redis.get('t'), '9');

claim('commands that wait for each other are sent in one');
const automatic = new Redis({ ...options, enableAutoPipelining: true });
const many = await Promise.all(Array.from({ length: 1000 }, (_, i) => automatic.get(`p${i}`)));
assert.deepEqual(many, Array.from({ length: 1000 }, (_, i) => `${i}`));
automatic.disconnect();

claim('the server tells of itself');
assert.equal(await redis.client('GETNAME'), 'io');
assert.equal(await redis.ping(), 'PONG');
await assert.rejects(redis.lpush('list', 1), /unknown command/);
assert.equal(await redis.quit(), 'OK');
console.log('all claims hold');
process.exit(0);

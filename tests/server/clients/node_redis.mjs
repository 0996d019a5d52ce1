// node-redis against a server: `node_redis.mjs HOST PORT MODULES`. Ends with 1 at the first claim that
// is not so.

import assert from 'node:assert/strict';
import { createRequire } from 'node:module';

const [host, port, modules] = process.argv.slice(2);
const require = createRequire(`${modules}/`);
const { createClient, createClientPool, ErrorReply, WatchError, RESP_TYPES } = require('redis');
const { version } = require('redis/package.json');

for (const RESP of [2, 3]) {
  const socket = { host, port: Number(port), reconnectStrategy: false };
  const client = createClient({ socket, RESP, name: 'node' });
  client.on('error', (error) => {
    throw error;
  });
  const claim = (name) => console.log(`node-redis ${version}, RESP${RESP}: ${name}`);
  await client.connect();

  claim('values come back as they were');
  assert.equal(await client.flushAll(), 'OK');
  assert.equal(await client.set('key', 'two words'), 'OK');
  assert.equal(await client.get('key'), 'two words');
  assert.equal(await client.get('missing'), null);
  assert.equal(await client.set('key', 'x', { condition: 'NX' }), null);
  const bytes = Buffer.from(Array.from({ length: 256 }, (_, i) => i));
  await client.set('bytes', bytes);
  const buffers = client.withTypeMapping({ [RESP_TYPES.BLOB_STRING]: Buffer });
  assert.deepEqual(await buffers.get('bytes'), bytes);
  assert.equal(await client.mSet({ a: '1', b: '2' }), 'OK');
  assert.deepEqual(await client.mGet(['a', 'b', 'c']), ['1', '2', null]);
  assert.equal(await client.del(['a', 'b', 'c']), 2);
  assert.equal(await client.incrBy('n', 42), 42);
  assert.equal(await client.set('large', 'v'.repeat(1 << 20)), 'OK');
  assert.equal((await client.get('large')).length, 1 << 20);
  await assert.rejects(client.incr('key'), (error) => {
    return error instanceof ErrorReply && /not an integer/.test(error.message);
  });

  claim('keys expire');
  await client.set('short', '1', { expiration: { type: 'PX', value: 100 } });
  await client.set('long', '1', { expiration: { type: 'EX', value: 100 } });
  assert.ok((await client.ttl('long')) > 90);
  assert.equal(await client.persist('long'), 1);
  assert.equal(await client.ttl('long'), -1);
  await new Promise((resolve) => setTimeout(resolve, 200));
  assert.equal(await client.exists('short'), 0);

  claim('what is asked at once is answered in order');
  const answers = await Promise.all(
    Array.from({ length: 5000 }, (_, i) => client.set(`p${i}`, `${i}`).then(() => client.get(`p${i}`))),
  );
  assert.deepEqual(answers, Array.from({ length: 5000 }, (_, i) => `${i}`));

  claim('keys are found');
  const found = new Set();
  for await (const keys of client.scanIterator({ MATCH: 'p*', COUNT: 500 })) {
    keys.forEach((key) => found.add(key));
  }
  assert.equal(found.size, 5000);
  assert.equal(await client.dbSize(), 5005);

  claim('transactions are one change or none');
  const done = await client.multi().set('t', '1').incr('t').get('t').exec();
  assert.deepEqual(done, ['OK', 2, '2']);
  await client.watch('t');
  const other = await client.duplicate().connect();
  await other.set('t', '9');
  other.destroy();
  await assert.rejects(client.multi().set('t', '3').exec(), WatchError);
  assert.equal(await client.get('t'), '9');

  claim('many connections share the work');
  const pool = await createClientPool({ socket, RESP }, { maximum: 10 }).connect();
  pool.on('error', (error) => {
    throw error;
  });
  await pool.del('counter');
  await Promise.all(Array.from({ length: 1000 }, () => pool.incr('counter')));
  assert.equal(await pool.get('counter'), '1000');
  pool.destroy();

  claim('the server tells of itself');
  assert.match(await client.info('server'), /redis_version:7/);
  assert.equal(await client.clientGetName(), 'node');
  assert.equal(await client.ping(), 'PONG');
  await assert.rejects(client.lPush('list', '1'), /unknown command/);
  await client.close();
}
console.log('all claims hold');
process.exit(0);

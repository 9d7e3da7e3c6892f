#!lua name=mb1
-- mb1: the mailbox, contract 1. rev: 16
-- Every operation of the store is one of these functions, on the keys of one hash slot. They are
-- listed with their types, lives and writers in ../KEYSPACE.md; what they promise is the contract of
-- QueueBackend (src/queue/mod.rs).
--
-- Redis does not roll back a function that fails half way. So every check runs before the first
-- write, and the order of writes is: store, account, remember, wake. A wake-up never fails a call.
-- Only Redis' own clock counts. Stamps are its microseconds, strictly increasing per inbox.
local REVISION = 16
local GRACE = 10000        -- ms: a wait whose replica died gives its reply back this long after its deadline
local DROP_MAX = 512       -- expired messages dropped from the head in one call
local SEEN_EVERY = 5000    -- ms: how exact "last seen" is
local LEDGER_EVERY = 5000  -- ms: how often a sender's expired messages are looked up
local OVERDUE = 10000      -- ms: a sender who has not come for so long is looked up by whoever counts
local ASKED_MAX = 128      -- questions remembered as handed out
local EXCEPTIONS_MAX = 1000
local SESSIONS_MAX = 16     -- sessions that wait at one inbox, and are remembered
-- Header flags: may have been received before; its sender waits for an answer; it names what it answers.
local COPY, ASKS, REPLIES = 1, 2, 4
local GONE = '\255\254gone' -- marks elements to remove: no UTF-8 text is like it

-- Locals, because a global and its field are looked up at each use. Set by the first call: while a library is
-- loaded, none of them exists.
local call, floor, max, min, pack, read, sub, byte, find, format
local function begin()
  call, floor, max, min, pack, read = redis.call, math.floor, math.max, math.min, struct.pack, struct.unpack
  sub, byte, find, format = string.sub, string.byte, string.find, string.format
end

local us_of_many, ms_of_many -- the clock stands while calls travel together, as it does within one
local function clock()
  if us_of_many then return us_of_many, ms_of_many end
  local t = call('TIME')
  local us = t[1] * 1000000 + t[2] -- less than half of what tonumber costs
  return us, floor(us / 1000)
end
local function fmt(n) return format('%d', n) end -- whole numbers: a third of the cost of '%.0f', or of passing them on
-- The same for numbers that come again and again, as positions and lives do: each new text costs as much as a command.
local texts, held = {}, 0
local function text(n)
  local known = texts[n]
  if not known then
    if held >= 512 then texts, held = {}, 0 end
    known, held = fmt(n), held + 1
    texts[n] = known
  end
  return known
end
local function num(v) return tonumber(v or '0') end
local function fail(code, text) return redis.error_reply(code .. ' ' .. text) end
local function has(options, flag) return options % (flag + flag) >= flag end -- a third of the cost of bit.band

-- Header, 39 bytes and more: version u8, flags u8, body bytes u32, expires ms f64, stamp us f64, id 16,
-- then the tail as the caller made it: sender length u8, sender, what the flags say follows.
local HEADER = '>BBI4dd'
local function header(flags, len, exp, stamp, id, tail)
  return pack('>BBI4ddc16c0', 1, flags, len, exp, stamp, id, tail)
end
local function h_flags(h) return byte(h, 2) end
local function h_len(h) return (read('>I4', h, 3)) end
local function h_exp(h) return (read('>d', h, 7)) end
local function h_stamp(h) return (read('>d', h, 15)) end
local function h_id(h) return sub(h, 23, 38) end
local function h_sender(h) return sub(h, 40, 39 + byte(h, 39)) end
local function h_size(h) return #h + h_len(h) end

-- Options of a call, as bits. COVERED: a WAIT follows, which covers what this very connection wrote; so
-- what an earlier attempt wrote is covered by a write of this one.
-- ANSWERS: the recipient takes nothing of this sender but answers to what it asked.
local OWN, KEYED, RETRY, SHARDED, COVERED, ANSWERS = 1, 2, 4, 8, 16, 32

local function publish(options, channel, topic)
  redis.pcall(has(options, SHARDED) and 'SPUBLISH' or 'PUBLISH', channel, topic)
end
-- Wakes who watches an inbox, or the wait that `kind` names. `key` is any of its keys with one letter
-- at the end, mb1:{b17}:default/bob:q; its channel is mb1:{b17}:ch.
local function wake(options, key, kind)
  local tag = find(key, '}', 7, true)
  publish(options, sub(key, 1, tag + 1) .. 'ch', kind .. sub(key, tag + 2, -3))
end
-- Lets a key live at least so long, never shorter.
local function outlive(key, ms)
  if call('PTTL', key) < ms then call('PEXPIRE', key, text(ms)) end
end
-- The counters of an inbox, its lease, and what its owner is to be told stand packed in one field each of its hash: a
-- field of its own for every number costs more to find, to read and to write than what is done with it. None is longer
-- than 64 bytes, up to which Redis keeps a hash small. Times are 0 if there is none.
--   c: when to prolong the hash's life, last seen, a reader waits until, next sweep of waits, messages in the queue,
--      bytes in the queue, last stamp, latest expiry, acknowledged up to, handed out up to, how often the head was
--      handed out, whether lives differ
--   l: lease id 16, runs until, messages, bytes, last stamp, what was handed out before it, whether a reader waits for
--      it; or nothing
--   o: when to look the ledger up, at how many entries, until when its owner is to be told of pauses
-- Messages are as counted at the last write: the queue may have expired since, as a whole, so 0 and more than there are
-- mean "look". RPUSH says how many there really are.
local COUNTERS, LEASE, OWED = '>I6I6I6I6I4I6I7I6I7I7I2B', '>c16dI4dddB', '>I6I4I6'
local COUNTERS_SIZE, COUNTERS_KEPT = 64, '>I6I6' -- the first two alone
local function owed(packed)
  if not packed then return 0, 0, 0 end
  return read(OWED, packed)
end
local function pack_owed(look_up, entries, pauses) return pack(OWED, look_up, entries, pauses) end
-- Up to revision 12 the counters were others, none of them of messages, and the rest were fields of their own. What they
-- left is read, and replaced with the next write.
local OLD = { 'sn', 'wu', 'wx', 'lx', 'ln', 'pn' }
local function old_counters(packed, m)
  local b, stamp, e, k, ac, lc, dn, mt = read('>dddddddB', packed)
  local f = call('HMGET', m, unpack(OLD))
  local n = call('LLEN', sub(m, 1, -2) .. 'q') / 2
  return { k = k, sn = num(f[1]), wu = num(f[2]), wx = num(f[3]), n = n, b = b, s = stamp, e = e, ac = ac, lc = lc, dn = dn, mt = mt,
           old = pack_owed(num(f[4]), num(f[5]), num(f[6])) }
end
local function counters(packed, m)
  if not packed then return { k = 0, sn = 0, wu = 0, wx = 0, n = 0, b = 0, s = 0, e = 0, ac = 0, lc = 0, dn = 0, mt = 0 } end
  if #packed ~= COUNTERS_SIZE then return old_counters(packed, m) end
  local k, sn, wu, wx, n, b, stamp, e, ac, lc, dn, mt = read(COUNTERS, packed)
  return { k = k, sn = sn, wu = wu, wx = wx, n = n, b = b, s = stamp, e = e, ac = ac, lc = lc, dn = dn, mt = mt }
end
-- Writes the counters, with further fields.
local function put_counters(m, c, ...)
  local packed = pack(COUNTERS, c.k, c.sn, c.wu, c.wx, max(0, c.n), max(0, c.b), c.s, c.e, c.ac, c.lc, min(c.dn, 65535), c.mt)
  if c.old then
    call('HSET', m, 'o', c.old)
    call('HDEL', m, unpack(OLD))
    c.old = nil
  end
  call('HSET', m, 'c', packed, ...)
end
local function lease_of(packed)
  if not packed or packed == '' then return nil end
  local id, till, n, bytes, top, seen, busy = read(LEASE, packed)
  return { id = id, till = till, n = n, bytes = bytes, top = top, seen = seen, busy = busy }
end
local function pack_lease(l)
  return pack(LEASE, l.id, l.till, l.n, l.bytes, l.top, l.seen, l.busy)
end
local function running(l, now) return l ~= nil and l.till > now end
-- Notes in the index of its bucket that an inbox is there, for as long as its hash lives.
local function note(m, now, life)
  local tag = find(m, '}', 7, true)
  local index = sub(m, 1, tag + 1) .. 'i'
  for _, gone in ipairs(call('ZRANGEBYSCORE', index, '-inf', fmt(now), 'LIMIT', 0, 16)) do call('ZREM', index, gone) end
  call('ZADD', index, fmt(now + life), sub(m, tag + 2, -3))
  outlive(index, life)
end
-- Writes the counters, with further fields, and keeps the hash alive: always at least `keep` after the time `till`, now or
-- when a message ends that it tells of; rarely a command. -> whether its life was prolonged
local function save_until(till, m, c, now, keep, ...)
  local prolong = c.k <= till
  if prolong then c.k = till + floor(keep / 2) end
  put_counters(m, c, ...)
  if prolong then
    local life = c.k + keep - now
    call('PEXPIRE', m, text(life))
    note(m, now, life)
  end
  return prolong
end
local function save(m, c, now, keep, ...) return save_until(now, m, c, now, keep, ...) end

-- Exceptions to "everything up to the acknowledged stamp was acknowledged":
-- E lo hi: expired unread; L lo hi t: expired after they were handed out, and may still be acknowledged up to any of
-- them by who got them, who holds them until the time t; P s: expired while parked; A s: a reply acknowledged out of
-- order; R s t: returned to the inbox under stamp t; T s t: the same after it was handed out.
local function except(x, record, keep)
  if call('RPUSH', x, record) > EXCEPTIONS_MAX then call('LTRIM', x, -EXCEPTIONS_MAX, -1) end
  outlive(x, keep + floor(keep / 2))
end
-- How long an exception is kept for a message that lives until `exp`.
local function kept_for(exp, now, keep) return max(0, exp - now) + keep end
local function expired_range(x, acked, lo, hi, from_head, keep)
  local last = from_head and call('LINDEX', x, -1)
  if last and sub(last, 1, 1) == 'E' then
    local l, h = read('>dd', last, 2)
    if acked <= h then
      call('LSET', x, -1, 'E' .. pack('>dd', min(l, lo), max(h, hi)))
      return
    end
  end
  except(x, 'E' .. pack('>dd', lo, hi), keep)
end

-- Notes that the messages with these stamps, oldest to newest of the head of the queue, have expired. Those that were handed
-- out are apart: they may still be acknowledged. Who holds them does until `till`, if anybody does.
local function expired_head(x, c, lo, hi, till, keep)
  local handed = min(hi, c.lc)
  if lo <= handed then except(x, 'L' .. pack('>ddd', lo, handed, till), keep) end
  if handed < hi then expired_range(x, c.ac, max(lo, handed + 1), hi, true, keep) end
end

-- Where the queue has expired as a whole, its key did, and nobody has noted what was in it. What was counted is not
-- there: call this before the counters say so.
local function expired_unseen(x, c, l, keep)
  if c.n > 0 and c.ac < c.s then expired_head(x, c, c.ac + 1, c.s, l and l.till or 0, keep) end
  c.n, c.b = 0, 0
end

-- Drops a lease whose messages have all expired: it must not hold up those behind. -> true if it did
local function drop_dead_lease(q, m, x, c, l, now, keep)
  local n, bytes = 0, 0
  while n < l.n do
    local h = call('LINDEX', q, text(n * 2))
    if not h or h_stamp(h) > l.top then break end
    if h_exp(h) > now then return false end
    n = n + 1
    bytes = bytes + h_size(h)
  end
  call('HDEL', m, 'l')
  expired_head(x, c, c.ac + 1, l.top, l.till, keep)
  if n > 0 then
    call('LTRIM', q, text(n * 2), '-1')
    c.n, c.b = c.n - n, c.b - bytes
  end
  return true
end

-- Drops expired messages at the head, never under a running lease. -> how many
local function drop_head(q, x, c, l, now, keep)
  if running(l, now) then return 0 end
  local n, bytes, lo, hi = 0, 0, nil, nil
  while n < DROP_MAX do
    local h = call('LINDEX', q, text(n * 2))
    if not h or h_exp(h) > now then break end
    n = n + 1
    bytes = bytes + h_size(h)
    lo, hi = lo or h_stamp(h), h_stamp(h)
  end
  if n > 0 then
    expired_head(x, c, lo, hi, 0, keep)
    call('LTRIM', q, text(n * 2), '-1')
    c.n, c.b = c.n - n, c.b - bytes
  end
  return n
end

-- Removes the messages at these positions (ascending), which have expired.
local function drop_at(q, x, c, positions, keep)
  if #positions == 0 then return end
  for _, i in ipairs(positions) do
    local h = call('LINDEX', q, i * 2)
    c.b = c.b - h_size(h)
    expired_range(x, 0, h_stamp(h), h_stamp(h), false, keep)
    call('LSET', q, i * 2, GONE)
    call('LSET', q, i * 2 + 1, GONE)
  end
  call('LREM', q, #positions * 2, GONE)
  c.n = c.n - #positions
end

-- Makes room, and counts what is there: drops what has expired anywhere in the inbox. Walks it at most once a second, and only
-- if lives differ. Never under a running lease.
local function make_room(q, m, x, c, now, keep)
  local f = call('HMGET', m, 'l', 'fs')
  local l, total = lease_of(f[1]), call('LLEN', q) / 2
  if total == 0 then expired_unseen(x, c, l, keep) end
  c.n = total
  drop_head(q, x, c, l, now, keep)
  if c.mt == 0 or num(f[2]) > now or running(l, now) then return end
  call('HSET', m, 'fs', fmt(now + 1000))
  local positions = {}
  for i = 0, c.n - 1 do
    if h_exp(call('LINDEX', q, text(i * 2))) <= now then positions[#positions + 1] = i end
  end
  drop_at(q, x, c, positions, keep)
end

-- Appends to a queue and accounts for it. The caller saves the counters.
local function append(q, m, x, c, us, now, keep, flags, body, exp, id, tail)
  local stamp = max(us, c.s + 1)
  local h = header(flags, #body, exp, stamp, id, tail)
  local total = call('RPUSH', q, h, body) / 2
  if total == 1 then
    if c.n > 0 then expired_unseen(x, c, lease_of(call('HGET', m, 'l')), keep) end
    c.b, c.e, c.mt = 0, 0, 0
  end
  c.n, c.s = total, stamp
  if exp < c.e then c.mt = 1 end
  c.b, c.e = c.b + #h + #body, max(exp, c.e)
  call('PEXPIRE', q, text(c.e - now))
  return c.s
end

-- A wait: until when it takes a reply; 0 open, 1 answered, 2 handed out, 3 received and kept for who asks again;
-- when it ends; how long a task holds a reply that nobody has read, 0 if it is no task's; who is asked.
local function wait_of(packed)
  local deadline, state, till, hold, peer = string.match(packed, '^(%d+)|(%d)|(%d+)|(%d+)|(.*)$')
  return { deadline = tonumber(deadline), state = state, till = tonumber(till), hold = tonumber(hold), peer = peer }
end
local function put_wait(w, id, v)
  call('HSET', w, 'w' .. id, fmt(v.deadline) .. '|' .. v.state .. '|' .. fmt(v.till) .. '|' .. fmt(v.hold) .. '|' .. v.peer)
end

-- Until when a task holds a reply that nobody has read: the inbox must have some of its life too.
local function held_till(v, exp, now) return now + min(v.hold, max(0, floor((exp - now) / 2))) end

-- A parked reply goes to the end of the inbox: same id, same expiry, a new stamp. One that was received is
-- only dropped. -> 1 if it went
local function unpark(q, m, r, x, c, wait, state, us, now, keep)
  local p = call('HMGET', r, 'h' .. wait, 'b' .. wait)
  if not p[1] then return 0 end
  local h, back = p[1], 0
  if state ~= '3' and h_exp(h) > now then
    local flags = state == '2' and bit.bor(h_flags(h), COPY) or h_flags(h)
    local stamp = append(q, m, x, c, us, now, keep, flags, p[2], h_exp(h), h_id(h), sub(h, 39))
    except(x, (state == '2' and 'T' or 'R') .. pack('>dd', h_stamp(h), stamp), kept_for(h_exp(h), now, keep))
    back = 1
  elseif state ~= '3' then
    except(x, 'P' .. pack('>d', h_stamp(h)), keep)
  end
  call('HDEL', r, 'h' .. wait, 'b' .. wait)
  return back
end

-- Ends the waits whose time is over: those whose replica never came back, and tasks that nobody asked for. The caller saves the counters.
local function sweep(q, m, w, r, x, c, us, now, keep)
  local all, next_at = call('HGETALL', w), 0
  for i = 1, #all, 2 do
    if sub(all[i], 1, 1) == 'w' then
      local v = wait_of(all[i + 1])
      if v.till <= now then
        unpark(q, m, r, x, c, sub(all[i], 2), v.state, us, now, keep)
        call('HDEL', w, all[i])
      elseif next_at == 0 or v.till < next_at then next_at = v.till end
    end
  end
  c.wx = next_at
end

local function sweep_at(c, ms) c.wx = c.wx > 0 and min(c.wx, ms) or ms end

-- Waits whose time is not over and whose reply was not received yet; and how many there are of tasks, with those.
local function open_waits(w, now)
  local all, open, tasks = call('HGETALL', w), 0, 0
  for i = 1, #all, 2 do
    if sub(all[i], 1, 1) == 'w' then
      local v = wait_of(all[i + 1])
      if v.state ~= '3' and v.deadline > now then open = open + 1 end
      if v.hold > 0 then tasks = tasks + 1 end
    end
  end
  return open, tasks
end

-- Opens a wait, or extends one that is open. An answered one stays answered.
local function open_wait(m, w, wait, peer, timeout, now, keep)
  local old = call('HGET', w, 'w' .. wait)
  local v = old and wait_of(old) or { deadline = 0, state = '0', till = 0, hold = 0, peer = peer }
  v.deadline = max(v.deadline, now + timeout)
  v.till = max(v.till, v.deadline + GRACE)
  put_wait(w, wait, v)
  outlive(w, v.till - now + 60000)
  local c = counters(call('HGET', m, 'c'), m)
  sweep_at(c, v.till)
  save(m, c, now, keep)
end

-- Remembers that questions were handed to the owner of this inbox: its next message to one of their
-- senders answers the oldest of them.
local function remember_asked(w, asked, now)
  if #asked == 0 then return end
  local longest = 0
  for _, h in ipairs(asked) do
    call('HSET', w, 'a' .. h_id(h), fmt(h_stamp(h)) .. '|' .. fmt(h_exp(h)) .. '|' .. h_sender(h))
    longest = max(longest, h_exp(h) - now)
  end
  outlive(w, longest + GRACE)
  if call('HLEN', w) <= ASKED_MAX then return end
  local all, live = call('HGETALL', w), {}
  for i = 1, #all, 2 do
    if sub(all[i], 1, 1) == 'a' then
      local stamp, exp = string.match(all[i + 1], '^(%d+)|(%d+)|')
      if tonumber(exp) <= now then call('HDEL', w, all[i])
      else live[#live + 1] = { tonumber(stamp), all[i] } end
    end
  end
  table.sort(live, function(one, two) return one[1] < two[1] end)
  for i = 1, #live - ASKED_MAX do call('HDEL', w, live[i][2]) end
end

-- Ids of the questions of `asker` that were handed to the owner of `w`, oldest first; of those that live after
-- `now`, if it is given.
local function asked_by(w, asker, now)
  local all, found = call('HGETALL', w), {}
  for i = 1, #all, 2 do
    if sub(all[i], 1, 1) == 'a' then
      local stamp, exp, who = string.match(all[i + 1], '^(%d+)|(%d+)|(.*)$')
      if who == asker and (not now or tonumber(exp) > now) then found[#found + 1] = { tonumber(stamp), sub(all[i], 2) } end
    end
  end
  table.sort(found, function(one, two) return one[1] < two[1] end)
  local ids = {}
  for i, one in ipairs(found) do ids[i] = one[2] end
  return ids
end

-- Which open wait a message answers: the first of the candidates that is open and waits for its sender.
local function match_wait(w, sender, candidates, now)
  for _, id in ipairs(candidates) do
    local packed = call('HGET', w, 'w' .. id)
    if packed then
      local v = wait_of(packed)
      if v.state == '0' and v.peer == sender and v.deadline > now then return id, v end
    end
  end
  return nil
end

-- Parked replies: {state of the wait, header}, ... Not their texts, which may be long.
local function parked_replies(w, r)
  local all, found = call('HGETALL', w), {}
  for i = 1, #all, 2 do
    local h = sub(all[i], 1, 1) == 'w' and call('HGET', r, 'h' .. sub(all[i], 2))
    if h then found[#found + 1] = { wait_of(all[i + 1]).state, h } end
  end
  return found
end

-- What is known of an inbox, to tell what became of its messages; nil if it never had mail.
local function fate_fields(w, r, x, c, l, now)
  if c.s == 0 then return nil end
  local f = { now = now, acked = c.ac, seen = c.lc, last = c.s, leased = running(l, now), top = l and l.top,
              parked = {}, ranges = {}, points = {} }
  for _, one in ipairs(parked_replies(w, r)) do f.parked[h_stamp(one[2])] = one[1] end
  for _, record in ipairs(call('LRANGE', x, 0, -1)) do
    local kind, one = sub(record, 1, 1), read('>d', record, 2)
    if kind == 'E' or kind == 'L' then
      f.ranges[#f.ranges + 1] = { one, (read('>d', record, 10)), kind == 'L' and (read('>d', record, 18)) or 0 }
    elseif not f.points[one] then
      f.points[one] = { kind, (kind == 'R' or kind == 'T') and (read('>d', record, 10)) or 0 }
    end
  end
  return f
end

-- What became of a message: q queued, d delivered, a acknowledged, e expired, u unknown.
local function fate(f, stamp, exp, parked)
  if not f then return 'u' end
  local state = parked and f.parked[stamp]
  if state then
    if state == '3' then return 'a' end
    if exp <= f.now then return 'e' end
    return state == '2' and 'd' or 'q'
  end
  local point = f.points[stamp]
  if point then
    if point[1] == 'P' then return 'e' end
    if point[1] == 'A' then return 'a' end
    local then_on = fate(f, point[2], exp, false)
    return point[1] == 'T' and then_on == 'q' and 'd' or then_on
  end
  if not parked then
    for _, range in ipairs(f.ranges) do
      if range[1] <= stamp and stamp <= range[2] then return range[3] > f.now and 'd' or 'e' end
    end
  end
  if stamp <= f.acked then return 'a' end
  if stamp > f.last then return 'u' end               -- the store lost its memory since
  if exp <= f.now then return (f.leased and stamp <= f.top) and 'd' or 'e' end
  return stamp <= f.seen and 'd' or 'q'
end

-- How long a ledger may grow from n entries until it is looked for some to drop: a part of it, so that a
-- sender whose messages nobody reads does not pay for it at each send.
local function crowded_at(n, ledger_max) return floor(max(n, ledger_max) * 1.25) + 64 end

-- Writes one entry of the sender's ledger. -> 1 if the sender has something to look up; 2 if it is full of
-- open entries, so that this one could not be written; 3 if both
local function remember(m, l, id, recipient, stamp, exp, parked, now, keep, ledger_max)
  local f = call('HMGET', m, 'c', 'o')
  local k, sn, c = 0, 0, nil
  if f[1] and #f[1] == COUNTERS_SIZE then k, sn = read(COUNTERS_KEPT, f[1]) end
  local till = max(now, exp)
  if k <= till then c = counters(f[1], m) end -- also where there are none, or those of an older revision
  local look_up, entries, pauses = owed(f[2] or c and c.old)
  local n = call('RPUSH', l, pack('>ddc16BBc0', stamp, exp, id, 0, parked and 1 or 0, recipient))
  if n > ledger_max * 4 then
    call('RPOP', l)
    if num(call('HGET', m, 'fl')) > now then return 2 end -- to look at all of a full one takes long
    call('HSET', m, 'fl', fmt(now + 1000))
    return 3
  end
  local due, sooner = look_up > 0 and look_up <= now, look_up == 0 or exp < look_up
  if sooner then look_up = exp end
  local seen, prolonged = (c and c.sn or sn) + SEEN_EVERY <= now, false
  if c or seen or sooner then
    c = c or counters(f[1], m)
    if seen then c.sn = now end
    if sooner then prolonged = save_until(till, m, c, now, keep, 'o', pack_owed(look_up, entries, pauses))
    else prolonged = save_until(till, m, c, now, keep) end
    k = c.k
  end
  if prolonged or n == 1 then call('PEXPIRE', l, text(k + keep - now)) end -- as long as the hash
  if pauses > now or due then return 1 end
  if n <= ledger_max or n < entries then return 0 end
  call('HSET', m, 'o', pack_owed(look_up, crowded_at(n, ledger_max), pauses))
  return 1
end

-- waiting: 2 and for how long | seen: 1 and how long ago | never: 0
local function presence(wu, sn, now)
  if wu > now then return 2, wu - now end
  if sn > 0 then return 1, max(0, now - sn) end
  return 0, 0
end

-- Was this very message accepted by an earlier attempt? -> its header, whether it is parked
-- | nil, whether it may have been received since
local function find_accepted(q, w, r, x, c, id, us)
  local since = us - 30000000
  local i = -2
  while true do
    local h = call('LINDEX', q, i)
    if not h or h_stamp(h) < since then break end
    if h_id(h) == id then return h end
    i = i - 2
  end
  for _, one in ipairs(parked_replies(w, r)) do
    if h_id(one[2]) == id then return one[2], true end
  end
  if max(c.ac, c.lc) >= since then return nil, true end
  for _, record in ipairs(call('LRANGE', x, 0, -1)) do -- a reply, while older mail lay in the inbox
    if sub(record, 1, 1) == 'A' and (read('>d', record, 2)) >= since then return nil, true end
  end
  return nil, false
end

-- What send and fetch take as numbers comes packed: reading each from a text of its own costs more than
-- what is done with it.
local SEND, FETCH = '>BBdddddddc16', '>BBdddddc16'
local SEND_SIZE, FETCH_SIZE = 74, 58

-- send: KEYS q m w r x of the recipient [m l w of the sender, if OWN] [d, if KEYED]
-- ARGV 1 packed: options, header flags, ttl ms, max messages, max bytes, keep, ledger max, wait ms, max waits;
--   then the id and, if KEYED, the digest 2 tail 3 body 4 candidates, if not OWN
-- -> packed: queued 0 | replied 1 | duplicate 2, presence, what `remember` says, state, ms, stamp, expires; id; of a
--   duplicate whether it was parked 0/1
local function sent(status, id, present, ms, look_up, stamp, exp, state)
  return pack('>BBBBdddc0', status, present, look_up, byte(state), ms, stamp, exp, id)
end
local function send(keys, a)
  local q, m, w, r, x = keys[1], keys[2], keys[3], keys[4], keys[5]
  local packed, tail, body = a[1], a[2], a[3]
  if not body or #packed < SEND_SIZE then return fail('MBARGS', 'send') end
  local options, flags, ttl, max_messages, max_bytes, keep, ledger_max, wait_ms, max_waits, id = read(SEND, packed)
  if ttl <= 0 or keep < ttl then return fail('MBARGS', 'send') end
  local named = nil
  if has(flags, REPLIES) then
    local at = 2 + byte(tail)
    named = sub(tail, at, at + 15)
  end
  local sm, sl, sw, d, digest = nil, nil, nil, nil, nil
  if has(options, OWN) then sm, sl, sw = keys[6], keys[7], keys[8] end
  if has(options, KEYED) then d, digest = keys[#keys], sub(packed, SEND_SIZE + 1) end
  local tag = find(q, '}', 7, true)
  local recipient = sub(q, tag + 2, -3)
  local us, now = clock()
  local c = counters(call('HGET', m, 'c'), m)
  local present, ms = presence(c.wu, c.sn, now)
  local sender = (present == 0 or c.wx > 0) and sub(tail, 2, 1 + byte(tail)) -- where it matters
  if sender == recipient and present == 0 then present = 1 end

  local first = d and call('GET', d)
  if first then
    local first_id = sub(first, 17, 32)
    if sub(first, 1, 16) ~= digest then
      return fail('MBCONFLICT', (string.gsub(first_id, '.', function(c) return format('%02x', byte(c)) end)))
    end
    local stamp, exp, parked = read('>ddB', first, 33)
    local state = fate(fate_fields(w, r, x, c, lease_of(call('HGET', m, 'l')), now), stamp, exp, parked == 1)
    if has(options, COVERED) then save(m, c, now, keep) end -- before the wait, which may be on the same hash
    if wait_ms > 0 and sw then open_wait(sm, sw, first_id, recipient, wait_ms, now, keep) end
    return sent(2, first_id, present, ms, 0, stamp, exp, state) .. string.char(parked)
  end

  if has(options, RETRY) then
    local h, unsure = find_accepted(q, w, r, x, c, id, us)
    if h then
      if has(options, COVERED) then save(m, c, now, keep) end
      return sent(unsure and 1 or 0, id, present, ms, 0, h_stamp(h), h_exp(h), 'q')
    end
    if unsure then flags = bit.bor(flags, COPY) end
  end

  local wait, answered = nil, nil
  if c.wx > 0 then
    local candidates = {}
    if named then candidates[1] = named
    elseif sw then candidates = asked_by(sw, recipient)
    else for i = 1, #a[4], 16 do candidates[#candidates + 1] = sub(a[4], i, i + 15) end end
    wait, answered = match_wait(w, sender, candidates, now)
  end

  local late = nil
  if has(options, ANSWERS) and not wait then
    for _, question in ipairs(sw and asked_by(sw, recipient, now) or {}) do
      if not named or question == named then late = question; break end
    end
    if not late then return fail('MBNOANSWER', '') end
  end

  local depth, bytes = c.n, c.b
  if c.e < now then depth, bytes = 0, 0 end -- all of it has expired, and so has its key
  local exp = now + ttl
  local size = 38 + #tail + #body
  if wait_ms > 0 and sw and call('HLEN', sw) >= max_waits then
    local open = open_waits(sw, now)
    if open >= max_waits then return fail('MBWAITS', fmt(open)) end
  end
  if not wait and (depth >= max_messages or bytes + size > max_bytes) then
    make_room(q, m, x, c, now, keep)
    if c.n == 0 then c.b = 0 end
    if c.n >= max_messages or c.b + size > max_bytes then
      local head = call('LINDEX', q, 0)
      save(m, c, now, keep)
      return fail('MBFULL', fmt(c.n) .. ' ' .. fmt(c.b) .. ' ' .. fmt(head and max(0, h_exp(head) - now) or 0))
    end
  end
  local stamp = nil
  if wait then
    stamp = max(us, c.s + 1)
    c.s = stamp
    call('HSET', r, 'h' .. wait, header(flags, #body, exp, stamp, id, tail), 'b' .. wait, body)
    local life = max(exp, answered.deadline + max(GRACE, answered.hold)) - now + 60000
    outlive(r, life)
    outlive(w, life) -- without it nobody would give back what is parked, where the clock steps forward
    answered.state = '1'
    if answered.hold > 0 then
      answered.till = held_till(answered, exp, now)
      sweep_at(c, answered.till)
    end
    put_wait(w, wait, answered)
    if sw then call('HDEL', sw, 'a' .. wait) end
    present, ms = 2, 0
  else
    stamp = append(q, m, x, c, us, now, keep, flags, body, exp, id, tail)
    if late then call('HDEL', sw, 'a' .. late) end
  end
  save_until(exp, m, c, now, keep)
  if wait_ms > 0 and sw then open_wait(sm, sw, id, recipient, wait_ms, now, keep) end
  if d then
    call('SET', d, digest .. id .. pack('>ddB', stamp, exp, wait and 1 or 0), 'PX', fmt(ttl))
  end
  local look_up = 0
  if sl then look_up = remember(sm, sl, id, recipient, stamp, exp, wait ~= nil, now, keep, ledger_max) end
  publish(options, sub(q, 1, tag + 1) .. 'ch', (wait and 'r' .. wait or 'q') .. recipient)
  return sent(wait and 1 or 0, id, present, ms, look_up, stamp, exp, 'q')
end

-- fetch: KEYS q m w r x
-- ARGV 1 packed: options, first 0/1, max messages, max bytes, lease ms, wait ms (-1: does not wait), keep;
--   then the lease and, if it waits, the call; then the session, if it has one
-- -> {packed: empty 0 | messages 1 | busy 2 | superseded 3, look up 0/1, now, remaining, due ms or -1, seen up to,
--     attempt, up to; header, body, ...}
local function fetched(kind, look_up, now, remaining, due, seen, attempt, upto)
  return pack('>BBdddddd', kind, look_up, now, remaining, due, seen, attempt, upto)
end
-- The earlier of two times from now, of which the first may be none.
local function sooner(due, ms) return (due < 0 or ms < due) and ms or due end
local SERVED = '+' -- behind the call of a session: it got its messages
-- Before another session is noted: those whose latest call is the oldest (its id begins with its time) make room.
local function forget_sessions(m)
  if call('HLEN', m) <= SESSIONS_MAX then return end -- with the few fields that are no session's
  call('HDEL', m, 'ws', 'wn')                        -- the only one that was noted up to revision 15
  local all, sessions = call('HGETALL', m), {}
  for i = 1, #all, 2 do
    if #all[i] == 17 then sessions[#sessions + 1] = { all[i + 1], all[i] } end
  end
  table.sort(sessions, function(one, two) return one[1] < two[1] end)
  for i = 1, #sessions - SESSIONS_MAX / 2 do call('HDEL', m, sessions[i][2]) end
end
local function fetch(keys, a)
  local q, m, w, r, x = keys[1], keys[2], keys[3], keys[4], keys[5]
  local packed = a[1]
  if #packed < FETCH_SIZE then return fail('MBARGS', 'fetch') end
  local options, first, max_n, max_bytes, lease_ms, wait_ms, keep, lease = read(FETCH, packed)
  if max_n < 1 then return fail('MBARGS', 'fetch') end
  local waiting, session = '', ''
  if wait_ms >= 0 then waiting, session = sub(packed, FETCH_SIZE + 1, FETCH_SIZE + 16), sub(packed, FETCH_SIZE + 17) end
  local us, now = clock()
  local f = session == '' and call('HMGET', m, 'c', 'l', 'o') or call('HMGET', m, 'c', 'l', 'o', 's' .. session)
  -- Whether the counters, and which further fields, are to be written.
  local c, l, changed, set = counters(f[1], m), lease_of(f[2]), false, {}
  if c.sn + SEEN_EVERY <= now then c.sn, changed = now, true end
  if c.wx > 0 and c.wx <= now then
    sweep(q, m, w, r, x, c, us, now, keep)
    changed = true
  end
  local look_up_at, _, pauses = owed(f[3] or c.old)
  local due, look_up = c.wx > 0 and c.wx - now or -1, pauses > now and 1 or 0
  if look_up_at > 0 then
    if look_up_at <= now then look_up = 1 else due = sooner(due, look_up_at - now) end
  end

  local ours = false -- whether this call is the latest one noted
  if session ~= '' then
    local latest = f[4]
    local other = latest and sub(latest, 1, 16) ~= waiting
    ours = first == 1 or not other
    if not latest then forget_sessions(m) end
    if ours and latest ~= waiting then
      if other and #latest == 16 then wake(options, q, 'q') end -- who was served waits no more
      set, changed = { 's' .. session, waiting }, true -- served, if its answer got lost: it waits again
    elseif other then
      if changed then save(m, c, now, keep) end
      return { fetched(3, 0, now, 0, -1, 0, 0, 0) }
    end
  end

  local again = running(l, now) and l.id == lease
  if running(l, now) and not again then
    if not drop_dead_lease(q, m, x, c, l, now, keep) then
      due = sooner(due, l.till - now)
      if l.busy == 0 then
        l.busy, changed = 1, true
        set[#set + 1], set[#set + 2] = 'l', pack_lease(l)
      end
      if wait_ms > 0 then c.wu, changed = now + wait_ms, true end
      if changed then save(m, c, now, keep, unpack(set)) end
      return { fetched(2, look_up, now, call('LLEN', q) / 2, due, 0, 0, 0) }
    end
    l, changed = nil, true
  end

  local seen = again and l.seen or c.lc
  if again then max_n, max_bytes = l.n, math.huge end
  local dropped, total = 0, c.e >= now and c.n or 0
  if total <= 0 then total = call('LLEN', q) / 2 end
  local out, got, bytes, sizes, top, i, stop = { false }, 0, 0, 0, 0, 0, false -- the first is the answer's head
  local expired, asked = {}, {}
  local average = total > 0 and max(1, c.b / total) or 1
  while i < total and got < max_n and not stop do
    local step = min(max_n - got, total - i, max(1, min(32, floor((max_bytes - bytes) / average) + 1)))
    local chunk = call('LRANGE', q, text(i * 2), text((i + step) * 2 - 1))
    if #chunk < step * 2 then total = i + #chunk / 2 end
    if i == 0 and dropped == 0 and not again and #chunk > 0 and h_exp(chunk[1]) <= now then
      dropped = drop_head(q, x, c, l, now, keep) -- what expires does so at the head, and often much at once
      total, changed = total - dropped, true
    else
      for j = 1, #chunk, 2 do
        local h, body = chunk[j], chunk[j + 1]
        local _, flags, _, exp, stamp = read(HEADER, h)
        if exp <= now and not again then
          expired[#expired + 1] = i + (j - 1) / 2
        elseif got > 0 and bytes + #body > max_bytes then
          stop = true
          break
        else
          got = got + 1
          out[#out + 1] = h
          out[#out + 1] = body
          bytes, sizes, top = bytes + #body, sizes + #h + #body, stamp
          if has(flags, ASKS) then asked[#asked + 1] = h end
        end
      end
      i = i + step
      if #expired >= DROP_MAX then stop = true end
    end
  end
  if total == 0 and dropped == 0 and c.n > 0 then expired_unseen(x, c, l, keep); changed = true end
  c.n = total
  drop_at(q, x, c, expired, keep)
  if #expired > 0 then changed = true end
  if got == 0 then
    if dropped >= DROP_MAX or #expired > 0 then due = 0 end
    if l then call('HDEL', m, 'l') end
    if wait_ms > 0 then c.wu, changed = now + wait_ms, true end
    if changed then save(m, c, now, keep, unpack(set)) end
    return { fetched(0, look_up, now, 0, due, 0, 0, 0) }
  end
  if not again then c.dn = h_stamp(out[2]) <= seen and c.dn + 1 or 1 end
  c.lc, c.wu = max(c.lc, top), 0
  local given = pack(LEASE, lease, now + lease_ms, got, sizes, top, seen, l and l.busy or 0)
  if ours then set = { 's' .. session, waiting .. SERVED } end
  save(m, c, now, keep, 'l', given, unpack(set))
  remember_asked(w, asked, now)
  out[1] = fetched(1, look_up, now, total - #expired - got, due, seen, c.dn, top)
  return out
end

-- What expired after it was handed out, and is acknowledged. Whoever got what ends here got all of what expired with it
-- before; one that ends elsewhere may be that of somebody who came later and got none of it.
local function late_ack(x, upto)
  local gone = false
  for i, record in ipairs(call('LRANGE', x, 0, -1)) do
    if sub(record, 1, 1) == 'L' then
      local lo, hi, till = read('>ddd', record, 2)
      if lo <= upto and upto <= hi then
        gone = gone or upto == hi
        call('LSET', x, i - 1, upto == hi and GONE or 'L' .. pack('>ddd', upto + 1, hi, till))
      end
    end
  end
  if gone then call('LREM', x, 0, GONE) end
end

-- ack: KEYS q m x  ARGV 1 packed: options, nothing u8, up to -> messages removed
-- Cumulative and idempotent; never beyond what was handed out.
local function ack(keys, a)
  local q, m = keys[1], keys[2]
  local f = call('HMGET', m, 'c', 'l')
  local options, _, given = read('>BBd', a[1])
  local c, l = counters(f[1], m), lease_of(f[2])
  local upto, covered = min(given, c.lc), l and l.n or 0
  local n, bytes = 0, 0
  if covered > 0 and upto == l.top then       -- the usual case: the whole lease, one header read, one trim
    local last = call('LINDEX', q, text(covered * 2 - 2))
    if last and h_stamp(last) == upto then n, bytes = covered, l.bytes end
  end
  if n == 0 then                              -- stale, partial or shifted: walk the headers
    while true do
      local h = call('LINDEX', q, text(n * 2))
      if not h or h_stamp(h) > upto then break end
      n = n + 1
      bytes = bytes + h_size(h)
    end
  end
  if n > 0 then call('LTRIM', q, text(n * 2), '-1') end
  local over, moved = covered > 0 and upto >= l.top, n > 0 or upto > c.ac
  if moved then c.ac, c.n, c.b = max(c.ac, upto), c.n - n, c.b - bytes end
  if over then put_counters(m, c, 'l', '')    -- cheaper than a HDEL after it
  elseif covered > 0 and n > 0 then
    l.n, l.bytes = max(0, covered - n), max(0, l.bytes - bytes)
    put_counters(m, c, 'l', pack_lease(l))
  elseif moved then put_counters(m, c) end
  if n == 0 then                              -- its messages expired, and were received all the same
    late_ack(keys[3], upto)
  end
  if over and (l.busy == 1 or c.n > 0) then wake(options, q, 'q') end
  return n
end

-- release: KEYS m  ARGV 1 lease 2 options -> 1 if it was this lease's
local function release(keys, a)
  local l = lease_of(call('HGET', keys[1], 'l'))
  if not l or l.id ~= a[1] then return 0 end
  call('HDEL', keys[1], 'l')
  wake(tonumber(a[2]), keys[1], 'q')
  return 1
end

-- extend: KEYS m  ARGV 1 lease 2 ms from now -> 1 if it was this lease's
local function extend(keys, a)
  local _, now = clock()
  local l = lease_of(call('HGET', keys[1], 'l'))
  if not l or l.id ~= a[1] then return 0 end
  l.till = max(l.till, now + tonumber(a[2]))
  call('HSET', keys[1], 'l', pack_lease(l))
  return 1
end

-- unfetch: KEYS q m w  ARGV 1 lease 2 how many to keep 3 options -> messages that stay under the lease
-- What its reader could not read, beyond the first of a lease, was never handed out.
local function unfetch(keys, a)
  local q, m, w, keep = keys[1], keys[2], keys[3], tonumber(a[2])
  if not keep then return fail('MBARGS', 'unfetch') end
  local f = call('HMGET', m, 'c', 'l')
  local c, l = counters(f[1], m), lease_of(f[2])
  if not l or l.id ~= a[1] then return 0 end
  if keep >= l.n then return l.n end
  local bytes, top = 0, 0
  for i = 0, l.n - 1 do
    local h = call('LINDEX', q, i * 2)
    if not h then break end
    if i < keep then bytes, top = bytes + h_size(h), h_stamp(h)
    elseif h_stamp(h) > l.seen then call('HDEL', w, 'a' .. h_id(h)) end
  end
  c.lc = max(l.seen, top)
  if keep > 0 then
    l.n, l.bytes, l.top = keep, bytes, top
    put_counters(m, c, 'l', pack_lease(l))
    return keep
  end
  c.dn = max(0, c.dn - 1)
  put_counters(m, c, 'l', '')
  -- Nobody is woken who would find what this reader found, but for one who waits for the lease to end.
  if l.busy == 1 then wake(tonumber(a[3]), q, 'q') end
  return 0
end

-- leave: KEYS m : nobody waits here any more
local function leave(keys)
  local m = keys[1]
  local c = counters(call('HGET', m, 'c'), m)
  if c.wu == 0 then return 0 end
  c.wu = 0
  put_counters(m, c)
  return 1
end

-- wait_open: KEYS m w  ARGV 1 wait 2 peer 3 ms 4 max waits 5 keep -> 1
local function wait_open(keys, a)
  local _, now = clock()
  if call('HEXISTS', keys[2], 'w' .. a[1]) == 0 and call('HLEN', keys[2]) >= tonumber(a[4]) then
    local open = open_waits(keys[2], now)
    if open >= tonumber(a[4]) then return fail('MBWAITS', fmt(open)) end
  end
  open_wait(keys[1], keys[2], a[1], a[2], tonumber(a[3]), now, tonumber(a[5]))
  return 1
end

-- wait_take: KEYS q m w r x  ARGV 1 wait 2 keep -> {gone 0 | open 1 | reply 2, queued, now, again 0/1, header, body}
local function wait_take(keys, a)
  local q, w, r, x, wait = keys[1], keys[3], keys[4], keys[5], a[1]
  local _, now = clock()
  local queued = call('LLEN', q) / 2
  local packed = call('HGET', w, 'w' .. wait)
  if not packed then return { 0, queued, now } end
  local v = wait_of(packed)
  local state = v.state
  if state == '0' then return { 1, queued, now } end
  local p = call('HMGET', r, 'h' .. wait, 'b' .. wait)
  if not p[1] then
    call('HDEL', w, 'w' .. wait)
    return { 0, queued, now }
  end
  if h_exp(p[1]) <= now and state == '1' then     -- too late: its sender is told, the wait goes on
    except(x, 'P' .. pack('>d', h_stamp(p[1])), tonumber(a[2]))
    call('HDEL', r, 'h' .. wait, 'b' .. wait)
    v.state, v.till = '0', max(v.till, v.deadline + GRACE)
    put_wait(w, wait, v)
    return { 1, queued, now }
  end
  if state == '1' then
    v.state = '2'
    put_wait(w, wait, v)
  end
  if has(h_flags(p[1]), ASKS) then remember_asked(w, { p[1] }, now) end
  return { 2, queued, now, state == '1' and 0 or 1, p[1], p[2] }
end

-- wait_untake: KEYS w  ARGV 1 wait 2 the reply's id -> 1 if it counts as never handed out
-- Who took the reply could not read it.
local function wait_untake(keys, a)
  local w, wait = keys[1], a[1]
  local packed = call('HGET', w, 'w' .. wait)
  local v = packed and wait_of(packed)
  if not v or v.state ~= '2' then return 0 end
  v.state = '1'
  put_wait(w, wait, v)
  call('HDEL', w, 'a' .. a[2])
  return 1
end

-- Accounts for a parked reply that was received.
local function reply_received(q, m, x, h, now, keep)
  local head, stamp = call('LINDEX', q, 0), h_stamp(h)
  if head and h_stamp(head) < stamp then except(x, 'A' .. pack('>d', stamp), kept_for(h_exp(h), now, keep))
  else
    local f = call('HMGET', m, 'c', 'l')
    local c = counters(f[1], m)
    if not head then expired_unseen(x, c, lease_of(f[2]), keep) end
    if stamp > c.ac then
      c.ac = stamp
      put_counters(m, c)
    end
  end
end

-- wait_done: KEYS q m w r x  ARGV 1 wait 2 keep -> 1 if a reply was there
local function wait_done(keys, a)
  local q, m, w, r, x, wait = keys[1], keys[2], keys[3], keys[4], keys[5], a[1]
  local h, packed = call('HGET', r, 'h' .. wait), call('HGET', w, 'w' .. wait)
  call('HDEL', w, 'w' .. wait)
  if not h then return 0 end
  call('HDEL', r, 'h' .. wait, 'b' .. wait)
  if not packed or wait_of(packed).state ~= '3' then
    local _, now = clock()
    reply_received(q, m, x, h, now, tonumber(a[2]))
  end
  return 1
end

-- wait_close: KEYS q m w r x  ARGV 1 wait 2 keep 3 options -> 1 if a reply went to the inbox
local function wait_close(keys, a)
  local q, m, w, r, x, wait = keys[1], keys[2], keys[3], keys[4], keys[5], a[1]
  local us, now = clock()
  local packed = call('HGET', w, 'w' .. wait)
  if not packed then return 0 end
  local c, keep = counters(call('HGET', m, 'c'), m), tonumber(a[2])
  local back = unpark(q, m, r, x, c, wait, wait_of(packed).state, us, now, keep)
  if back > 0 then save(m, c, now, keep) end
  call('HDEL', w, 'w' .. wait)
  if back > 0 then wake(tonumber(a[3]), q, 'q') end
  return back
end

-- task_find: KEYS t -> {now, inbox, wait, peer, created, deadline, end, cancelled or 0}; {}: none
local function task_find(keys)
  local _, now = clock()
  local f = call('HMGET', keys[1], 'i', 'w', 'p', 'c', 'd', 'e', 'x')
  if not f[1] then return {} end
  return { now, f[1], f[2], f[3], tonumber(f[4]), tonumber(f[5]), tonumber(f[6]), num(f[7]) }
end

-- task_open: KEYS m w r t  ARGV 1 wait 2 hold ms 3 max tasks 4 options -> as task_find; {}: the wait became no task's
-- The wait becomes a task's: its reply is held for who asks by the task's id.
local function task_open(keys, a)
  local m, w, r, t, wait, hold = keys[1], keys[2], keys[3], keys[4], a[1], tonumber(a[2])
  if not hold or hold <= 0 then return fail('MBARGS', 'task_open') end
  local _, now = clock()
  local packed = call('HGET', w, 'w' .. wait)
  if not packed then return {} end
  local v = wait_of(packed)
  if v.hold == 0 then
    local _, tasks = open_waits(w, now)
    if tasks >= tonumber(a[3]) then return {} end
  end
  v.hold = max(v.hold, hold)
  local h = call('HGET', r, 'h' .. wait)
  if h and v.state ~= '3' then v.till = held_till(v, h_exp(h), now) end
  local ends = max(v.deadline, now) + hold
  put_wait(w, wait, v)
  outlive(w, ends - now + 60000)
  outlive(r, ends - now + 60000)
  local c = counters(call('HGET', m, 'c'), m)
  local next_at = c.wx
  sweep_at(c, v.till)
  put_counters(m, c)
  if c.wx < next_at then wake(num(a[4]), m, 'q') end -- who sleeps would look too late
  local inbox = sub(m, find(m, '}', 7, true) + 2, -3)
  call('HSET', t, 'i', inbox, 'w', wait, 'p', v.peer, 'c', fmt(now), 'd', fmt(v.deadline), 'e', fmt(ends))
  call('PEXPIRE', t, fmt(ends - now))
  return task_find({ t })
end

-- task_done: KEYS q m w r x  ARGV 1 wait 2 keep 3 the task's end
-- -> 1 if its reply counts as received by this; it stays for who asks again
local function task_done(keys, a)
  local q, m, w, r, x, wait = keys[1], keys[2], keys[3], keys[4], keys[5], a[1]
  local packed, h = call('HGET', w, 'w' .. wait), call('HGET', r, 'h' .. wait)
  local v = packed and wait_of(packed)
  if not h or not v or v.state ~= '2' then return 0 end
  v.state, v.till = '3', max(v.till, tonumber(a[3]))
  put_wait(w, wait, v)
  local _, now = clock()
  reply_received(q, m, x, h, now, tonumber(a[2]))
  return 1
end

-- task_cancel: KEYS q m w r x t  ARGV 1 wait 2 keep 3 options -> 1 if it was given up by this
-- One whose reply was handed out, or whose wait is over, has come to its end.
local function task_cancel(keys, a)
  local t, wait = keys[6], a[1]
  local _, now = clock()
  local packed = call('HGET', keys[3], 'w' .. wait)
  local v = packed and wait_of(packed)
  if not v or v.state > '1' or (v.state == '0' and v.deadline <= now) then return 0 end
  if call('EXISTS', t) == 1 then call('HSET', t, 'x', fmt(now)) end
  wait_close(keys, a)
  return 1
end

-- contact: KEYS m w  ARGV 1 keep 2 peer or '' [3 'live' 4 question that was answered late, or '']
-- -> {look up 0/1, ids of the peer's questions handed out; if 'live', of those that live}
local function contact(keys, a)
  local _, now = clock()
  local f = call('HMGET', keys[1], 'c', 'o')
  local c = counters(f[1], keys[1])
  local look_up, _, pauses = owed(f[2] or c.old)
  if c.sn + SEEN_EVERY <= now then
    c.sn = now
    save(keys[1], c, now, tonumber(a[1]))
  end
  if a[4] and a[4] ~= '' then call('HDEL', keys[2], 'a' .. a[4]) end
  local ids = a[2] ~= '' and table.concat(asked_by(keys[2], a[2], a[3] and now)) or ''
  return { (pauses > now or (look_up > 0 and look_up <= now)) and 1 or 0, ids }
end

-- peek: KEYS q m -> {queued, leased, age ms of the oldest or -1, presence, ms}
local function peek(keys)
  local q, m = keys[1], keys[2]
  local us, now = clock()
  local f = call('HMGET', m, 'c', 'l')
  local c, l = counters(f[1], m), lease_of(f[2])
  local gone, head = 0, call('LINDEX', q, 0)
  while head and h_exp(head) <= now and gone < DROP_MAX do
    gone = gone + 1
    head = call('LINDEX', q, gone * 2)
  end
  local leased = running(l, now) and l.n or 0
  local present, ms = presence(c.wu, c.sn, now)
  return { call('LLEN', q) / 2 - gone, leased, head and floor((us - h_stamp(head)) / 1000) or -1, present, ms }
end

-- Position of the oldest live message. Lives that do not differ end in the order of the queue; others
-- are walked, as far as to the position `far`.
local function first_live(q, total, differ, now, far)
  local low, high = 0, differ and min(total, far) or total
  while low < high do
    local at = differ and low or floor((low + high) / 2)
    if h_exp(call('LINDEX', q, at * 2)) <= now then low = at + 1
    elseif differ then return at
    else high = at end
  end
  return low
end

-- browse: KEYS q m  ARGV 1 max messages 2 max bytes
-- -> {now, a wait's sweep is due 0/1, queued, leased, due ms or -1, newest stamp, handed out up to,
--     how often the oldest was, the oldest came back 0/1, header, body, ...}
-- As the next fetch would hand them out.
local function browse(keys, a)
  local q, m, max_n, max_bytes = keys[1], keys[2], tonumber(a[1]), tonumber(a[2])
  if not max_n or not max_bytes then return fail('MBARGS', 'browse') end
  local _, now = clock()
  local f = call('HMGET', m, 'c', 'l')
  local c, l, total = counters(f[1], m), lease_of(f[2]), call('LLEN', q) / 2
  local first = first_live(q, total, c.mt == 1, now, DROP_MAX)
  local head, last = call('LINDEX', q, first * 2), call('LINDEX', q, -2)
  local leased = running(l, now) and max(0, l.n - first) or 0
  local due = leased > 0 and l.till - now or -1
  local sweep_in = c.wx > 0 and c.wx - now
  if sweep_in and sweep_in > 0 and (due < 0 or sweep_in < due) then due = sweep_in end
  local back = head and leased == 0 and h_stamp(head) <= c.lc
  local res = { now, sweep_in and sweep_in <= 0 and 1 or 0, total - first, leased, due,
                last and fmt(h_stamp(last)) or '0', fmt(c.lc), c.dn, back and 1 or 0 }
  local i, got, bytes, dead = first, 0, 0, 0
  while i < total and got < max_n and dead < DROP_MAX do
    local h = call('LINDEX', q, i * 2)
    if h_exp(h) <= now then dead = dead + 1
    elseif got > 0 and bytes + h_len(h) > max_bytes then break
    else
      got, bytes = got + 1, bytes + h_len(h)
      res[#res + 1] = h
      res[#res + 1] = call('LINDEX', q, i * 2 + 1)
    end
    i = i + 1
  end
  return res
end

-- hold: KEYS h  ARGV 1 who 2 ms -> 1 if it is who holds it, now for so long
local function hold(keys, a)
  local holder = call('GET', keys[1])
  if holder and holder ~= a[1] then return 0 end
  call('SET', keys[1], a[1], 'PX', a[2])
  return 1
end

-- survey: KEYS i  ARGV 1 offset 2 how many inboxes 3 ms: seen since then is active
-- -> {next offset or -1, messages, bytes, inboxes with messages, most messages of one, most bytes of one,
--     age ms of the oldest, waiting, active, away, an owner who has long had something to look up, ...}
local function survey(keys, a)
  local us, now = clock()
  local prefix, offset, many, recent = sub(keys[1], 1, -2), tonumber(a[1]), tonumber(a[2]), tonumber(a[3])
  local inboxes = call('ZRANGEBYSCORE', keys[1], '(' .. fmt(now), '+inf', 'LIMIT', offset, many)
  local messages, bytes, filled, most, heaviest, oldest, seen = 0, 0, 0, 0, 0, 0, { 0, 0, 0 }
  local overdue = {}
  for _, inbox in ipairs(inboxes) do
    local q = prefix .. inbox .. ':q'
    local m = prefix .. inbox .. ':m'
    local f = call('HMGET', m, 'c', 'o')
    local c, total = counters(f[1], m), call('LLEN', q) / 2
    local live = total - first_live(q, total, c.mt == 1, now, 16)
    if live > 0 then
      messages, bytes, filled = messages + live, bytes + c.b, filled + 1
      most, heaviest = max(most, live), max(heaviest, c.b)
      oldest = max(oldest, us - h_stamp(call('LINDEX', q, (total - live) * 2)))
    end
    local present, ms = presence(c.wu, c.sn, now)
    local state = present == 2 and 1 or present == 1 and (ms <= recent and 2 or 3)
    if state then seen[state] = seen[state] + 1 end
    local look_up = owed(f[2] or c.old)
    if look_up > 0 and look_up + OVERDUE <= now then overdue[#overdue + 1] = inbox end
  end
  return { #inboxes == many and offset + many or -1, messages, bytes, filled, most, heaviest, floor(oldest / 1000),
           seen[1], seen[2], seen[3], unpack(overdue) }
end

-- inboxes: KEYS i  ARGV 1 what their names begin with 2 offset 3 how many are looked at
-- -> {next offset or -1, inbox, messages, presence, ms, ...}: those with messages, and where somebody waits
local function inboxes(keys, a)
  local _, now = clock()
  local prefix, begins, offset, many = sub(keys[1], 1, -2), a[1], tonumber(a[2]), tonumber(a[3])
  local all = call('ZRANGEBYSCORE', keys[1], '(' .. fmt(now), '+inf', 'LIMIT', offset, many)
  local res = { #all == many and offset + many or -1 }
  for _, inbox in ipairs(all) do
    if sub(inbox, 1, #begins) == begins then
      local q = prefix .. inbox .. ':q'
      local m = prefix .. inbox .. ':m'
      local c, total = counters(call('HGET', m, 'c'), m), call('LLEN', q) / 2
      local live = total - first_live(q, total, c.mt == 1, now, DROP_MAX)
      local present, ms = presence(c.wu, c.sn, now)
      if live > 0 or present == 2 then
        for _, one in ipairs({ inbox, live, present, ms }) do res[#res + 1] = one end
      end
    end
  end
  return res
end

-- probe: KEYS two a topic: q m of an inbox, or w r of a reply. ARGV one a topic: '' or the wait
-- -> positions of the topics whose watchers should have been woken more than a second ago
local function probe(keys, a)
  local us, now = clock()
  local late = {}
  for i = 1, #a do
    local one, two = keys[i * 2 - 1], keys[i * 2]
    local h = nil
    if a[i] == '' then
      local l = lease_of(call('HGET', two, 'l'))
      if not l or l.till + 1000 <= now then h = call('LINDEX', one, 0) end
    else
      local packed = call('HGET', one, 'w' .. a[i])
      if packed and wait_of(packed).state == '1' then h = call('HGET', two, 'h' .. a[i]) end
    end
    if h and h_exp(h) > now and us - h_stamp(h) > 1000000 then late[#late + 1] = i end
  end
  return late
end

-- fates: KEYS q m w r x  ARGV 1 keep 2 entries of 17 bytes: stamp f64, expires f64, parked u8 -> one letter each
local function fates(keys, a)
  local q, m, w, r, x = keys[1], keys[2], keys[3], keys[4], keys[5]
  local us, now = clock()
  local found = call('HMGET', m, 'c', 'l')
  local c, keep = counters(found[1], m), tonumber(a[1])
  if c.wx > 0 and c.wx <= now then
    sweep(q, m, w, r, x, c, us, now, keep)
    save(m, c, now, keep)
  end
  local f, out = fate_fields(w, r, x, c, lease_of(found[2]), now), {}
  for i = 1, #a[2], 17 do
    local stamp, exp, parked = read('>ddB', a[2], i)
    out[#out + 1] = fate(f, stamp, exp, parked == 1)
  end
  return table.concat(out)
end

-- ledger_add: KEYS m l of the sender  ARGV 1 id 2 recipient 3 stamp 4 expires 5 parked 6 keep 7 ledger max
--   8 whether it may be there 0/1 -> as `remember`
-- For a store where the sender's slot is another one than the recipient's.
local function ledger_add(keys, a)
  local _, now = clock()
  if a[8] == '1' then
    local stamp = pack('>d', tonumber(a[3]))
    for _, e in ipairs(call('LRANGE', keys[2], 0, -1)) do
      if sub(e, 17, 32) == a[1] and sub(e, 1, 8) == stamp then
        local f = call('HMGET', keys[1], 'c', 'o')
        local c = counters(f[1], keys[1])
        local look_up, _, pauses = owed(f[2] or c.old)
        save(keys[1], c, now, tonumber(a[6])) -- whoever waits for replicas waits for a write
        return (pauses > now or look_up > 0 and look_up <= now) and 1 or 0
      end
    end
  end
  return remember(keys[1], keys[2], a[1], a[2], tonumber(a[3]), tonumber(a[4]), a[5] == '1', now, tonumber(a[6]), tonumber(a[7]))
end

-- Entries: stamp f64, expires f64, id 16, state u8 (0 open, 1 acknowledged, 2 expired and untold,
-- 3 expired and told, 4 unknown), parked u8, recipient.
local function e_exp(e) return (read('>d', e, 9)) end
local function e_id(e) return sub(e, 17, 32) end
local function e_state(e) return byte(e, 33) end

-- ledger_list: KEYS l  ARGV 1 all 0/1 2 ledger max -> {now, entry, ...}
-- Not all: those to look up or to tell, and the oldest open ones when there are too many.
local function ledger_list(keys, a)
  local _, now = clock()
  local all = call('LRANGE', keys[1], 0, -1)
  local res, crowded = { now }, #all > tonumber(a[2]) and 256 or 0
  for _, e in ipairs(all) do
    local state = e_state(e)
    local due = state == 2 or (state == 0 and e_exp(e) <= now)
    if state == 0 and not due and crowded > 0 then due, crowded = true, crowded - 1 end
    if a[1] == '1' or due then res[#res + 1] = e end
  end
  return res
end

-- ledger_settle: KEYS m l  ARGV 1 keep 2 ledger max 3.. id, state, id, state ... -> entries left
local function ledger_settle(keys, a)
  local m, l, keep, ledger_max = keys[1], keys[2], tonumber(a[1]), tonumber(a[2])
  local _, now = clock()
  local states = {}
  for i = 3, #a, 2 do states[a[i]] = tonumber(a[i + 1]) end
  local all = call('LRANGE', l, 0, -1)
  local next_at, crowded, kept = 0, #all - ledger_max, {}
  for i, e in ipairs(all) do
    local state, was = states[e_id(e)], e_state(e)
    -- Open entries get their end; of an expired one its sender was told; ends stay.
    if state and ((was == 0 and state ~= 3) or (was == 2 and state == 3)) and state ~= was then
      e = sub(e, 1, 32) .. string.char(state) .. sub(e, 34)
      call('LSET', l, i - 1, e)
    end
    state = e_state(e)
    local at = nil
    if state == 0 then at = max(e_exp(e), now + LEDGER_EVERY) elseif state == 2 then at = now end
    if at and (next_at == 0 or at < next_at) then next_at = at end
    if crowded > 0 and not at then crowded = crowded - 1 else kept[#kept + 1] = e end
  end
  if #kept < #all then
    call('UNLINK', l)
    for i = 1, #kept, 500 do call('RPUSH', l, unpack(kept, i, min(i + 499, #kept))) end
  end
  local f = call('HMGET', m, 'c', 'o')
  local c = counters(f[1], m)
  if #kept < #all then call('PEXPIRE', l, fmt(max(c.k, now) + keep - now)) end
  local _, _, told = owed(f[2] or c.old)
  put_counters(m, c, 'o', pack_owed(next_at, crowded_at(#kept, ledger_max), told))
  outlive(m, keep)
  return #kept
end

-- check_in: KEYS z p of the tenant  ARGV 1 client 2 profile 3 life -> clients listed
local function check_in(keys, a)
  local z, p, life = keys[1], keys[2], tonumber(a[3])
  local us, now = clock()
  for _, gone in ipairs(call('ZRANGEBYSCORE', z, '-inf', fmt(now * 1000), 'LIMIT', 0, 64)) do
    call('ZREM', z, gone)
    call('HDEL', p, gone)
  end
  call('ZADD', z, fmt(us + life * 1000), a[1])     -- score: when the check-in ends
  call('HSET', p, a[1], a[2])
  outlive(z, life)
  outlive(p, life)
  return call('ZCARD', z)
end

-- clients: KEYS z p  ARGV 1 text in lower case 2 offset 3 limit -> {next offset or -1, client, profile, ...}
local function clients(keys, a)
  local z, p, offset, limit = keys[1], keys[2], tonumber(a[2]), tonumber(a[3])
  local us = clock()
  local res = { -1 }
  while true do
    local ids = call('ZREVRANGEBYSCORE', z, '+inf', fmt(us), 'LIMIT', offset, 100)
    if #ids == 0 then return res end
    local profiles = call('HMGET', p, unpack(ids))
    for i, id in ipairs(ids) do
      local text = profiles[i] or ''
      if a[1] == '' or find(string.lower(id .. '\0' .. text), a[1], 1, true) then
        if #res > limit * 2 then
          res[1] = offset + i - 1
          return res
        end
        res[#res + 1] = id
        res[#res + 1] = text
      end
    end
    offset = offset + #ids
  end
end

-- cancel: KEYS c  ARGV 1 channel 2 topic 3 options
local function cancel(keys, a)
  call('SET', keys[1], '1', 'PX', 60000)
  publish(tonumber(a[3]), a[1], a[2])
  return 1
end
-- cancelled: KEYS c -> 0/1
local function cancelled(keys) return call('EXISTS', keys[1]) end

-- permits: KEYS g  ARGV 1 us from one permit to the next 2 most at once 3 how many are needed 4 how many may be taken
-- -> {how many, ms until there are as many as are needed, ms that it is paused}
-- Up to the time t permits are spent, one every step; it may lie ahead of now by as many as there are at once.
local function permits(keys, a)
  local g, step, burst, need, want = keys[1], tonumber(a[1]), tonumber(a[2]), tonumber(a[3]), tonumber(a[4])
  if not want or step < 1 or need < 1 or want < need then return fail('MBARGS', 'permits') end
  local us, now = clock()
  local f = call('HMGET', g, 't', 'u')
  if num(f[2]) > now then return { 0, 0, num(f[2]) - now } end
  local from, till = max(num(f[1]), us), us + step * burst
  local free = floor((till - from) / step)
  if free < need then return { 0, max(1, floor((from + step * need - till) / 1000) + 1), 0 } end
  local taken = min(free, want)
  local t = from + step * taken
  call('HSET', g, 't', fmt(t))
  call('PEXPIRE', g, fmt(floor((t - us) / 1000) + 1))
  return { taken, 0, 0 }
end

-- pause: KEYS g  ARGV 1 ms -> {ms that it is paused, begun by this 0/1}
local function pause(keys, a)
  local g, ms = keys[1], tonumber(a[1])
  if not ms or ms < 1 then return fail('MBARGS', 'pause') end
  local _, now = clock()
  local till = num(call('HGET', g, 'u'))
  if till > now then return { till - now, 0 } end
  call('HDEL', g, 't')
  call('HSET', g, 'u', fmt(now + ms))
  call('PEXPIRE', g, fmt(ms))
  return { ms, 1 }
end

-- pause_lift: KEYS g -> 1 if it was paused
local function pause_lift(keys)
  local _, now = clock()
  local till = num(call('HGET', keys[1], 'u'))
  call('UNLINK', keys[1])
  return till > now and 1 or 0
end

-- pause_note: KEYS p [m]  ARGV 1 who 2 ms 3 keep -> 1
-- With m: its owner is to be told, and what is over is remembered for that. Without: what is over goes. One that
-- runs stays as it is.
local function pause_note(keys, a)
  local p, m, ms, keep = keys[1], keys[2], tonumber(a[2]), tonumber(a[3])
  if not ms or not keep then return fail('MBARGS', 'pause_note') end
  local _, now = clock()
  local life = m and ms + keep or ms
  if not m then
    local all = call('HGETALL', p)
    for i = 1, #all, 2 do
      if tonumber(all[i + 1]) <= now then call('HDEL', p, all[i]) end
    end
  end
  if num(call('HGET', p, a[1])) <= now then call('HSET', p, a[1], fmt(now + ms)) end
  outlive(p, life)
  if m then
    local f = call('HMGET', m, 'c', 'o')
    local c = counters(f[1], m)
    local look_up, entries, told = owed(f[2] or c.old)
    save(m, c, now, keep, 'o', pack_owed(look_up, entries, max(told, now + life)))
  end
  return 1
end

-- pauses: KEYS p -> {now, who, until, ...}
local function pauses(keys)
  local _, now = clock()
  return { now, unpack(call('HGETALL', keys[1])) }
end

-- pauses_told: KEYS p [m]  ARGV who, until or '' for any, ... -> how many are left
local function pauses_told(keys, a)
  local p, m = keys[1], keys[2]
  for i = 1, #a, 2 do
    if a[i + 1] == '' or call('HGET', p, a[i]) == a[i + 1] then call('HDEL', p, a[i]) end
  end
  local left = call('HLEN', p)
  if m and left == 0 then
    local f = call('HMGET', m, 'c', 'o')
    local c = counters(f[1], m)
    local look_up, entries, told = owed(f[2] or c.old)
    if told > 0 then put_counters(m, c, 'o', pack_owed(look_up, entries, 0)) end
  end
  return left
end

-- team_replace: KEYS t [k]  ARGV 1 version of the layout 2 revision that is to be replaced 3 id of the change 4 document
-- [field, value of k, ...]: keys that end with it
-- -> 1 and one more for each field | 0: it is of another revision, or somebody else began one of these generations
local function team_replace(keys, a)
  local t, k = keys[1], keys[2]
  local f = call('HMGET', t, 'r', 'n')
  local revision, done = num(f[1]), 1 + (#a - 4) / 2
  if f[2] == a[3] then return done end -- repeated
  if revision ~= tonumber(a[2]) then return 0 end
  for i = 5, #a, 2 do
    if sub(a[i], 1, 2) == 'g:' and call('HMGET', k, a[i])[1] then return 0 end
  end
  -- Keys first: who is listed still can be removed again.
  for i = 5, #a, 2 do call('HSET', k, a[i], a[i + 1]) end
  call('HSET', t, 'v', a[1], 'r', fmt(revision + 1), 'n', a[3], 'd', a[4])
  return done
end

local function revision() return REVISION end

-- many: KEYS of all calls, one after the other  ARGV 1 packed for each: its name, how many keys, how many arguments
--   2.. arguments of all calls
-- -> {a letter for each: k or e; for each its answer, or the text of its error}
-- Each runs on its own: one that fails fails alone.
local operations = {}
local function many(keys, a)
  local res, kinds, key, arg, at = { false }, {}, 1, 2, 1
  us_of_many, ms_of_many = clock()
  while at <= #a[1] do
    local name, k, n
    name, k, n, at = read('>Bc0I2I2', a[1], at)
    local ran, answer = pcall(operations[name], { unpack(keys, key, key + k - 1) }, { unpack(a, arg, arg + n - 1) })
    local failed = not ran and answer or type(answer) == 'table' and answer.err
    if type(failed) == 'table' then failed = failed.err
    elseif not ran then failed = 'ERR user_function ' .. tostring(failed) end
    kinds[#kinds + 1] = failed and 'e' or 'k'
    res[#res + 1] = failed or answer
    key, arg = key + k, arg + n
  end
  res[1] = table.concat(kinds)
  return res
end

-- What adds is refused when memory is over (before it runs); what drains stays allowed.
local function register(name, operation, flag)
  operations['mb1_' .. name] = operation
  local function entry(keys, args)
    if not call then begin() end
    us_of_many = nil
    return operation(keys, args)
  end
  redis.register_function{ function_name = 'mb1_' .. name, callback = entry, flags = flag and { flag } or {} }
end
register('send', send)
register('wait_open', wait_open)
register('check_in', check_in)
register('permits', permits)
register('pause', pause)
register('pause_note', pause_note)
register('team_replace', team_replace)
register('fetch', fetch, 'allow-oom')
register('ack', ack, 'allow-oom')
register('release', release, 'allow-oom')
register('extend', extend, 'allow-oom')
register('unfetch', unfetch, 'allow-oom')
register('leave', leave, 'allow-oom')
register('wait_take', wait_take, 'allow-oom')
register('wait_untake', wait_untake, 'allow-oom')
register('wait_done', wait_done, 'allow-oom')
register('wait_close', wait_close, 'allow-oom')
register('task_open', task_open, 'allow-oom')
register('task_done', task_done, 'allow-oom')
register('task_cancel', task_cancel, 'allow-oom')
register('contact', contact, 'allow-oom')
register('fates', fates, 'allow-oom')
register('ledger_add', ledger_add, 'allow-oom')
register('ledger_settle', ledger_settle, 'allow-oom')
register('cancel', cancel, 'allow-oom')
register('hold', hold, 'allow-oom')
register('pause_lift', pause_lift, 'allow-oom')
register('pauses_told', pauses_told, 'allow-oom')
register('peek', peek, 'no-writes')
register('browse', browse, 'no-writes')
register('task_find', task_find, 'no-writes')
register('probe', probe, 'no-writes')
register('survey', survey, 'no-writes')
register('inboxes', inboxes, 'no-writes')
register('ledger_list', ledger_list, 'no-writes')
register('clients', clients, 'no-writes')
register('cancelled', cancelled, 'no-writes')
register('pauses', pauses, 'no-writes')
register('revision', revision, 'no-writes')
register('many', many)
register('many_draining', many, 'allow-oom')
register('many_reading', many, 'no-writes')

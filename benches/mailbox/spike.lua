#!lua name=spike
-- The least that a mailbox in Redis could do: what the product is measured against.
local function send(keys, args)
  redis.call('RPUSH', keys[1], args[1])
  redis.call('PEXPIRE', keys[1], 300000)
  redis.call('PUBLISH', 'spike', args[2])
  return 1
end
local function pop(keys)
  return redis.call('LPOP', keys[1], 50) or {}
end
redis.register_function('spike_send', send)
redis.register_function('spike_pop', pop)

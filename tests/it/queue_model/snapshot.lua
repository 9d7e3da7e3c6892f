-- What stands in Redis for some clients of the default tenant, as lines of words.
-- ARGV: clients -> { {client, kind, ...}, ... } and one line for the time.
local call = redis.call
local function hex(s)
  return (string.gsub(s, '.', function(c) return string.format('%02x', string.byte(c)) end))
end
local function number(n) return string.format('%.0f', n) end
-- Header: version u8, flags u8, body bytes u32, expires ms f64, stamp us f64, id 16, sender length u8, sender ...
local function message(client, kind, wait, h, body)
  local len = struct.unpack('>I4', h, 3)
  local exp, stamp = struct.unpack('>dd', h, 7)
  return { client, kind, wait, hex(string.sub(h, 23, 38)), number(stamp), number(exp), number(#h + #body),
    number(len - #body), string.sub(h, 40, 39 + string.byte(h, 39)), body }
end

local t = call('TIME')
local lines = { { '', 'now', number(tonumber(t[1]) * 1000 + math.floor(tonumber(t[2]) / 1000)) } }
local function say(line) lines[#lines + 1] = line end
for _, client in ipairs(ARGV) do
  for _, key in ipairs(call('KEYS', 'mb1:*:default/' .. client .. ':*')) do
    if call('PTTL', key) == -1 then say({ client, 'eternal', key }) end
    -- What follows the inbox. A marker ends with any bytes, also such as ':w'.
    local _, inbox = string.find(key, 'default/' .. client .. ':', 1, true)
    local rest = string.sub(key, inbox + 1)
    local part = string.match(rest, '^([qmwrxl])$')
    if part == 'q' then
      local all = call('LRANGE', key, 0, -1)
      for i = 1, #all, 2 do say(message(client, 'q', '', all[i], all[i + 1])) end
    elseif part == 'm' then
      local f = call('HMGET', key, 'c', 'l')
      local bytes, handed, n, till, top, count = 0, 0, 0, 0, 0, 0
      if f[1] then
        local _
        _, _, _, _, count, bytes, _, _, _, handed = struct.unpack('>I6I6I6I6I4I6I7I6I7I7I2B', f[1])
      end
      local leased = f[2] and f[2] ~= ''
      if leased then
        local _
        _, till, n, _, top = struct.unpack('>c16dI4dddB', f[2])
      end
      say({ client, 'm', number(bytes), number(handed), number(n), number(till), number(top), leased and '1' or '0', number(count) })
    elseif part == 'w' then
      local all = call('HGETALL', key)
      for i = 1, #all, 2 do
        if string.sub(all[i], 1, 1) == 'w' then
          local deadline, state, peer = string.match(all[i + 1], '^(%d+)|(%d)|%d+|%d+|(.*)$')
          say({ client, 'w', hex(string.sub(all[i], 2)), deadline, state, peer })
        end
      end
    elseif part == 'r' then
      local all = call('HGETALL', key)
      for i = 1, #all, 2 do
        if string.sub(all[i], 1, 1) == 'h' then
          local body = call('HGET', key, 'b' .. string.sub(all[i], 2))
          say(message(client, 'r', hex(string.sub(all[i], 2)), all[i + 1], body or 'no body'))
        end
      end
    elseif string.sub(rest, 1, 2) == 'd:' then
      say({ client, 'd', hex(key) })
    end
  end
end
return lines

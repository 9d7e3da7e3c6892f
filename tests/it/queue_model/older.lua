-- Rewrites the numbers of every inbox as revision 12 of the functions kept them. -> how many inboxes
local call = redis.call
local fields = { 'sn', 'wu', 'wx', 'lx', 'ln', 'pn' }
local found = 0
for _, m in ipairs(call('KEYS', 'mb1:{b*:m')) do
  local f = call('HMGET', m, 'c', 'o', 'l')
  if f[1] and #f[1] == 64 then
    local k, sn, wu, wx, _, b, stamp, e, ac, lc, dn, mt = struct.unpack('>I6I6I6I6I4I6I7I6I7I7I2B', f[1])
    local lx, ln, pn = 0, 0, 0
    if f[2] then lx, ln, pn = struct.unpack('>I6I4I6', f[2]) end
    for i, number in ipairs({ sn, wu, wx, lx, ln, pn }) do
      if number > 0 then call('HSET', m, fields[i], string.format('%.0f', number)) end
    end
    call('HSET', m, 'c', struct.pack('>dddddddB', b, stamp, e, k, ac, lc, dn, mt))
    call('HDEL', m, 'o')
    if f[3] == '' then call('HDEL', m, 'l') end
    found = found + 1
  end
end
return found

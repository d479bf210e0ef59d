-- ARGV: hex, version, header, value, now, tolerance, ttl
only_here()
local hex, new = ARGV[3], cjson.decode(ARGV[5])
local value = redis.call('GET', KEYS[1])
local old = read(value)
if not old then return {'gone', reason_of(value)} end
if old.v ~= tonumber(ARGV[4]) then return {'stale', value} end
if old.i ~= new.i and covered(new, tonumber(ARGV[7]), tonumber(ARGV[8])) then return {'gone', 'back_channel_logout'} end
if old.i ~= new.i and old.i ~= '' then redis.call('SREM', old.i, hex) end
redis.call('DEL', prefix .. ':l:' .. hex)
insert(hex, new, ARGV[6], tonumber(ARGV[9]))
return {'committed'}

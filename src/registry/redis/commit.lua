-- ARGV: hex, header, value, left, version that it was made from, and where the sid begins in another partition: "pointed",
-- "logged out" and up to which issued at that reaches, or "unknown" if it could not be reached; else "here".
only_here()
local hex, new = ARGV[3], cjson.decode(ARGV[4])
local value = redis.call('GET', KEYS[1])
local old = read(value)
if not old then return gone(value) end
if old.v ~= tonumber(ARGV[7]) then
    -- It may be our own, which was not confirmed: what is asked for again has to be on the replicas all the same.
    touch()
    return {'stale', value}
end
-- What is known there of the sid that it has, it was known by when it got it.
if ARGV[8] == 'unknown' and old.i ~= new.i then return {'unknown'} end
if ARGV[8] == 'logged out' and (old.i ~= new.i or new.t <= (tonumber(ARGV[9]) or -1)) then
    return {'gone', 'back_channel_logout'}
end
if old.i ~= new.i and arrival(new.i) then return {'gone', 'back_channel_logout'} end
if old.i ~= new.i and old.i ~= '' then redis.call('SREM', old.i, hex) end
redis.call('DEL', prefix .. ':l:' .. hex)
insert(hex, new, ARGV[5], tonumber(ARGV[6]))
return {'committed'}

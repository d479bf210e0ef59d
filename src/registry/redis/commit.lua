-- ARGV: hex, header, value, left, version that it was made from, whether the sid was logged out where its sessions begin
only_here()
local hex, new = ARGV[3], cjson.decode(ARGV[4])
local value = redis.call('GET', KEYS[1])
local old = read(value)
if not old then return {'gone', reason_of(value)} end
if old.v ~= tonumber(ARGV[7]) then
    -- It may be our own, which was not confirmed: what is asked for again has to be on the replicas all the same.
    redis.call('PEXPIRE', KEYS[1], math.max(redis.call('PTTL', KEYS[1]), 1))
    return {'stale', value}
end
if old.i ~= new.i and (ARGV[8] == '1' or arrival(new.i)) then return {'gone', 'back_channel_logout'} end
if old.i ~= new.i and old.i ~= '' then redis.call('SREM', old.i, hex) end
redis.call('DEL', prefix .. ':l:' .. hex)
insert(hex, new, ARGV[5], tonumber(ARGV[6]))
return {'committed'}

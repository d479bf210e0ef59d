-- Application data. KEYS: its key. ARGV: id, login it is bound to or "", value, ttl, "create" or "save"
only_here()
local id, login = ARGV[3], ARGV[4]
local exists = redis.call('EXISTS', KEYS[1]) == 1
if ARGV[7] == 'create' and exists then return {'exists'} end
-- A record that is gone stays gone, and data of a login that is over is not written.
if ARGV[7] == 'save' and not exists then return {'dropped'} end
if login ~= '' and not read(redis.call('GET', prefix .. ':s:' .. login)) then return {'dropped'} end
redis.call('SET', KEYS[1], ARGV[5], 'PX', tonumber(ARGV[6]))
if login ~= '' then
    local bound = prefix .. ':b:' .. login
    redis.call('SADD', bound, id)
    keep_for(bound, tonumber(ARGV[6]))
end
return {'written'}

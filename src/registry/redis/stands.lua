-- ARGV: hex, "confirmed" or "live"
only_here()
local ends = redis.call('ZSCORE', prefix .. ':x', ARGV[3])
local head = read(redis.call('GET', KEYS[1]))
if ends and head then
    local last_part = 0
    if ARGV[4] == 'confirmed' then last_part = head.c or 0 end
    if now() + last_part < tonumber(ends) then return {'stands'} end
end
return {'over'}

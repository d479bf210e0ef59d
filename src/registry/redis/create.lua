-- ARGV: hex, header, value, now, tolerance, ttl
only_here()
local hex, head, value = ARGV[3], cjson.decode(ARGV[4]), ARGV[5]
if redis.call('EXISTS', KEYS[1]) == 1 then return {'exists'} end
if covered(head, tonumber(ARGV[6]), tonumber(ARGV[7])) then return {'covered'} end
insert(hex, head, value, tonumber(ARGV[8]))
return {'created'}

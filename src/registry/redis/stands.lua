-- ARGV: hex
only_here()
local ends = redis.call('ZSCORE', prefix .. ':x', ARGV[3])
local head = read(redis.call('GET', KEYS[1]))
if ends and head and now() + (head.c or 0) < tonumber(ends) then return {'stands'} end
return {'over'}

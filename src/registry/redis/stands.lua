-- ARGV: hex
only_here()
local ends = redis.call('ZSCORE', prefix .. ':x', ARGV[3])
if ends and now() < tonumber(ends) and read(redis.call('GET', KEYS[1])) then return {'stands'} end
return {'over'}

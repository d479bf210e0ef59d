-- Binds application data to a login. KEYS: the login's session. ARGV: hex, name of the data, ttl
only_here()
if not read(redis.call('GET', KEYS[1])) then return {'over'} end
local bound = prefix .. ':b:' .. ARGV[3]
redis.call('SADD', bound, ARGV[4])
keep_for(bound, tonumber(ARGV[5]))
return {'bound'}

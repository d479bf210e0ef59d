-- A session of another partition gets a sid that begins in this one. KEYS: the sid's index here. ARGV: hex, ttl
only_here()
if arrival(KEYS[1]) then return {'logged out'} end
redis.call('SADD', KEYS[1], ARGV[3])
keep_for(KEYS[1], tonumber(ARGV[4]))
return {'pointed'}

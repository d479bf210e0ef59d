-- A session of another partition has, or gets, a sid that begins in this one. KEYS: the sid's index here. ARGV: hex, ttl.
-- Answers also the iat of a token by which it was logged out.
only_here()
redis.call('SADD', KEYS[1], ARGV[3])
-- Written in any case: it has to be on the replicas also when it is asked for again.
redis.call('PEXPIRE', KEYS[1], math.max(redis.call('PTTL', KEYS[1]), tonumber(ARGV[4])))
if not arrival(KEYS[1]) then return {'pointed'} end
return {'logged out', redis.call('HGET', KEYS[1] .. ':t', 'iat') or ''}

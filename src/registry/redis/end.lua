-- ARGV: hex, reason, retention
only_here()
local ended = {}
if finish(ended, ARGV[3], ARGV[4], tonumber(ARGV[5])) then return ended end
-- An end that is asked for again has to be on the replicas all the same, and WAIT speaks of writes of its own connection
-- only. (Redis 7.0 waits for all that was written before; that is not promised.)
local left = redis.call('PTTL', KEYS[1])
if left > 0 then redis.call('PEXPIRE', KEYS[1], left) end
return {}

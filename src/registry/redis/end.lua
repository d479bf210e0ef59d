-- ARGV: hex, reason, retention
only_here()
local ended = {}
if finish(ended, ARGV[3], ARGV[4], tonumber(ARGV[5])) then return ended end
-- An end that is asked for again has to be on the replicas all the same.
touch()
return {}

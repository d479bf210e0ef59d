-- ARGV: hex, reason, retention
local value = finish(ARGV[3], ARGV[4], tonumber(ARGV[5]))
if value then return {ARGV[3], value} end
return {}

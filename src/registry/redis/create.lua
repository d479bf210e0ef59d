-- ARGV: hex, header, value, left, began, seen
only_here()
local hex, head, value = ARGV[3], cjson.decode(ARGV[4]), ARGV[5]
if redis.call('EXISTS', KEYS[1]) == 1 then return {'exists'} end
local arrived = covered(head, tonumber(ARGV[7]), tonumber(ARGV[8]))
if arrived then return {'covered', text(arrived)} end
insert(hex, head, value, tonumber(ARGV[6]))
return {'created'}

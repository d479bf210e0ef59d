-- ARGV: holder
local held = redis.call('GET', KEYS[1])
if held and string.match(held, '^%d+') == ARGV[3] then redis.call('DEL', KEYS[1]) end
return {'released'}
